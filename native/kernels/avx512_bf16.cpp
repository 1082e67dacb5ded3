// avx512_bf16.cpp: products of BF16 weights with AVX-512 BF16. Compiled with these instructions; entered only where the processor has them.
//
// Activations are rounded to BF16 (as libllama does), pairs of products are added to float sums, in the order of k for every value.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernel.h"
#include "layout.h"

namespace rim::kernels {

namespace {

constexpr int panel_tiles = 4;
constexpr int panel_tokens = 6;
constexpr int64_t panel_pairs = 64;  // with 4 tiles 16 KiB of weights, which stay in L1 from token to token

size_t prepared_bytes(int64_t inner, int64_t n_tokens) {
    return static_cast<size_t>(inner * n_tokens) * 2;
}

void prepare(const float * values, int64_t token, int64_t first, int64_t end, const Prepared & prepared) {
    uint8_t * const to = prepared.bytes + static_cast<size_t>(token * prepared.inner) * 2;
    for (int64_t k = first; k < end; k += block_values) {
        const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + k + 16), _mm512_loadu_ps(values + k));
        memcpy(to + k * 2, &both, sizeof both);
    }
}

inline __m512bh load(const uint8_t * bytes) {
    const __m512i bits = _mm512_loadu_si512(bytes);
    __m512bh pairs;
    memcpy(&pairs, &bits, sizeof pairs);
    return pairs;
}

inline __m512bh broadcast(const uint8_t * pair) {
    int32_t word;
    memcpy(&word, pair, sizeof word);
    const __m512i bits = _mm512_set1_epi32(word);
    __m512bh pairs;
    memcpy(&pairs, &bits, sizeof pairs);
    return pairs;
}

template <int R, int T>
void sum(const uint8_t * tiles, size_t tile_size, const uint8_t * tokens, size_t token_size, int64_t first, int64_t end, const Sums & at) {
    __m512 sums[R][T];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            sums[r][t] = at.before == nullptr ? _mm512_setzero_ps() : _mm512_loadu_ps(at.before + t * at.before_stride + r * tile_rows);
        }
    }
    for (int64_t pair = first; pair < end; ++pair) {
        __m512bh w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            w[r] = load(tiles + static_cast<size_t>(r) * tile_size + pair * 64);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const __m512bh a = broadcast(tokens + static_cast<size_t>(t) * token_size + pair * 4);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                sums[r][t] = _mm512_dpbf16_ps(sums[r][t], w[r], a);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            _mm512_storeu_ps(at.after + t * at.after_stride + r * tile_rows, sums[r][t]);
        }
    }
}

// At most tokens_near tokens.
template <int R>
void tiles_of(const uint8_t * tiles, size_t tile_size, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    constexpr size_t near_stride = R * tile_rows;
    alignas(64) float near[tokens_near * near_stride];
    const size_t token_size = static_cast<size_t>(prepared.inner) * 2;
    const int64_t n_pairs = prepared.inner / 2;
    const int64_t step = part.end_token - part.first_token <= panel_tokens ? n_pairs : panel_pairs;
    for (int64_t first = 0; first < n_pairs; first += step) {
        const int64_t end = std::min(first + step, n_pairs);
        // The next weights come nearer meanwhile, a part with every group of tokens.
        const uint8_t * const next = end < n_pairs ? tiles + end * 64 : tiles + R * tile_size;
        const int64_t share = step * panel_tokens / (part.end_token - part.first_token) + 1;
        int64_t fetched = part.end_token - part.first_token < 24 ? step : 0;  // few tokens leave no time for it
        for (int64_t token = part.first_token; token < part.end_token; token += panel_tokens) {
            const uint8_t * const from = prepared.bytes + static_cast<size_t>(token) * token_size;
            float * const sums = near + static_cast<size_t>(token - part.first_token) * near_stride;
            const bool last = end == n_pairs;
            const Sums at{first == 0 ? nullptr : sums, near_stride, last ? out + token * out_stride : sums, last ? out_stride : near_stride};
            for (const int64_t until = std::min(fetched + share, step); fetched < until; ++fetched) {
                for (int r = 0; r < R; ++r) {
                    _mm_prefetch(reinterpret_cast<const char *>(next + static_cast<size_t>(r) * tile_size + fetched * 64), _MM_HINT_T1);
                }
            }
            switch (std::min<int64_t>(panel_tokens, part.end_token - token)) {
                case 1: sum<R, 1>(tiles, tile_size, from, token_size, first, end, at); break;
                case 2: sum<R, 2>(tiles, tile_size, from, token_size, first, end, at); break;
                case 3: sum<R, 3>(tiles, tile_size, from, token_size, first, end, at); break;
                case 4: sum<R, 4>(tiles, tile_size, from, token_size, first, end, at); break;
                case 5: sum<R, 5>(tiles, tile_size, from, token_size, first, end, at); break;
                default: sum<R, panel_tokens>(tiles, tile_size, from, token_size, first, end, at); break;
            }
        }
    }
}

void multiply(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    const size_t tile_size = tile_bytes(*layout_of(GGML_TYPE_BF16), prepared.inner);
    for (int64_t tile = part.first_tile; tile < part.end_tile;) {
        const uint8_t * const bytes = tiles + static_cast<size_t>(tile) * tile_size;
        const int64_t left = part.end_tile - tile;
        // One token reads every weight once: best as one run of memory.
        const int64_t n = part.end_token - part.first_token == 1 ? 1 : left >= panel_tiles ? panel_tiles : left >= 2 ? 2 : 1;
        const auto of = n == panel_tiles ? &tiles_of<panel_tiles> : n == 2 ? &tiles_of<2> : &tiles_of<1>;
        for (int64_t token = part.first_token; token < part.end_token; token += tokens_near) {
            const Part near{tile, tile, token, std::min(token + tokens_near, part.end_token)};
            of(bytes, tile_size, prepared, near, out + tile * tile_rows, out_stride);
        }
        tile += n;
    }
}

}  // namespace

const Kernel * avx512_bf16_kernel(ggml_type type) noexcept {
    static constexpr Kernel kernel{"AVX-512 BF16", &prepared_bytes, &prepare, &multiply, panel_tokens};
    return type == GGML_TYPE_BF16 ? &kernel : nullptr;
}

}  // namespace rim::kernels
