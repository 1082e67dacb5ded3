// bf16_kernels.h: products of BF16 weights by float multiply-adds, in the words of an instruction set (Isa). Included by one file per
// instruction set, compiled with its instructions and entered only where the processor has them.
//
// Activations are rounded to BF16 (as libllama does); products are added to float sums in the order of k for every value. Instruction sets
// add them singly or in pairs, and so give slightly different sums.
//
// An Isa gives: name; value_bytes (of a prepared activation); panel_tiles x panel_tokens sums in registers; panel_pairs (pairs of values of
// a weight that stay in L1 from token to token); few_tokens_once (tokens that read every weight once); fetch_ahead, fetch_ahead_more (bytes,
// for a single token and for more); n_halves (1: the two values of a pair are multiplied together, 2: one after the other); and
//   prepare(values, to): 32 activations;
//   load(bytes, half), broadcast(pair, half): 16 rows' weights, and a token's activation for all of them;
//   add(sum, w, a); zero(), load(floats), store(floats, sum): of 16 sums.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernel.h"
#include "layout.h"

namespace rim::kernels {

namespace {

template <class Isa>
size_t bf16_prepared_bytes(int64_t inner, int64_t n_tokens) {
    return static_cast<size_t>(inner * n_tokens) * Isa::value_bytes;
}

template <class Isa>
void bf16_prepare(const float * values, int64_t token, int64_t first, int64_t end, const Prepared & prepared) {
    uint8_t * const to = prepared.bytes + static_cast<size_t>(token * prepared.inner) * Isa::value_bytes;
    for (int64_t k = first; k < end; k += block_values) {
        Isa::prepare(values + k, to + static_cast<size_t>(k) * Isa::value_bytes);
    }
}

template <class Isa, int R, int T>
void bf16_sum(const uint8_t * tiles, size_t tile_size, const uint8_t * tokens, size_t token_size, int64_t first, int64_t end,
              const Sums & at) {
    constexpr size_t pair_bytes = 2 * Isa::value_bytes;
    constexpr size_t ahead = T == 1 ? Isa::fetch_ahead : Isa::fetch_ahead_more;
    typename Isa::Floats sums[R][T];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            sums[r][t] = at.before == nullptr ? Isa::zero() : Isa::load(at.before + t * at.before_stride + r * tile_rows);
        }
    }
    for (int64_t pair = first; pair < end; ++pair) {
        if constexpr (ahead > 0) {
            for (int r = 0; r < R; ++r) {
                __builtin_prefetch(tiles + static_cast<size_t>(r) * tile_size + pair * 64 + ahead, 0, 0);
            }
        }
#pragma GCC unroll 2
        for (int half = 0; half < Isa::n_halves; ++half) {
            typename Isa::Weights w[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                w[r] = Isa::load(tiles + static_cast<size_t>(r) * tile_size + pair * 64, half);
            }
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const uint8_t * const values = tokens + static_cast<size_t>(t) * token_size + static_cast<size_t>(pair) * pair_bytes;
                const typename Isa::Value a = Isa::broadcast(values, half);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    sums[r][t] = Isa::add(sums[r][t], w[r], a);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            Isa::store(at.after + t * at.after_stride + r * tile_rows, sums[r][t]);
        }
    }
}

// The same for n tokens, at most T.
template <class Isa, int R, int T>
void bf16_tokens(int64_t n, const uint8_t * tiles, size_t tile_size, const uint8_t * tokens, size_t token_size, int64_t first, int64_t end,
                 const Sums & at) {
    if constexpr (T > 1) {
        if (n < T) {
            return bf16_tokens<Isa, R, T - 1>(n, tiles, tile_size, tokens, token_size, first, end, at);
        }
    }
    bf16_sum<Isa, R, T>(tiles, tile_size, tokens, token_size, first, end, at);
}

// At most tokens_near tokens, P at once.
template <class Isa, int R, int P>
void bf16_tiles(const uint8_t * tiles, size_t tile_size, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    constexpr size_t near_stride = R * tile_rows;
    alignas(64) float near[tokens_near * near_stride];
    const size_t token_size = static_cast<size_t>(prepared.inner) * Isa::value_bytes;
    const int64_t n_pairs = prepared.inner / 2;
    const int64_t step = part.end_token - part.first_token <= P ? n_pairs : Isa::panel_pairs;
    for (int64_t first = 0; first < n_pairs; first += step) {
        const int64_t end = std::min(first + step, n_pairs);
        // The next weights come nearer meanwhile, a part with every group of tokens.
        const uint8_t * const next = end < n_pairs ? tiles + end * 64 : tiles + R * tile_size;
        const int64_t share = step * P / (part.end_token - part.first_token) + 1;
        int64_t fetched = part.end_token - part.first_token < 24 ? step : 0;  // few tokens leave no time for it
        for (int64_t token = part.first_token; token < part.end_token; token += P) {
            const uint8_t * const from = prepared.bytes + static_cast<size_t>(token) * token_size;
            float * const sums = near + static_cast<size_t>(token - part.first_token) * near_stride;
            const bool last = end == n_pairs;
            const Sums at{first == 0 ? nullptr : sums, near_stride, last ? out + token * out_stride : sums,
                          last ? out_stride : near_stride};
            for (const int64_t until = std::min(fetched + share, step); fetched < until; ++fetched) {
                for (int r = 0; r < R; ++r) {
                    __builtin_prefetch(next + static_cast<size_t>(r) * tile_size + fetched * 64, 0, 0);
                }
            }
            bf16_tokens<Isa, R, P>(std::min<int64_t>(P, part.end_token - token), tiles, tile_size, from, token_size, first, end, at);
        }
    }
}

template <class Isa, int R, int P>
void bf16_all(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    const size_t tile_size = tile_bytes(*layout_of(GGML_TYPE_BF16), prepared.inner);
    int64_t tile = part.first_tile;
    for (; tile + R <= part.end_tile; tile += R) {
        for (int64_t token = part.first_token; token < part.end_token; token += tokens_near) {
            const Part near{tile, tile, token, std::min(token + tokens_near, part.end_token)};
            bf16_tiles<Isa, R, P>(tiles + static_cast<size_t>(tile) * tile_size, tile_size, prepared, near, out + tile * tile_rows,
                                  out_stride);
        }
    }
    if constexpr (R > 1) {
        bf16_all<Isa, R / 2, P>(tiles, prepared, {tile, part.end_tile, part.first_token, part.end_token}, out, out_stride);
    }
}

template <class Isa>
void bf16_multiply(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    // Sums of a single token wait for each other in one tile; of several tokens do not, and one tile is best read, as one run of memory.
    const int64_t n_tokens = part.end_token - part.first_token;
    const auto all = n_tokens == 1                     ? &bf16_all<Isa, 4, 1>
                     : n_tokens <= Isa::few_tokens_once ? &bf16_all<Isa, 1, Isa::few_tokens_once>
                                                        : &bf16_all<Isa, Isa::panel_tiles, Isa::panel_tokens>;
    all(tiles, prepared, part, out, out_stride);
}

template <class Isa>
const Kernel * bf16_kernel() {
    static constexpr Kernel kernel{Isa::name, &bf16_prepared_bytes<Isa>, &bf16_prepare<Isa>, &bf16_multiply<Isa>,
                                   false,     false,                     few_tokens,         Isa::panel_tokens};
    return &kernel;
}

}  // namespace

}  // namespace rim::kernels
