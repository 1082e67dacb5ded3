// bf16_kernels.h: products of BF16 weights by float multiply-adds, in the words of an instruction set (Isa). Included by one file per
// instruction set, compiled with its instructions and entered only where the processor has them.
//
// Activations are rounded to BF16 (as libllama does); products are added to float sums in the order of k for every value. Instruction sets
// add them singly or in pairs, and so give slightly different sums.
//
// An Isa gives: name; value_bytes (of a prepared activation); panel_tiles x panel_tokens sums in registers; panel_pairs (pairs of values of
// a weight that stay in L1 from token to token); tiles_of_one (tiles that are multiplied by a single token at once); fetch_ahead (bytes,
// for a single token; four times as many for more); n_halves (1: the two values of a pair are multiplied together, 2: one after the
// other); and
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
    constexpr size_t ahead = T == 1 ? Isa::fetch_ahead : 4 * Isa::fetch_ahead;
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
                __builtin_prefetch(tiles + static_cast<size_t>(r) * tile_size + pair * 64 + ahead, 0, 1);
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

// At most tokens_near tokens.
template <class Isa, int R>
void bf16_tiles(const uint8_t * tiles, size_t tile_size, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    constexpr size_t near_stride = R * tile_rows;
    alignas(64) float near[tokens_near * near_stride];
    const size_t token_size = static_cast<size_t>(prepared.inner) * Isa::value_bytes;
    constexpr int panel_tokens = Isa::panel_tokens;
    const int64_t n_pairs = prepared.inner / 2;
    const int64_t step = part.end_token - part.first_token <= panel_tokens ? n_pairs : Isa::panel_pairs;
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
            const Sums at{first == 0 ? nullptr : sums, near_stride, last ? out + token * out_stride : sums,
                          last ? out_stride : near_stride};
            for (const int64_t until = std::min(fetched + share, step); fetched < until; ++fetched) {
                for (int r = 0; r < R; ++r) {
                    __builtin_prefetch(next + static_cast<size_t>(r) * tile_size + fetched * 64, 0, 2);
                }
            }
            switch (std::min<int64_t>(panel_tokens, part.end_token - token)) {
                case 1: bf16_sum<Isa, R, 1>(tiles, tile_size, from, token_size, first, end, at); break;
                case 2: bf16_sum<Isa, R, 2>(tiles, tile_size, from, token_size, first, end, at); break;
                case 3: bf16_sum<Isa, R, 3>(tiles, tile_size, from, token_size, first, end, at); break;
                case 4: bf16_sum<Isa, R, 4>(tiles, tile_size, from, token_size, first, end, at); break;
                case 5: bf16_sum<Isa, R, 5>(tiles, tile_size, from, token_size, first, end, at); break;
                default: bf16_sum<Isa, R, panel_tokens>(tiles, tile_size, from, token_size, first, end, at); break;
            }
        }
    }
}

template <class Isa>
void bf16_multiply(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    const size_t tile_size = tile_bytes(*layout_of(GGML_TYPE_BF16), prepared.inner);
    const int64_t at_once = part.end_token - part.first_token == 1 ? Isa::tiles_of_one : Isa::panel_tiles;
    for (int64_t tile = part.first_tile; tile < part.end_tile;) {
        const uint8_t * const bytes = tiles + static_cast<size_t>(tile) * tile_size;
        const int64_t left = std::min(at_once, part.end_tile - tile);
        const int64_t n = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const auto of = n == 4 ? &bf16_tiles<Isa, 4> : n == 2 ? &bf16_tiles<Isa, 2> : &bf16_tiles<Isa, 1>;
        for (int64_t token = part.first_token; token < part.end_token; token += tokens_near) {
            const Part near{tile, tile, token, std::min(token + tokens_near, part.end_token)};
            of(bytes, tile_size, prepared, near, out + tile * tile_rows, out_stride);
        }
        tile += n;
    }
}

template <class Isa>
const Kernel * bf16_kernel() {
    static constexpr Kernel kernel{Isa::name, &bf16_prepared_bytes<Isa>, &bf16_prepare<Isa>, &bf16_multiply<Isa>, false, Isa::panel_tokens};
    return &kernel;
}

}  // namespace

}  // namespace rim::kernels
