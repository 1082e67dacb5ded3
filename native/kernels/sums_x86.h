// sums_x86.h: sums of signed bytes, for every instruction set that has AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "integer_types.h"

namespace rim::kernels {

namespace {

// Of the first and of the second 16 quants: of each + 128, 8 at a time, less what that adds.
RIM_INLINE void sums_of_halves(__m256i quants, int32_t * sums) {
    const __m256i eights = _mm256_sad_epu8(_mm256_xor_si256(quants, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    const __m256i halves = _mm256_add_epi32(eights, _mm256_bsrli_epi128(eights, 8));
    sums[0] = _mm256_cvtsi256_si32(halves) - 16 * 128;
    sums[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(halves, 1)) - 16 * 128;
}

}  // namespace

}  // namespace rim::kernels
