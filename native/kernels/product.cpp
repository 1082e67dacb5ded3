#include "product.h"

#include <algorithm>
#include <cstdint>

#include "kernel.h"
#include "layout.h"

namespace rim::kernels {

namespace {

constexpr size_t work_alignment = 64;

template <typename Integer>
Integer rounded_up(Integer value, Integer step) {
    return (value + step - 1) / step * step;
}

// How a product is cut into chunks, which the threads take one after another.
struct Chunks {
    int64_t tiles, tokens;  // of one chunk
    int64_t across, count;  // chunks that share tiles; all

    Chunks(int64_t n_tiles, int64_t n_tokens, int64_t token_step, int n_threads) {
        constexpr int64_t per_thread = 6;  // so that a thread that was interrupted holds nobody up for long
        const int64_t wanted = per_thread * n_threads;
        if (n_tokens <= 8) {  // reading weights is all that takes time: long runs of them
            tiles = std::clamp<int64_t>(rounded_up<int64_t>(n_tiles / wanted, 4), 4, 64);
            tokens = n_tokens;
        } else {
            // Four tiles are widened together, for all tokens where there are enough chunks so. The work of widening is worth it for 24
            // tokens. Where rows are few, two tiles: else a thread waits for another's last four.
            tiles = n_threads > 1 && n_tiles < 16 * n_threads ? 2 : 4;
            const int64_t groups = (n_tiles + tiles - 1) / tiles;
            const int64_t parts = std::clamp<int64_t>((wanted + groups - 1) / groups, 1, std::max<int64_t>(n_tokens / 24, 1));
            tokens = rounded_up<int64_t>((n_tokens + parts - 1) / parts, token_step);
        }
        across = (n_tokens + tokens - 1) / tokens;
        count = (n_tiles + tiles - 1) / tiles * across;
    }
};

struct Shape {
    const ggml_tensor * weights;
    const ggml_tensor * input;
    int64_t inner, n_tokens, n_tiles;

    explicit Shape(const ggml_tensor * op)
        : weights(op->src[0]), input(op->src[1]), inner(weights->ne[0]), n_tokens(ggml_nrows(input)), n_tiles(tile_count(weights->ne[1])) {}

    const float * token(int64_t index) const {
        const int64_t row = index % input->ne[1];
        const int64_t plane = index / input->ne[1];
        return reinterpret_cast<const float *>(static_cast<const char *>(input->data) + static_cast<size_t>(row) * input->nb[1] +
                                               static_cast<size_t>(plane % input->ne[2]) * input->nb[2] +
                                               static_cast<size_t>(plane / input->ne[2]) * input->nb[3]);
    }
};

// Where in the work memory the results of a last tile go that is not full: the rows that it lacks have no place in the output.
size_t last_tile_offset(const Shape & shape) {
    return rounded_up(kernel_for(shape.weights->type)->prepared_bytes(shape.inner, shape.n_tokens), work_alignment);
}

}  // namespace

size_t product_work_size(const ggml_tensor * op) {
    const Shape shape(op);
    return last_tile_offset(shape) + static_cast<size_t>(shape.n_tokens * tile_rows) * sizeof(float) + work_alignment;
}

void compute_product(const Functions & functions, const ggml_private::ComputeParams & params, ggml_tensor * op) {
    const Shape shape(op);
    const Kernel & kernel = *kernel_for(shape.weights->type);
    auto * const work = reinterpret_cast<uint8_t *>(rounded_up<uintptr_t>(reinterpret_cast<uintptr_t>(params.work), work_alignment));
    const Prepared prepared{work, shape.inner, shape.n_tokens};

    // Activations: each thread an equal share of their blocks.
    const int64_t blocks = shape.inner / block_values;
    const int64_t end = blocks * shape.n_tokens * (params.thread + 1) / params.n_threads;
    for (int64_t block = blocks * shape.n_tokens * params.thread / params.n_threads; block < end;) {
        const int64_t token = block / blocks;
        const int64_t next = std::min(end, (token + 1) * blocks);
        kernel.prepare(shape.token(token), token, block % blocks * block_values, (block % blocks + next - block) * block_values, prepared);
        block = next;
    }
    if (params.thread == 0) {
        functions.chunk_set(params.threadpool, params.n_threads);
    }
    functions.barrier(params.threadpool);

    const Chunks chunks(shape.n_tiles, shape.n_tokens, kernel.token_step, params.n_threads);
    const auto * const tiles = static_cast<const uint8_t *>(shape.weights->data);
    auto * const out = static_cast<float *>(op->data);
    const size_t out_stride = op->nb[1] / sizeof(float);
    auto * const last = reinterpret_cast<float *>(work + last_tile_offset(shape));
    for (int64_t chunk = params.thread; chunk < chunks.count; chunk = functions.chunk_add(params.threadpool, 1)) {
        const int64_t tile = chunk / chunks.across * chunks.tiles;
        const int64_t token = chunk % chunks.across * chunks.tokens;
        const Part part{tile, std::min(tile + chunks.tiles, shape.n_tiles), token, std::min(token + chunks.tokens, shape.n_tokens)};
        const int64_t full = std::min(part.end_tile, shape.weights->ne[1] / tile_rows);
        if (part.first_tile < full) {
            kernel.multiply(tiles, prepared, {part.first_tile, full, part.first_token, part.end_token}, out, out_stride);
        }
        if (full < part.end_tile) {
            kernel.multiply(tiles, prepared, {full, full + 1, part.first_token, part.end_token}, last - full * tile_rows, tile_rows);
            for (int64_t t = part.first_token; t < part.end_token; ++t) {
                const float * const from = last + t * tile_rows;
                std::copy(from, from + shape.weights->ne[1] % tile_rows, out + static_cast<size_t>(t) * out_stride + full * tile_rows);
            }
        }
    }
}

}  // namespace rim::kernels
