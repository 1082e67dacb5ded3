// avx512_bf16.cpp: BF16 weights with AVX-512 BF16, which adds two products at once. Compiled with these instructions; entered only where
// the processor has them.
#include <immintrin.h>

#include "bf16_kernels.h"

namespace rim::kernels {

namespace {

struct Avx512Bf16 {
    using Floats = __m512;
    using Weights = __m512bh;
    using Value = __m512bh;

    static constexpr const char * name = "AVX-512 BF16";
    static constexpr size_t value_bytes = 2;
    static constexpr int panel_tiles = 2, panel_tokens = 8;
    static constexpr int64_t panel_pairs = 256;  // with 2 tiles 32 KiB
    static constexpr int few_tokens_once = 8;
    static constexpr size_t fetch_ahead = 0, fetch_ahead_more = 10240;
    static constexpr int n_halves = 1;

    static void prepare(const float * values, uint8_t * to) {
        const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + 16), _mm512_loadu_ps(values));
        memcpy(to, &both, sizeof both);
    }
    static __m512bh load(const uint8_t * bytes, int) { return pairs(_mm512_loadu_si512(bytes)); }
    static __m512bh broadcast(const uint8_t * pair, int) {
        int32_t word;
        memcpy(&word, pair, sizeof word);
        return pairs(_mm512_set1_epi32(word));
    }
    static Floats add(Floats sum, __m512bh w, __m512bh a) { return _mm512_dpbf16_ps(sum, w, a); }
    static Floats zero() { return _mm512_setzero_ps(); }
    static Floats load(const float * from) { return _mm512_loadu_ps(from); }
    static void store(float * to, Floats sum) { _mm512_storeu_ps(to, sum); }

  private:
    static __m512bh pairs(__m512i bits) {
        __m512bh both;
        memcpy(&both, &bits, sizeof both);
        return both;
    }
};

}  // namespace

const Kernel * avx512_bf16_kernel(ggml_type type) noexcept {
    return type == GGML_TYPE_BF16 ? bf16_kernel<Avx512Bf16>() : nullptr;
}

}  // namespace rim::kernels
