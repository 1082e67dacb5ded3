// avx512_vnni.cpp: quantized weights with AVX-512 VNNI, and attention. Compiled with these instructions; entered only where the processor has them.
#include <immintrin.h>

#include "attention_kernels.h"
#include "integer_kernels.h"
#include "row_kernels.h"
#include "sums_x86.h"

namespace rim::kernels {

namespace {

struct Avx512Vnni {
    using Bytes = __m512i;
    using Ints = __m512i;
    using Floats = __m512;

    static constexpr const char * name = "AVX-512 VNNI";
    static constexpr int few_tokens_once = 8;  // weights are unpacked once for all readouts
    static constexpr int64_t most_few = 32;  // more are multiplied faster when each broadcast serves several tiles
    static constexpr bool may_tell = true;
    template <bool unpacked, class Work>
    static void choose_ahead(bool told, const Work & work) {
        if (told) {
            work(FetchAhead<8192, 10240, 0>());
        } else {
            work(FetchAhead<0, 10240, 1>());
        }
    }
    static constexpr int few_run = 4;  // two sums that do not wait for each other are sooner done
    static constexpr int many_tiles = 4, many_tokens = 3;  // 12 sums, 4 weights or 3 activations: of 32 registers
    static constexpr bool signed_quants = false;
    static constexpr bool pairs_tokens = false;
    static constexpr int attention_rows = 6, attention_columns = 4;  // 24 sums, 4 columns, 1 row

    template <Range>
    static constexpr int run = 8;

    template <Range>
    struct Sum {
        Ints sum;
        Sum() = default;
        RIM_INLINE explicit Sum(Ints start) : sum(start) {}
        RIM_INLINE void add(Bytes w, Bytes four) { sum = _mm512_dpbusd_epi32(sum, w, four); }
        RIM_INLINE Ints total(Ints) const { return sum; }
    };

    RIM_INLINE static Bytes load(const uint8_t * bytes) { return _mm512_loadu_si512(bytes); }
    RIM_INLINE static void store(uint8_t * to, Bytes bytes) { _mm512_store_si512(to, bytes); }
    RIM_INLINE static Bytes broadcast(const int8_t * four) {
        int32_t word;
        memcpy(&word, four, sizeof word);
        return _mm512_set1_epi32(word);
    }
    // The four bytes stay in memory: gcc would load them into a register of their own. A core loads two operands a cycle, and multiplies two.
    template <Range range>
    RIM_INLINE static void add_product(Sum<range> & sum, Bytes w, const int8_t * four) {
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum.sum) : "v"(w), "m"(*reinterpret_cast<const int8_t(*)[4]>(four)));
    }
    RIM_INLINE static Bytes low_nibbles(Bytes bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi8(15)); }
    RIM_INLINE static Bytes high_nibbles(Bytes bytes) { return low_nibbles(_mm512_srli_epi16(bytes, 4)); }
    RIM_INLINE static void add_fifth_bits(Bytes plane, Bytes * w) {  // 0xF8: a | (b & c) is one instruction
        const __m512i bit = _mm512_set1_epi8(16);
        w[0] = _mm512_ternarylogic_epi32(w[0], _mm512_slli_epi16(plane, 4), bit, 0xF8);
        w[1] = _mm512_ternarylogic_epi32(w[1], _mm512_slli_epi16(plane, 3), bit, 0xF8);
        w[2] = _mm512_ternarylogic_epi32(w[2], _mm512_slli_epi16(plane, 2), bit, 0xF8);
        w[3] = _mm512_ternarylogic_epi32(w[3], _mm512_slli_epi16(plane, 1), bit, 0xF8);
        w[4] = _mm512_ternarylogic_epi32(w[4], plane, bit, 0xF8);
        w[5] = _mm512_ternarylogic_epi32(w[5], _mm512_srli_epi16(plane, 1), bit, 0xF8);
        w[6] = _mm512_ternarylogic_epi32(w[6], _mm512_srli_epi16(plane, 2), bit, 0xF8);
        w[7] = _mm512_ternarylogic_epi32(w[7], _mm512_srli_epi16(plane, 3), bit, 0xF8);
    }
    RIM_INLINE static void add_two_bits(Bytes plane, Bytes * w) {
        const __m512i bits = _mm512_set1_epi8(0x30);
        w[0] = _mm512_ternarylogic_epi32(w[0], _mm512_slli_epi16(plane, 4), bits, 0xF8);
        w[1] = _mm512_ternarylogic_epi32(w[1], _mm512_slli_epi16(plane, 2), bits, 0xF8);
        w[2] = _mm512_ternarylogic_epi32(w[2], plane, bits, 0xF8);
        w[3] = _mm512_ternarylogic_epi32(w[3], _mm512_srli_epi16(plane, 2), bits, 0xF8);
    }
    RIM_INLINE static Bytes look_up(const uint8_t * table, Bytes nibbles) {
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load16(table)), nibbles);
    }

    RIM_INLINE static Ints ints(int32_t value) { return _mm512_set1_epi32(value); }
    // One of n numbers side by side, 1 or 4.
    template <int n>
    RIM_INLINE static Ints one_of(const int32_t * numbers, int i) {
        if constexpr (n == 1) {
            return ints(*numbers);
        } else {
            const __m512i four = _mm512_broadcast_i32x4(load16(reinterpret_cast<const uint8_t *>(numbers)));
            switch (i) {
                case 0: return _mm512_shuffle_epi32(four, _MM_PERM_AAAA);
                case 1: return _mm512_shuffle_epi32(four, _MM_PERM_BBBB);
                case 2: return _mm512_shuffle_epi32(four, _MM_PERM_CCCC);
                default: return _mm512_shuffle_epi32(four, _MM_PERM_DDDD);
            }
        }
    }
    template <int n>
    RIM_INLINE static Floats one_of(const float * numbers, int i) {
        return _mm512_castsi512_ps(one_of<n>(reinterpret_cast<const int32_t *>(numbers), i));
    }
    RIM_INLINE static Floats floats(float value) { return _mm512_set1_ps(value); }
    RIM_INLINE static Floats load(const float * values) { return _mm512_loadu_ps(values); }
    RIM_INLINE static void store(float * to, Floats values) { _mm512_storeu_ps(to, values); }
    RIM_INLINE static Floats halves(const uint8_t * bytes) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)));
    }
    RIM_INLINE static Floats unsigned_bytes(const uint8_t * bytes) { return converted(_mm512_cvtepu8_epi32(load16(bytes))); }
    RIM_INLINE static Floats signed_bytes(const uint8_t * bytes) { return converted(_mm512_cvtepi8_epi32(load16(bytes))); }
    RIM_INLINE static Floats converted(Ints ints) { return _mm512_cvtepi32_ps(ints); }
    RIM_INLINE static Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    RIM_INLINE static Floats divided(Floats a, Floats b) { return _mm512_div_ps(a, b); }
    RIM_INLINE static Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    RIM_INLINE static Floats negative(Floats a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
    RIM_INLINE static Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
    RIM_INLINE static Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    RIM_INLINE static Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    RIM_INLINE static Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
    RIM_INLINE static Floats rounded(Floats a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    RIM_INLINE static Floats times_power(Floats a, Floats power) { return _mm512_scalef_ps(a, power); }
    RIM_INLINE static Floats select(uint16_t which, Floats a, Floats b) { return _mm512_mask_mov_ps(b, which, a); }
    RIM_INLINE static void store_gathered(uint16_t which, Floats a, float * to) { store(to, _mm512_maskz_compress_ps(which, a)); }
    RIM_INLINE static Floats scattered(uint16_t which, const float * from) { return _mm512_maskz_expand_ps(which, load(from)); }
    RIM_INLINE static uint16_t equal(Floats a, float b) { return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_EQ_OQ); }
    RIM_INLINE static uint16_t below(Floats a, float b) { return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_LT_OQ); }
    RIM_INLINE static bool unordered(Floats a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) != 0; }
    RIM_INLINE static float largest(Floats a) { return _mm512_reduce_max_ps(a); }
    RIM_INLINE static float first(Floats a) { return _mm512_cvtss_f32(a); }
    RIM_INLINE static float sum(Floats a) {  // halves of 8, 4, 2 lanes in turn, as in avx2.h
        const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    RIM_INLINE static void transpose(Floats * r) {  // column c of 16 rows becomes row c
        __m512i t[16];
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += 4) {
            const __m512i a = _mm512_castps_si512(r[i]), b = _mm512_castps_si512(r[i + 1]);
            const __m512i c = _mm512_castps_si512(r[i + 2]), d = _mm512_castps_si512(r[i + 3]);
            const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
            const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
            t[i] = _mm512_unpacklo_epi64(ab_low, cd_low);
            t[i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
            t[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            t[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {  // t[i + 4 j]: columns i, i + 4, i + 8, i + 12 of rows 4 j .. 4 j + 3
            const __m512i low = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88), high = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xDD);
            const __m512i low2 = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88), high2 = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xDD);
            r[i] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(low, low2, 0x88));
            r[i + 8] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(low, low2, 0xDD));
            r[i + 4] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(high, high2, 0x88));
            r[i + 12] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(high, high2, 0xDD));
        }
    }

    RIM_INLINE static Bytes low_words(Bytes a, Bytes b) { return _mm512_unpacklo_epi16(a, b); }
    RIM_INLINE static Bytes high_words(Bytes a, Bytes b) { return _mm512_unpackhi_epi16(a, b); }
    RIM_INLINE static Bytes low_pairs(Bytes a, Bytes b) { return _mm512_unpacklo_epi32(a, b); }
    RIM_INLINE static Bytes high_pairs(Bytes a, Bytes b) { return _mm512_unpackhi_epi32(a, b); }
    // 16 halves, `at` bytes into each of 16 rows: to[16][16].
    RIM_INLINE static void transpose_halves(const char * const * rows, size_t at, uint8_t * to) {
        const auto half = [&](int row) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(rows[row] + at)); };
        __m512i r[8], u[8];  // rows i and i + 8 are halves of r[i]; lanes have columns 0 to 7 and 8 to 15 of each
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(half(i)), half(i + 8), 1);
        }
        interleave_words<Avx512Vnni>(r, u);
        const __m512i low = _mm512_setr_epi64(0, 8, 4, 12, 1, 9, 5, 13), high = _mm512_setr_epi64(2, 10, 6, 14, 3, 11, 7, 15);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            store(to + i * 64, _mm512_permutex2var_epi64(u[i], low, u[i + 4]));
            store(to + 256 + i * 64, _mm512_permutex2var_epi64(u[i], high, u[i + 4]));
        }
    }

    RIM_INLINE static void quantize(const float * values, int8_t * quants, float & scale, int32_t * sums) {
        const __m512 a = _mm512_loadu_ps(values);
        const __m512 b = _mm512_loadu_ps(values + 16);
        const float factor = quant_scale(_mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b))), scale);
        if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q)) {
            scale = __builtin_nanf("");  // a maximum hides what is not a number; the result must show it
        }
        const __m128i qa = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(factor))));
        const __m128i qb = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(factor))));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(qa), qb, 1);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(quants), both);
        sums_of_halves(both, sums);
    }

  private:
    RIM_INLINE static __m128i load16(const uint8_t * bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)); }
};

}  // namespace

const Kernel * avx512_vnni_kernel(ggml_type type) noexcept {
    return integer_kernel<Avx512Vnni>(type);
}

const AttentionKernel * avx512_attention() noexcept {
    return attention_of<Avx512Vnni>();
}

const RowKernel * avx512_rows() noexcept {
    return rows_of<Avx512Vnni>();
}

}  // namespace rim::kernels
