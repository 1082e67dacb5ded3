// avx512_vnni.cpp: products of quantized weights with AVX-512 VNNI. Compiled with these instructions; entered only where the processor has
// them.
//
// Activations become signed bytes with one scale per 32 values. Of each block of 32 the products are summed exactly in int32, then scaled
// and added in float: sum += (d_w * integer sum) * d_a, and m_w * (d_a * sum of the quants) for types with minima. Both ways below do the
// same operations on a value in the same order.
//
// - Few tokens: weights go from memory through registers once, two tiles at a time. Bound by memory.
// - More: 4 tiles x 256 values of weights are widened to bytes in L1, then 4 tiles x 3 tokens are summed in 12 registers. Zen 5 loads one
//   broadcast operand per cycle and multiplies two registers per cycle, so each broadcast must serve several tiles.
#include <algorithm>
#include <cfloat>
#include <cstring>

#include "avx512_types.h"
#include "kernel.h"
#include "layout.h"

namespace rim::kernels {

namespace {

using namespace avx512;

constexpr int groups = 8;            // of 4 values in a block
constexpr int64_t panel_blocks = 8;  // 256 values
constexpr int panel_tiles = 4;
constexpr int panel_tokens = 3;
constexpr int64_t few_tokens = 8;

#if defined(__GNUC__) && !defined(__clang__)
#define RIM_INLINE inline __attribute__((always_inline))
#else
#define RIM_INLINE inline
#endif

// ---- activations: all quants, then a scale per token and block, then n_scales corrections per token and block

struct Activations {
    int8_t * quants;
    float * scales;
    int32_t * corrections;  // -offset * sum of the quants, or the float d_a * sum for types with minima
    int64_t inner;
    int64_t n_blocks;

    explicit Activations(const Prepared & prepared) {
        const size_t n_values = static_cast<size_t>(prepared.inner * prepared.n_tokens);
        quants = reinterpret_cast<int8_t *>(prepared.bytes);
        scales = reinterpret_cast<float *>(prepared.bytes + (n_values + 63) / 64 * 64);
        corrections = reinterpret_cast<int32_t *>(scales + n_values / block_values);
        inner = prepared.inner;
        n_blocks = prepared.inner / block_values;
    }
};

template <class Type>
size_t prepared_bytes(int64_t inner, int64_t n_tokens) {
    const size_t n_values = static_cast<size_t>(inner * n_tokens);
    return (n_values + 63) / 64 * 64 + n_values / block_values * 4 * (1 + Type::n_scales);
}

template <class Type>
void prepare(const float * values, int64_t token, int64_t first, int64_t end, const Prepared & prepared) {
    const Activations to(prepared);
    for (int64_t k = first; k < end; k += block_values) {
        const __m512 a = _mm512_loadu_ps(values + k);
        const __m512 b = _mm512_loadu_ps(values + k + 16);
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        float scale = largest / 127;
        const bool tiny = !(largest > 127 * FLT_MIN);  // whose inverse would overflow
        const float inverse = tiny ? 0.0f : 127 / largest;
        if (_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q)) {
            scale = __builtin_nanf("");  // a maximum hides what is not a number; the result must show it
        }
        const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inverse)));
        const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inverse)));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to.quants + token * to.inner + k), _mm512_cvtsepi32_epi8(qa));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to.quants + token * to.inner + k + 16), _mm512_cvtsepi32_epi8(qb));
        const int64_t block = token * to.n_blocks + k / block_values;
        to.scales[block] = scale;
        if constexpr (Type::n_scales == 2) {
            to.corrections[block * 2] = -Type::offset * _mm512_reduce_add_epi32(qa);
            to.corrections[block * 2 + 1] = -Type::offset * _mm512_reduce_add_epi32(qb);
        } else {
            const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
            if constexpr (Type::has_min) {
                const float scaled = scale * static_cast<float>(sum);
                memcpy(to.corrections + block, &scaled, sizeof scaled);
            } else {
                to.corrections[block] = -Type::offset * sum;
            }
        }
    }
}

RIM_INLINE __m512i broadcast(const int8_t * four) {
    int32_t word;
    memcpy(&word, four, sizeof word);
    return _mm512_set1_epi32(word);
}

RIM_INLINE __m512 broadcast_float(const int32_t * bits) {
    float value;
    memcpy(&value, bits, sizeof value);
    return _mm512_set1_ps(value);
}

// ---- few tokens

template <class Type, int R, int T>
void few(const uint8_t * tiles, size_t tile_size, const Activations & in, int64_t first_token, float * out, size_t out_stride) {
    const size_t quants_size = Type::quant_bytes * static_cast<size_t>(in.n_blocks);
    __m512 sums[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            sums[r][t] = _mm512_setzero_ps();
        }
    }
    const int8_t * const quants = in.quants + first_token * in.inner;
    const float * const scales = in.scales + first_token * in.n_blocks;
    const int32_t * const corrections = in.corrections + first_token * in.n_blocks * Type::n_scales;
    for (int64_t block = 0; block < in.n_blocks; ++block) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const uint8_t * const tile = tiles + static_cast<size_t>(r) * tile_size;
            const uint8_t * const bytes = tile + static_cast<size_t>(block) * Type::quant_bytes;
#pragma GCC unroll 8
            for (size_t line = 0; line < Type::quant_bytes; line += 64) {
                _mm_prefetch(reinterpret_cast<const char *>(bytes + 2048 + line), _MM_HINT_T0);
            }
            __m512i w[groups];
            Type::quants(bytes, w);
            __m512 d[2], m;
            Type::scales(tile + quants_size, block, d, &m);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const int8_t * const a = quants + t * in.inner + block * block_values;
                const __m512 d_a = _mm512_set1_ps(scales[t * in.n_blocks + block]);
#pragma GCC unroll 2
                for (int s = 0; s < Type::n_scales; ++s) {
                    constexpr int n = groups / Type::n_scales;
                    const int32_t * const correction = corrections + (t * in.n_blocks + block) * Type::n_scales + s;
                    __m512i sum = Type::has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(*correction);
#pragma GCC unroll 8
                    for (int i = 0; i < n; ++i) {
                        sum = _mm512_dpbusd_epi32(sum, w[s * n + i], broadcast(a + (s * n + i) * 4));
                    }
                    sums[r][t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), d[s]), d_a, sums[r][t]);
                    if constexpr (Type::has_min) {
                        sums[r][t] = _mm512_fmadd_ps(m, broadcast_float(correction), sums[r][t]);
                    }
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            _mm512_storeu_ps(out + t * out_stride + r * tile_rows, sums[r][t]);
        }
    }
}

// ---- more tokens

// Weights of up to panel_tiles tiles and panel_blocks blocks: bytes, and factors as floats, [block][tile][n_scales (+ 1 with minima)][16].
struct Panel {
    alignas(64) uint8_t bytes[panel_tiles * panel_blocks * 512];
    alignas(64) float factors[panel_blocks * panel_tiles * 2 * 16];
    const uint8_t * weights;  // where the bytes are: above, or in the tiles themselves
    size_t tile_step;
};

template <class Type, int R>
void widen(const uint8_t * tiles, size_t tile_size, int64_t n_blocks, int64_t first, int64_t n, Panel & panel) {
    constexpr int n_factors = Type::n_scales + (Type::has_min ? 1 : 0);
    constexpr bool wide = Type::quant_bytes == 512;
    panel.weights = wide ? tiles + static_cast<size_t>(first) * 512 : panel.bytes;
    panel.tile_step = wide ? tile_size : panel_blocks * 512;
    for (int r = 0; r < R; ++r) {
        const uint8_t * const tile = tiles + static_cast<size_t>(r) * tile_size;
        for (int64_t b = 0; b < n; ++b) {
            if constexpr (!wide) {
                __m512i w[groups];
                Type::quants(tile + static_cast<size_t>(first + b) * Type::quant_bytes, w);
#pragma GCC unroll 8
                for (int i = 0; i < groups; ++i) {
                    _mm512_store_si512(panel.bytes + (r * panel_blocks + b) * 512 + i * 64, w[i]);
                }
            }
            __m512 d[2], m;
            Type::scales(tile + Type::quant_bytes * static_cast<size_t>(n_blocks), first + b, d, &m);
            float * const factors = panel.factors + (b * R + r) * n_factors * 16;
#pragma GCC unroll 2
            for (int s = 0; s < Type::n_scales; ++s) {
                _mm512_store_ps(factors + s * 16, d[s]);
            }
            if constexpr (Type::has_min) {
                _mm512_store_ps(factors + 16, m);
            }
        }
    }
}

// Sums of R tiles x T tokens over the n blocks of a panel, added to those in `out` unless these are the first blocks.
template <int R, int T, int n_scales, bool has_min>
void many(const Panel & panel, const Activations & in, int64_t first_token, int64_t first, int64_t n_here, float * out, size_t out_stride) {
    constexpr int n_factors = n_scales + (has_min ? 1 : 0);
    __m512 sums[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            sums[r][t] = first == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(out + t * out_stride + r * tile_rows);
        }
    }
    const int8_t * a = in.quants + first_token * in.inner + first * block_values;
    const float * scale = in.scales + first_token * in.n_blocks + first;
    const int32_t * correction = in.corrections + (first_token * in.n_blocks + first) * n_scales;
    const uint8_t * weights = panel.weights;
    const float * factors = panel.factors;
    for (int64_t block = 0; block < n_here; ++block) {
#pragma GCC unroll 2
        for (int s = 0; s < n_scales; ++s) {
            constexpr int n = groups / n_scales;
            __m512i integers[R][T];
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const __m512i start = has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(correction[t * in.n_blocks * n_scales + s]);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    integers[r][t] = start;
                }
            }
#pragma GCC unroll 8
            for (int i = s * n; i < (s + 1) * n; ++i) {
                __m512i four[T];
#pragma GCC unroll 4
                for (int t = 0; t < T; ++t) {
                    four[t] = broadcast(a + t * in.inner + i * 4);
                }
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const __m512i w = load(weights + static_cast<size_t>(r) * panel.tile_step + i * 64);
#pragma GCC unroll 4
                    for (int t = 0; t < T; ++t) {
                        integers[r][t] = _mm512_dpbusd_epi32(integers[r][t], w, four[t]);
                    }
                }
            }
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const __m512 d_a = _mm512_set1_ps(scale[t * in.n_blocks]);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const __m512 d = _mm512_load_ps(factors + (r * n_factors + s) * 16);
                    sums[r][t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(integers[r][t]), d), d_a, sums[r][t]);
                }
            }
        }
        if constexpr (has_min) {
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const __m512 sum = broadcast_float(correction + t * in.n_blocks);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    sums[r][t] = _mm512_fmadd_ps(_mm512_load_ps(factors + (r * n_factors + 1) * 16), sum, sums[r][t]);
                }
            }
        }
        a += block_values;
        scale += 1;
        correction += n_scales;
        weights += 512;
        factors += R * n_factors * 16;
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            _mm512_storeu_ps(out + t * out_stride + r * tile_rows, sums[r][t]);
        }
    }
}

// Brings the weights of the next panel nearer while this one is multiplied: four short runs of memory are too few for the processor to
// foresee.
struct Fetch {
    const uint8_t * runs[panel_tiles];
    int n_runs;
    size_t bytes;  // of a run
    size_t step;   // of a run, at a time
    size_t done = 0;

    void some() {
        const size_t end = std::min(done + step, bytes);
        for (; done < end; done += 64) {
            for (int r = 0; r < n_runs; ++r) {
                _mm_prefetch(reinterpret_cast<const char *>(runs[r] + done), _MM_HINT_T1);
            }
        }
    }
};

template <class Type, int R>
Fetch next_panel(const uint8_t * tiles, size_t tile_size, int64_t n_blocks, int64_t first, int64_t n_times) {
    if (first >= n_blocks) {  // of the next tiles
        tiles += R * tile_size;
        first = 0;
    }
    Fetch fetch{{}, R, Type::quant_bytes * panel_blocks, 0};
    fetch.step = (fetch.bytes / static_cast<size_t>(std::max<int64_t>(n_times, 1)) + 63) / 64 * 64;
    constexpr size_t scale_bytes = Type::scale_bytes * panel_blocks / (Type::scale_values / block_values);
    for (int r = 0; r < R; ++r) {
        const uint8_t * const tile = tiles + static_cast<size_t>(r) * tile_size;
        fetch.runs[r] = tile + static_cast<size_t>(first) * Type::quant_bytes;
        const uint8_t * const scales = tile + Type::quant_bytes * static_cast<size_t>(n_blocks) +
                                       Type::scale_bytes * static_cast<size_t>(first / (Type::scale_values / block_values));
#pragma GCC unroll 1
        for (size_t at = 0; at < scale_bytes; at += 64) {
            _mm_prefetch(reinterpret_cast<const char *>(scales + at), _MM_HINT_T0);
        }
    }
    return fetch;
}

template <class Type, int R>
void many_tokens(const uint8_t * tiles, size_t tile_size, const Activations & in, int64_t first_token, int64_t end_token, float * out,
                 size_t out_stride) {
    Panel panel;
    for (int64_t first = 0; first < in.n_blocks; first += panel_blocks) {
        const int64_t n = std::min(panel_blocks, in.n_blocks - first);
        widen<Type, R>(tiles, tile_size, in.n_blocks, first, n, panel);
        Fetch fetch = next_panel<Type, R>(tiles, tile_size, in.n_blocks, first + n, (end_token - first_token) / panel_tokens);
        int64_t token = first_token;
        for (; token + panel_tokens <= end_token; token += panel_tokens) {
            fetch.some();
            many<R, panel_tokens, Type::n_scales, Type::has_min>(panel, in, token, first, n, out + token * out_stride, out_stride);
        }
        if (end_token - token == 2) {
            many<R, 2, Type::n_scales, Type::has_min>(panel, in, token, first, n, out + token * out_stride, out_stride);
        } else if (end_token - token == 1) {
            many<R, 1, Type::n_scales, Type::has_min>(panel, in, token, first, n, out + token * out_stride, out_stride);
        }
    }
}

template <class Type, int R>
void few_tokens_of(const uint8_t * tiles, size_t tile_size, const Activations & in, int64_t token, int64_t n, float * out,
                   size_t out_stride) {
    for (; n >= 4; n -= 4) {  // four tokens are what the registers hold; the second time weights come from L2
        few<Type, R, 4>(tiles, tile_size, in, token, out, out_stride);
        token += 4;
        out += 4 * out_stride;
    }
    switch (n) {
        case 1: few<Type, R, 1>(tiles, tile_size, in, token, out, out_stride); break;
        case 2: few<Type, R, 2>(tiles, tile_size, in, token, out, out_stride); break;
        case 3: few<Type, R, 3>(tiles, tile_size, in, token, out, out_stride); break;
        default: break;
    }
}

template <class Type>
void multiply(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    const Activations in(prepared);
    constexpr Layout layout{Type::quant_bytes, Type::scale_bytes, Type::scale_values};
    const size_t tile_size = tile_bytes(layout, prepared.inner);
    const int64_t n_tokens = part.end_token - part.first_token;
    int64_t tile = part.first_tile;
    if (n_tokens <= few_tokens) {
        for (; tile < part.end_tile; tile += 2) {
            const uint8_t * const bytes = tiles + static_cast<size_t>(tile) * tile_size;
            float * const to = out + part.first_token * out_stride + tile * tile_rows;
            if (tile + 1 < part.end_tile) {
                few_tokens_of<Type, 2>(bytes, tile_size, in, part.first_token, n_tokens, to, out_stride);
            } else {
                few_tokens_of<Type, 1>(bytes, tile_size, in, part.first_token, n_tokens, to, out_stride);
            }
        }
        return;
    }
    while (tile < part.end_tile) {
        const uint8_t * const bytes = tiles + static_cast<size_t>(tile) * tile_size;
        float * const to = out + tile * tile_rows;
        const int64_t n = part.end_tile - tile;
        if (n >= 4) {
            many_tokens<Type, 4>(bytes, tile_size, in, part.first_token, part.end_token, to, out_stride);
            tile += 4;
        } else if (n >= 2) {
            many_tokens<Type, 2>(bytes, tile_size, in, part.first_token, part.end_token, to, out_stride);
            tile += 2;
        } else {
            many_tokens<Type, 1>(bytes, tile_size, in, part.first_token, part.end_token, to, out_stride);
            tile += 1;
        }
    }
}

template <class Type>
const Kernel * kernel() {
    static constexpr Kernel kernel{"AVX-512 VNNI", &prepared_bytes<Type>, &prepare<Type>, &multiply<Type>};
    return &kernel;
}

}  // namespace

const Kernel * avx512_vnni_kernel(ggml_type type) noexcept {
    switch (type) {
        case GGML_TYPE_Q4_0: return kernel<FourBits<false>>();
        case GGML_TYPE_Q8_0: return kernel<EightBits>();
        case GGML_TYPE_Q4_1: return kernel<FourBits<true>>();
        case GGML_TYPE_Q5_0: return kernel<FiveBits<false>>();
        case GGML_TYPE_Q5_1: return kernel<FiveBits<true>>();
        case GGML_TYPE_IQ4_NL: return kernel<FourBitsTable>();
        case GGML_TYPE_Q4_K: return kernel<SuperBlockMin<false>>();
        case GGML_TYPE_Q5_K: return kernel<SuperBlockMin<true>>();
        case GGML_TYPE_Q6_K: return kernel<SixBits>();
        default: return nullptr;
    }
}

}  // namespace rim::kernels
