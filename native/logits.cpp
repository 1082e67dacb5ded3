// logits.cpp: softmax statistics.
#include "logits.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace rim {

namespace {

constexpr int lanes = 16;     // independent partial results, so that a compiler can keep them in vector registers
constexpr int stretch = 256;  // tokens whose partial sums stay in float before they go to double

// e^x for x <= 0, relative error below 3e-7; 0 below -87. Branch-free, so that loops over it vectorise: 2^n from the
// exponent bits times a polynomial for the rest in [-0.5, 0.5] of log2 units (Taylor coefficients of 2^r).
inline float exp_negative(float x) {
    const float clamped = x > -87.0f ? x : -87.0f;  // NaN too
    const float t = clamped * 1.44269504f;
    const float rounded = (t + 12582912.0f) - 12582912.0f;  // to the nearest integer, by the float's own precision
    const float r = (clamped - rounded * 0.693359375f) + rounded * 2.12194440e-4f;  // rest in nats, in two exact steps
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int32_t bits = (static_cast<int32_t>(rounded) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof(power));
    return x > -87.0f ? p * power : 0.0f;
}

float row_max(const float * logits, int32_t n) {
    float best[lanes];
    std::fill(best, best + lanes, -std::numeric_limits<float>::infinity());
    int32_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int l = 0; l < lanes; ++l) {
            best[l] = logits[i + l] > best[l] ? logits[i + l] : best[l];
        }
    }
    for (; i < n; ++i) {
        best[0] = logits[i] > best[0] ? logits[i] : best[0];
    }
    return *std::max_element(best, best + lanes);
}

// Adds Σ e^(x-max) and, if asked, Σ (x-max) e^(x-max) over n <= stretch logits.
template <bool with_entropy>
void add_stretch(const float * logits, int n, float max, double & sum, double & weighted) {
    float sums[lanes] = {};
    float products[lanes] = {};
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int l = 0; l < lanes; ++l) {
            const float x = logits[i + l] - max;
            const float e = exp_negative(x);
            sums[l] += e;
            if (with_entropy) {
                products[l] += (x > -87.0f ? x : -87.0f) * e;  // e is 0 there
            }
        }
    }
    for (; i < n; ++i) {
        const float x = logits[i] - max;
        const float e = exp_negative(x);
        sums[0] += e;
        if (with_entropy) {
            products[0] += (x > -87.0f ? x : -87.0f) * e;
        }
    }
    for (int l = 0; l < lanes; ++l) {
        sum += sums[l];
        weighted += products[l];
    }
}

}  // namespace

// Where the loader can choose: compiled for wider registers, too, with the same operations in the same order (-ffp-contract=off).
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define RIM_ANY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default"), flatten))
#else
#define RIM_ANY_WIDTH
#endif

RIM_ANY_WIDTH RowStats row_stats(const float * logits, int32_t n_vocab, bool entropy) {
    RowStats stats;
    stats.max = row_max(logits, n_vocab);
    double sum = 0;
    double weighted = 0;
    for (int32_t i = 0; i < n_vocab; i += stretch) {
        const int n = std::min(stretch, n_vocab - i);
        if (entropy) {
            add_stretch<true>(logits + i, n, stats.max, sum, weighted);
        } else {
            add_stretch<false>(logits + i, n, stats.max, sum, weighted);
        }
    }
    stats.log_sum = std::log(sum);
    stats.entropy = entropy ? std::max(0.0, stats.log_sum - weighted / sum) : 0.0;  // -Σ p log p
    return stats;
}

void Banned::add(llama_token token) {
    if (token >= 0 && static_cast<size_t>(token) < mask_.size() && !has(token)) {
        mask_[static_cast<size_t>(token)] = 1;
        tokens_.push_back(token);
    }
}

llama_token top_token(const float * logits, int32_t n_vocab, const RowStats & stats, const Banned & banned) {
    const float * found = std::find(logits, logits + n_vocab, stats.max);
    if (found != logits + n_vocab && !banned.has(static_cast<llama_token>(found - logits))) {
        return static_cast<llama_token>(found - logits);
    }
    llama_token best = -1;
    for (llama_token i = 0; i < n_vocab; ++i) {
        if (!banned.has(i) && (best < 0 || logits[i] > logits[best])) {
            best = i;
        }
    }
    return std::max<llama_token>(best, 0);
}

}  // namespace rim
