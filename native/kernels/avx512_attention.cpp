// avx512_attention.cpp: attention with AVX-512, in float32. Compiled with these instructions; entered only where the processor has them.
//
// 64 keys at a time: they are transposed (and widened) once, multiplied by all rows of the task (tokens x query heads), 6 rows x 64 keys in
// 24 registers; then the softmax so far is corrected (Milakov and Gimelshein 2018), and the weights are multiplied by the values, 6 rows x
// 64 dimensions in 24 registers. Keys that no token of the task sees are not read: neither their numbers nor what else may stand there.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "attention.h"
#include "integer_types.h"  // RIM_INLINE

namespace rim::kernels {

namespace {

constexpr int64_t block_keys = 64;
constexpr int lanes = 16;
constexpr int rows_at_once = 6;
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

// exp(x) for x <= 0; exactly 1 for 0, 0 far below.
RIM_INLINE __m512 exp_negative(__m512 x) {
    const __m512 scaled = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    const __m512 whole = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // x - whole * ln 2, in two parts: exact for what float32 can tell
    __m512 part = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
    part = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), part);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

template <bool half>
RIM_INLINE __m512 load16(const char * row, int64_t at) {
    if constexpr (half) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(row + at * 2)));
    } else {
        return _mm512_loadu_ps(row + at * 4);
    }
}

// Column c of 16 rows becomes row c.
RIM_INLINE void transpose(__m512 * r) {
    __m512i t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_castps_si512(r[i]), b = _mm512_castps_si512(r[i + 1]);
        const __m512i c = _mm512_castps_si512(r[i + 2]), d = _mm512_castps_si512(r[i + 3]);
        const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
        const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
        t[i] = _mm512_unpacklo_epi64(ab_low, cd_low);
        t[i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        t[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        t[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; ++i) {  // t[i + 4 j]: columns i, i + 4, i + 8, i + 12 of rows 4 j .. 4 j + 3
        const __m512i low = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88), high = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xDD);
        const __m512i low2 = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88), high2 = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xDD);
        r[i] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(low, low2, 0x88));
        r[i + 8] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(low, low2, 0xDD));
        r[i + 4] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(high, high2, 0x88));
        r[i + 12] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(high, high2, 0xDD));
    }
}

// keys[dimension][64] of the block's keys; those that `seen` lacks become zeros.
template <bool half>
void transpose_keys(const AttentionTask & task, int64_t first, uint64_t seen, float * keys) {
    for (int64_t group = 0; group < block_keys; group += lanes) {
        for (int64_t at = 0; at < task.key_size; at += lanes) {
            __m512 r[lanes];
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i) {
                const bool is_seen = seen >> (group + i) & 1;
                r[i] = is_seen ? load16<half>(task.keys + static_cast<size_t>(first + group + i) * task.key_step, at) : _mm512_setzero_ps();
            }
            transpose(r);
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i) {
                _mm512_store_ps(keys + (at + i) * block_keys + group, r[i]);
            }
        }
    }
}

template <bool half>
void widen_values(const AttentionTask & task, int64_t first, uint64_t seen, float * values) {
    for (int64_t key = 0; key < block_keys; ++key) {
        const char * const row = task.values + static_cast<size_t>(first + key) * task.value_step;
        for (int64_t at = 0; at < task.value_size; at += lanes) {
            _mm512_store_ps(values + key * task.value_size + at, seen >> key & 1 ? load16<half>(row, at) : _mm512_setzero_ps());
        }
    }
}

// to[r][64] = sum over d of rows[r][d] * columns[d][64], R rows; each value summed in the order of d.
template <int R>
RIM_INLINE void score(const float * rows, int64_t size, const float * columns, float * to) {
    __m512 sums[R][4];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) {
            sums[r][c] = _mm512_setzero_ps();
        }
    }
    for (int64_t d = 0; d < size; ++d) {
        __m512 column[4];
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) {
            column[c] = _mm512_load_ps(columns + d * block_keys + c * lanes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const __m512 value = _mm512_set1_ps(rows[r * size + d]);
#pragma GCC unroll 8
            for (int c = 0; c < 4; ++c) {
                sums[r][c] = _mm512_fmadd_ps(value, column[c], sums[r][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) {
            _mm512_store_ps(to + r * block_keys + c * lanes, sums[r][c]);
        }
    }
}

// sums[r][C * 16] += sum over the block's keys of weights[r][key] * values[key][C * 16], R rows; in the order of the keys.
template <int R, int C>
RIM_INLINE void mix(const float * weights, const float * values, int64_t size, float * sums) {
    __m512 all[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            all[r][c] = _mm512_load_ps(sums + r * size + c * lanes);
        }
    }
    for (int64_t key = 0; key < block_keys; ++key) {
        __m512 value[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            value[c] = _mm512_load_ps(values + key * size + c * lanes);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const __m512 weight = _mm512_set1_ps(weights[r * block_keys + key]);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                all[r][c] = _mm512_fmadd_ps(weight, value[c], all[r][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            _mm512_store_ps(sums + r * size + c * lanes, all[r][c]);
        }
    }
}

template <int R>
void mix_all(const float * weights, const float * values, int64_t size, float * sums) {
    int64_t at = 0;
    for (; at + 4 * lanes <= size; at += 4 * lanes) {
        mix<R, 4>(weights, values + at, size, sums + at);
    }
    for (; at < size; at += lanes) {
        mix<R, 1>(weights, values + at, size, sums + at);
    }
}

// Calls run(number of rows, first row) with 6 rows at a time, then with 2 and 1.
template <class Run>
void by_rows(int64_t n_rows, Run run) {
    int64_t row = 0;
    for (; row + rows_at_once <= n_rows; row += rows_at_once) {
        run(std::integral_constant<int, rows_at_once>(), row);
    }
    for (; row + 2 <= n_rows; row += 2) {
        run(std::integral_constant<int, 2>(), row);
    }
    if (row < n_rows) {
        run(std::integral_constant<int, 1>(), row);
    }
}

// The mask of 16 keys as numbers to add, and which of them are seen.
RIM_INLINE __mmask16 seen_keys(const uint16_t * mask, int64_t n, __m512 & added) {
    const auto present = static_cast<__mmask16>(n >= lanes ? 0xFFFF : n <= 0 ? 0 : (1 << n) - 1);
    if (!mask) {
        added = _mm512_setzero_ps();
        return present;
    }
    added = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(present, mask));
    return _mm512_mask_cmp_ps_mask(present, added, _mm512_set1_ps(lowest), _CMP_NEQ_UQ);
}

// Scores of one row become weights; what was summed before is corrected for the new largest score.
void weigh(const AttentionTask & task, const uint16_t * mask, int64_t n, float * scores, float & largest, float & total, float * sums) {
    __m512 score[4];
    __mmask16 seen[4];
    __m512 most = _mm512_set1_ps(lowest);
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) {
        __m512 added;
        seen[c] = seen_keys(mask ? mask + c * lanes : nullptr, n - c * lanes, added);
        score[c] = _mm512_add_ps(_mm512_load_ps(scores + c * lanes), added);
        most = _mm512_mask_max_ps(most, seen[c], most, score[c]);
        if (_mm512_mask_cmp_ps_mask(seen[c], score[c], score[c], _CMP_UNORD_Q)) {
            most = _mm512_set1_ps(__builtin_nanf(""));  // a maximum hides what is not a number; the result must show it
        }
    }
    const float here = _mm512_reduce_max_ps(most);
    const float now = std::isnan(_mm512_cvtss_f32(most)) ? __builtin_nanf("") : std::max(largest, here);
    if (now == lowest) {  // nothing was seen so far
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) {
            _mm512_store_ps(scores + c * lanes, _mm512_setzero_ps());
        }
        return;
    }
    const __m512 shift = _mm512_set1_ps(now);
    __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) {
        const __m512 weight = _mm512_maskz_mov_ps(seen[c], exp_negative(_mm512_sub_ps(score[c], shift)));
        _mm512_store_ps(scores + c * lanes, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    if (now != largest) {
        const __m512 correction = largest == lowest ? _mm512_setzero_ps() : exp_negative(_mm512_set1_ps(largest - now));
        total *= _mm512_cvtss_f32(correction);
        for (int64_t at = 0; at < task.value_size; at += lanes) {
            _mm512_store_ps(sums + at, _mm512_mul_ps(_mm512_load_ps(sums + at), correction));
        }
        largest = now;
    }
    total += _mm512_reduce_add_ps(sum);
}

// Bits of the block's keys that some token of the task sees.
uint64_t seen_by_any(const AttentionTask & task, int64_t first, int64_t end) {
    const int64_t n = std::min(block_keys, end - first);
    uint64_t any = 0;
    for (int64_t token = 0; token < (task.mask ? task.n_tokens : 1); ++token) {
#pragma GCC unroll 8
        for (int c = 0; c < 4; ++c) {
            __m512 added;
            const uint16_t * const row = task.mask ? task.mask + static_cast<size_t>(token) * task.mask_step + first + c * lanes : nullptr;
            any |= static_cast<uint64_t>(seen_keys(row, n - c * lanes, added)) << (c * lanes);
        }
    }
    return any;
}

template <bool half>
void attend(const AttentionTask & task, int64_t first_key, int64_t end_key, const AttentionPart & part, float * memory) {
    const int64_t n_rows = task.n_rows();
    const Work work(memory, task.key_size, task.value_size, n_rows);
    for (int64_t row = 0; row < n_rows; ++row) {
        const auto * const from =
            reinterpret_cast<const float *>(task.queries + static_cast<size_t>(row / task.n_heads) * task.token_step +
                                            static_cast<size_t>(row % task.n_heads) * task.head_step);
        for (int64_t at = 0; at < task.key_size; at += lanes) {
            _mm512_store_ps(work.queries + row * task.key_size + at,
                            _mm512_mul_ps(_mm512_loadu_ps(from + at), _mm512_set1_ps(task.scale)));
        }
        std::fill_n(part.sums + row * task.value_size, task.value_size, 0.0f);
        part.largest[row] = lowest;
        part.totals[row] = 0.0f;
    }
    for (int64_t first = first_key; first < end_key; first += block_keys) {
        const uint64_t seen = seen_by_any(task, first, end_key);
        if (!seen) {
            continue;
        }
        transpose_keys<half>(task, first, seen, work.keys);
        by_rows(n_rows, [&](auto n, int64_t row) {
            score<decltype(n)::value>(work.queries + row * task.key_size, task.key_size, work.keys, work.weights + row * block_keys);
        });
        for (int64_t row = 0; row < n_rows; ++row) {
            const uint16_t * const mask = task.mask ? task.mask + static_cast<size_t>(row / task.n_heads) * task.mask_step + first : nullptr;
            weigh(task, mask, end_key - first, work.weights + row * block_keys, part.largest[row], part.totals[row],
                  part.sums + row * task.value_size);
        }
        widen_values<half>(task, first, seen, work.values);
        by_rows(n_rows, [&](auto n, int64_t row) {
            mix_all<decltype(n)::value>(work.weights + row * block_keys, work.values, task.value_size, part.sums + row * task.value_size);
        });
    }
}

void attend_any(const AttentionTask & task, int64_t first, int64_t end, const AttentionPart & part, float * work) {
    if (task.half_precision) {
        attend<true>(task, first, end, part, work);
    } else {
        attend<false>(task, first, end, part, work);
    }
}

}  // namespace

const AttentionKernel * avx512_attention() noexcept {
    static constexpr AttentionKernel kernel{&Work::size, &attend_any};
    return &kernel;
}

}  // namespace rim::kernels
