// avx512_types.h: from the bytes of a tile (layout.h) to registers, for each weight type. Only for files compiled with AVX-512.
//
// A type gives: offset (quants are unsigned; a value is quant - offset), n_scales (scales in a block of 32), has_min, and
//   quants(bytes, w): the 8 registers of a block, 16 rows x 4 unsigned values each;
//   scales(bytes, block, d, m): factors, and minima m where value = d * quant + m.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rim::kernels::avx512 {

inline __m512i load(const uint8_t * bytes) {
    return _mm512_loadu_si512(bytes);
}

inline __m512 halves(const uint8_t * bytes) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)));
}

inline __m128i load16(const uint8_t * bytes) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes));
}

inline void nibbles(const uint8_t * bytes, __m512i * w) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512i both = load(bytes + j * 64);
        w[j] = _mm512_and_si512(both, low);
        w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
}

inline void fifth_bits(const uint8_t * planes, __m512i * w) {
    const __m512i sixteen = _mm512_set1_epi8(16);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        uint64_t plane;
        memcpy(&plane, planes + i * 8, sizeof plane);
        w[i] = _mm512_mask_add_epi8(w[i], plane, w[i], sixteen);
    }
}

struct Small {  // one scale per block
    static constexpr int64_t scale_values = 32;
    static constexpr int n_scales = 1;
};

template <bool min>
struct SmallScales : Small {
    static constexpr bool has_min = min;
    static constexpr size_t scale_bytes = min ? 64 : 32;
    static void scales(const uint8_t * bytes, int64_t block, __m512 * d, __m512 * m) {
        bytes += static_cast<size_t>(block) * scale_bytes;
        *d = halves(bytes);
        if constexpr (min) {
            *m = halves(bytes + 32);
        }
    }
};

template <bool min>
struct FourBits : SmallScales<min> {
    static constexpr int offset = min ? 0 : 8;
    static constexpr size_t quant_bytes = 256;
    static void quants(const uint8_t * bytes, __m512i * w) { nibbles(bytes, w); }
};

template <bool min>
struct FiveBits : SmallScales<min> {
    static constexpr int offset = min ? 0 : 16;
    static constexpr size_t quant_bytes = 256 + 64;
    static void quants(const uint8_t * bytes, __m512i * w) {
        nibbles(bytes, w);
        fifth_bits(bytes + 256, w);
    }
};

struct FourBitsTable : SmallScales<false> {  // IQ4_NL: a nibble chooses one of 16 values, here raised by 128
    static constexpr int offset = 128;
    static constexpr size_t quant_bytes = 256;
    static void quants(const uint8_t * bytes, __m512i * w) {
        alignas(16) static constexpr uint8_t values[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
        const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i *>(values)));
        nibbles(bytes, w);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            w[i] = _mm512_shuffle_epi8(table, w[i]);
        }
    }
};

struct EightBits : SmallScales<false> {
    static constexpr int offset = 128;
    static constexpr size_t quant_bytes = 512;
    static void quants(const uint8_t * bytes, __m512i * w) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            w[i] = load(bytes + i * 64);
        }
    }
};

struct SuperBlock {  // 8 blocks share two levels of scales
    static constexpr int64_t scale_values = 256;
};

template <bool fifth>
struct SuperBlockMin : SuperBlock {  // Q4_K, Q5_K
    static constexpr int n_scales = 1;
    static constexpr bool has_min = true;
    static constexpr int offset = 0;
    static constexpr size_t quant_bytes = fifth ? 256 + 64 : 256;
    static constexpr size_t scale_bytes = 256 + 64;
    static void quants(const uint8_t * bytes, __m512i * w) {
        nibbles(bytes, w);
        if constexpr (fifth) {
            fifth_bits(bytes + 256, w);
        }
    }
    static void scales(const uint8_t * bytes, int64_t block, __m512 * d, __m512 * m) {
        bytes += static_cast<size_t>(block / 8) * scale_bytes;
        const uint8_t * const six = bytes + block % 8 * 32;
        *d = _mm512_mul_ps(halves(bytes + 256), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(six))));
        *m = _mm512_mul_ps(halves(bytes + 256 + 32), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(six + 16))));
        *m = _mm512_xor_ps(*m, _mm512_set1_ps(-0.0f));  // this type subtracts its minima
    }
};

struct SixBits : SuperBlock {  // Q6_K
    static constexpr int n_scales = 2;
    static constexpr bool has_min = false;
    static constexpr int offset = 32;
    static constexpr size_t quant_bytes = 256 + 128;
    static constexpr size_t scale_bytes = 256 + 32;
    static void quants(const uint8_t * bytes, __m512i * w) {
        nibbles(bytes, w);
        const __m512i bits = _mm512_set1_epi8(0x30);
#pragma GCC unroll 2
        for (int p = 0; p < 2; ++p) {
            const __m512i plane = load(bytes + 256 + p * 64);
            __m512i * const v = w + p * 4;  // 0xF8: a | (b & c) is one instruction
            v[0] = _mm512_ternarylogic_epi32(v[0], _mm512_slli_epi16(plane, 4), bits, 0xF8);
            v[1] = _mm512_ternarylogic_epi32(v[1], _mm512_slli_epi16(plane, 2), bits, 0xF8);
            v[2] = _mm512_ternarylogic_epi32(v[2], plane, bits, 0xF8);
            v[3] = _mm512_ternarylogic_epi32(v[3], _mm512_srli_epi16(plane, 2), bits, 0xF8);
        }
    }
    static void scales(const uint8_t * bytes, int64_t block, __m512 * d, __m512 *) {
        bytes += static_cast<size_t>(block / 8) * scale_bytes;
        const __m512 factor = halves(bytes + 256);
        const uint8_t * const signed_bytes = bytes + block % 8 * 32;
        d[0] = _mm512_mul_ps(factor, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(signed_bytes))));
        d[1] = _mm512_mul_ps(factor, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(signed_bytes + 16))));
    }
};

}  // namespace rim::kernels::avx512
