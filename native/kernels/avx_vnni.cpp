// avx_vnni.cpp: quantized weights with VNNI in its 256-bit form (Intel Core from the 12th generation, Zen 5). Compiled with these
// instructions; entered only where the processor has them.
#include "avx2.h"

namespace rim::kernels {

namespace {

struct Dot {
    static constexpr const char * name = "AVX-VNNI";
    static constexpr bool signed_quants = false;

    template <Range>
    static constexpr int run = 8;

    template <Range>
    struct Sum {
        Pair sum;
        Sum() = default;
        RIM_INLINE explicit Sum(Pair start) : sum(start) {}
        RIM_INLINE void add(Pair w, Pair four) {
            sum.low = _mm256_dpbusd_avx_epi32(sum.low, w.low, four.low);
            sum.high = _mm256_dpbusd_avx_epi32(sum.high, w.high, four.high);
        }
        RIM_INLINE Pair total(Pair) const { return sum; }
    };
};

}  // namespace

const Kernel * avx_vnni_kernel(ggml_type type) noexcept {
    return integer_kernel<Avx2<Dot>>(type);
}

}  // namespace rim::kernels
