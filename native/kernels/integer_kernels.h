// integer_kernels.h: products of quantized weights with byte multiplications, in the words of an instruction set (Isa: integer_types.h).
// Included by one file per instruction set, compiled with its instructions and entered only where the processor has them.
//
// Activations become signed bytes with one scale per 32 values. Of each block of 32 the products are summed exactly in int32, then scaled
// and added in float: sum += (d_w * integer sum) * d_a, and m_w * (d_a * sum of the quants) for types with minima. Both ways below do the
// same operations on a value in the same order, on every instruction set: all give the same bits.
//
// - Few tokens: weights go from memory through registers once, tile by tile, one run of memory; where they are more than a tile meets in
//   registers at once, from the first cache for the others. Bound by memory.
// - More: 4 tiles x 256 values of weights are widened to bytes in L1, then some tiles x some tokens are summed in registers: each broadcast
//   serves several tiles.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstring>

#include "integer_types.h"
#include "kernel.h"
#include "layout.h"

namespace rim::kernels {

namespace {

constexpr int groups = 8;  // of 4 values in a block
constexpr int64_t panel_blocks = long_segment;  // 256 values: whole segments
constexpr int panel_tiles = 4;

// ---- activations: all quants, then a scale per token and block, then n_scales corrections per token and block

// How many of a few tokens, which one tile meets in registers together, stand side by side, block by block; of many tokens each alone.
constexpr int64_t beside(int64_t n_few) {
    return n_few == 1 ? 1 : tokens_beside;
}

template <class Isa, class Type>
struct Activations {
    uint8_t * bytes;
    int64_t n_blocks;
    int64_t n_tokens;
    int64_t n_beside;

    explicit Activations(const Prepared & prepared)
        : bytes(prepared.bytes), n_blocks(prepared.inner / block_values), n_tokens(prepared.n_tokens),
          n_beside(are_few() ? beside(n_tokens) : 1) {}

    bool are_few() const { return n_tokens <= Isa::most_few; }
    size_t n_places() const { return static_cast<size_t>((n_tokens + n_beside - 1) / n_beside * n_beside * n_blocks); }
    size_t quant_bytes() const { return (n_places() * block_values + 63) / 64 * 64; }
    size_t n_bytes() const { return quant_bytes() + n_places() * 4 * (1 + Type::n_scales); }

    // The first of n numbers of a token and block; n_beside further on the next.
    int64_t place(int64_t token, int64_t block, int64_t n) const {
        return n_beside == 1 ? (token * n_blocks + block) * n
                             : (token / tokens_beside * n_blocks + block) * tokens_beside * n + token % tokens_beside;
    }
    int8_t * quants(int64_t token, int64_t block) const {
        return reinterpret_cast<int8_t *>(bytes) + place(token, block, 1) * block_values;
    }
    float * scale(int64_t token, int64_t block) const {
        return reinterpret_cast<float *>(bytes + quant_bytes()) + place(token, block, 1);
    }
    // -offset * sum of the quants (of each of two halves, where there are two scales), or the float d_a * sum for types with minima.
    int32_t * correction(int64_t token, int64_t block) const {
        return reinterpret_cast<int32_t *>(bytes + quant_bytes() + n_places() * 4) + place(token, block, Type::n_scales);
    }
};

template <class Isa, class Type>
size_t prepared_bytes(int64_t inner, int64_t n_tokens) {
    return Activations<Isa, Type>(Prepared{nullptr, inner, n_tokens}).n_bytes();
}

template <class Isa, class Type>
void prepare(const float * values, int64_t token, int64_t first, int64_t end, const Prepared & prepared) {
    const Activations<Isa, Type> to(prepared);
    for (int64_t k = first; k < end; k += block_values) {
        const int64_t block = k / block_values;
        float scale;
        int32_t sums[2];  // of the quants, of each half
        Isa::quantize(values + k, to.quants(token, block), scale, sums);
        *to.scale(token, block) = scale;
        int32_t * const correction = to.correction(token, block);
        if constexpr (Type::n_scales == 2) {
            correction[0] = -Type::offset * sums[0];
            correction[to.n_beside] = -Type::offset * sums[1];
        } else if constexpr (Type::has_min) {
            const float scaled = scale * static_cast<float>(sums[0] + sums[1]);
            memcpy(correction, &scaled, sizeof scaled);
        } else {
            *correction = -Type::offset * (sums[0] + sums[1]);
        }
    }
}

RIM_INLINE float float_of(const int32_t * bits) {
    float value;
    memcpy(&value, bits, sizeof value);
    return value;
}

// Whether quants are bytes in memory, too.
template <class Type>
constexpr bool in_place = Type::quant_bytes == byte_quants;

template <class Type>
constexpr Layout layout_for{Type::quant_bytes, Type::scale_bytes, Type::scale_values, Type::head_bytes};

// ---- few tokens

// The same in the next four tokens. Hidden from the compiler that these are a fixed step away: gcc would keep an index for every token and
// value in memory, and load it before each product.
template <class Value>
RIM_INLINE void next_four(const Value *& at, int64_t step) {
    at += step;
    asm("" : "+r"(at));
}

template <class Isa, class Type, int T, class Ahead>
__attribute__((noinline)) void few(const uint8_t * tile, const Activations<Isa, Type> & in, int64_t first_token, float * out, size_t out_stride) {
    constexpr Layout layout = layout_for<Type>;
    constexpr size_t bytes_a_block = layout.segment_bytes(layout.segment_blocks()) / layout.segment_blocks();
    constexpr size_t ahead = T > 2 ? Ahead::more : Ahead::two;
    typename Isa::Floats sums[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        sums[t] = Isa::floats(0.0f);
    }
    constexpr int n_beside = beside(T);
    const int64_t four = in.n_blocks * n_beside;  // from one to the next
    const int8_t * a = in.quants(first_token, 0);
    const float * scale = in.scale(first_token, 0);
    const int32_t * correction = in.correction(first_token, 0);
    const uint8_t * const head = tile;
    if constexpr (Type::head_bytes > 0) {
        tile += layout.head(in.n_blocks);
        for (const uint8_t * line = head; ahead > 0 && line < tile; line += 64) {
            __builtin_prefetch(line + ahead, 0, Ahead::level);
        }
    }
    for (int64_t first = 0; first < in.n_blocks; first += layout.segment_blocks()) {
        const int64_t n_here = std::min(layout.segment_blocks(), in.n_blocks - first);
        const uint8_t * const quants = tile + layout.quants_at(n_here);
        const typename Type::Scales scales(tile, head + layout.head_at(first));
#pragma GCC unroll 2
        for (int64_t block = 0; block < n_here; ++block) {
            const uint8_t * const bytes = quants + static_cast<size_t>(block) * Type::quant_bytes;
            if constexpr (ahead > 0) {
#pragma GCC unroll 9
                for (size_t line = 0; line < bytes_a_block; line += 64) {
                    __builtin_prefetch(tile + ahead + static_cast<size_t>(block) * bytes_a_block + line, 0, Ahead::level);
                }
            }
            typename Isa::Bytes w[groups];
            Type::quants(bytes, w);
            typename Isa::Floats d[2], m;
            scales.of(block, d, &m);
            const int8_t * row = a;
            const float * d_row = scale;
            const int32_t * c_row = correction;
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                if (t > 0 && t % n_beside == 0) {
                    next_four(row, four * block_values);
                    next_four(d_row, four);
                    next_four(c_row, four * Type::n_scales);
                }
                const typename Isa::Floats d_a = Isa::template one_of<n_beside>(d_row, t % n_beside);
#pragma GCC unroll 2
                for (int s = 0; s < Type::n_scales; ++s) {
                    constexpr int n = groups / Type::n_scales;
                    constexpr int run = std::min({n, Isa::template run<Type::range>, Isa::few_run});
                    const typename Isa::Ints start = Type::has_min ? Isa::ints(0) : Isa::template one_of<n_beside>(c_row + s * n_beside, t % n_beside);
                    typename Isa::Ints integers;
#pragma GCC unroll 4
                    for (int i = 0; i < n; i += run) {
                        typename Isa::template Sum<Type::range> sum(i == 0 ? start : Isa::ints(0));
#pragma GCC unroll 8
                        for (int j = i; j < i + run; ++j) {
                            Isa::add_product(sum, w[s * n + j], row + t % n_beside * block_values + (s * n + j) * 4);
                        }
                        integers = i == 0 ? sum.total(start) : Isa::plus(integers, sum.total(Isa::ints(0)));
                    }
                    sums[t] = Isa::fused(Isa::times(Isa::converted(integers), d[s]), d_a, sums[t]);
                    if constexpr (Type::has_min) {
                        sums[t] = Isa::fused(m, Isa::template one_of<n_beside>(reinterpret_cast<const float *>(c_row), t % n_beside), sums[t]);
                    }
                }
            }
            a += n_beside * block_values;
            scale += n_beside;
            correction += n_beside * Type::n_scales;
        }
        tile += layout.segment_bytes(n_here);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        Isa::store(out + t * out_stride, sums[t]);
    }
}

// ---- more tokens

// Weights of up to panel_tiles tiles and panel_blocks blocks: bytes, and factors as floats, [block][tile][n_scales (+ 1 with minima)][16].
struct Panel {
    alignas(64) uint8_t bytes[panel_tiles * panel_blocks * byte_quants];
    alignas(64) float factors[panel_blocks * panel_tiles * 2 * 16];
    const uint8_t * weights;  // of the first tile: the bytes above, or quants in the tiles themselves that are bytes there
    size_t tile_step;
};

// Blocks first.. of each tile, n of them.
template <class Isa, class Type, int R>
void widen(const uint8_t * tiles, size_t tile_size, int64_t n_blocks, int64_t first, int64_t n, Panel & panel) {
    constexpr Layout layout = layout_for<Type>;
    const uint8_t * const segments = tiles + layout.head(n_blocks);
    constexpr int n_factors = Type::n_scales + (Type::has_min ? 1 : 0);
    constexpr bool in_panel = !in_place<Type> || Isa::pairs_tokens;
    panel.weights = in_panel ? panel.bytes : segments + layout.segment_at(first) + layout.quants_at(n);
    panel.tile_step = in_panel ? panel_blocks * byte_quants : tile_size;
    for (int64_t b = 0; b < n;) {
        const uint8_t * const segment = segments + layout.segment_at(first + b);
        const uint8_t * const head = tiles + layout.head_at(first + b);
        const int64_t n_here = std::min(layout.segment_blocks(), n - b);
        for (int r = 0; r < R; ++r) {
            const uint8_t * const tile = segment + static_cast<size_t>(r) * tile_size;
            const typename Type::Scales scales(tile, head + static_cast<size_t>(r) * tile_size);
            for (int64_t inside = 0; inside < n_here; ++inside) {
                if constexpr (in_panel) {
                    typename Isa::Bytes w[groups];
                    Type::quants(tile + layout.quants_at(n_here) + static_cast<size_t>(inside) * Type::quant_bytes, w);
                    if constexpr (Isa::pairs_tokens) {
#pragma GCC unroll 4
                        for (int i = 0; i < groups; i += 2) {
                            Isa::join(w[i], w[i + 1]);
                        }
                    }
#pragma GCC unroll 8
                    for (int i = 0; i < groups; ++i) {
                        Isa::store(panel.bytes + static_cast<size_t>(r * panel_blocks + b + inside) * byte_quants + i * 64, w[i]);
                    }
                }
                typename Isa::Floats d[2], m;
                scales.of(inside, d, &m);
                float * const factors = panel.factors + ((b + inside) * R + r) * n_factors * 16;
#pragma GCC unroll 2
                for (int s = 0; s < Type::n_scales; ++s) {
                    Isa::store(factors + s * 16, d[s]);
                }
                if constexpr (Type::has_min) {
                    Isa::store(factors + 16, m);
                }
            }
        }
        b += n_here;
    }
}

// Of R tiles and T tokens, start + the sum of n groups' products. Where Isa::pairs_tokens, widen() has joined groups in pairs (Isa::join), 8
// values of a row side by side, which Isa::sum_pairs() multiplies by 8 values of two tokens at once.
template <class Isa, int R, int T, Range range, int n>
RIM_INLINE void sum_block(const uint8_t * weights, size_t tile_step, const int8_t * a, int64_t inner, const typename Isa::Ints (&start)[T],
                          typename Isa::Ints (&integers)[R][T]) {
    if constexpr (Isa::pairs_tokens) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            Isa::template sum_pairs<T, n>(weights + static_cast<size_t>(r) * tile_step, a, inner, start, integers[r]);
        }
        return;
    }
    constexpr int run = std::min(n, Isa::template run<range>);
#pragma GCC unroll 4
    for (int from = 0; from < n; from += run) {
        typename Isa::template Sum<range> parts[R][T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                parts[r][t] = typename Isa::template Sum<range>(from == 0 ? start[t] : Isa::ints(0));
            }
        }
#pragma GCC unroll 8
        for (int i = from; i < from + run; ++i) {
            typename Isa::Bytes four[T];
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                four[t] = Isa::broadcast(a + t * inner + i * 4);
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const typename Isa::Bytes w = Isa::load(weights + static_cast<size_t>(r) * tile_step + i * 64);
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t) {
                    parts[r][t].add(w, four[t]);
                }
            }
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const typename Isa::Ints total = parts[r][t].total(from == 0 ? start[t] : Isa::ints(0));
                integers[r][t] = from == 0 ? total : Isa::plus(integers[r][t], total);
            }
        }
    }
}

// Sums of R tiles (from the panel's tile `row` on, which has `rows`) x T tokens over the n blocks of a panel, added to those before.
template <class Isa, class Type, int R, int T>
void many(const Panel & panel, int row, int rows, const Activations<Isa, Type> & in, int64_t first_token, int64_t first, int64_t n_here,
          const Sums & at) {
    constexpr int n_scales = Type::n_scales;
    constexpr bool has_min = Type::has_min;
    constexpr int n_factors = n_scales + (has_min ? 1 : 0);
    const float * const before = at.before == nullptr ? nullptr : at.before + row * tile_rows;
    float * const after = at.after + row * tile_rows;
    typename Isa::Floats sums[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            sums[r][t] = before == nullptr ? Isa::floats(0.0f) : Isa::load(before + t * at.before_stride + r * tile_rows);
        }
    }
    const int8_t * a = in.quants(first_token, first);
    const float * scale = in.scale(first_token, first);
    const int32_t * correction = in.correction(first_token, first);
    const uint8_t * weights = panel.weights + static_cast<size_t>(row) * panel.tile_step;
    const float * factors = panel.factors + row * n_factors * 16;
    for (int64_t block = 0; block < n_here; ++block) {
#pragma GCC unroll 2
        for (int s = 0; s < n_scales; ++s) {
            constexpr int n = groups / n_scales;
            typename Isa::Ints start[T];
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                start[t] = Isa::ints(has_min ? 0 : correction[t * in.n_blocks * n_scales + s]);
            }
            typename Isa::Ints integers[R][T];
            sum_block<Isa, R, T, Type::range, n>(weights + s * n * 64, panel.tile_step, a + s * n * 4, in.n_blocks * block_values, start, integers);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const typename Isa::Floats d_a = Isa::floats(scale[t * in.n_blocks]);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const typename Isa::Floats d = Isa::load(factors + (r * n_factors + s) * 16);
                    sums[r][t] = Isa::fused(Isa::times(Isa::converted(integers[r][t]), d), d_a, sums[r][t]);
                }
            }
        }
        if constexpr (has_min) {
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const typename Isa::Floats sum = Isa::floats(float_of(correction + t * in.n_blocks));
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    sums[r][t] = Isa::fused(Isa::load(factors + (r * n_factors + 1) * 16), sum, sums[r][t]);
                }
            }
        }
        a += block_values;
        scale += 1;
        correction += n_scales;
        weights += byte_quants;
        factors += rows * n_factors * 16;
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            Isa::store(after + t * at.after_stride + r * tile_rows, sums[r][t]);
        }
    }
}

// Brings the weights of the next panel nearer while this one is multiplied: four short runs of memory are too few for the processor to
// foresee.
struct Fetch {
    const uint8_t * from;  // of the first tile
    size_t tile_size;
    int n_tiles;
    size_t bytes;  // of each tile
    size_t step;   // of each tile, at a time
    size_t done = 0;

    void some() {
        const size_t end = std::min(done + step, bytes);
        for (; done < end; done += 64) {
            for (int r = 0; r < n_tiles; ++r) {
                __builtin_prefetch(from + static_cast<size_t>(r) * tile_size + done, 0, 0);
            }
        }
    }
};

// Of the panel that begins with block `first`, or of the next tiles' first one, in n_times.
template <class Type, int R>
Fetch next_panel(const uint8_t * tiles, size_t tile_size, int64_t first, int64_t n_blocks, int64_t n_times) {
    constexpr size_t bytes = layout_for<Type>.segment_at(panel_blocks);
    const size_t step = (bytes / static_cast<size_t>(n_times) + 63) / 64 * 64;
    const size_t next = first < n_blocks ? layout_for<Type>.head(n_blocks) + layout_for<Type>.segment_at(first) : R * tile_size;
    return {tiles + next, tile_size, R, bytes, step};
}

template <class Isa, int R>
constexpr int rows_at_once = R < Isa::many_tiles ? R : Isa::many_tiles;

template <class Isa, class Type, int R, int T>
void all_rows(const Panel & panel, const Activations<Isa, Type> & in, int64_t token, int64_t first, int64_t n, const Sums & at, Fetch & fetch) {
    constexpr int step = rows_at_once<Isa, R>;
    for (int row = 0; row < R; row += step) {
        fetch.some();
        many<Isa, Type, step, T>(panel, row, R, in, token, first, n, at);
    }
}

template <class Isa, class Type, int R>
void many_tokens(const uint8_t * tiles, size_t tile_size, const Activations<Isa, Type> & in, int64_t first_token, int64_t end_token, float * out,
                 size_t out_stride) {
    constexpr size_t near_stride = R * tile_rows;
    Panel panel;
    alignas(64) float near[tokens_near * near_stride];
    for (int64_t first = 0; first < in.n_blocks; first += panel_blocks) {
        const int64_t n = std::min(panel_blocks, in.n_blocks - first);
        widen<Isa, Type, R>(tiles, tile_size, in.n_blocks, first, n, panel);
        const int64_t n_times = (end_token - first_token + Isa::many_tokens - 1) / Isa::many_tokens * (R / rows_at_once<Isa, R>);
        Fetch fetch = next_panel<Type, R>(tiles, tile_size, first + n, in.n_blocks, n_times);
        const bool last = first + n == in.n_blocks;
        Sums at{first == 0 ? nullptr : near, near_stride, last ? out + first_token * out_stride : near, last ? out_stride : near_stride};
        const auto move_on = [&at](int64_t by) {
            at.before = at.before == nullptr ? nullptr : at.before + by * at.before_stride;
            at.after += by * at.after_stride;
        };
        int64_t token = first_token;
        for (; token + Isa::many_tokens <= end_token; token += Isa::many_tokens) {
            all_rows<Isa, Type, R, Isa::many_tokens>(panel, in, token, first, n, at, fetch);
            move_on(Isa::many_tokens);
        }
        switch (end_token - token) {
            case 1: all_rows<Isa, Type, R, 1>(panel, in, token, first, n, at, fetch); break;
            case 2: all_rows<Isa, Type, R, 2>(panel, in, token, first, n, at, fetch); break;
            case 3: all_rows<Isa, Type, R, 3>(panel, in, token, first, n, at, fetch); break;
            default: break;
        }
    }
}

// n tokens, at most T, of one tile.
template <class Isa, class Type, class Ahead, int T>
void few_tokens_of(const uint8_t * tile, const Activations<Isa, Type> & in, int64_t first_token, int64_t n, float * out, size_t out_stride) {
    if constexpr (T > 1) {
        if (n < T) {
            return few_tokens_of<Isa, Type, Ahead, T - 1>(tile, in, first_token, n, out, out_stride);
        }
    }
    few<Isa, Type, T, Ahead>(tile, in, first_token, out, out_stride);
}

// Of so many tokens that are left, how many meet a tile next: whole fours, and none stays alone.
template <class Isa>
constexpr int64_t next_few(int64_t n_left) {
    constexpr int64_t once = Isa::few_tokens_once;
    return n_left <= once ? n_left : n_left == once + 1 ? once - tokens_beside : once;
}

template <class Isa, class Type>
void multiply(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    const Activations<Isa, Type> in(prepared);
    const size_t tile_size = tile_bytes(layout_for<Type>, prepared.inner);
    int64_t tile = part.first_tile;
    if (in.are_few()) {
        Isa::template choose_ahead<!in_place<Type>>(part.told, [&](auto ahead) {
            for (; tile < part.end_tile; ++tile) {
                for (int64_t token = 0, n; token < in.n_tokens; token += n) {
                    n = next_few<Isa>(in.n_tokens - token);
                    few_tokens_of<Isa, Type, decltype(ahead), Isa::few_tokens_once>(tiles + static_cast<size_t>(tile) * tile_size, in, token, n,
                                                                                    out + token * out_stride + tile * tile_rows, out_stride);
                }
            }
        });
        return;
    }
    for (int64_t n; tile < part.end_tile; tile += n) {
        const uint8_t * const bytes = tiles + static_cast<size_t>(tile) * tile_size;
        float * const to = out + tile * tile_rows;
        n = part.end_tile - tile >= 4 ? 4 : part.end_tile - tile >= 2 ? 2 : 1;
        for (int64_t token = part.first_token; token < part.end_token; token += tokens_near) {
            const int64_t end = std::min(token + tokens_near, part.end_token);
            switch (n) {
                case 4: many_tokens<Isa, Type, 4>(bytes, tile_size, in, token, end, to, out_stride); break;
                case 2: many_tokens<Isa, Type, 2>(bytes, tile_size, in, token, end, to, out_stride); break;
                default: many_tokens<Isa, Type, 1>(bytes, tile_size, in, token, end, to, out_stride); break;
            }
        }
    }
}

template <class Isa, class Type>
const Kernel * kernel() {
    static constexpr Kernel kernel{Isa::name,           &prepared_bytes<Isa, Type>, &prepare<Isa, Type>, &multiply<Isa, Type>,
                                   Isa::signed_quants, Isa::may_tell,          std::max(Isa::most_few, few_tokens),
                                   2 * Isa::many_tokens};
    return &kernel;
}

// The kernel of an instruction set for a type, nullptr for a type that is not made of quants.
template <class Isa>
const Kernel * integer_kernel(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return kernel<Isa, FourBits<Isa, false>>();
        case GGML_TYPE_Q8_0: return kernel<Isa, EightBits<Isa>>();
        case GGML_TYPE_Q4_1: return kernel<Isa, FourBits<Isa, true>>();
        case GGML_TYPE_Q5_0: return kernel<Isa, FiveBits<Isa, false>>();
        case GGML_TYPE_Q5_1: return kernel<Isa, FiveBits<Isa, true>>();
        case GGML_TYPE_IQ4_NL: return kernel<Isa, FourBitsTable<Isa>>();
        case GGML_TYPE_Q4_K: return kernel<Isa, SuperBlockMin<Isa, false>>();
        case GGML_TYPE_Q5_K: return kernel<Isa, SuperBlockMin<Isa, true>>();
        case GGML_TYPE_Q6_K: return kernel<Isa, SixBits<Isa>>();
        default: return nullptr;
    }
}

}  // namespace

}  // namespace rim::kernels
