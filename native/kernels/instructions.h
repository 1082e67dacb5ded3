// instructions.h: what this processor and its operating system can do.
#pragma once

namespace rim::kernels {

// AVX-512 F, BW, DQ, VL and VNNI.
bool has_avx512_vnni() noexcept;

// The same and BF16.
bool has_avx512_bf16() noexcept;

}  // namespace rim::kernels
