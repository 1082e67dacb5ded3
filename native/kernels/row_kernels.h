// row_kernels.h: rows.h in the words of an instruction set (integer_types.h). Included by one file per instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "exponential.h"
#include "rows.h"

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

template <class Isa>
void norm_row(const float * values, const float * weights, float * out, int64_t n, float eps) {
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

// exp() of what is not positive alone, so that nothing overflows: x / (1 + exp(-x)) is x * exp(x) / (1 + exp(x)), too.
template <class Isa>
RIM_INLINE typename Isa::Floats swiglu(typename Isa::Floats gate, typename Isa::Floats up) {
    using Floats = typename Isa::Floats;
    const Floats one = Isa::floats(1.0f), power = exp_negative<Isa>(Isa::negative(Isa::larger(gate, Isa::negative(gate))));
    const Floats above = Isa::select(Isa::below(gate, 0.0f), Isa::times(gate, power), gate);
    return Isa::times(Isa::divided(above, Isa::plus(one, power)), up);
}

template <class Isa>
void swiglu_row(const float * gate, const float * up, float * out, int64_t n) {
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        Isa::store(out + i, swiglu<Isa>(Isa::load(gate + i), Isa::load(up + i)));
    }
    if (i < n) {
        float last[3][lanes] = {};
        std::copy(gate + i, gate + n, last[0]);
        std::copy(up + i, up + n, last[1]);
        Isa::store(last[2], swiglu<Isa>(Isa::load(last[0]), Isa::load(last[1])));
        std::copy_n(last[2], n - i, out + i);
    }
}

template <class Isa>
const RowKernel * rows_of() noexcept {
    static constexpr RowKernel kernel{&norm_row<Isa>, &swiglu_row<Isa>};
    return &kernel;
}

}  // namespace

}  // namespace rim::kernels
