// avx2.h: the instruction set that a tile's 16 rows meet as two registers of eight. Included by avx2.cpp and avx_vnni.cpp, which say how
// bytes are multiplied (Dot): AVX2 alone, or VNNI in its 256-bit form.
#pragma once

#include <immintrin.h>

#include "attention_kernels.h"
#include "integer_kernels.h"
#include "sums_x86.h"

namespace rim::kernels {

namespace {

struct Pair {  // 16 lanes
    __m256i low, high;
};

struct FloatPair {
    __m256 low, high;
};

// For every set of 8 bits, a byte for each lane: the lane of its n-th bit for lane n; and for a lane whose bit is set, how many bits are below.
struct LanesOfBits {
    uint64_t gathered[256], scattered[256];

    constexpr LanesOfBits() : gathered{}, scattered{} {
        for (unsigned bits = 0; bits < 256; ++bits) {
            uint64_t n = 0;
            for (uint64_t lane = 0; lane < 8; ++lane) {
                if (bits >> lane & 1) {
                    gathered[bits] |= lane << (8 * n);
                    scattered[bits] |= n << (8 * lane);
                    ++n;
                }
            }
        }
    }
};

constexpr LanesOfBits lanes_of_bits;

template <class Dot>
struct Avx2 {
    using Bytes = Pair;      // 16 lanes x 4 bytes
    using Ints = Pair;       // 16 lanes
    using Floats = FloatPair;  // 16 lanes

    static constexpr const char * name = Dot::name;
    static constexpr int few_tokens_once = 4;  // tokens that one tile meets in registers
    static constexpr int64_t most_few = few_tokens_once;  // up to so many meet it in rounds, more go the other way
    static constexpr bool may_tell = true;
    template <bool unpacked, class Work>
    static void choose_ahead(bool told, const Work & work) {
        if (told) {
            work(FetchAhead<8192, 10240, 0>());
        } else {
            work(FetchAhead<unpacked ? 1024 : 0, 10240, 1>());  // more to do for a byte than with wider registers: a fifth faster (Zen 3)
        }
    }
    static constexpr int few_run = 8;  // products of few tokens that are added to one sum, after which another begins
    static constexpr int many_tiles = 1, many_tokens = 4;  // sums that the 16 registers hold
    static constexpr bool signed_quants = Dot::signed_quants;  // whether quants of 8 bits are multiplied as signed numbers
    static constexpr bool pairs_tokens = false;

    static constexpr int attention_rows = 2, attention_columns = 2;  // 8 sums, 4 columns, 1 row: of 16 registers

    // A sum of products of 4 bytes each, from `start` on (the same in the constructor and in total()), and how many it has room for.
    template <Range range>
    using Sum = typename Dot::template Sum<range>;
    template <Range range>
    static constexpr int run = Dot::template run<range>;

    RIM_INLINE static Bytes load(const uint8_t * bytes) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes)), _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes + 32))};
    }
    RIM_INLINE static void store(uint8_t * to, Bytes bytes) {
        _mm256_store_si256(reinterpret_cast<__m256i *>(to), bytes.low);
        _mm256_store_si256(reinterpret_cast<__m256i *>(to + 32), bytes.high);
    }
    // Four signed bytes in every lane.
    RIM_INLINE static Bytes broadcast(const int8_t * four) {
        int32_t word;
        memcpy(&word, four, sizeof word);
        const __m256i all = _mm256_set1_epi32(word);
        return {all, all};
    }
    // Adds products of four bytes, which every lane multiplies.
    template <class Sum>
    RIM_INLINE static void add_product(Sum & sum, const Bytes & w, const int8_t * four) {
        sum.add(w, broadcast(four));
    }
    RIM_INLINE static Bytes low_nibbles(Bytes bytes) {
        const __m256i mask = _mm256_set1_epi8(15);
        return {_mm256_and_si256(bytes.low, mask), _mm256_and_si256(bytes.high, mask)};
    }
    RIM_INLINE static Bytes high_nibbles(Bytes bytes) {
        return low_nibbles({_mm256_srli_epi16(bytes.low, 4), _mm256_srli_epi16(bytes.high, 4)});
    }
    // 16 more in register i where bit i of the plane's byte is set.
    RIM_INLINE static void add_fifth_bits(Bytes plane, Bytes * w) {
        const __m256i bit = _mm256_set1_epi8(16);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            w[i].low = _mm256_or_si256(w[i].low, _mm256_and_si256(to_bit_four(plane.low, i), bit));
            w[i].high = _mm256_or_si256(w[i].high, _mm256_and_si256(to_bit_four(plane.high, i), bit));
        }
    }
    // Bits 4 and 5 of four registers, from the four pairs of bits in each byte of the plane.
    RIM_INLINE static void add_two_bits(Bytes plane, Bytes * w) {
        add_two_bits(plane.low, w[0].low, w[1].low, w[2].low, w[3].low);
        add_two_bits(plane.high, w[0].high, w[1].high, w[2].high, w[3].high);
    }
    RIM_INLINE static Bytes look_up(const uint8_t * table, Bytes nibbles) {
        const __m256i values = _mm256_broadcastsi128_si256(load16(table));
        return {_mm256_shuffle_epi8(values, nibbles.low), _mm256_shuffle_epi8(values, nibbles.high)};
    }

    RIM_INLINE static Ints ints(int32_t value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
    // One of n numbers side by side, 1 or 4.
    template <int n>
    RIM_INLINE static Ints one_of(const int32_t * numbers, int i) { return ints(numbers[i]); }
    template <int n>
    RIM_INLINE static Floats one_of(const float * numbers, int i) { return floats(numbers[i]); }
    RIM_INLINE static Floats floats(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
    RIM_INLINE static Floats load(const float * values) { return {_mm256_loadu_ps(values), _mm256_loadu_ps(values + 8)}; }
    RIM_INLINE static void store(float * to, Floats values) {
        _mm256_storeu_ps(to, values.low);
        _mm256_storeu_ps(to + 8, values.high);
    }
    RIM_INLINE static Floats halves(const uint8_t * bytes) {  // 16 half-precision numbers
        return {_mm256_cvtph_ps(load16(bytes)), _mm256_cvtph_ps(load16(bytes + 16))};
    }
    RIM_INLINE static Floats unsigned_bytes(const uint8_t * bytes) {
        return converted({_mm256_cvtepu8_epi32(load16(bytes)), _mm256_cvtepu8_epi32(_mm_srli_si128(load16(bytes), 8))});
    }
    RIM_INLINE static Floats signed_bytes(const uint8_t * bytes) {
        return converted({_mm256_cvtepi8_epi32(load16(bytes)), _mm256_cvtepi8_epi32(_mm_srli_si128(load16(bytes), 8))});
    }
    RIM_INLINE static Floats converted(Ints ints) { return {_mm256_cvtepi32_ps(ints.low), _mm256_cvtepi32_ps(ints.high)}; }
    RIM_INLINE static Floats times(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
    RIM_INLINE static Floats divided(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
    RIM_INLINE static Floats fused(Floats a, Floats b, Floats c) {  // a * b + c, rounded once
        return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
    }
    RIM_INLINE static Floats negative(Floats a) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
    }

    RIM_INLINE static Ints plus(Ints a, Ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
    RIM_INLINE static Floats plus(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
    RIM_INLINE static Floats minus(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
    RIM_INLINE static Floats larger(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
    RIM_INLINE static Floats rounded(Floats a) {  // to the nearest whole number
        constexpr int way = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        return {_mm256_round_ps(a.low, way), _mm256_round_ps(a.high, way)};
    }
    // a * 2^power, for whole powers from -126 on.
    RIM_INLINE static Floats times_power(Floats a, Floats power) {
        return {_mm256_mul_ps(a.low, power_of_two(power.low)), _mm256_mul_ps(a.high, power_of_two(power.high))};
    }
    // Lane by lane a where the bit is set, else b.
    RIM_INLINE static Floats select(uint16_t which, Floats a, Floats b) {
        return {_mm256_blendv_ps(b.low, a.low, lanes_of(which)), _mm256_blendv_ps(b.high, a.high, lanes_of(which >> 8))};
    }
    // The lanes whose bit is set, side by side; what 16 values behind `to` hold after them is lost.
    RIM_INLINE static void store_gathered(uint16_t which, Floats a, float * to) {
        _mm256_storeu_ps(to, permuted(a.low, lanes_of_bits.gathered[which & 0xFF]));
        _mm256_storeu_ps(to + __builtin_popcount(which & 0xFF), permuted(a.high, lanes_of_bits.gathered[which >> 8]));
    }
    // Values side by side in the lanes whose bit is set, 0 in the others; reads 16 of them.
    RIM_INLINE static Floats scattered(uint16_t which, const float * from) {
        const __m256 low = permuted(_mm256_loadu_ps(from), lanes_of_bits.scattered[which & 0xFF]);
        const __m256 high = permuted(_mm256_loadu_ps(from + __builtin_popcount(which & 0xFF)), lanes_of_bits.scattered[which >> 8]);
        return {_mm256_and_ps(low, lanes_of(which)), _mm256_and_ps(high, lanes_of(which >> 8))};
    }
    RIM_INLINE static uint16_t equal(Floats a, float b) {
        const __m256 all = _mm256_set1_ps(b);
        return bits_of(_mm256_cmp_ps(a.low, all, _CMP_EQ_OQ), _mm256_cmp_ps(a.high, all, _CMP_EQ_OQ));
    }
    RIM_INLINE static uint16_t below(Floats a, float b) {
        const __m256 all = _mm256_set1_ps(b);
        return bits_of(_mm256_cmp_ps(a.low, all, _CMP_LT_OQ), _mm256_cmp_ps(a.high, all, _CMP_LT_OQ));
    }
    RIM_INLINE static bool unordered(Floats a) {  // whether some lane is no number
        return bits_of(_mm256_cmp_ps(a.low, a.low, _CMP_UNORD_Q), _mm256_cmp_ps(a.high, a.high, _CMP_UNORD_Q)) != 0;
    }
    RIM_INLINE static float largest(Floats a) {
        const __m256 eight = _mm256_max_ps(a.low, a.high);
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }
    RIM_INLINE static float first(Floats a) { return _mm256_cvtss_f32(a.low); }
    RIM_INLINE static float sum(Floats a) {  // halves of 8, 4, 2 lanes in turn
        const __m256 eight = _mm256_add_ps(a.low, a.high);
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    RIM_INLINE static void transpose(Floats * r) {  // column c of 16 rows becomes row c
        __m256 a[8], b[8], c[8], d[8];
        for (int i = 0; i < 8; ++i) {
            a[i] = r[i].low, b[i] = r[i].high, c[i] = r[i + 8].low, d[i] = r[i + 8].high;
        }
        transpose8(a), transpose8(b), transpose8(c), transpose8(d);
        for (int i = 0; i < 8; ++i) {
            r[i] = {a[i], c[i]};
            r[i + 8] = {b[i], d[i]};
        }
    }

    // Words, or pairs of them, of two registers in turn, of the low or the high half of each lane of 128 bits.
    RIM_INLINE static __m256i low_words(__m256i a, __m256i b) { return _mm256_unpacklo_epi16(a, b); }
    RIM_INLINE static __m256i high_words(__m256i a, __m256i b) { return _mm256_unpackhi_epi16(a, b); }
    RIM_INLINE static __m256i low_pairs(__m256i a, __m256i b) { return _mm256_unpacklo_epi32(a, b); }
    RIM_INLINE static __m256i high_pairs(__m256i a, __m256i b) { return _mm256_unpackhi_epi32(a, b); }
    // 16 halves, `at` bytes into each of 16 rows: to[16][16].
    RIM_INLINE static void transpose_halves(const char * const * rows, size_t at, uint8_t * to) {
        transpose_8_halves(rows, at, to);
        transpose_8_halves(rows, at + 16, to + 256);
    }

    // 32 values as signed bytes: value = quant * scale. The sums of the first and the second 16 quants.
    RIM_INLINE static void quantize(const float * values, int8_t * quants, float & scale, int32_t * sums) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        __m256 parts[4], largest = _mm256_setzero_ps();
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            parts[i] = _mm256_loadu_ps(values + i * 8);
            largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, parts[i]));
        }
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        const float factor = quant_scale(_mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two))), scale);
        const __m256 unordered =
            _mm256_or_ps(_mm256_cmp_ps(parts[0], parts[1], _CMP_UNORD_Q), _mm256_cmp_ps(parts[2], parts[3], _CMP_UNORD_Q));
        if (_mm256_movemask_ps(unordered)) {
            scale = __builtin_nanf("");  // a maximum hides what is not a number; the result must show it
        }
        __m256i q[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(parts[i], _mm256_set1_ps(factor)));
        }
        // packing works within halves of a register: 0 2 | 1 3 are brought back into order
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        const __m256i both = _mm256_permutevar8x32_epi32(packed, order);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(quants), both);
        sums_of_halves(both, sums);
    }

  private:
    RIM_INLINE static __m128i load16(const uint8_t * bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes)); }

    RIM_INLINE static __m256i to_bit_four(__m256i plane, int i) {  // bit i of each byte
        return i < 4 ? _mm256_slli_epi16(plane, 4 - i) : _mm256_srli_epi16(plane, i - 4);
    }

    RIM_INLINE static void add_two_bits(__m256i plane, __m256i & a, __m256i & b, __m256i & c, __m256i & d) {
        const __m256i bits = _mm256_set1_epi8(0x30);
        a = _mm256_or_si256(a, _mm256_and_si256(_mm256_slli_epi16(plane, 4), bits));
        b = _mm256_or_si256(b, _mm256_and_si256(_mm256_slli_epi16(plane, 2), bits));
        c = _mm256_or_si256(c, _mm256_and_si256(plane, bits));
        d = _mm256_or_si256(d, _mm256_and_si256(_mm256_srli_epi16(plane, 2), bits));
    }

    RIM_INLINE static void transpose_8_halves(const char * const * rows, size_t at, uint8_t * to) {
        __m256i r[8], u[8];  // rows i and i + 8 are halves of r[i]
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            const auto row = [&](int index) { return load16(reinterpret_cast<const uint8_t *>(rows[index] + at)); };
            r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(row(i)), row(i + 8), 1);
        }
        interleave_words<Avx2>(r, u);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            store(to + i * 64, Bytes{_mm256_unpacklo_epi64(u[i], u[i + 4]), _mm256_unpackhi_epi64(u[i], u[i + 4])});
        }
    }

    RIM_INLINE static __m256 power_of_two(__m256 whole) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }

    RIM_INLINE static __m256 lanes_of(int bits) {  // of 8 bits, one for each lane
        const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), each), each));
    }

    RIM_INLINE static __m256 permuted(__m256 a, uint64_t lanes) {
        return _mm256_permutevar8x32_ps(a, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(lanes))));
    }

    RIM_INLINE static uint16_t bits_of(__m256 low, __m256 high) {
        return static_cast<uint16_t>(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
    }

    RIM_INLINE static void transpose8(__m256 * r) {
        __m256 t[8], u[8];
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 8; i += 4) {
            u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
            u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
            u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
            u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
            r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
        }
    }
};

}  // namespace

}  // namespace rim::kernels
