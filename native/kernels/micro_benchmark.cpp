// micro_benchmark.cpp: the kernels alone, without ggml and the rest of the extension; see docs/kernels.md. One thread, processor time.
//
//     [RIM_EDGE_KERNELS=avx2] micro_benchmark [INNER [ROWS [TYPE...]]]
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string_view>
#include <vector>

#include "kernel.h"
#include "layout.h"

namespace {

using namespace rim::kernels;

const char * name_of(ggml_type type) {  // ggml itself is not linked
    switch (type) {
        case GGML_TYPE_Q4_0: return "Q4_0";
        case GGML_TYPE_Q4_1: return "Q4_1";
        case GGML_TYPE_Q5_0: return "Q5_0";
        case GGML_TYPE_Q5_1: return "Q5_1";
        case GGML_TYPE_Q8_0: return "Q8_0";
        case GGML_TYPE_Q4_K: return "Q4_K";
        case GGML_TYPE_Q5_K: return "Q5_K";
        case GGML_TYPE_Q6_K: return "Q6_K";
        case GGML_TYPE_IQ4_NL: return "IQ4_NL";
        default: return "BF16";
    }
}

double now() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Operations per second from registers alone, what the kernels in use can reach at best: 512-bit vpdpbusd, or 256-bit vpmaddubsw and the
// addition of its result.
__attribute__((target("avx512f,avx512vnni"))) double avx512_limit() {
    constexpr int n = 20000;  // short: some repetition is not interrupted
    __m512i sums[16];
    for (__m512i & sum : sums) {
        sum = _mm512_setzero_si512();
    }
    const __m512i factor = _mm512_set1_epi32(0x01020304);
    const double start = now();
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 16
        for (__m512i & sum : sums) {
            sum = _mm512_dpbusd_epi32(sum, factor, factor);
        }
    }
    const double seconds = now() - start;
    volatile int sink = 0;
    for (const __m512i & sum : sums) {
        sink = sink + _mm512_reduce_add_epi32(sum);
    }
    return 16.0 * n * 128 / seconds;
}

double avx2_limit() {
    constexpr int n = 20000;
    const double start = now();
    for (int i = 0; i < n; ++i) {
#define PRODUCT(sum) "vpmaddubsw %%ymm0, %%ymm0, %%ymm1\n vpaddw %%ymm1, %%ymm" #sum ", %%ymm" #sum "\n"
        asm volatile(PRODUCT(2) PRODUCT(3) PRODUCT(4) PRODUCT(5) PRODUCT(6) PRODUCT(7) PRODUCT(8) PRODUCT(9)::
                         : "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9");
#undef PRODUCT
    }
    return 8.0 * n * 64 / (now() - start);
}

struct Free {
    void operator()(void * memory) const { std::free(memory); }
};

// Memory in large pages, as that of a model's weights.
std::unique_ptr<uint8_t, Free> aligned(size_t size) {
    constexpr size_t page = 2 << 20;
    const size_t rounded = (size + page - 1) / page * page;
    auto * const memory = static_cast<uint8_t *>(std::aligned_alloc(page, rounded));
#if defined(MADV_HUGEPAGE)
    madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return std::unique_ptr<uint8_t, Free>(memory);
}

}  // namespace

int main(int count, char ** words) {
    const int64_t inner = count > 1 ? std::atoll(words[1]) : 2048;
    const int64_t rows = count > 2 ? std::atoll(words[2]) : 2048;
    const Kernel * const in_use = kernel_for(GGML_TYPE_Q4_0);
    const bool wide = in_use && std::strcmp(in_use->name, "AVX-512 VNNI") == 0;
    const auto peak = wide ? avx512_limit : avx2_limit;
    double limit = 0;
    for (int i = 0; i < 300; ++i) {
        limit = std::max(limit, peak());
    }
    std::printf("%lld rows of %lld values; %s from registers: %.0f GOP/s. GOP/s (share) by tokens:\n", static_cast<long long>(rows),
                static_cast<long long>(inner), wide ? "vpdpbusd" : "vpmaddubsw", limit * 1e-9);
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        const Kernel * const kernel = kernel_for(type);
        const auto is_named = [type](const char * word) { return name_of(type) == std::string_view(word); };
        const bool wanted = count <= 3 || std::any_of(words + 3, words + count, is_named);
        if (!kernel || !wanted || !fits(type, inner, rows)) {
            continue;
        }
        const size_t size = tile_bytes(*layout_of(type), inner) * static_cast<size_t>(rows / tile_rows);
        const auto weights = aligned(size);
        for (size_t b = 0; b < size; ++b) {  // scales stay ordinary numbers, and no weight is subnormal, which some processors take long for
            const auto byte = static_cast<uint8_t>((b * 2654435761u >> 13) & 0x3B);
            weights.get()[b] = type == GGML_TYPE_BF16 && b % 2 == 1 ? byte | 0x30 : byte;
        }
        std::printf("%-7s", name_of(type));
        for (const int64_t n : {1, 4, 8, 32, 74, 106, 512}) {
            std::vector<float> values(static_cast<size_t>(inner * n));
            for (size_t v = 0; v < values.size(); ++v) {
                values[v] = static_cast<float>(v * 40503u % 2001) - 1000.0f;
            }
            std::vector<float> out(static_cast<size_t>(rows * n));
            const auto work = aligned(kernel->prepared_bytes(inner, n));
            const Prepared prepared{work.get(), inner, n};
            for (int64_t token = 0; token < n; ++token) {
                kernel->prepare(values.data() + token * inner, token, 0, inner, prepared);
            }
            double best = 1e9;
            const double end = now() + 0.03;
            for (int round = 0; round < 2 || now() < end; ++round) {
                for (const bool told : {false, true}) {  // the better way of reading: foresight.h
                    const double start = now();
                    kernel->multiply(weights.get(), prepared, Part{0, rows / tile_rows, 0, n, told}, out.data(), static_cast<size_t>(rows));
                    best = std::min(best, now() - start);
                }
            }
            const double rate = 2.0 * static_cast<double>(inner * rows * n) / best;
            std::printf("  %lld: %4.0f (%2.0f %%, %3.0f GB/s)", static_cast<long long>(n), rate * 1e-9, 100 * rate / limit,
                        static_cast<double>(size) / best * 1e-9);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    return 0;
}
