// kernel.cpp: which kernel this processor runs for a type.
#include "kernel.h"

#include "instructions.h"

namespace rim::kernels {

const Kernel * kernel_for([[maybe_unused]] ggml_type type) noexcept {
#if defined(RIM_KERNELS_AVX512)
    static const bool vnni = has_avx512_vnni();
    static const bool bf16 = has_avx512_bf16();
    if (type == GGML_TYPE_BF16) {
        return bf16 ? avx512_bf16_kernel(type) : nullptr;
    }
    return vnni ? avx512_vnni_kernel(type) : nullptr;
#else
    return nullptr;
#endif
}

}  // namespace rim::kernels
