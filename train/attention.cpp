// Attention for training, forward and backward, on processors with AMX tiles (BF16).
//
// One head has 32 dimensions, so a 16 x 16 tile of scores is one tile product. Key blocks that no row of a query block
// may see are skipped: with several questions about shared facts that is most of them. Scores are never stored; the
// backward pass computes them again, once by queries (for dQ) and once by keys (for dK and dV).
//
// Names: i counts queries, j keys; d = 32; H heads share G key/value heads. A "transposed pack" of 16 rows is the B
// operand of rows . rows^T, a "paired pack" of 32 rows that of weights . rows.

#include <ATen/ATen.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <torch/library.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

namespace {

constexpr int64_t kDim = 32;       // of a head
constexpr int64_t kTile = 16;      // rows and columns of a tile
constexpr int64_t kPair = 32;      // rows that one paired pack holds
constexpr int64_t kPack = 16 * 32; // BF16 values of a tile operand
constexpr float kLog2E = 1.4426950408889634f;

using Bf16 = uint16_t;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void enable_tiles() {
    static const bool allowed = [] {
        constexpr int request_permission = 0x1023, tile_data = 18;
        return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    }();
    TORCH_CHECK(allowed, "this system does not let programs use AMX tiles");
    static const TileConfig config;
    _tile_loadconfig(&config);
}

struct TilesInUse {
    TilesInUse() { enable_tiles(); }
    ~TilesInUse() { _tile_release(); }
};

// exp2(x) for x <= 0; relative error below 2e-6, 0 far below.
inline __m512 exp2_negative(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 part = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(1.3333558e-3f);
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

inline __m512i to_bf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

inline __m512 from_bf16(__m256i values) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

// Rotary embedding of one row: value n (of the first 16) and n + 16 turn by angle n. `turn` holds the 16 cosines, then
// the 16 sines of a position; `way` is 1, or -1 to turn back.
inline void rotate(__m512& low, __m512& high, const float* turn, float way) {
    const __m512 cosine = _mm512_loadu_ps(turn);
    const __m512 sine = _mm512_mul_ps(_mm512_loadu_ps(turn + kTile), _mm512_set1_ps(way));
    const __m512 first = _mm512_fmsub_ps(low, cosine, _mm512_mul_ps(high, sine));
    high = _mm512_fmadd_ps(high, cosine, _mm512_mul_ps(low, sine));
    low = first;
}

// The heads of one sequence, packed. Rows behind the last are zero.
class Packs {
public:
    explicit Packs(int64_t padded)
        : rows_(padded * kDim), transposed_(padded * kDim), paired_(padded * kDim) {}

    // `source` has `length` rows of 32 BF16 values, `stride` values apart; `turns`, where given, a rotation for each.
    void fill(const Bf16* source, int64_t stride, int64_t length, const float* turns = nullptr) {
        const int64_t padded = static_cast<int64_t>(rows_.size()) / kDim;
        for (int64_t row = 0; row < padded; ++row) {
            __m512i values = row < length ? _mm512_loadu_si512(source + row * stride) : _mm512_setzero_si512();
            if (turns != nullptr && row < length) {
                __m512 first = from_bf16(_mm512_castsi512_si256(values));
                __m512 second = from_bf16(_mm512_extracti64x4_epi64(values, 1));
                rotate(first, second, turns + row * kDim, 1.0f);
                values = to_bf16(first, second);
            }
            _mm512_storeu_si512(rows_.data() + row * kDim, values);
            // dword i of row n goes to dword n of row i
            auto* block = reinterpret_cast<int32_t*>(transposed_.data() + row / kTile * kPack) + row % kTile;
            const __m512i places = _mm512_mullo_epi32(
                _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(16));
            _mm512_i32scatter_epi32(block, places, values, 4);
        }
        alignas(64) static const struct Interleave {
            uint16_t low[32], high[32];
            Interleave() {
                for (int n = 0; n < 16; ++n) {
                    low[2 * n] = static_cast<uint16_t>(n), low[2 * n + 1] = static_cast<uint16_t>(32 + n);
                    high[2 * n] = static_cast<uint16_t>(16 + n), high[2 * n + 1] = static_cast<uint16_t>(48 + n);
                }
            }
        } interleave;
        const __m512i low = _mm512_loadu_si512(interleave.low), high = _mm512_loadu_si512(interleave.high);
        for (int64_t row = 0; row < padded; row += 2) {
            const __m512i a = _mm512_loadu_si512(rows_.data() + row * kDim);
            const __m512i b = _mm512_loadu_si512(rows_.data() + (row + 1) * kDim);
            Bf16* block = paired_.data() + row / kPair * 2 * kPack + row % kPair / 2 * 32;
            _mm512_storeu_si512(block, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(block + kPack, _mm512_permutex2var_epi16(a, high, b));
        }
    }

    const Bf16* rows(int64_t tile) const { return rows_.data() + tile * kTile * kDim; }
    const Bf16* transposed(int64_t tile) const { return transposed_.data() + tile * kPack; }
    const Bf16* paired(int64_t pair, int64_t half) const { return paired_.data() + (2 * pair + half) * kPack; }

private:
    std::vector<Bf16> rows_, transposed_, paired_;
};

// Which pairs of key tiles some row of a query tile sees; `bits` are 16 rows of `tiles` words.
void visible_pairs(const uint16_t* bits, int64_t tiles, std::vector<int64_t>& pairs) {
    pairs.clear();
    for (int64_t pair = 0; pair < tiles / 2; ++pair) {
        uint32_t any = 0;
        for (int64_t row = 0; row < kTile; ++row) {
            uint32_t both;
            std::memcpy(&both, bits + row * tiles + 2 * pair, 4);
            any |= both;
        }
        if (any != 0) {
            pairs.push_back(pair);
        }
    }
}

struct Shape {
    int64_t batch, length, heads, groups, padded, tiles;
    float scale;

    Shape(const at::Tensor& q, const at::Tensor& k, const at::Tensor& bits)
        : batch(q.size(0)), length(q.size(1)), heads(q.size(2)), groups(k.size(2)), padded(bits.size(2)),
          tiles(padded / kTile), scale(1.0f / std::sqrt(static_cast<float>(kDim))) {
        TORCH_CHECK(q.size(3) == kDim && k.size(3) == kDim, "a head must have 32 dimensions");
        TORCH_CHECK(padded == (length + kPair - 1) / kPair * kPair && bits.size(1) == batch, "mask of another shape");
        TORCH_CHECK(q.scalar_type() == at::kBFloat16 && k.scalar_type() == at::kBFloat16, "heads must be BF16");
    }
};

const Bf16* data(const at::Tensor& tensor) { return reinterpret_cast<const Bf16*>(tensor.const_data_ptr()); }
Bf16* mutable_data(at::Tensor& tensor) { return reinterpret_cast<Bf16*>(tensor.data_ptr()); }

// [2, B, P, P/16] int16 of visible [B, T, T] bool, P = T rounded up to 32: bit n of word (i, m) says whether query i
// sees key 16 m + n; in the second half queries and keys change places.
at::Tensor pack_mask(const at::Tensor& visible_in) {
    const at::Tensor visible = visible_in.contiguous();
    const int64_t batch = visible.size(0), length = visible.size(1);
    const int64_t padded = (length + kPair - 1) / kPair * kPair, tiles = padded / kTile;
    at::Tensor packed = at::zeros({2, batch, padded, tiles}, at::kShort);
    const bool* sees = visible.const_data_ptr<bool>();
    auto* by_query = reinterpret_cast<uint16_t*>(packed.data_ptr());
    uint16_t* by_key = by_query + batch * padded * tiles;
    for (int64_t b = 0; b < batch; ++b) {
        for (int64_t i = 0; i < length; ++i) {
            for (int64_t j = 0; j < length; ++j) {
                const auto bit = static_cast<uint16_t>(sees[(b * length + i) * length + j] ? 1 : 0);
                by_query[(b * padded + i) * tiles + j / kTile] |= static_cast<uint16_t>(bit << j % kTile);
                by_key[(b * padded + j) * tiles + i / kTile] |= static_cast<uint16_t>(bit << i % kTile);
            }
        }
    }
    return packed;
}

// out [B, T, H * 32] BF16 and the logarithms (base 2) of the sums [B, H, P] of q [B, T, H, 32], k and v [B, T, G, 32];
// q and k are turned by `turns` [B, T, 32] first.
std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
                                           const at::Tensor& bits, const at::Tensor& turns) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
    const Shape s(q, k, bits);
    at::Tensor out = at::empty({s.batch, s.length, s.heads * kDim}, q.options());
    at::Tensor logs = at::empty({s.batch, s.heads, s.padded}, q.options().dtype(at::kFloat));
    const TilesInUse tiles_in_use;
    Packs queries(s.padded), keys(s.padded), values(s.padded);
    std::vector<float> scores(kTile * s.padded);
    std::vector<Bf16> weights(kTile * s.padded);
    std::vector<int64_t> pairs;
    alignas(64) float mixed[kTile * kDim];
    const auto* mask = reinterpret_cast<const uint16_t*>(bits.const_data_ptr());
    const __m512 factor = _mm512_set1_ps(s.scale * kLog2E);
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    for (int64_t b = 0; b < s.batch; ++b) {
        for (int64_t h = 0; h < s.heads; ++h) {
            const int64_t per_group = s.heads / s.groups, g = h / per_group;
            const float* turn = turns.const_data_ptr<float>() + b * s.length * kDim;
            queries.fill(data(q) + (b * s.length * s.heads + h) * kDim, s.heads * kDim, s.length, turn);
            if (h % per_group == 0) {
                keys.fill(data(k) + (b * s.length * s.groups + g) * kDim, s.groups * kDim, s.length, turn);
                values.fill(data(v) + (b * s.length * s.groups + g) * kDim, s.groups * kDim, s.length);
            }
            for (int64_t tile = 0; tile * kTile < s.length; ++tile) {
                const uint16_t* rows = mask + (b * s.padded + tile * kTile) * s.tiles;
                visible_pairs(rows, s.tiles, pairs);
                const auto n_pairs = static_cast<int64_t>(pairs.size());
                const int64_t width = n_pairs * kPair;
                _tile_loadd(4, queries.rows(tile), 64);
                for (int64_t p = 0; p < n_pairs; ++p) {
                    _tile_loadd(5, keys.transposed(2 * pairs[p]), 64);
                    _tile_loadd(6, keys.transposed(2 * pairs[p] + 1), 64);
                    _tile_zero(0);
                    _tile_zero(1);
                    _tile_dpbf16ps(0, 4, 5);
                    _tile_dpbf16ps(1, 4, 6);
                    _tile_stored(0, scores.data() + p * kPair, width * 4);
                    _tile_stored(1, scores.data() + p * kPair + kTile, width * 4);
                }
                float* log = logs.data_ptr<float>() + (b * s.heads + h) * s.padded + tile * kTile;
                float share[kTile];
                for (int64_t row = 0; row < kTile; ++row) {
                    float* line = scores.data() + row * width;
                    __m512 most = lowest;
                    for (int64_t p = 0; p < n_pairs; ++p) {
                        for (int64_t half = 0; half < 2; ++half) {
                            const __mmask16 seen = rows[row * s.tiles + 2 * pairs[p] + half];
                            const __m512 score = _mm512_mask_mul_ps(
                                lowest, seen, _mm512_loadu_ps(line + p * kPair + half * kTile), factor);
                            _mm512_storeu_ps(line + p * kPair + half * kTile, score);
                            most = _mm512_max_ps(most, score);
                        }
                    }
                    const float top = _mm512_reduce_max_ps(most);
                    const __m512 shift = _mm512_set1_ps(std::isfinite(top) ? top : 0.0f);
                    __m512 sum = _mm512_setzero_ps();
                    for (int64_t p = 0; p < n_pairs; ++p) {
                        __m512 weight[2];
                        for (int64_t half = 0; half < 2; ++half) {
                            weight[half] = exp2_negative(
                                _mm512_sub_ps(_mm512_loadu_ps(line + p * kPair + half * kTile), shift));
                            const __mmask16 seen = rows[row * s.tiles + 2 * pairs[p] + half];
                            weight[half] = _mm512_maskz_mov_ps(seen, weight[half]);
                            sum = _mm512_add_ps(sum, weight[half]);
                        }
                        _mm512_storeu_si512(weights.data() + row * width + p * kPair, to_bf16(weight[0], weight[1]));
                    }
                    const float total = _mm512_reduce_add_ps(sum);
                    share[row] = total > 0.0f ? 1.0f / total : 0.0f;
                    log[row] = total > 0.0f ? std::log2(total) + top : 0.0f;
                }
                _tile_zero(2);
                _tile_zero(3);
                for (int64_t p = 0; p < n_pairs; ++p) {
                    _tile_loadd(7, weights.data() + p * kPair, width * 2);
                    _tile_loadd(5, values.paired(pairs[p], 0), 64);
                    _tile_loadd(6, values.paired(pairs[p], 1), 64);
                    _tile_dpbf16ps(2, 7, 5);
                    _tile_dpbf16ps(3, 7, 6);
                }
                _tile_stored(2, mixed, kDim * 4);
                _tile_stored(3, mixed + kTile, kDim * 4);
                for (int64_t row = 0; row < kTile && tile * kTile + row < s.length; ++row) {
                    const __m512 part = _mm512_set1_ps(share[row]);
                    const __m512 low = _mm512_mul_ps(_mm512_load_ps(mixed + row * kDim), part);
                    const __m512 high = _mm512_mul_ps(_mm512_load_ps(mixed + row * kDim + kTile), part);
                    _mm512_storeu_si512(
                        mutable_data(out) + ((b * s.length + tile * kTile + row) * s.heads + h) * kDim,
                        to_bf16(low, high));
                }
            }
        }
    }
    return {out, logs};
}

// Rows of two accumulated tiles (the halves of 32 dimensions), times `factor` and turned back by `turns` if given, as
// BF16 rows `stride` values apart.
void store_rows(const float* tiles, float factor, Bf16* target, int64_t stride, int64_t rows, const float* turns) {
    const __m512 times = _mm512_set1_ps(factor);
    for (int64_t row = 0; row < rows; ++row) {
        __m512 low = _mm512_mul_ps(_mm512_load_ps(tiles + row * kDim), times);
        __m512 high = _mm512_mul_ps(_mm512_load_ps(tiles + row * kDim + kTile), times);
        if (turns != nullptr) {
            rotate(low, high, turns + row * kDim, -1.0f);
        }
        _mm512_storeu_si512(target + row * stride, to_bf16(low, high));
    }
}

// Gradients of q, k and v from that of out.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad_in, const at::Tensor& q_in,
                                                        const at::Tensor& k_in, const at::Tensor& v_in,
                                                        const at::Tensor& bits, const at::Tensor& turns,
                                                        const at::Tensor& out, const at::Tensor& logs) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
    const at::Tensor grad = grad_in.contiguous();
    const Shape s(q, k, bits);
    TORCH_CHECK(grad.scalar_type() == at::kBFloat16, "the gradient must be BF16");
    at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    const TilesInUse tiles_in_use;
    const int64_t per_group = s.heads / s.groups;
    std::vector<Packs> queries(per_group, Packs(s.padded)), grads(per_group, Packs(s.padded));
    Packs keys(s.padded), values(s.padded);
    std::vector<float> dots(per_group * s.padded);
    std::vector<Bf16> weights(kTile * s.padded);
    std::vector<int64_t> pairs;
    alignas(64) float score[2][kTile * kTile], slope[2][kTile * kTile], sums[2][kTile * kDim];
    alignas(64) Bf16 weight_tile[kTile * kPair], slope_tile[kTile * kPair];
    const auto* by_query = reinterpret_cast<const uint16_t*>(bits.const_data_ptr());
    const uint16_t* by_key = by_query + s.batch * s.padded * s.tiles;
    const __m512 factor = _mm512_set1_ps(s.scale * kLog2E);
    for (int64_t b = 0; b < s.batch; ++b) {
        for (int64_t g = 0; g < s.groups; ++g) {
            const float* turn = turns.const_data_ptr<float>() + b * s.length * kDim;
            keys.fill(data(k) + (b * s.length * s.groups + g) * kDim, s.groups * kDim, s.length, turn);
            values.fill(data(v) + (b * s.length * s.groups + g) * kDim, s.groups * kDim, s.length);
            for (int64_t n = 0; n < per_group; ++n) {
                const int64_t h = g * per_group + n, offset = (b * s.length * s.heads + h) * kDim;
                queries[n].fill(data(q) + offset, s.heads * kDim, s.length, turn);
                grads[n].fill(data(grad) + offset, s.heads * kDim, s.length);
                float* dot = dots.data() + n * s.padded;
                for (int64_t i = 0; i < s.padded; ++i) {
                    dot[i] = 0.0f;
                    if (i < s.length) {
                        const auto left = (__m512bh)_mm512_loadu_si512(data(grad) + offset + i * s.heads * kDim);
                        const auto right = (__m512bh)_mm512_loadu_si512(data(out) + offset + i * s.heads * kDim);
                        dot[i] = _mm512_reduce_add_ps(_mm512_dpbf16_ps(_mm512_setzero_ps(), left, right));
                    }
                }
                const float* log = logs.const_data_ptr<float>() + (b * s.heads + h) * s.padded;
                for (int64_t tile = 0; tile * kTile < s.length; ++tile) {
                    const uint16_t* rows = by_query + (b * s.padded + tile * kTile) * s.tiles;
                    visible_pairs(rows, s.tiles, pairs);
                    _tile_loadd(4, queries[n].rows(tile), 64);
                    _tile_loadd(5, grads[n].rows(tile), 64);
                    _tile_zero(2);
                    _tile_zero(3);
                    for (const int64_t pair : pairs) {
                        for (int64_t half = 0; half < 2; ++half) {
                            _tile_loadd(6, keys.transposed(2 * pair + half), 64);
                            _tile_loadd(7, values.transposed(2 * pair + half), 64);
                            _tile_zero(0);
                            _tile_zero(1);
                            _tile_dpbf16ps(0, 4, 6);
                            _tile_dpbf16ps(1, 5, 7);
                            _tile_stored(0, score[half], kTile * 4);
                            _tile_stored(1, slope[half], kTile * 4);
                        }
                        for (int64_t row = 0; row < kTile; ++row) {
                            const __m512 shift = _mm512_set1_ps(log[tile * kTile + row]);
                            const __m512 mean = _mm512_set1_ps(dot[tile * kTile + row]);
                            __m512 part[2];
                            for (int64_t half = 0; half < 2; ++half) {
                                const __mmask16 seen = rows[row * s.tiles + 2 * pair + half];
                                const __m512 weight = exp2_negative(_mm512_maskz_fmsub_ps(
                                    seen, _mm512_load_ps(score[half] + row * kTile), factor, shift));
                                part[half] = _mm512_maskz_mul_ps(
                                    seen, weight, _mm512_sub_ps(_mm512_load_ps(slope[half] + row * kTile), mean));
                            }
                            _mm512_store_si512(slope_tile + row * kPair, to_bf16(part[0], part[1]));
                        }
                        _tile_loadd(0, slope_tile, 64);
                        _tile_loadd(6, keys.paired(pair, 0), 64);
                        _tile_loadd(7, keys.paired(pair, 1), 64);
                        _tile_dpbf16ps(2, 0, 6);
                        _tile_dpbf16ps(3, 0, 7);
                    }
                    _tile_stored(2, sums[0], kDim * 4);
                    _tile_stored(3, sums[0] + kTile, kDim * 4);
                    store_rows(sums[0], s.scale, mutable_data(dq) + offset + tile * kTile * s.heads * kDim,
                               s.heads * kDim, std::min(kTile, s.length - tile * kTile),
                               turn + tile * kTile * kDim);
                }
            }
            for (int64_t tile = 0; tile * kTile < s.length; ++tile) {
                const uint16_t* rows = by_key + (b * s.padded + tile * kTile) * s.tiles;
                visible_pairs(rows, s.tiles, pairs);
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
                for (int64_t n = 0; n < per_group; ++n) {
                    const int64_t h = g * per_group + n;
                    const float* log = logs.const_data_ptr<float>() + (b * s.heads + h) * s.padded;
                    const float* dot = dots.data() + n * s.padded;
                    for (const int64_t pair : pairs) {
                        for (int64_t half = 0; half < 2; ++half) {
                            _tile_loadd(4, keys.rows(tile), 64);
                            _tile_loadd(5, queries[n].transposed(2 * pair + half), 64);
                            _tile_zero(6);
                            _tile_dpbf16ps(6, 4, 5);
                            _tile_stored(6, score[half], kTile * 4);
                            _tile_loadd(4, values.rows(tile), 64);
                            _tile_loadd(5, grads[n].transposed(2 * pair + half), 64);
                            _tile_zero(7);
                            _tile_dpbf16ps(7, 4, 5);
                            _tile_stored(7, slope[half], kTile * 4);
                        }
                        for (int64_t row = 0; row < kTile; ++row) {
                            __m512 weight[2], part[2];
                            for (int64_t half = 0; half < 2; ++half) {
                                const int64_t first = pair * kPair + half * kTile;
                                const __mmask16 seen = rows[row * s.tiles + 2 * pair + half];
                                weight[half] = exp2_negative(
                                    _mm512_maskz_fmsub_ps(seen, _mm512_load_ps(score[half] + row * kTile), factor,
                                                          _mm512_loadu_ps(log + first)));
                                weight[half] = _mm512_maskz_mov_ps(seen, weight[half]);
                                part[half] = _mm512_mul_ps(
                                    weight[half], _mm512_sub_ps(_mm512_load_ps(slope[half] + row * kTile),
                                                                _mm512_loadu_ps(dot + first)));
                            }
                            _mm512_store_si512(weight_tile + row * kPair, to_bf16(weight[0], weight[1]));
                            _mm512_store_si512(slope_tile + row * kPair, to_bf16(part[0], part[1]));
                        }
                        _tile_loadd(4, weight_tile, 64);
                        _tile_loadd(5, grads[n].paired(pair, 0), 64);
                        _tile_loadd(6, grads[n].paired(pair, 1), 64);
                        _tile_dpbf16ps(0, 4, 5);
                        _tile_dpbf16ps(1, 4, 6);
                        _tile_loadd(4, slope_tile, 64);
                        _tile_loadd(5, queries[n].paired(pair, 0), 64);
                        _tile_loadd(6, queries[n].paired(pair, 1), 64);
                        _tile_dpbf16ps(2, 4, 5);
                        _tile_dpbf16ps(3, 4, 6);
                    }
                }
                _tile_stored(0, sums[0], kDim * 4);
                _tile_stored(1, sums[0] + kTile, kDim * 4);
                _tile_stored(2, sums[1], kDim * 4);
                _tile_stored(3, sums[1] + kTile, kDim * 4);
                const int64_t offset = ((b * s.length + tile * kTile) * s.groups + g) * kDim;
                const int64_t rows_left = std::min(kTile, s.length - tile * kTile);
                store_rows(sums[0], 1.0f, mutable_data(dv) + offset, s.groups * kDim, rows_left, nullptr);
                store_rows(sums[1], s.scale, mutable_data(dk) + offset, s.groups * kDim, rows_left,
                           turn + tile * kTile * kDim);
            }
        }
    }
    return {dq, dk, dv};
}

} // namespace

TORCH_LIBRARY(rim_train, library) {
    library.def("pack_mask(Tensor visible) -> Tensor");
    library.def("attend(Tensor q, Tensor k, Tensor v, Tensor bits, Tensor turns) -> (Tensor, Tensor)");
    library.def("attend_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor bits, Tensor turns,"
                " Tensor out, Tensor logs)"
                " -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(rim_train, CPU, library) {
    library.impl("pack_mask", &pack_mask);
    library.impl("attend", &forward);
    library.impl("attend_backward", &backward);
}
