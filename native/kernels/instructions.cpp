// instructions.cpp: asks the compiler's run-time support, which reads cpuid and whether the system saves the wide registers.
#include "instructions.h"

namespace rim::kernels {

#if defined(RIM_KERNELS_X86)

bool has_avx2() noexcept {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx_vnni() noexcept {
    return has_avx2() && __builtin_cpu_supports("avxvnni");
}

bool has_avx512_vnni() noexcept {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

bool has_avx512_bf16() noexcept {
    return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}

#else

bool has_avx2() noexcept {
    return false;
}
bool has_avx_vnni() noexcept {
    return false;
}
bool has_avx512_vnni() noexcept {
    return false;
}
bool has_avx512_bf16() noexcept {
    return false;
}

#endif

}  // namespace rim::kernels
