// kernel.cpp: which kernel runs for a type: the best instruction set of this processor, or the one that the environment names.
#include "kernel.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "attention.h"
#include "instructions.h"
#include "rows.h"

namespace rim::kernels {

namespace {

using Find = const Kernel * (*)(ggml_type) noexcept;

struct Level {
    const char * name;  // as RIM_EDGE_KERNELS names it
    bool (*present)() noexcept;
    Find find;
    const AttentionKernel * (*attention)() noexcept;
    const RowKernel * (*rows)() noexcept;
    bool unasked;  // whether it is used without being named
};

#if defined(RIM_KERNELS_X86)
// A level's kernels: of quants, and of BF16.
template <Find integers, Find bf16>
const Kernel * both(ggml_type type) noexcept {
    return type == GGML_TYPE_BF16 ? bf16(type) : integers(type);
}

const Kernel * wide_bf16_kernel(ggml_type type) noexcept {
    return has_avx512_bf16() ? avx512_bf16_kernel(type) : avx2_bf16_kernel(type);
}

constexpr Level levels[] = {  // the best first
    {"amx", has_amx_bf16, both<avx512_vnni_kernel, amx_bf16_kernel>, avx512_attention, avx512_rows, true},
    {"avx512", has_avx512_vnni, both<avx512_vnni_kernel, wide_bf16_kernel>, avx512_attention, avx512_rows, true},
    {"avx-vnni", has_avx_vnni, both<avx_vnni_kernel, avx2_bf16_kernel>, avx2_attention, avx2_rows, true},
    {"avx2", has_avx2, both<avx2_kernel, avx2_bf16_kernel>, avx2_attention, avx2_rows, true},
};
#elif defined(RIM_KERNELS_NEON)
#if defined(__APPLE__)
constexpr bool unasked = false;  // not measured beside Accelerate
#else
constexpr bool unasked = true;
#endif
constexpr Level levels[] = {
    {"i8mm", has_neon_i8mm, neon_i8mm_kernel, neon_attention, neon_rows, unasked},
    {"neon", has_neon_dot, neon_kernel, neon_attention, neon_rows, unasked},
};
#else
constexpr Level levels[] = {{"none", [] () noexcept { return false; }, nullptr, nullptr, nullptr, false}};
#endif

struct Choice {
    const Level * level = nullptr;
    std::string why_none;
    // Asked once: a level may ask the processor, and a virtual machine answers cpuid in tens of microseconds.
    std::array<const Kernel *, GGML_TYPE_COUNT> kernels{};

    Choice(const Level * level, std::string why_none) : level(level), why_none(std::move(why_none)) {
        for (int type = 0; level && type < GGML_TYPE_COUNT; ++type) {
            kernels[static_cast<size_t>(type)] = level->find(static_cast<ggml_type>(type));
        }
    }
};

Choice choose() {
    const char * const wish = std::getenv("RIM_EDGE_KERNELS");
    const bool any = !wish || *wish == '\0';
    if (are_forbidden()) {
        return {nullptr, "RIM_EDGE_KERNELS=0 is set"};
    }
    std::string names;
    for (const Level & level : levels) {
        if (any ? level.unasked : strcmp(wish, level.name) == 0) {
            if (level.present()) {
                return {&level, ""};
            }
            if (!any) {
                return {nullptr, std::string("RIM_EDGE_KERNELS=") + wish + ": this processor or this build lacks these instructions"};
            }
        }
        names += std::string(", ") + level.name;
    }
    if (any) {
        return {nullptr, "this processor or this build has none of the instruction sets that they are made for"};
    }
    return {nullptr, std::string("RIM_EDGE_KERNELS=") + wish + " is none of 0" + names};
}

const Choice & choice() {
    static const Choice made = choose();
    return made;
}

}  // namespace

bool are_forbidden() noexcept {
    const char * const wish = std::getenv("RIM_EDGE_KERNELS");
    return wish && strcmp(wish, "0") == 0;
}

const Kernel * kernel_for(ggml_type type) noexcept {
    return choice().kernels[static_cast<size_t>(type)];
}

const AttentionKernel * attention_kernel() noexcept {
    return choice().level ? choice().level->attention() : nullptr;
}

const RowKernel * row_kernel() noexcept {
    return choice().level ? choice().level->rows() : nullptr;
}

std::string why_none() {
    return choice().why_none;
}

}  // namespace rim::kernels
