// attention_kernels.h: attention in float32, in the words of an instruction set (Isa: integer_types.h, avx2.h).
// Included by one file per instruction set, compiled with its instructions and entered only where the processor has them.
//
// 64 keys at a time: they are transposed once, and multiplied by all rows of the task (tokens x query heads), some rows and columns at a time
// in registers; then the softmax so far is corrected (Milakov and Gimelshein 2018), and the weights are multiplied by the values in the same
// way. Keys and values in half precision are widened once for many rows, and wherever they are multiplied for few. Keys that no token of the
// task sees are not read: neither their numbers nor what else may stand there. Where every token sees few of the 64, as where
// answers are written side by side and each sees its own, some tokens at a time take the keys that they see alone. A row's values are the
// same either way: a score does not depend on its neighbours, the weights are summed at the keys' own places, and what is left out of the
// last sums has the weight 0.
//
// All instruction sets do the same operations on a value in the same order, and give the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "attention.h"
#include "exponential.h"

namespace rim::kernels {

namespace {

alignas(64) constexpr char zeros[largest_head * sizeof(float)] = {};  // a key or value
constexpr int64_t rows_together = 6;  // of tokens that take their keys alone, about
constexpr int few_rows = 24;  // up to so many multiply what the cache has; to widen it once takes longer
constexpr float lowest = -std::numeric_limits<float>::infinity();

struct Work {
    float *queries, *keys, *values, *weights;

    Work(float * memory, int64_t key_size, int64_t value_size, int64_t n_rows)
        : queries(memory), keys(queries + n_rows * key_size), values(keys + block_keys * key_size),
          weights(values + block_keys * value_size) {}
    static int64_t size(int64_t key_size, int64_t value_size, int64_t n_rows) {
        return (n_rows + block_keys) * key_size + block_keys * value_size + n_rows * block_keys;
    }
};

// Of n keys side by side, in whole registers.
constexpr int64_t columns_of(int64_t n) {
    return (n + lanes - 1) / lanes * lanes;
}

// Keys of a block side by side: all 64 at their own places, or those of a set of bits alone, in their order.
struct Picked {
    uint64_t keys;              // bits of the block
    int64_t n;                  // side by side
    int16_t place[block_keys];  // in the block, -1: zeros are taken instead
    bool gathered;

    Picked(uint64_t seen, bool gathered) : keys(seen), n(0), gathered(gathered) {
        if (gathered) {
            for (; seen; seen &= seen - 1) {
                place[n++] = static_cast<int16_t>(__builtin_ctzll(seen));
            }
            std::fill(place + n, place + columns(), static_cast<int16_t>(-1));
        } else {
            for (; n < block_keys; ++n) {
                place[n] = static_cast<int16_t>(seen >> n & 1 ? n : -1);
            }
        }
    }
    int64_t columns() const { return columns_of(n); }
    // Of gathered keys: those of 16 places of the block, and how many stand before them.
    uint16_t keys_of(int part) const { return static_cast<uint16_t>(keys >> (part * lanes)); }
    int before(int part) const { return part == 0 ? 0 : __builtin_popcountll(keys << (block_keys - part * lanes)); }
};

template <class Isa, bool half>
RIM_INLINE typename Isa::Floats load16(const char * row, int64_t at) {
    if constexpr (half) {
        return Isa::halves(reinterpret_cast<const uint8_t *>(row) + at * 2);
    } else {
        return Isa::load(reinterpret_cast<const float *>(row) + at);
    }
}

// Brings a key or value nearer before it is needed: weights have driven it out of the near caches since the last token.
template <bool half>
RIM_INLINE void fetch(const char * row, int64_t size) {
    const int64_t n_bytes = size * (half ? 2 : 4);
    for (int64_t at = 0; at < n_bytes; at += 64) {
        __builtin_prefetch(row + at, 0, 3);
    }
}

// The keys of the block from `first` on.
template <bool half>
void fetch_keys(const AttentionTask & task, int64_t first, int64_t end) {
    for (int64_t key = first; key < std::min(first + block_keys, end); ++key) {
        fetch<half>(task.keys + static_cast<size_t>(key) * task.key_step, task.key_size);
    }
}

// The row of a key or value of the block from `first` on, or zeros.
RIM_INLINE const char * row_of(const char * rows, size_t step, int64_t first, int16_t place) {
    return place < 0 ? zeros : rows + static_cast<size_t>(first + place) * step;
}

// The first two of three steps that transpose 8 rows of 8 words (halves), lane of 128 bits by lane: u[i + j], with i = 0 or 4, has words 2 j and
// 2 j + 1 of r[i] to r[i + 3] side by side.
template <class Isa, class Register>
RIM_INLINE void interleave_words(const Register (&r)[8], Register (&u)[8]) {
    Register t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = Isa::low_words(r[i], r[i + 1]);
        t[i + 1] = Isa::high_words(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            u[i + 2 * j] = Isa::low_pairs(t[i + j], t[i + j + 2]);
            u[i + 2 * j + 1] = Isa::high_pairs(t[i + j], t[i + j + 2]);
        }
    }
}

// Values [at, at + 16) of 16 rows, each column in a register.
template <class Isa, bool half>
RIM_INLINE void load_transposed(const char * const * rows, int64_t at, typename Isa::Floats (&columns)[lanes]) {
    if constexpr (half) {
        alignas(64) uint8_t halves[lanes * lanes * 2];
        Isa::transpose_halves(rows, static_cast<size_t>(at) * 2, halves);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
            columns[i] = Isa::halves(halves + i * lanes * 2);
        }
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
            columns[i] = load16<Isa, half>(rows[i], at);
        }
        Isa::transpose(columns);
    }
}

// keys[group of 16][dimension][16], in half precision if `kept_half`.
template <class Isa, bool half, bool kept_half>
void transpose_keys(const AttentionTask & task, int64_t first, const Picked & picked, float * keys) {
    static_assert(half || !kept_half, "");
    for (int64_t group = 0; group < picked.columns() / lanes; ++group) {
        const char * rows[lanes];
        for (int i = 0; i < lanes; ++i) {
            rows[i] = row_of(task.keys, task.key_step, first, picked.place[group * lanes + i]);
        }
        for (int64_t at = 0; at < task.key_size; at += lanes) {
            const int64_t to = (group * task.key_size + at) * lanes;
            if constexpr (kept_half) {
                Isa::transpose_halves(rows, static_cast<size_t>(at) * 2, reinterpret_cast<uint8_t *>(keys) + to * 2);
            } else {
                typename Isa::Floats dimensions[lanes];
                load_transposed<Isa, half>(rows, at, dimensions);
#pragma GCC unroll 16
                for (int i = 0; i < lanes; ++i) {
                    Isa::store(keys + to + i * lanes, dimensions[i]);
                }
            }
        }
    }
}

// values[picked.n][value_size].
template <class Isa, bool half>
void widen_values(const AttentionTask & task, int64_t first, const Picked & picked, float * values) {
    for (int64_t key = 0; key < picked.n; ++key) {
        const char * const row = row_of(task.values, task.value_step, first, picked.place[key]);
        for (int64_t at = 0; at < task.value_size; at += lanes) {
            Isa::store(values + key * task.value_size + at, load16<Isa, half>(row, at));
        }
    }
}

// to[r][at + column] += sum over n of rows[r][n] * load(n, at)[column], R rows and C * 16 columns; each value summed in the order of n, from
// what stands in `to` on, or from zero.
template <class Isa, int R, int C, bool from_zero, class Load>
RIM_INLINE void multiply_rows(const float * rows, int64_t n_inner, const Load & load, int64_t at, float * to, int64_t to_step) {
    typename Isa::Floats sums[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            sums[r][c] = from_zero ? Isa::floats(0.0f) : Isa::load(to + r * to_step + at + c * lanes);
        }
    }
    for (int64_t n = 0; n < n_inner; ++n) {
        typename Isa::Floats column[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            column[c] = load(n, at + c * lanes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const typename Isa::Floats value = Isa::floats(rows[r * n_inner + n]);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                sums[r][c] = Isa::fused(value, column[c], sums[r][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            Isa::store(to + r * to_step + at + c * lanes, sums[r][c]);
        }
    }
}

// The same for any number of columns, C * 16 at a time; load(n, at) gives 16 of them.
template <class Isa, int R, int C, bool from_zero, class Load>
void multiply_all_columns(const float * rows, int64_t n_inner, const Load & load, int64_t n_columns, float * to) {
    int64_t at = 0;
    for (; at + C * lanes <= n_columns; at += C * lanes) {
        multiply_rows<Isa, R, C, from_zero>(rows, n_inner, load, at, to, n_columns);
    }
    for (; at < n_columns; at += lanes) {
        multiply_rows<Isa, R, 1, from_zero>(rows, n_inner, load, at, to, n_columns);
    }
}

// Calls work(the number n as a constant), n from 1 to most.
template <int most, class Work>
void with_constant(int64_t n, const Work & work) {
    if constexpr (most > 1) {
        if (n < most) {
            return with_constant<most - 1>(n, work);
        }
    }
    work(std::integral_constant<int, most>{});
}

// to[n_rows][n_columns] (+)= rows[n_rows][n_inner] * columns[n_inner][n_columns]; load(n, at) gives 16 columns.
template <class Isa, bool from_zero, class Load>
void multiply_all(const float * rows, int64_t n_rows, int64_t n_inner, const Load & load, int64_t n_columns, float * to) {
    constexpr int many = Isa::attention_rows;
    const auto multiply = [&](auto n, int64_t row) {
        constexpr int n_together = decltype(n)::value;
        constexpr int columns = (n_together == 1 || 3 * n_together <= many ? 2 : 1) * Isa::attention_columns;
        multiply_all_columns<Isa, n_together, columns, from_zero>(rows + row * n_inner, n_inner, load, n_columns, to + row * n_columns);
    };
    int64_t row = 0;
    for (; row + many <= n_rows; row += many) {
        multiply(std::integral_constant<int, many>{}, row);
    }
    if (row < n_rows) {
        with_constant<many - 1>(n_rows - row, [&](auto rest) { multiply(rest, row); });
    }
}

// to[n_rows][picked.columns()] = queries[n_rows] * keys.
template <class Isa, bool half, bool few>
void score(const AttentionTask & task, int64_t first, const Picked & picked, const float * queries, int64_t n_rows, float * keys, float * to) {
    constexpr bool kept_half = half && few;
    transpose_keys<Isa, half, kept_half>(task, first, picked, keys);
    const auto * const kept = reinterpret_cast<const char *>(keys);
    const int64_t key_size = task.key_size;
    const auto load = [kept, key_size](int64_t n, int64_t at) { return load16<Isa, kept_half>(kept, at * key_size + n * lanes); };
    multiply_all<Isa, true>(queries, n_rows, key_size, load, picked.columns(), to);
}

// to[n_rows][value_size] += weights[n_rows][picked.n] * values.
template <class Isa, bool half, bool few>
void add_values(const AttentionTask & task, int64_t first, const Picked & picked, const float * weights, int64_t n_rows, float * values,
                float * to) {
    if constexpr (few) {  // from memory through registers once
        const auto load = [&](int64_t key, int64_t at) {
            return load16<Isa, half>(row_of(task.values, task.value_step, first, picked.place[key]), at);
        };
        multiply_all<Isa, false>(weights, n_rows, picked.n, load, task.value_size, to);
    } else {
        const int64_t value_size = task.value_size;
        widen_values<Isa, half>(task, first, picked, values);
        const auto load = [values, value_size](int64_t key, int64_t at) { return Isa::load(values + key * value_size + at); };
        multiply_all<Isa, false>(weights, n_rows, picked.n, load, value_size, to);
    }
}

// The mask of 16 keys, of which n are there: numbers to add, and which keys are seen.
template <class Isa>
RIM_INLINE uint16_t seen_keys(const uint16_t * mask, int64_t n, typename Isa::Floats & added) {
    if (!mask) {
        added = Isa::floats(0.0f);
        return static_cast<uint16_t>(n >= lanes ? 0xFFFF : n <= 0 ? 0 : (1 << n) - 1);
    }
    uint16_t halves[lanes];
    const uint16_t * from = mask;
    if (n < lanes) {
        std::fill_n(halves, lanes, lowest_half);
        std::copy_n(mask, std::max<int64_t>(n, 0), halves);
        from = halves;
    }
    added = Isa::halves(reinterpret_cast<const uint8_t *>(from));
    return static_cast<uint16_t>(~Isa::equal(added, lowest));
}

// The same of a token and the c-th 16 keys of the block from `first` on; keys end before `end`.
template <class Isa>
RIM_INLINE uint16_t seen_keys(const AttentionTask & task, int64_t token, int64_t first, int64_t end, int c, typename Isa::Floats & added) {
    const uint16_t * const mask = task.mask_of(token);
    return seen_keys<Isa>(mask ? mask + first + c * lanes : nullptr, end - first - c * lanes, added);
}

// C * 16 scores of one row become weights; what was summed before is corrected for the new largest score. mask(c, added) gives what is to be
// added to 16 scores, and which of their keys are seen. Lane by lane the sum of the weights, which the caller adds to the total.
template <class Isa, int C, class Mask>
RIM_INLINE typename Isa::Floats weigh(const AttentionTask & task, const Mask & mask, const float * scores, float * weights, float & largest,
                                      float & total, float * sums) {
    using Floats = typename Isa::Floats;
    Floats score[C];
    uint16_t seen[C];
    Floats most = Isa::floats(lowest);
    bool is_number = true;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
        Floats added;
        seen[c] = mask(c, added);
        score[c] = Isa::select(seen[c], Isa::plus(Isa::load(scores + c * lanes), added), Isa::floats(lowest));
        most = Isa::larger(most, score[c]);
        is_number &= !Isa::unordered(score[c]);  // a maximum hides what is not a number; the result must show it
    }
    const float now = is_number ? std::max(largest, Isa::largest(most)) : __builtin_nanf("");
    Floats sum = Isa::floats(0.0f);
    if (now == lowest) {  // nothing was seen so far
        std::fill_n(weights, C * lanes, 0.0f);
        return sum;
    }
    const Floats shift = Isa::floats(now);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
        const Floats weight = Isa::select(seen[c], exp_negative<Isa>(Isa::minus(score[c], shift)), Isa::floats(0.0f));
        Isa::store(weights + c * lanes, weight);
        sum = Isa::plus(sum, weight);
    }
    if (now != largest) {
        const Floats correction = largest == lowest ? Isa::floats(0.0f) : exp_negative<Isa>(Isa::floats(largest - now));
        total *= Isa::first(correction);
        for (int64_t at = 0; at < task.value_size; at += lanes) {
            Isa::store(sums + at, Isa::times(Isa::load(sums + at), correction));
        }
        largest = now;
    }
    return sum;
}

// Some rows of scores of all keys of a block, in place.
template <class Isa>
void weigh_block(const AttentionTask & task, int64_t first, int64_t end, int64_t first_row, int64_t n_rows, float * scores,
                 const AttentionPart & part) {
    for (int64_t at = first_row; at < first_row + n_rows; ++at, scores += block_keys) {
        const auto mask = [&](int c, typename Isa::Floats & added) {
            return seen_keys<Isa>(task, at / task.n_heads, first, end, c, added);
        };
        float & total = part.totals[at];
        const auto sum = weigh<Isa, block_keys / lanes>(task, mask, scores, scores, part.largest[at], total, part.sums + at * task.value_size);
        total += Isa::sum(sum);
    }
}

// Some rows of scores of C * 16 gathered keys, in place: rows of picked.columns() scores become rows of picked.n weights.
template <class Isa, int C>
void weigh_gathered(const AttentionTask & task, int64_t first, int64_t end, const Picked & picked, int64_t first_row, int64_t n_rows,
                    float * scores, const AttentionPart & part) {
    using Floats = typename Isa::Floats;
    float masks[block_keys + lanes];  // of one token
    const auto mask = [&masks](int c, Floats & added) {
        added = Isa::load(masks + c * lanes);
        return static_cast<uint16_t>(~Isa::equal(added, lowest));
    };
    for (int64_t row = 0; row < n_rows; ++row) {
        const int64_t at = first_row + row;
        if (at % task.n_heads == 0) {
            for (int c = 0; c < block_keys / lanes; ++c) {
                Floats added;
                seen_keys<Isa>(task, at / task.n_heads, first, end, c, added);
                Isa::store_gathered(picked.keys_of(c), added, masks + picked.before(c));
            }
            std::fill(masks + picked.n, masks + C * lanes, lowest);
        }
        weigh<Isa, C>(task, mask, scores + row * C * lanes, scores + row * picked.n, part.largest[at], part.totals[at],
                      part.sums + at * task.value_size);
    }
    // At their own places in the block, as in weigh_block().
    for (int64_t row = 0; row < n_rows; ++row) {
        Floats sum = Isa::floats(0.0f);
        for (int c = 0; c < block_keys / lanes; ++c) {
            sum = Isa::plus(sum, Isa::scattered(picked.keys_of(c), scores + row * picked.n + picked.before(c)));
        }
        part.totals[first_row + row] += Isa::sum(sum);
    }
}

// Bits of the block's keys that some of the tokens see.
template <class Isa>
uint64_t seen_by(const AttentionTask & task, int64_t first_token, int64_t end_token, int64_t first, int64_t end) {
    uint64_t any = 0;
    for (int64_t token = first_token; token < (task.mask ? end_token : first_token + 1); ++token) {
        for (int c = 0; c < block_keys / lanes; ++c) {
            typename Isa::Floats added;
            any |= static_cast<uint64_t>(seen_keys<Isa>(task, token, first, end, c, added)) << (c * lanes);
        }
    }
    return any;
}

// What the block of keys from `first` on gives to n_rows rows of queries from `first_row` on.
template <class Isa, bool half>
void attend_block(const AttentionTask & task, int64_t first, int64_t end, const Picked & picked, int64_t first_row, int64_t n_rows,
                  const Work & work, const AttentionPart & part) {
    float * const products = work.weights;  // scores, then weights
    float * const sums = part.sums + first_row * task.value_size;
    for (int64_t key = 0; key < picked.n; ++key) {
        if (picked.place[key] >= 0) {
            fetch<half>(task.values + static_cast<size_t>(first + picked.place[key]) * task.value_step, task.value_size);
        }
    }
    const float * const queries = work.queries + first_row * task.key_size;
    const bool few = n_rows <= few_rows;
    (few ? score<Isa, half, true> : score<Isa, half, false>)(task, first, picked, queries, n_rows, work.keys, products);
    if (picked.gathered) {
        with_constant<block_keys / lanes>(picked.columns() / lanes, [&](auto n) {
            weigh_gathered<Isa, decltype(n)::value>(task, first, end, picked, first_row, n_rows, products, part);
        });
    } else {
        weigh_block<Isa>(task, first, end, first_row, n_rows, products, part);
    }
    (few ? add_values<Isa, half, true> : add_values<Isa, half, false>)(task, first, picked, products, n_rows, work.values, sums);
}

template <class Isa, bool half>
void attend(const AttentionTask & task, int64_t first_key, int64_t end_key, bool goes_on, const AttentionPart & part, float * memory) {
    const int64_t n_rows = task.n_rows();
    const Work work(memory, task.key_size, task.value_size, n_rows);
    fetch_keys<half>(task, first_key, end_key);
    for (int64_t row = 0; row < n_rows; ++row) {
        const auto * const from =
            reinterpret_cast<const float *>(task.queries + static_cast<size_t>(row / task.n_heads) * task.token_step +
                                            static_cast<size_t>(row % task.n_heads) * task.head_step);
        for (int64_t at = 0; at < task.key_size; at += lanes) {
            Isa::store(work.queries + row * task.key_size + at, Isa::times(Isa::load(from + at), Isa::floats(task.scale)));
        }
        if (!goes_on) {
            std::fill_n(part.sums + row * task.value_size, task.value_size, 0.0f);
            part.largest[row] = lowest;
            part.totals[row] = 0.0f;
        }
    }
    const int64_t together = std::max<int64_t>(1, rows_together / task.n_heads);
    const int64_t n_groups = (task.n_tokens + together - 1) / together;
    uint64_t seen[most_rows];  // by the tokens of a group
    for (int64_t first = first_key; first < end_key; first += block_keys) {
        fetch_keys<half>(task, first + block_keys, end_key);
        uint64_t any = 0;
        int64_t columns = 0;
        for (int64_t group = 0; group < n_groups; ++group) {
            seen[group] = seen_by<Isa>(task, group * together, std::min((group + 1) * together, task.n_tokens), first, end_key);
            any |= seen[group];
            columns += columns_of(__builtin_popcountll(seen[group]));
        }
        if (columns > n_groups * block_keys / 2) {  // to transpose for each group takes about as long as to multiply
            attend_block<Isa, half>(task, first, end_key, Picked(any, false), 0, n_rows, work, part);
            continue;
        }
        for (int64_t group = 0; group < n_groups; ++group) {
            if (seen[group]) {
                const int64_t token = group * together;
                attend_block<Isa, half>(task, first, end_key, Picked(seen[group], true), token * task.n_heads,
                                        std::min(together, task.n_tokens - token) * task.n_heads, work, part);
            }
        }
    }
}

template <class Isa>
void attend_any(const AttentionTask & task, int64_t first, int64_t end, bool goes_on, const AttentionPart & part, float * work) {
    if (task.half_precision) {
        attend<Isa, true>(task, first, end, goes_on, part, work);
    } else {
        attend<Isa, false>(task, first, end, goes_on, part, work);
    }
}

template <class Isa>
void finish(const AttentionTask & task, const AttentionPart & all) {
    for (int64_t row = 0; row < task.n_rows(); ++row) {
        float * const to = task.out + static_cast<size_t>(row / task.n_heads) * task.out_token_step +
                           static_cast<size_t>(row % task.n_heads) * task.out_head_step;
        const typename Isa::Floats share = Isa::floats(all.totals[row] == 0.0f ? 0.0f : 1.0f / all.totals[row]);
        for (int64_t at = 0; at < task.value_size; at += lanes) {
            Isa::store(to + at, Isa::times(Isa::load(all.sums + row * task.value_size + at), share));
        }
    }
}

template <class Isa>
const AttentionKernel * attention_of() noexcept {
    static constexpr AttentionKernel kernel{&Work::size, &attend_any<Isa>, &finish<Isa>};
    return &kernel;
}

}  // namespace

}  // namespace rim::kernels
