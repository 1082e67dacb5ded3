// rows.h: what is done to rows of values between products.
#pragma once

#include <cstdint>

namespace rim::kernels {

// The same bits with every instruction set.
struct RowKernel {
    // values[n] / sqrt(mean of squares + eps) * weights[n]; `out` may be `values`.
    void (*norm)(const float * values, const float * weights, float * out, int64_t n, float eps);
    // gate[n] / (1 + exp(-gate[n])) * up[n] (Shazeer 2020, SwiGLU); `out` may be one of them.
    void (*swiglu)(const float * gate, const float * up, float * out, int64_t n);
};

// Of the instruction set in use, nullptr where there is none.
const RowKernel * row_kernel() noexcept;

// One per instruction set; may be called only where the processor has it.
const RowKernel * avx2_rows() noexcept;
const RowKernel * avx512_rows() noexcept;
const RowKernel * neon_rows() noexcept;

}  // namespace rim::kernels
