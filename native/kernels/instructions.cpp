// instructions.cpp: asks the compiler's run-time support, which reads cpuid and whether the system saves the wide registers; and cpuid itself
// for what clang's support has no name for (before version 16).
#include "instructions.h"

#if defined(RIM_KERNELS_X86)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#if defined(RIM_KERNELS_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(RIM_KERNELS_NEON) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace rim::kernels {

#if defined(RIM_KERNELS_X86)

namespace {

struct Cpuid {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    Cpuid(unsigned leaf, unsigned part) noexcept { __get_cpuid_count(leaf, part, &eax, &ebx, &ecx, &edx); }
};

constexpr bool bit(unsigned word, int number) noexcept {
    return (word >> number & 1) != 0;
}

// Linux gives a process its tiles' memory when it asks for it.
bool may_use_tiles() noexcept {
#if defined(__linux__) && defined(__x86_64__)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace

bool has_avx2() noexcept {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && bit(Cpuid(1, 0).ecx, 29);  // F16C
}

bool has_avx_vnni() noexcept {
    return has_avx2() && bit(Cpuid(7, 1).eax, 4);
}

bool has_avx512_vnni() noexcept {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

bool has_avx512_bf16() noexcept {
    return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}

bool has_amx_bf16() noexcept {
    const unsigned features = Cpuid(7, 0).edx;
    return has_avx512_bf16() && bit(features, 22) && bit(features, 24) && may_use_tiles();  // BF16 in tiles, tiles
}

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

bool has_neon_i8mm() noexcept {
    constexpr unsigned long i8mm = 1ul << 13;  // HWCAP2_I8MM, which older systems' headers lack
    return has_neon_dot() && (getauxval(AT_HWCAP2) & i8mm);
}

#elif defined(RIM_KERNELS_NEON) && defined(__APPLE__)

bool has_neon_dot() noexcept {
    return true;  // every Apple processor that runs macOS on ARM
}

bool has_neon_i8mm() noexcept {
    int present = 0;
    size_t size = sizeof present;
    return sysctlbyname("hw.optional.arm.FEAT_I8MM", &present, &size, nullptr, 0) == 0 && present != 0;
}

#else

bool has_neon_dot() noexcept {
    return false;
}

bool has_neon_i8mm() noexcept {
    return false;
}

#endif

}  // namespace rim::kernels
