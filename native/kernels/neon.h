// neon.h: the instruction set that a tile's 16 rows meet as four registers of four. Included by neon.cpp and neon_i8mm.cpp.
//
// The dot product takes signed bytes: quants up to 63 are both, those of 8 bits are laid out as signed numbers.
#pragma once

#include <arm_neon.h>

#include "attention_kernels.h"
#include "integer_kernels.h"

namespace rim::kernels {

namespace {

struct Neon {
    struct Bytes {
        uint8x16_t part[4];
    };
    struct Ints {
        int32x4_t part[4];
    };
    struct Floats {
        float32x4_t part[4];
    };

    static constexpr const char * name = "NEON dot product";
    static constexpr int few_tokens_once = 4;
    static constexpr int64_t most_few = few_tokens_once;
    static constexpr bool may_tell = false;
    template <bool unpacked, class Work>
    static void choose_ahead(bool, const Work & work) {
        work(FetchAhead<0, 10240, 1>());
    }
    static constexpr int few_run = 8;
    static constexpr int many_tiles = 1, many_tokens = 4;  // 16 sums, 4 weights, 4 activations: of 32 registers
    static constexpr bool signed_quants = true;
    static constexpr bool pairs_tokens = false;
    static constexpr int attention_rows = 4, attention_columns = 1;

    template <Range>
    static constexpr int run = 8;

    template <Range range>
    struct Sum {
        Ints sum;
        Sum() = default;
        RIM_INLINE explicit Sum(const Ints & start) : sum(start) {}
        RIM_INLINE void add(const Bytes & w, const Bytes & four) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                sum.part[i] = vdotq_s32(sum.part[i], vreinterpretq_s8_u8(w.part[i]), vreinterpretq_s8_u8(four.part[i]));
            }
        }
        RIM_INLINE Ints total(const Ints &) const { return sum; }
    };

    // A register of the result for each of the four.
    template <class Result, class Function>
    RIM_INLINE static Result each(Function function) {
        Result result;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            result.part[i] = function(i);
        }
        return result;
    }

    RIM_INLINE static Bytes load(const uint8_t * bytes) {
        return each<Bytes>([&](int i) { return vld1q_u8(bytes + i * 16); });
    }
    RIM_INLINE static void store(uint8_t * to, const Bytes & bytes) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            vst1q_u8(to + i * 16, bytes.part[i]);
        }
    }
    RIM_INLINE static Bytes broadcast(const int8_t * four) {
        int32_t word;
        memcpy(&word, four, sizeof word);
        const uint8x16_t all = vreinterpretq_u8_s32(vdupq_n_s32(word));
        return {{all, all, all, all}};
    }
    // Adds products of four bytes, which every lane multiplies.
    template <class Sum>
    RIM_INLINE static void add_product(Sum & sum, const Bytes & w, const int8_t * four) {
        sum.add(w, broadcast(four));
    }
    RIM_INLINE static Bytes low_nibbles(const Bytes & bytes) {
        return each<Bytes>([&](int i) { return vandq_u8(bytes.part[i], vdupq_n_u8(15)); });
    }
    RIM_INLINE static Bytes high_nibbles(const Bytes & bytes) {
        return each<Bytes>([&](int i) { return vshrq_n_u8(bytes.part[i], 4); });
    }
    RIM_INLINE static void add_fifth_bits(const Bytes & plane, Bytes * w) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const uint8x16_t bit = vdupq_n_u8(16), p = plane.part[i];
            const uint8x16_t raised[8] = {vshlq_n_u8(p, 4), vshlq_n_u8(p, 3), vshlq_n_u8(p, 2), vshlq_n_u8(p, 1),
                                          p,                vshrq_n_u8(p, 1), vshrq_n_u8(p, 2), vshrq_n_u8(p, 3)};
#pragma GCC unroll 8
            for (int g = 0; g < 8; ++g) {
                w[g].part[i] = vorrq_u8(w[g].part[i], vandq_u8(raised[g], bit));
            }
        }
    }
    RIM_INLINE static void add_two_bits(const Bytes & plane, Bytes * w) {
        const uint8x16_t bits = vdupq_n_u8(0x30);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const uint8x16_t p = plane.part[i];
            w[0].part[i] = vorrq_u8(w[0].part[i], vandq_u8(vshlq_n_u8(p, 4), bits));
            w[1].part[i] = vorrq_u8(w[1].part[i], vandq_u8(vshlq_n_u8(p, 2), bits));
            w[2].part[i] = vorrq_u8(w[2].part[i], vandq_u8(p, bits));
            w[3].part[i] = vorrq_u8(w[3].part[i], vandq_u8(vshrq_n_u8(p, 2), bits));
        }
    }
    RIM_INLINE static Bytes look_up(const uint8_t * table, const Bytes & nibbles) {
        return each<Bytes>([&](int i) { return vqtbl1q_u8(vld1q_u8(table), nibbles.part[i]); });
    }

    RIM_INLINE static Ints ints(int32_t value) {
        return each<Ints>([&](int) { return vdupq_n_s32(value); });
    }
    // One of n numbers side by side, 1 or 4.
    template <int n>
    RIM_INLINE static Ints one_of(const int32_t * numbers, int i) {
        return ints(numbers[i]);
    }
    template <int n>
    RIM_INLINE static Floats one_of(const float * numbers, int i) {
        return floats(numbers[i]);
    }
    RIM_INLINE static Floats floats(float value) {
        return each<Floats>([&](int) { return vdupq_n_f32(value); });
    }
    RIM_INLINE static Floats load(const float * values) {
        return each<Floats>([&](int i) { return vld1q_f32(values + i * 4); });
    }
    RIM_INLINE static void store(float * to, const Floats & values) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            vst1q_f32(to + i * 4, values.part[i]);
        }
    }
    RIM_INLINE static Floats halves(const uint8_t * bytes) {
        return each<Floats>([&](int i) {
            uint16x4_t four;
            memcpy(&four, bytes + i * 8, sizeof four);
            return vcvt_f32_f16(vreinterpret_f16_u16(four));
        });
    }
    RIM_INLINE static Floats unsigned_bytes(const uint8_t * bytes) {
        return each<Floats>([&](int i) {
            uint32_t four;
            memcpy(&four, bytes + i * 4, sizeof four);
            return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
        });
    }
    RIM_INLINE static Floats signed_bytes(const uint8_t * bytes) {
        return each<Floats>([&](int i) {
            uint32_t four;
            memcpy(&four, bytes + i * 4, sizeof four);
            return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
        });
    }
    RIM_INLINE static Floats converted(const Ints & ints) {
        return each<Floats>([&](int i) { return vcvtq_f32_s32(ints.part[i]); });
    }
    RIM_INLINE static Floats times(const Floats & a, const Floats & b) {
        return each<Floats>([&](int i) { return vmulq_f32(a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats divided(const Floats & a, const Floats & b) {
        return each<Floats>([&](int i) { return vdivq_f32(a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats fused(const Floats & a, const Floats & b, const Floats & c) {
        return each<Floats>([&](int i) { return vfmaq_f32(c.part[i], a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats negative(const Floats & a) {
        return each<Floats>([&](int i) { return vnegq_f32(a.part[i]); });
    }
    RIM_INLINE static Ints plus(const Ints & a, const Ints & b) {
        return each<Ints>([&](int i) { return vaddq_s32(a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats plus(const Floats & a, const Floats & b) {
        return each<Floats>([&](int i) { return vaddq_f32(a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats minus(const Floats & a, const Floats & b) {
        return each<Floats>([&](int i) { return vsubq_f32(a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats larger(const Floats & a, const Floats & b) {
        return each<Floats>([&](int i) { return vmaxq_f32(a.part[i], b.part[i]); });
    }
    RIM_INLINE static Floats rounded(const Floats & a) {
        return each<Floats>([&](int i) { return vrndnq_f32(a.part[i]); });
    }
    RIM_INLINE static Floats times_power(const Floats & a, const Floats & power) {
        return each<Floats>([&](int i) {
            const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(power.part[i]), vdupq_n_s32(127));
            return vmulq_f32(a.part[i], vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
        });
    }
    RIM_INLINE static Floats select(uint16_t which, const Floats & a, const Floats & b) {
        return each<Floats>([&](int i) {
            static constexpr uint32_t bit[4] = {1, 2, 4, 8};
            return vbslq_f32(vtstq_u32(vdupq_n_u32(static_cast<uint32_t>(which) >> (4 * i)), vld1q_u32(bit)), a.part[i], b.part[i]);
        });
    }
    RIM_INLINE static void store_gathered(uint32_t which, const Floats & a, float * to) {
        float from[lanes];
        store(from, a);
        for (; which; which &= which - 1) {
            *to++ = from[__builtin_ctz(which)];
        }
    }
    RIM_INLINE static Floats scattered(uint32_t which, const float * from) {
        float to[lanes] = {};
        for (; which; which &= which - 1) {
            to[__builtin_ctz(which)] = *from++;
        }
        return load(to);
    }
    RIM_INLINE static uint16_t equal(const Floats & a, float b) {
        return bits_of([&](int i) { return vceqq_f32(a.part[i], vdupq_n_f32(b)); });
    }
    RIM_INLINE static uint16_t below(const Floats & a, float b) {
        return bits_of([&](int i) { return vcltq_f32(a.part[i], vdupq_n_f32(b)); });
    }
    RIM_INLINE static bool unordered(const Floats & a) {
        return bits_of([&](int i) { return vmvnq_u32(vceqq_f32(a.part[i], a.part[i])); }) != 0;
    }
    RIM_INLINE static float largest(const Floats & a) {
        return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.part[0], a.part[1]), vmaxq_f32(a.part[2], a.part[3])));
    }
    RIM_INLINE static float first(const Floats & a) { return vgetq_lane_f32(a.part[0], 0); }
    RIM_INLINE static float sum(const Floats & a) {  // halves of 8, 4, 2 lanes in turn, as in avx2.h
        const float32x4_t four = vaddq_f32(vaddq_f32(a.part[0], a.part[2]), vaddq_f32(a.part[1], a.part[3]));
        const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
    }
    RIM_INLINE static void transpose(Floats * r) {  // column c of 16 rows becomes row c
        float in[16][16];
        for (int i = 0; i < 16; ++i) {
            store(in[i], r[i]);
        }
        for (int i = 0; i < 16; ++i) {
            float column[16];
            for (int j = 0; j < 16; ++j) {
                column[j] = in[j][i];
            }
            r[i] = load(column);
        }
    }

    RIM_INLINE static uint16x8_t low_words(uint16x8_t a, uint16x8_t b) { return vzip1q_u16(a, b); }
    RIM_INLINE static uint16x8_t high_words(uint16x8_t a, uint16x8_t b) { return vzip2q_u16(a, b); }
    RIM_INLINE static uint16x8_t low_pairs(uint16x8_t a, uint16x8_t b) {
        return vreinterpretq_u16_u32(vzip1q_u32(vreinterpretq_u32_u16(a), vreinterpretq_u32_u16(b)));
    }
    RIM_INLINE static uint16x8_t high_pairs(uint16x8_t a, uint16x8_t b) {
        return vreinterpretq_u16_u32(vzip2q_u32(vreinterpretq_u32_u16(a), vreinterpretq_u32_u16(b)));
    }
    // 16 halves, `at` bytes into each of 16 rows: to[16][16].
    RIM_INLINE static void transpose_halves(const char * const * rows, size_t at, uint8_t * to) {
        for (int part = 0; part < 4; ++part) {  // 8 rows, 8 columns
            const char * const * const from = rows + part % 2 * 8;
            uint8_t * const to_part = to + part % 2 * 16 + part / 2 * 256;
            uint16x8_t r[8], u[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                r[i] = vreinterpretq_u16_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(from[i] + at) + part / 2 * 16));
            }
            interleave_words<Neon>(r, u);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const uint64x2_t a = vreinterpretq_u64_u16(u[i]), b = vreinterpretq_u64_u16(u[i + 4]);
                vst1q_u8(to_part + i * 64, vreinterpretq_u8_u64(vzip1q_u64(a, b)));
                vst1q_u8(to_part + i * 64 + 32, vreinterpretq_u8_u64(vzip2q_u64(a, b)));
            }
        }
    }

    RIM_INLINE static void quantize(const float * values, int8_t * quants, float & scale, int32_t * sums) {
        float32x4_t parts[8], most = vdupq_n_f32(0.0f);
        uint32x4_t ordered = vdupq_n_u32(0xFFFFFFFF);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            parts[i] = vld1q_f32(values + i * 4);
            most = vmaxnmq_f32(most, vabsq_f32(parts[i]));
            ordered = vandq_u32(ordered, vceqq_f32(parts[i], parts[i]));
        }
        const float factor = quant_scale(vmaxvq_f32(most), scale);
        if (vminvq_u32(ordered) == 0) {
            scale = __builtin_nanf("");  // a maximum hides what is not a number; the result must show it
        }
        int16x4_t narrow[8];
        int32x4_t half[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            const int32x4_t q = vcvtnq_s32_f32(vmulq_f32(parts[i], vdupq_n_f32(factor)));
            half[i / 4] = vaddq_s32(half[i / 4], q);
            narrow[i] = vqmovn_s32(q);
        }
        sums[0] = vaddvq_s32(half[0]);
        sums[1] = vaddvq_s32(half[1]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            vst1_s8(quants + i * 8, vqmovn_s16(vcombine_s16(narrow[2 * i], narrow[2 * i + 1])));
        }
    }

  private:
    template <class Function>
    RIM_INLINE static uint16_t bits_of(Function mask) {
        static constexpr uint32_t bit[4] = {1, 2, 4, 8};
        uint32_t bits = 0;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            bits |= vaddvq_u32(vandq_u32(mask(i), vld1q_u32(bit))) << (4 * i);
        }
        return static_cast<uint16_t>(bits);
    }
};

}  // namespace

}  // namespace rim::kernels
