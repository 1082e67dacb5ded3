// norm_kernels.h: a row's norm in the words of an instruction set (integer_types.h). Included by one file per instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "integer_types.h"

namespace rim::kernels {

namespace {

template <class Isa>
double sum_of_squares(const float * values, int64_t n) {
    constexpr int64_t stretch = 256;  // squares that are added in float, 16 sums side by side, before they go to double
    const int64_t whole = n / lanes * lanes;
    double total = 0;
    for (int64_t from = 0; from < whole; from += stretch) {
        typename Isa::Floats sum = Isa::floats(0.0f);
        for (int64_t i = from; i < std::min(from + stretch, whole); i += lanes) {
            const typename Isa::Floats sixteen = Isa::load(values + i);
            sum = Isa::fused(sixteen, sixteen, sum);
        }
        total += Isa::sum(sum);
    }
    for (int64_t i = whole; i < n; ++i) {
        total += values[i] * values[i];
    }
    return total;
}

// norm.h
template <class Isa>
void norm_row_of(const float * values, const float * weights, float * out, int64_t n, float eps) {
    const auto mean = static_cast<float>(sum_of_squares<Isa>(values, n) / static_cast<double>(n));
    const float scale = 1.0f / std::sqrt(mean + eps);
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        Isa::store(out + i, Isa::times(Isa::times(Isa::load(values + i), Isa::floats(scale)), Isa::load(weights + i)));
    }
    for (; i < n; ++i) {
        out[i] = values[i] * scale * weights[i];
    }
}

}  // namespace

}  // namespace rim::kernels
