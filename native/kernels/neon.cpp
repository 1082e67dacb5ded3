// neon.cpp: quantized weights with NEON and its dot product (ARMv8.2), and attention. Compiled with these instructions; entered only where
// the processor has them.
#include "neon.h"
#include "row_kernels.h"

namespace rim::kernels {

const Kernel * neon_kernel(ggml_type type) noexcept {
    return integer_kernel<Neon>(type);
}

const AttentionKernel * neon_attention() noexcept {
    return attention_of<Neon>();
}

const RowKernel * neon_rows() noexcept {
    return rows_of<Neon>();
}

}  // namespace rim::kernels
