// instructions.h: what this processor and its operating system can do.
#pragma once

namespace rim::kernels {

// AVX2, FMA and F16C.
bool has_avx2() noexcept;

// The same and VNNI with 256 bits.
bool has_avx_vnni() noexcept;

// AVX-512 F, BW, DQ, VL and VNNI.
bool has_avx512_vnni() noexcept;

// The same and BF16.
bool has_avx512_bf16() noexcept;

// The same and AMX for BF16, which the system lets this process use.
bool has_amx_bf16() noexcept;

// NEON with its dot product of bytes.
bool has_neon_dot() noexcept;

// The same and its products of matrices of bytes.
bool has_neon_i8mm() noexcept;

}  // namespace rim::kernels
