// norm.h: the norm before a layer's products (root mean square, times weights), in place of ggml's, which adds squares one by one.
//
// ggml computes a norm and the product after it together before it asks any buffer type, so its own function is redirected (redirect.h).
#pragma once

#include <cstdint>

namespace rim::kernels {

// values[n] / sqrt(mean of squares + eps) * weights[n]. The same bits with every instruction set; `out` may be `values`.
using NormRow = void (*)(const float * values, const float * weights, float * out, int64_t n, float eps);

// Of the instruction set in use, nullptr where there is none.
NormRow norm_row() noexcept;

// One per instruction set; may be called only where the processor has it.
void avx2_norm_row(const float * values, const float * weights, float * out, int64_t n, float eps);
void avx512_norm_row(const float * values, const float * weights, float * out, int64_t n, float eps);
void neon_norm_row(const float * values, const float * weights, float * out, int64_t n, float eps);

// From now on norms are ours, where libggml-cpu's calls can be sent here; whether they can. `inside`: a function of that library, which we
// know (ggml_private.h). There must be a norm_row().
bool replace_norm(const void * inside);

}  // namespace rim::kernels
