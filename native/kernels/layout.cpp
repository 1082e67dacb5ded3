// layout.cpp: from ggml's blocks to tiles. Portable code; the bytes of a block are read where ggml's quantizer put them.
#include "layout.h"

#include <algorithm>
#include <cstring>

namespace rim::kernels {

namespace {

constexpr size_t half_bytes = sizeof(uint16_t);
constexpr int groups = 8;  // of 4 values, in a block of 32

uint32_t load32(const uint8_t * bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

void store32(uint8_t * bytes, uint32_t word) {
    memcpy(bytes, &word, sizeof word);
}

// Where the blocks of a tile lie.
class Tile {
  public:
    Tile(uint8_t * bytes, const Layout & layout, int64_t inner)
        : bytes_(bytes), layout_(layout), n_blocks_(inner / block_values), segments_(bytes + layout.head(n_blocks_)) {}

    uint8_t * quants(int64_t block) const {
        const int64_t inside = block % layout_.segment_blocks();
        const int64_t n_here = std::min(layout_.segment_blocks(), n_blocks_ - (block - inside));
        return segments_ + layout_.segment_at(block) + layout_.quants_at(n_here) + static_cast<size_t>(inside) * layout_.quant_bytes;
    }
    // Of a block, or of the 256 values that it is among for types whose scales belong to these.
    uint8_t * scales(int64_t block) const {
        const int64_t inside = layout_.scale_values == block_values ? block % layout_.segment_blocks() : 0;
        return segments_ + layout_.segment_at(block) + static_cast<size_t>(inside) * layout_.scale_bytes;
    }
    // In the head, of the 256 values that the block is among.
    uint8_t * head(int64_t block) const { return bytes_ + layout_.head_at(block); }

  private:
    uint8_t * bytes_;
    const Layout & layout_;
    int64_t n_blocks_;
    uint8_t * segments_;
};

// Nibbles of one row in one block, both halves of 16 values as in ggml's 32-value types: the same bytes, spread over the lanes.
void put_nibbles(const uint8_t * nibbles, int row, uint8_t * quants) {
    for (int j = 0; j < 4; ++j) {
        memcpy(quants + j * 64 + row * 4, nibbles + j * 4, 4);
    }
}

// The fifth bits of one row in one block, from a word with a bit for each value: bit i of byte 4 row + c is that of value 4i + c.
void put_fifth_bits(uint32_t bits, int row, uint8_t * plane) {
    for (int c = 0; c < 4; ++c) {
        uint32_t every_fourth = bits >> c & 0x11111111u;
        every_fourth = (every_fourth | every_fourth >> 3) & 0x03030303u;
        every_fourth = (every_fourth | every_fourth >> 6) & 0x000F000Fu;
        plane[row * 4 + c] = static_cast<uint8_t>(every_fourth | every_fourth >> 12);
    }
}

void put_half(const uint8_t * half, int row, uint8_t * scales) {
    memcpy(scales + static_cast<size_t>(row) * half_bytes, half, half_bytes);
}

// Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL: [d] [m] [4 bytes of fifth bits] [16 bytes of nibbles]
void pack_small(bool has_min, bool has_fifth, const uint8_t * rows, size_t row_bytes, int64_t inner, const Tile & tile) {
    const size_t before_bits = has_min ? 2 * half_bytes : half_bytes;
    const size_t before_nibbles = before_bits + (has_fifth ? 4 : 0);
    const size_t block_bytes = before_nibbles + 16;
    for (int64_t b = 0; b < inner / block_values; ++b) {
        uint8_t * const quants = tile.quants(b);
        uint8_t * const scales = tile.scales(b);
        for (int row = 0; row < tile_rows; ++row) {
            const uint8_t * const block = rows + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(b) * block_bytes;
            put_half(block, row, scales);
            if (has_min) {
                put_half(block + half_bytes, row, scales + 16 * half_bytes);
            }
            if (has_fifth) {
                put_fifth_bits(load32(block + before_bits), row, quants + 256);
            }
            put_nibbles(block + before_nibbles, row, quants);
        }
    }
}

// Q8_0: [d] [32 signed bytes]
void pack_q8_0(bool signed_quants, const uint8_t * rows, size_t row_bytes, int64_t inner, const Tile & tile) {
    const uint32_t raised = signed_quants ? 0 : 0x80808080u;
    for (int64_t b = 0; b < inner / block_values; ++b) {
        uint8_t * const quants = tile.quants(b);
        uint8_t * const scales = tile.scales(b);
        for (int row = 0; row < tile_rows; ++row) {
            const uint8_t * const block = rows + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(b) * (half_bytes + 32);
            put_half(block, row, scales);
            for (int i = 0; i < groups; ++i) {
                store32(quants + i * 64 + row * 4, load32(block + half_bytes + i * 4) ^ raised);
            }
        }
    }
}

// Scale and minimum of 32 values in Q4_K and Q5_K, 6 bits each in 12 bytes.
void scale_and_min(const uint8_t * packed, int j, uint8_t & scale, uint8_t & min) {
    if (j < 4) {
        scale = packed[j] & 63;
        min = packed[j + 4] & 63;
    } else {
        scale = static_cast<uint8_t>((packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4));
        min = static_cast<uint8_t>((packed[j + 4] >> 4) | (packed[j] >> 6 << 4));
    }
}

// Scale and minimum of one row in block j of 8: 8 times 16 bytes with the low 4 bits of both, then 4 times 16 with the high 2 bits of both, in
// blocks j and j + 4; the former first.
void put_scale_and_min(uint8_t scale, uint8_t min, int j, int row, uint8_t * scales) {
    scales[j * 16 + row] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
    uint8_t & high = scales[128 + j % 4 * 16 + row];
    const int bits = scale >> 4 | (min >> 4) << 2;
    high = static_cast<uint8_t>(j < 4 ? bits : high | bits << 4);
}

// Q4_K, Q5_K: [d] [dmin] [12 bytes of scales and minima] [32 bytes of fifth bits] [128 bytes of nibbles]. A tile's scales for 256 values: 192
// bytes of scales and minima, then 16 d and 16 dmin.
void pack_k(bool has_fifth, const uint8_t * rows, size_t row_bytes, int64_t inner, const Tile & tile) {
    const size_t before_nibbles = 2 * half_bytes + 12 + (has_fifth ? 32 : 0);
    const size_t super_bytes = before_nibbles + 128;
    for (int64_t s = 0; s < inner / 256; ++s) {
        uint8_t * const scales = tile.scales(s * 8);
        for (int j = 0; j < 8; ++j) {
            uint8_t * const quants = tile.quants(s * 8 + j);
            for (int row = 0; row < tile_rows; ++row) {
                const uint8_t * const super = rows + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(s) * super_bytes;
                if (j == 0) {
                    put_half(super, row, scales + 192);
                    put_half(super + half_bytes, row, scales + 192 + 32);
                }
                uint8_t scale, min;
                scale_and_min(super + 2 * half_bytes, j, scale, min);
                put_scale_and_min(scale, min, j, row, scales);
                const uint8_t * const nibbles = super + before_nibbles + static_cast<size_t>(j / 2) * 32;
                const int shift = j % 2 * 4;
                for (int i = 0; i < 4; ++i) {
                    const uint32_t low = load32(nibbles + i * 4) >> shift & 0x0F0F0F0Fu;
                    const uint32_t high = load32(nibbles + 16 + i * 4) >> shift & 0x0F0F0F0Fu;
                    store32(quants + i * 64 + row * 4, low | high << 4);
                }
                if (has_fifth) {
                    const uint8_t * const bits = super + 2 * half_bytes + 12;
                    uint32_t word = 0;
                    for (int i = 0; i < groups; ++i) {
                        word |= (load32(bits + i * 4) >> j & 0x01010101u) << i;
                    }
                    store32(quants + 256 + row * 4, word);
                }
            }
        }
    }
}

// Q6_K: [128 bytes of low nibbles] [64 bytes of two high bits] [16 signed scales] [d]. In a tile the high bits of a block are two times 64
// bytes, group i in bits 2(i % 4) of plane i / 4; scales for 256 values: 16 times 16 signed bytes, and 16 d in the tile's head.
void pack_q6_k(const uint8_t * rows, size_t row_bytes, int64_t inner, const Tile & tile) {
    constexpr size_t super_bytes = 128 + 64 + 16 + half_bytes;
    for (int64_t s = 0; s < inner / 256; ++s) {
        uint8_t * const scales = tile.scales(s * 8);
        for (int j = 0; j < 8; ++j) {
            uint8_t * const quants = tile.quants(s * 8 + j);
            for (int row = 0; row < tile_rows; ++row) {
                const uint8_t * const super = rows + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(s) * super_bytes;
                if (j == 0) {
                    put_half(super + 208, row, tile.head(s * 8));
                }
                scales[j * 32 + row] = super[192 + j * 2];
                scales[j * 32 + 16 + row] = super[192 + j * 2 + 1];
                // 128 values at a time: blocks 0 and 1 of 4 have the low nibbles of 64 bytes, blocks 2 and 3 the high ones
                const int part = j % 4;
                const uint8_t * const low = super + j / 4 * 64 + part % 2 * 32;
                const uint8_t * const high = super + 128 + j / 4 * 32;
                for (int i = 0; i < 4; ++i) {
                    const uint32_t first = load32(low + i * 4) >> (part / 2 * 4) & 0x0F0F0F0Fu;
                    const uint32_t second = load32(low + 16 + i * 4) >> (part / 2 * 4) & 0x0F0F0F0Fu;
                    store32(quants + i * 64 + row * 4, first | second << 4);
                }
                for (int plane = 0; plane < 2; ++plane) {
                    uint32_t word = 0;
                    for (int i = 0; i < 4; ++i) {
                        word |= (load32(high + plane * 16 + i * 4) >> (part * 2) & 0x03030303u) << (i * 2);
                    }
                    store32(quants + 256 + plane * 64 + row * 4, word);
                }
            }
        }
    }
}

// BF16: pairs of values, lane r has row r's values 2p and 2p + 1; a block at a time, so that its 1024 bytes are written while they are near
void pack_bf16(const uint8_t * rows, size_t row_bytes, int64_t inner, const Tile & tile) {
    for (int64_t b = 0; b < inner / block_values; ++b) {
        uint8_t * const pairs = tile.quants(b);
        for (int row = 0; row < tile_rows; ++row) {
            const uint8_t * const from = rows + static_cast<size_t>(row) * row_bytes + static_cast<size_t>(b) * block_values * 2;
            for (int64_t pair = 0; pair < block_values / 2; ++pair) {
                memcpy(pairs + pair * 64 + row * 4, from + pair * 4, 4);
            }
        }
    }
}

}  // namespace

const Layout * layout_of(ggml_type type) noexcept {
    static constexpr Layout q4{256, 32, 32}, q4_min{256, 64, 32}, q5{256 + 64, 32, 32}, q5_min{256 + 64, 64, 32}, q8{512, 32, 32};
    static constexpr Layout q4_k{256, 192 + 64, 256}, q5_k{256 + 64, 192 + 64, 256}, q6_k{256 + 128, 256, 256, 32}, bf16{1024, 0, 32};
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_IQ4_NL: return &q4;
        case GGML_TYPE_Q4_1: return &q4_min;
        case GGML_TYPE_Q5_0: return &q5;
        case GGML_TYPE_Q5_1: return &q5_min;
        case GGML_TYPE_Q8_0: return &q8;
        case GGML_TYPE_Q4_K: return &q4_k;
        case GGML_TYPE_Q5_K: return &q5_k;
        case GGML_TYPE_Q6_K: return &q6_k;
        case GGML_TYPE_BF16: return &bf16;
        default: return nullptr;
    }
}

bool fits(ggml_type type, int64_t inner, int64_t rows) noexcept {
    const Layout * layout = layout_of(type);
    return layout && rows >= tile_rows && inner > 0 && inner % layout->scale_values == 0;
}

void pack_tile(ggml_type type, bool signed_quants, const uint8_t * rows, size_t row_bytes, int64_t inner, uint8_t * bytes) noexcept {
    const Tile tile(bytes, *layout_of(type), inner);
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_IQ4_NL: pack_small(false, false, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q4_1: pack_small(true, false, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q5_0: pack_small(false, true, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q5_1: pack_small(true, true, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q8_0: pack_q8_0(signed_quants, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q4_K: pack_k(false, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q5_K: pack_k(true, rows, row_bytes, inner, tile); break;
        case GGML_TYPE_Q6_K: pack_q6_k(rows, row_bytes, inner, tile); break;
        case GGML_TYPE_BF16: pack_bf16(rows, row_bytes, inner, tile); break;
        default: break;
    }
}

}  // namespace rim::kernels
