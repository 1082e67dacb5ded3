// avx2.cpp: quantized weights with AVX2 alone. Compiled with these instructions; entered only where the processor has them.
//
// It multiplies unsigned by signed bytes and adds two products in 16 bits, saturating. There sums stay for as many products as fit: of
// quants up to 15 a whole block (15 * 127 * 2 * 8 = 30,480), up to 31 four (31,496), up to 63 two (32,004). Quants up to 255 could exceed
// 16 bits in the first product: they are signed numbers, multiplied as magnitudes, with the sign on the other factor.
#include "avx2.h"
#include "row_kernels.h"

namespace rim::kernels {

namespace {

struct Dot {
    static constexpr const char * name = "AVX2";
    static constexpr bool signed_quants = true;

    template <Range range>
    static constexpr int run = range == Range::five_bits ? 4 : range == Range::six_bits ? 2 : 8;

    template <Range range>
    struct Sum;
};

// Keeps a sum in its register: gcc would otherwise hold back the products of a whole block in memory, to add them as a tree.
RIM_INLINE void keep(__m256i & sum) {
    asm("" : "+x"(sum));
}

RIM_INLINE __m256i times(__m256i w, __m256i four) {
    return _mm256_maddubs_epi16(w, four);
}

RIM_INLINE __m256i widened(__m256i shorts) {
    return _mm256_madd_epi16(shorts, _mm256_set1_epi16(1));
}

// The same of signed quants.
RIM_INLINE __m256i signed_times(__m256i w, __m256i four) {
    return times(_mm256_abs_epi8(w), _mm256_sign_epi8(four, w));  // 128 * 127 * 2 = 32,512
}

template <Range range>
struct Dot::Sum {
    Pair shorts;
    Sum() = default;
    RIM_INLINE explicit Sum(Pair) : shorts{_mm256_setzero_si256(), _mm256_setzero_si256()} {}
    RIM_INLINE void add(Pair w, Pair four) {
        shorts.low = _mm256_add_epi16(shorts.low, times(w.low, four.low));
        shorts.high = _mm256_add_epi16(shorts.high, times(w.high, four.high));
        keep(shorts.low), keep(shorts.high);
    }
    RIM_INLINE Pair total(Pair start) const {
        return {_mm256_add_epi32(widened(shorts.low), start.low), _mm256_add_epi32(widened(shorts.high), start.high)};
    }
};

template <>
struct Dot::Sum<Range::byte> {
    Pair sum;
    Sum() = default;
    RIM_INLINE explicit Sum(Pair start) : sum(start) {}
    RIM_INLINE void add(Pair w, Pair four) {
        sum.low = _mm256_add_epi32(sum.low, widened(signed_times(w.low, four.low)));
        sum.high = _mm256_add_epi32(sum.high, widened(signed_times(w.high, four.high)));
        keep(sum.low), keep(sum.high);
    }
    RIM_INLINE Pair total(Pair) const { return sum; }
};

}  // namespace

const Kernel * avx2_kernel(ggml_type type) noexcept {
    return integer_kernel<Avx2<Dot>>(type);
}

const AttentionKernel * avx2_attention() noexcept {
    return attention_of<Avx2<Dot>>();
}

const RowKernel * avx2_rows() noexcept {
    return rows_of<Avx2<Dot>>();
}

}  // namespace rim::kernels
