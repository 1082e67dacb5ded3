// row_stats.h: softmax statistics of a row of logits, written in the compiler's vectors (gcc 12 leaves plain loops over these sums scalar).
// Included by a file for each register width, which all do the same operations on a value in the same order: the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "logits.h"

namespace rim {

namespace {  // each file has functions of its own, compiled with its own instructions

#if defined(__AVX512F__)
constexpr int width = 16;
#elif defined(__AVX2__)
constexpr int width = 8;
#else
constexpr int width = 4;
#endif
constexpr int lanes = 16;  // sums independently of each other
constexpr int n_parts = lanes / width;
constexpr int stretch = 256;  // tokens whose partial sums stay in float before they go to double
constexpr float least = -87.0f;  // e^x for less is 0

typedef float Floats __attribute__((vector_size(width * 4)));
typedef int32_t Ints __attribute__((vector_size(width * 4)));
typedef double Doubles __attribute__((vector_size(width * 8)));

constexpr float lowest = -std::numeric_limits<float>::infinity();

// Calls each(values) for every 16 logits; what lacks of the last ones is -inf, which has no probability.
template <class Each>
inline __attribute__((always_inline)) void for_sixteens(const float * logits, int32_t n, const Each & each) {
    int32_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        each(logits + i);
    }
    if (i < n) {
        float padded[lanes];
        std::fill(padded, padded + lanes, lowest);
        std::copy(logits + i, logits + n, padded);
        each(padded);
    }
}

inline Floats load(const float * from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

// e^x for x <= 0, relative error below 3e-7; 0 below -87 and for NaN, and x becomes -87 there. 2^n from the exponent bits times a polynomial
// for the rest in [-0.5, 0.5] of log2 units (Taylor coefficients of 2^r).
inline Floats exp_negative(Floats & x) {
    const Ints some = x > least;
    x = some ? x : Floats{} + least;
    const Floats rounded = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest integer, by the float's own precision
    const Floats r = (x - rounded * 0.693359375f) + rounded * 2.12194440e-4f;  // rest in nats, in two exact steps
    Floats p = r * (1.0f / 5040.0f) + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Ints power = ((__builtin_convertvector(rounded, Ints) + 127) << 23) & some;
    Floats factor;
    std::memcpy(&factor, &power, sizeof factor);
    return p * factor;
}

template <class Vector>
double total(const Vector (&of)[n_parts]) {
    double sum = 0;
    for (const Vector & part : of) {
        for (int l = 0; l < width; ++l) {
            sum += part[l];
        }
    }
    return sum;
}

// NaN is not larger than anything.
inline float row_max(const float * logits, int32_t n) {
    Floats best[n_parts];
    std::fill(best, best + n_parts, Floats{} + lowest);
    for_sixteens(logits, n, [&best](const float * values) {
#pragma GCC unroll 4
        for (int p = 0; p < n_parts; ++p) {
            const Floats x = load(values + p * width);
            best[p] = x > best[p] ? x : best[p];
        }
    });
    float most = lowest;
    for (const Floats & part : best) {
        for (int l = 0; l < width; ++l) {
            most = part[l] > most ? part[l] : most;
        }
    }
    return most;
}

template <bool with_entropy>
RowStats row_stats_of(const float * logits, int32_t n_vocab) {
    RowStats stats;
    float max = lowest;
    int32_t with_max = 0;  // where the stretch begins in which it is first
    for (int32_t from = 0; from < n_vocab; from += stretch) {
        const float here = row_max(logits + from, std::min(stretch, n_vocab - from));
        with_max = here > max ? from : with_max;
        max = here > max ? here : max;
    }
    Doubles sums[n_parts]{}, products[n_parts]{};  // of e^(x-max), and (x-max) e^(x-max)
    for (int32_t from = 0; from < n_vocab; from += stretch) {
        Floats near_sums[n_parts]{}, near_products[n_parts]{};
        for_sixteens(logits + from, std::min(stretch, n_vocab - from), [&](const float * values) {
#pragma GCC unroll 4
            for (int p = 0; p < n_parts; ++p) {
                Floats x = load(values + p * width) - max;
                const Floats e = exp_negative(x);
                near_sums[p] += e;
                if constexpr (with_entropy) {
                    near_products[p] += x * e;
                }
            }
        });
#pragma GCC unroll 4
        for (int p = 0; p < n_parts; ++p) {
            sums[p] += __builtin_convertvector(near_sums[p], Doubles);
            products[p] += __builtin_convertvector(near_products[p], Doubles);
        }
    }
    const double sum = total(sums);
    stats.max = max;
    stats.top = static_cast<int32_t>(std::find(logits + with_max, logits + n_vocab, max) - logits);
    stats.log_sum = std::log(sum);
    stats.entropy = with_entropy ? std::max(0.0, stats.log_sum - total(products) / sum) : 0.0;  // -Σ p log p
    return stats;
}

inline RowStats row_stats_of(const float * logits, int32_t n_vocab, bool entropy) {
    return entropy ? row_stats_of<true>(logits, n_vocab) : row_stats_of<false>(logits, n_vocab);
}

}  // namespace

}  // namespace rim
