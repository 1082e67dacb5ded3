// layout.h: how a weight matrix lies in memory for the kernels.
//
// 16 rows are one tile. Of each 32 consecutive values of k a tile holds, for i = 0..7, 64 bytes: lane r (4 bytes) has row r's values
// 4i..4i+3, so that one multiply-add instruction takes 16 rows x 4 values. A tile is a run of segments, each the scales of its blocks and
// then their quants, as short as whole cache lines of scales allow: who reads a tile once reads one run of memory in order. Low bits are
// kept as nibbles (byte j of a block's 256: the value of group i in the low, of group i+4 in the high half), further bits in planes after
// them. Nothing is widened on the way: a tile takes the bytes that the file has.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml.h>

namespace rim::kernels {

constexpr int64_t tile_rows = 16;
constexpr int64_t block_values = 32;
constexpr int64_t long_segment = 8;  // blocks: the 256 values that share scales in the K types
constexpr size_t tile_alignment = 64;
constexpr size_t byte_quants = 512;  // of a tile, a block of 32 values that are a byte each

// Tiles of so many rows; rows that the last one lacks are zeros.
constexpr int64_t tile_count(int64_t rows) noexcept {
    return (rows + tile_rows - 1) / tile_rows;
}

constexpr size_t whole_lines(size_t bytes) noexcept {
    return (bytes + tile_alignment - 1) / tile_alignment * tile_alignment;
}

struct Layout {
    size_t quant_bytes;    // of one tile, per block of 32 values
    size_t scale_bytes;    // of one tile, per scale_values
    int64_t scale_values;  // values that share a set of scales: 32, or 256 for the K types
    size_t head_bytes = 0;  // per scale_values, too, of scales that stand before the tile's first segment

    // Blocks of a segment; the last one of a tile may have fewer. Quants that are bytes are multiplied where they lie, 256 values at
    // a time.
    constexpr int64_t segment_blocks() const noexcept {
        const bool long_run = scale_values > block_values || scale_bytes == 0 || quant_bytes >= byte_quants;
        return long_run ? long_segment : static_cast<int64_t>((tile_alignment + scale_bytes - 1) / scale_bytes);
    }
    // Of a segment with so many blocks: where its quants begin, and what it takes.
    constexpr size_t quants_at(int64_t n_blocks) const noexcept {
        return whole_lines(scale_bytes * static_cast<size_t>(n_blocks * block_values / scale_values));
    }
    constexpr size_t segment_bytes(int64_t n_blocks) const noexcept {
        return quants_at(n_blocks) + quant_bytes * static_cast<size_t>(n_blocks);
    }
    // Where the segment begins whose first block this is, after the tile's head.
    constexpr size_t segment_at(int64_t block) const noexcept {
        return segment_bytes(segment_blocks()) * static_cast<size_t>(block / segment_blocks());
    }
    // In a tile's head, the scales of the values that the block is among; and what the head of a tile with so many blocks takes.
    constexpr size_t head_at(int64_t block) const noexcept {
        return head_bytes * static_cast<size_t>(block * block_values / scale_values);
    }
    constexpr size_t head(int64_t n_blocks) const noexcept { return whole_lines(head_at(n_blocks)); }
};

// The layout of a type, nullptr for a type without kernels.
const Layout * layout_of(ggml_type type) noexcept;

// Bytes of one tile with rows of `inner` values.
constexpr size_t tile_bytes(const Layout & layout, int64_t inner) noexcept {
    const int64_t n_blocks = inner / block_values;
    const int64_t left = n_blocks % layout.segment_blocks();
    return layout.head(n_blocks) + layout.segment_at(n_blocks) + (left > 0 ? layout.segment_bytes(left) : 0);
}

// Whether a matrix of this shape can be laid out: whole tiles of rows, whole blocks of values.
bool fits(ggml_type type, int64_t inner, int64_t rows) noexcept;

// Lays out 16 rows of a file (each row_bytes apart) as one tile. The quants of Q8_0 become unsigned by adding 128, except for a kernel that
// wants signed_quants.
void pack_tile(ggml_type type, bool signed_quants, const uint8_t * rows, size_t row_bytes, int64_t inner, uint8_t * tile) noexcept;

}  // namespace rim::kernels
