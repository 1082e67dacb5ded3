// avx2_bf16.cpp: BF16 weights with AVX2 and FMA. Compiled with these instructions; entered only where the processor has them.
//
// A BF16 number is the upper half of a float: the second value of a pair is the word without its lower half, the first one the lower half
// moved up.
#include <immintrin.h>

#include "bf16_kernels.h"

namespace rim::kernels {

namespace {

struct Avx2Bf16 {
    struct Floats {  // 16 rows
        __m256 low, high;
    };
    using Weights = Floats;
    using Value = __m256;

    static constexpr const char * name = "AVX2";
    static constexpr size_t value_bytes = 4;
    static constexpr int panel_tiles = 1, panel_tokens = 5;  // 10 sums; with 12, gcc keeps some in memory
    static constexpr int64_t panel_pairs = 128;             // 8 KiB
    static constexpr int few_tokens_once = 1;
    static constexpr size_t fetch_ahead = 1024, fetch_ahead_more = 4096;
    static constexpr int n_halves = 2;

    static void prepare(const float * values, uint8_t * to) {
        for (int64_t i = 0; i < block_values; i += 8) {
            _mm256_storeu_ps(reinterpret_cast<float *>(to) + i, rounded(_mm256_loadu_ps(values + i)));
        }
    }
    static Weights load(const uint8_t * bytes, int half) { return {value(bytes, half), value(bytes + 32, half)}; }
    static Value broadcast(const uint8_t * pair, int half) { return _mm256_broadcast_ss(reinterpret_cast<const float *>(pair) + half); }
    static Floats add(Floats sum, Weights w, Value a) {
        return {_mm256_fmadd_ps(w.low, a, sum.low), _mm256_fmadd_ps(w.high, a, sum.high)};
    }
    static Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static Floats load(const float * from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
    static void store(float * to, Floats sum) {
        _mm256_storeu_ps(to, sum.low);
        _mm256_storeu_ps(to + 8, sum.high);
    }

  private:
    static __m256 value(const uint8_t * bytes, int half) {
        const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(bytes));
        return _mm256_castsi256_ps(half == 0 ? _mm256_slli_epi32(words, 16) : _mm256_and_si256(words, upper_half()));
    }
    // To the nearest BF16 number, the even one of two; what is not a number stays so.
    static __m256 rounded(__m256 values) {
        const __m256i bits = _mm256_castps_si256(values);
        const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7FFF)));
        const __m256 number = _mm256_castsi256_ps(_mm256_and_si256(up, upper_half()));
        return _mm256_blendv_ps(number, values, _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
    }
    static __m256i upper_half() { return _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000u)); }
};

}  // namespace

const Kernel * avx2_bf16_kernel(ggml_type type) noexcept {
    return type == GGML_TYPE_BF16 ? bf16_kernel<Avx2Bf16>() : nullptr;
}

}  // namespace rim::kernels
