// neon.cpp: quantized weights with NEON and its dot product (ARMv8.2), and attention. Compiled with these instructions; entered only where
// the processor has them.
#include "neon.h"
#include "norm.h"
#include "norm_kernels.h"

namespace rim::kernels {

const Kernel * neon_kernel(ggml_type type) noexcept {
    return integer_kernel<Neon>(type);
}

const AttentionKernel * neon_attention() noexcept {
    return attention_of<Neon>();
}

void neon_norm_row(const float * values, const float * weights, float * out, int64_t n, float eps) {
    norm_row_of<Neon>(values, weights, out, n, eps);
}

}  // namespace rim::kernels
