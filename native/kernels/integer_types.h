// integer_types.h: from the bytes of a tile (layout.h) to registers, for each weight type, in the words of an instruction set (Isa).
//
// A type gives: range (what its quants need of a multiplication), offset (a value is quant - offset; quants are unsigned), n_scales
// (scales in a block of 32), has_min, and
//   quants(bytes, w): the 8 registers of a block, 16 rows x 4 values each;
//   Scales(bytes, head), of a segment and its part of the tile's head (head_bytes); of(block, d, m): a block's factors, and minima m where value = d * quant + m.
//
// An Isa is what a file of one instruction set defines (avx512_vnni.cpp, avx2.h): Bytes (16 lanes x 4 bytes), Ints and Floats (16 lanes)
// and operations on them. See avx2.h for the whole list.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__)
#define RIM_INLINE inline __attribute__((always_inline))
#else
#define RIM_INLINE inline
#endif

namespace rim::kernels {

enum class Range { four_bits, five_bits, six_bits, byte };  // quants up to 15, 31, 63, 255 (or with Isa::signed_quants -128 to 127)

// How many bytes the weights of few tokens are fetched ahead: of one token or two, and of more, where there is more to multiply and no
// processor looks as far ahead as memory needs. Into which cache: 1 for a farther one, 0 for the first alone, past the farther ones, which
// keep what is used again (__builtin_prefetch).
template <size_t up_to_two, size_t for_more, int into>
struct FetchAhead {
    static constexpr size_t two = up_to_two, more = for_more;
    static constexpr int level = into;
};

namespace {  // each instruction set has functions of its own, compiled with its own instructions

constexpr int lanes = 16;  // of an Isa's registers

// How a block of 32 values with the largest magnitude `largest` becomes bytes: values times the result; `scale` takes them back.
RIM_INLINE float quant_scale(float largest, float & scale) {
    scale = largest / 127;
    return largest > 127 * FLT_MIN ? 127 / largest : 0.0f;  // the inverse of less would overflow
}

template <class Isa>
RIM_INLINE void nibbles(const uint8_t * bytes, typename Isa::Bytes * w) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const typename Isa::Bytes both = Isa::load(bytes + j * 64);
        w[j] = Isa::low_nibbles(both);
        w[j + 4] = Isa::high_nibbles(both);
    }
}

struct Small {  // one scale per block
    static constexpr int64_t scale_values = 32;
    static constexpr size_t head_bytes = 0;
    static constexpr int n_scales = 1;
};

template <class Isa, bool min>
struct SmallScales : Small {
    static constexpr bool has_min = min;
    static constexpr size_t scale_bytes = min ? 64 : 32;
    struct Scales {
        const uint8_t * segment;
        RIM_INLINE Scales(const uint8_t * bytes, const uint8_t *) : segment(bytes) {}
        RIM_INLINE void of(int64_t block, typename Isa::Floats * d, typename Isa::Floats * m) const {
            const uint8_t * const bytes = segment + static_cast<size_t>(block) * scale_bytes;
            *d = Isa::halves(bytes);
            if constexpr (min) {
                *m = Isa::halves(bytes + 32);
            }
        }
    };
};

template <class Isa, bool min>
struct FourBits : SmallScales<Isa, min> {
    static constexpr Range range = Range::four_bits;
    static constexpr int offset = min ? 0 : 8;
    static constexpr size_t quant_bytes = 256;
    RIM_INLINE static void quants(const uint8_t * bytes, typename Isa::Bytes * w) { nibbles<Isa>(bytes, w); }
};

template <class Isa, bool min>
struct FiveBits : SmallScales<Isa, min> {
    static constexpr Range range = Range::five_bits;
    static constexpr int offset = min ? 0 : 16;
    static constexpr size_t quant_bytes = 256 + 64;
    RIM_INLINE static void quants(const uint8_t * bytes, typename Isa::Bytes * w) {
        nibbles<Isa>(bytes, w);
        Isa::add_fifth_bits(Isa::load(bytes + 256), w);
    }
};

template <class Isa>
constexpr int byte_offset = Isa::signed_quants ? 0 : 128;

template <class Isa>
struct FourBitsTable : SmallScales<Isa, false> {  // IQ4_NL: a nibble chooses one of 16 values
    static constexpr Range range = Range::byte;
    static constexpr int offset = byte_offset<Isa>;
    static constexpr size_t quant_bytes = 256;
    RIM_INLINE static void quants(const uint8_t * bytes, typename Isa::Bytes * w) {
        alignas(16) static constexpr uint8_t unsigned_values[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                                    129, 141, 153, 166, 181, 197, 217, 241};
        alignas(16) static constexpr int8_t signed_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
        const auto * const values = Isa::signed_quants ? reinterpret_cast<const uint8_t *>(signed_values) : unsigned_values;
        nibbles<Isa>(bytes, w);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            w[i] = Isa::look_up(values, w[i]);
        }
    }
};

template <class Isa>
struct EightBits : SmallScales<Isa, false> {
    static constexpr Range range = Range::byte;
    static constexpr int offset = byte_offset<Isa>;
    static constexpr size_t quant_bytes = 512;
    RIM_INLINE static void quants(const uint8_t * bytes, typename Isa::Bytes * w) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            w[i] = Isa::load(bytes + i * 64);
        }
    }
};

struct SuperBlock {  // 8 blocks share two levels of scales
    static constexpr int64_t scale_values = 256;
};

template <class Isa, bool fifth>
struct SuperBlockMin : SuperBlock {  // Q4_K, Q5_K
    static constexpr Range range = fifth ? Range::five_bits : Range::four_bits;
    static constexpr int n_scales = 1;
    static constexpr bool has_min = true;
    static constexpr int offset = 0;
    static constexpr size_t quant_bytes = fifth ? 256 + 64 : 256;
    static constexpr size_t scale_bytes = 192 + 64, head_bytes = 0;
    RIM_INLINE static void quants(const uint8_t * bytes, typename Isa::Bytes * w) {
        nibbles<Isa>(bytes, w);
        if constexpr (fifth) {
            Isa::add_fifth_bits(Isa::load(bytes + 256), w);
        }
    }
    struct Scales {
        alignas(64) uint8_t six[256];  // bits each: 8 times 16 scales, then 8 times 16 minima
        const uint8_t * factors;
        RIM_INLINE Scales(const uint8_t * bytes, const uint8_t *) : factors(bytes + 192) {
            typename Isa::Bytes w[4];  // scales, minima of blocks 0 to 3, then those of 4 to 7
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const typename Isa::Bytes both = Isa::load(bytes + half * 64);
                w[half * 2] = Isa::low_nibbles(both);
                w[half * 2 + 1] = Isa::high_nibbles(both);
            }
            Isa::add_two_bits(Isa::load(bytes + 128), w);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                Isa::store(six + i % 2 * 128 + i / 2 * 64, w[i]);
            }
        }
        RIM_INLINE void of(int64_t block, typename Isa::Floats * d, typename Isa::Floats * m) const {
            *d = Isa::times(Isa::halves(factors), Isa::unsigned_bytes(six + block * 16));
            *m = Isa::negative(Isa::times(Isa::halves(factors + 32), Isa::unsigned_bytes(six + 128 + block * 16)));  // it subtracts its minima
        }
    };
};

template <class Isa>
struct SixBits : SuperBlock {  // Q6_K
    static constexpr Range range = Range::six_bits;
    static constexpr int n_scales = 2;
    static constexpr bool has_min = false;
    static constexpr int offset = 32;
    static constexpr size_t quant_bytes = 256 + 128;
    static constexpr size_t scale_bytes = 256, head_bytes = 32;
    RIM_INLINE static void quants(const uint8_t * bytes, typename Isa::Bytes * w) {
        nibbles<Isa>(bytes, w);
#pragma GCC unroll 2
        for (int p = 0; p < 2; ++p) {
            Isa::add_two_bits(Isa::load(bytes + 256 + p * 64), w + p * 4);
        }
    }
    struct Scales {
        const uint8_t *segment, *factors;
        RIM_INLINE Scales(const uint8_t * bytes, const uint8_t * head) : segment(bytes), factors(head) {}
        RIM_INLINE void of(int64_t block, typename Isa::Floats * d, typename Isa::Floats *) const {
            const typename Isa::Floats factor = Isa::halves(factors);
            const uint8_t * const signed_bytes = segment + block * 32;
            d[0] = Isa::times(factor, Isa::signed_bytes(signed_bytes));
            d[1] = Isa::times(factor, Isa::signed_bytes(signed_bytes + 16));
        }
    };
};

}  // namespace

}  // namespace rim::kernels
