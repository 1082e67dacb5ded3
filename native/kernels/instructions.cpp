// instructions.cpp: asks the compiler's run-time support, which reads cpuid and whether the system saves the wide registers.
#include "instructions.h"

#if defined(RIM_KERNELS_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(RIM_KERNELS_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

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

#if defined(__linux__) && defined(__x86_64__)

namespace {

// Linux gives a process its tiles' memory when it asks for it.
bool may_use_tiles() noexcept {
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

bool has_amx_bf16() noexcept {
    constexpr unsigned bf16 = 1u << 22, tiles = 1u << 24, needed = bf16 | tiles;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return has_avx512_bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & needed) == needed && may_use_tiles();
}

#else

bool has_amx_bf16() noexcept {
    return false;
}

#endif

#else

bool has_amx_bf16() noexcept {
    return false;
}
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

#if defined(RIM_KERNELS_NEON) && defined(__linux__)
bool has_neon_dot() noexcept {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}
#elif defined(RIM_KERNELS_NEON) && defined(__APPLE__)
bool has_neon_dot() noexcept {
    return true;  // every Apple processor that runs macOS on ARM
}
#else
bool has_neon_dot() noexcept {
    return false;
}
#endif

}  // namespace rim::kernels
