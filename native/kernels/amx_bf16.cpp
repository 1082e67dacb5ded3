// amx_bf16.cpp: products of BF16 weights in the matrix units of Intel's Xeons (AMX, from Sapphire Rapids on), where AVX-512 BF16 multiplies
// slowly. Compiled with AVX-512 BF16; entered only where the processor has all of it and the system lets programs use tiles.
//
// A block of 32 values of a weight tile (layout.h) is just what the right-hand side of a tile product is: 16 rows of 16 pairs. The
// left-hand side is up to 16 tokens ("group") of the same 32 values. Tiles sum the products of even and of odd values of a block apart, in
// float, and add both to the result, for any number of tokens: so a result does not depend on it. AVX-512 BF16 sums in another order.
//
// Tile instructions are written as assembly that names memory: intrinsics of gcc before 13 do not, and the compiler drops what they read.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernel.h"
#include "layout.h"

namespace rim::kernels {

namespace {

// clang-format off
#define RIM_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::: "memory")
#define RIM_TILE_LOAD(tile, from, step) asm volatile("tileloadd (%0,%1,1), %%tmm" #tile :: "r"(from), "r"(static_cast<int64_t>(step)) : "memory")
#define RIM_TILE_STORE(tile, to, step) asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" :: "r"(to), "r"(static_cast<int64_t>(step)) : "memory")
#define RIM_TILE_ADD(sum, left, right) asm volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::: "memory")
// clang-format on

constexpr int64_t panel_tiles = 4;
constexpr int64_t panel_blocks = 8;  // with 4 tiles 32 KiB of weights, which stay in L1 from group to group
constexpr int64_t group_tokens = 16;
constexpr int64_t row_bytes = 2 * block_values;
constexpr int64_t weight_bytes = 16 * row_bytes;  // of a tile, per block

// The shapes of a thread's tiles while the object lives: 0 to 3 sums, `tokens` x 16 floats; 4 tokens, 16 pairs each; 5 and 6 weights, 16 pairs
// x 16.
class Tiles {
  public:
    explicit Tiles(int64_t tokens) noexcept {
        alignas(64) struct {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t widths[16] = {64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {0, 0, 0, 0, 0, 16, 16};
        } shapes;
        std::fill(shapes.rows, shapes.rows + 5, static_cast<uint8_t>(tokens));
        asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
    }
    ~Tiles() { asm volatile("tilerelease" ::: "memory"); }
    Tiles(const Tiles &) = delete;
    Tiles & operator=(const Tiles &) = delete;
};

// Activations: [group][block][tokens of a group][32]; groups have 16 tokens, or all where there are fewer.
struct Groups {
    uint8_t * values;
    int64_t n_blocks, tokens, n_groups;

    explicit Groups(const Prepared & prepared) : Groups(prepared.inner, prepared.n_tokens) { values = prepared.bytes; }
    Groups(int64_t inner, int64_t n_tokens)
        : values(nullptr), n_blocks(inner / block_values), tokens(std::min(group_tokens, n_tokens)),
          n_groups((n_tokens + group_tokens - 1) / group_tokens) {}
    uint8_t * at(int64_t group, int64_t block) const { return values + (group * n_blocks + block) * tokens * row_bytes; }
    size_t size() const { return static_cast<size_t>(n_groups * n_blocks * tokens * row_bytes); }
};

size_t prepared_bytes(int64_t inner, int64_t n_tokens) {
    return Groups(inner, n_tokens).size();
}

void prepare(const float * values, int64_t token, int64_t first, int64_t end, const Prepared & prepared) {
    const Groups to(prepared);
    const int64_t lacking = token + 1 == prepared.n_tokens ? to.tokens - 1 - token % group_tokens : 0;
    for (int64_t k = first; k < end; k += block_values) {
        const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + k + 16), _mm512_loadu_ps(values + k));
        uint8_t * const row = to.at(token / group_tokens, k / block_values) + token % group_tokens * row_bytes;
        std::memcpy(row, &both, sizeof both);
        std::memset(row + row_bytes, 0, static_cast<size_t>(lacking * row_bytes));
    }
}

// Four tiles of weights (the last ones again where there are fewer) x a group of tokens over n blocks; `out`: of each tile.
void add_blocks(const uint8_t * const * weights, const uint8_t * tokens, size_t token_step, int64_t n, bool fresh, float * const * out,
               size_t out_stride) {
    const auto step = static_cast<int64_t>(out_stride * sizeof(float));
    if (fresh) {
        RIM_TILE_ZERO(0);
        RIM_TILE_ZERO(1);
        RIM_TILE_ZERO(2);
        RIM_TILE_ZERO(3);
    } else {
        RIM_TILE_LOAD(0, out[0], step);
        RIM_TILE_LOAD(1, out[1], step);
        RIM_TILE_LOAD(2, out[2], step);
        RIM_TILE_LOAD(3, out[3], step);
    }
    for (int64_t b = 0; b < n; ++b) {
        RIM_TILE_LOAD(4, tokens + static_cast<size_t>(b) * token_step, row_bytes);
        RIM_TILE_LOAD(5, weights[0] + b * weight_bytes, row_bytes);
        RIM_TILE_ADD(0, 4, 5);
        RIM_TILE_LOAD(6, weights[1] + b * weight_bytes, row_bytes);
        RIM_TILE_ADD(1, 4, 6);
        RIM_TILE_LOAD(5, weights[2] + b * weight_bytes, row_bytes);
        RIM_TILE_ADD(2, 4, 5);
        RIM_TILE_LOAD(6, weights[3] + b * weight_bytes, row_bytes);
        RIM_TILE_ADD(3, 4, 6);
    }
    RIM_TILE_STORE(0, out[0], step);
    RIM_TILE_STORE(1, out[1], step);
    RIM_TILE_STORE(2, out[2], step);
    RIM_TILE_STORE(3, out[3], step);
}

// Copies the sums of n_tiles x n_tokens between places whose tokens and tiles lie so many floats apart.
void copy_sums(const float * from, size_t from_token, size_t from_tile, float * to, size_t to_token, size_t to_tile, int64_t n_tiles,
               int64_t n_tokens) {
    for (int64_t r = 0; r < n_tiles; ++r) {
        for (int64_t t = 0; t < n_tokens; ++t) {
            std::memcpy(to + static_cast<size_t>(t) * to_token + static_cast<size_t>(r) * to_tile,
                        from + static_cast<size_t>(t) * from_token + static_cast<size_t>(r) * from_tile, tile_rows * sizeof(float));
        }
    }
}

void multiply(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride) {
    const Groups in(prepared);
    const size_t tile_size = tile_bytes(*layout_of(GGML_TYPE_BF16), prepared.inner);
    const size_t token_step = static_cast<size_t>(in.tokens * row_bytes);
    const Tiles shapes(in.tokens);
    alignas(64) float last[panel_tiles][256] = {};  // sums of a last group that lacks tokens, or where tiles lack
    for (int64_t tile = part.first_tile; tile < part.end_tile; tile += panel_tiles) {
        const int64_t n_tiles = std::min<int64_t>(panel_tiles, part.end_tile - tile);
        // Few tokens leave nothing to keep near: a weight is read once.
        const int64_t step = part.end_token - part.first_token <= group_tokens ? in.n_blocks : panel_blocks;
        for (int64_t first = 0; first < in.n_blocks; first += step) {
            const int64_t n = std::min(step, in.n_blocks - first);
            const uint8_t * weights[panel_tiles];
            for (int64_t r = 0; r < panel_tiles; ++r) {
                weights[r] = tiles + static_cast<size_t>(tile + std::min(r, n_tiles - 1)) * tile_size + static_cast<size_t>(first * weight_bytes);
            }
            for (int64_t token = part.first_token; token < part.end_token; token += group_tokens) {
                const int64_t n_tokens = std::min(in.tokens, part.end_token - token);
                const bool whole = n_tokens == in.tokens && n_tiles == panel_tiles;
                float * const to = out + static_cast<size_t>(token) * out_stride + tile * tile_rows;
                float * results[panel_tiles];
                for (int64_t r = 0; r < panel_tiles; ++r) {
                    results[r] = whole ? to + r * tile_rows : last[r];
                }
                if (!whole && first > 0) {
                    copy_sums(to, out_stride, tile_rows, last[0], tile_rows, 256, n_tiles, n_tokens);
                }
                add_blocks(weights, in.at(token / group_tokens, first), token_step, n, first == 0, results, whole ? out_stride : tile_rows);
                if (!whole) {
                    copy_sums(last[0], tile_rows, 256, to, out_stride, tile_rows, n_tiles, n_tokens);
                }
            }
        }
    }
}

}  // namespace

const Kernel * amx_bf16_kernel(ggml_type type) noexcept {
    static constexpr Kernel kernel{"AMX BF16", &prepared_bytes, &prepare, &multiply, false, false, few_tokens, group_tokens};
    return type == GGML_TYPE_BF16 ? &kernel : nullptr;
}

}  // namespace rim::kernels
