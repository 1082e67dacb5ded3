#include "product.h"

#include <algorithm>
#include <cstdint>

#include "barrier.h"
#include "buffer_type.h"
#include "chunks.h"
#include "foresight.h"
#include "graph.h"
#include "kernel.h"
#include "layout.h"
#include "turns.h"

namespace rim::kernels {

namespace {

constexpr size_t work_alignment = 64;

struct Shape {
    const ggml_tensor * weights;
    const ggml_tensor * input;
    int64_t inner, n_tokens, n_tiles, tile_size;

    explicit Shape(const ggml_tensor * op)
        : weights(op->src[0]), input(op->src[1]), inner(weights->ne[0]), n_tokens(ggml_nrows(input)), n_tiles(tile_count(weights->ne[1])),
          tile_size(static_cast<int64_t>(tile_bytes(*layout_of(weights->type), inner))) {}

    const float * token(int64_t index) const {
        const int64_t row = index % input->ne[1];
        const int64_t plane = index / input->ne[1];
        return reinterpret_cast<const float *>(static_cast<const char *>(input->data) + static_cast<size_t>(row) * input->nb[1] +
                                               static_cast<size_t>(plane % input->ne[2]) * input->nb[2] +
                                               static_cast<size_t>(plane / input->ne[2]) * input->nb[3]);
    }
};

// Whether every thread prepares all activations for itself: where these are few, that takes less time than to wait for each other.
bool prepares_alone(const Shape & shape) {
    return shape.inner * shape.n_tokens <= 4096;
}

// Work memory is of all operations of a graph. Products leave the beginning of it, so much for each thread, to those between them.
constexpr size_t others_work = 4096;  // bytes

// Whether `op` leaves alone what a product before it has prepared of the input.
bool leaves_prepared(const ggml_tensor * op, const ggml_tensor * input) {
    const auto begin = [](const ggml_tensor * tensor) { return static_cast<const char *>(tensor->data); };
    const auto end = [&begin](const ggml_tensor * tensor) { return begin(tensor) + ggml_nbytes(tensor); };
    const bool leaves_input = end(op) <= begin(input) || end(input) <= begin(op);
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_VIEW:
        case GGML_OP_RESHAPE:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE: return true;
        case GGML_OP_ADD:  // in F32 without work memory
        case GGML_OP_MUL:
        case GGML_OP_RMS_NORM: return op->src[0]->type == GGML_TYPE_F32 && leaves_input;
        case GGML_OP_ROPE: return static_cast<size_t>(op->ne[0]) * sizeof(float) + 64 <= others_work && leaves_input;  // an angle's sines
        default: return false;
    }
}

// Whether the product before `op` has prepared the same activations in the same way, as queries do for keys and values, and they are still
// there.
bool is_prepared(const ggml_private::ComputeParams & params, const ggml_tensor * op, const Kernel & kernel) {
    const Place place(params, op);
    for (int node = place.node - 1; node >= 0; --node) {
        const ggml_tensor * const before = place.nodes[node];
        if (is_our_product(before)) {
            return before->src[1] == op->src[1] && kernel_for(before->src[0]->type)->prepare == kernel.prepare &&
                   (before->flags & GGML_TENSOR_FLAG_COMPUTE) && !ggml_is_empty(before);
        }
        if (!leaves_prepared(before, op->src[1])) {
            return false;
        }
    }
    return false;
}

size_t prepared_step(const Shape & shape) {
    return rounded_up(kernel_for(shape.weights->type)->prepared_bytes(shape.inner, shape.n_tokens), work_alignment);
}

// Where in the work memory, which begins anywhere, the first thread's activations are.
uint8_t * prepared_at(void * work, int n_threads) {
    return reinterpret_cast<uint8_t *>(
        rounded_up<uintptr_t>(reinterpret_cast<uintptr_t>(work) + others_work * static_cast<size_t>(n_threads), work_alignment));
}

// Where after the first activations the results of a last tile go that is not full: the rows that it lacks have no place in the output.
size_t last_tile_offset(const Shape & shape, int n_threads) {
    return prepared_step(shape) * static_cast<size_t>(prepares_alone(shape) ? n_threads : 1);
}

// Whether the threads that computed the input shared out its columns (glu.h, heads in attention.h).
bool is_by_columns(const ggml_tensor * input) {
    while (input->view_src) {
        input = input->view_src;
    }
    return input->op == GGML_OP_GLU || input->op == GGML_OP_FLASH_ATTN_EXT;
}

// Tokens whose blocks one thread prepares: few tokens by fours, which share cache lines.
int64_t tokens_together(const Kernel & kernel, const Shape & shape) {
    return shape.n_tokens <= kernel.few ? tokens_beside : 1;
}

// Blocks [first, end) of the activations, counted through all that go together.
void prepare(const Kernel & kernel, const Shape & shape, int64_t first, int64_t end, const Prepared & prepared) {
    const int64_t blocks = shape.inner / block_values, together = tokens_together(kernel, shape);
    while (first < end) {
        const int64_t group = first / blocks;
        const int64_t next = std::min(end, (group + 1) * blocks);
        for (int64_t token = group * together; token < std::min((group + 1) * together, shape.n_tokens); ++token) {
            kernel.prepare(shape.token(token), token, first % blocks * block_values, (first % blocks + next - first) * block_values, prepared);
        }
        first = next;
    }
}

// What a thread prepares of the activations, with the others or all for itself: of few tokens the columns that it has computed, else rows.
void prepare(const ggml_private::ComputeParams & params, const Kernel & kernel, const Shape & shape, const Prepared & prepared) {
    const int64_t blocks = shape.inner / block_values, together = tokens_together(kernel, shape);
    const int64_t all = blocks * (rounded_up(shape.n_tokens, together) / together);
    if (prepares_alone(shape)) {
        prepare(kernel, shape, 0, all, prepared);
        return;
    }
    const int64_t n = shape.n_tokens <= few_tokens && is_by_columns(shape.input) ? blocks : all;  // to be shared out
    for (int64_t before = 0; before < all; before += n) {
        prepare(kernel, shape, before + n * params.thread / params.n_threads, before + n * (params.thread + 1) / params.n_threads, prepared);
    }
    wait_for_all(params.threadpool);
}

Chunks chunks_of(const Shape & shape, int n_threads) {
    return Chunks(*kernel_for(shape.weights->type), shape.n_tiles, shape.tile_size, shape.n_tokens, n_threads);
}

}  // namespace

size_t product_work_size(const ggml_tensor * op, int n_threads) {
    const Shape shape(op);
    return others_work * static_cast<size_t>(n_threads) + last_tile_offset(shape, n_threads) +
           static_cast<size_t>(shape.n_tokens * tile_rows) * sizeof(float) + work_alignment;
}

void compute_product(const ggml_private::ComputeParams & params, ggml_tensor * op) {
    const Shape shape(op);
    const Kernel & kernel = *kernel_for(shape.weights->type);
    uint8_t * const work = prepared_at(params.work, params.n_threads);
    Prepared prepared{work, shape.inner, shape.n_tokens};
    if (prepares_alone(shape)) {
        prepared.bytes += prepared_step(shape) * static_cast<size_t>(params.thread);
    }
    if (!is_prepared(params, op, kernel)) {
        prepare(params, kernel, shape, prepared);
    }

    Ahead & ahead = Ahead::own();
    ahead.reach(op);
    const Chunks chunks = chunks_of(shape, params.n_threads);
    const auto * const tiles = static_cast<const uint8_t *>(shape.weights->data);
    auto * const out = static_cast<float *>(op->data);
    const size_t out_stride = op->nb[1] / sizeof(float);
    auto * const last = reinterpret_cast<float *>(work + last_tile_offset(shape, params.n_threads));
    Foresight foresight(kernel, shape.weights->type, shape.n_tokens);
    Turns turns(params, op, chunks.count());
    for (int64_t chunk; turns.take(chunk);) {
        const Part part = chunks.part(chunk);
        const int64_t full = std::min(part.end_tile, shape.weights->ne[1] / tile_rows);
        if (part.first_tile < full) {
            foresight.read((full - part.first_tile) * shape.tile_size, [&](bool told) {
                kernel.multiply(tiles, prepared, {part.first_tile, full, part.first_token, part.end_token, told}, out, out_stride);
            });
        }
        if (full < part.end_tile) {
            kernel.multiply(tiles, prepared, {full, full + 1, part.first_token, part.end_token}, last - full * tile_rows, tile_rows);
            for (int64_t t = part.first_token; t < part.end_token; ++t) {
                const float * const from = last + t * tile_rows;
                std::copy(from, from + shape.weights->ne[1] % tile_rows, out + static_cast<size_t>(t) * out_stride + full * tile_rows);
            }
        }
    }
    ahead.look(params, op);
}

Run first_weights(const ggml_tensor * op, int thread, int n_threads) noexcept {
    constexpr int64_t worth_fetching = 128 << 10;  // bytes
    const Shape shape(op);
    const Chunks chunks = chunks_of(shape, n_threads);
    if (thread >= chunks.count()) {
        return {};
    }
    const Part part = chunks.part(thread);
    const int64_t bytes = std::min((part.end_tile - part.first_tile) * shape.tile_size, worth_fetching);
    return {static_cast<const char *>(shape.weights->data) + part.first_tile * shape.tile_size, static_cast<size_t>(bytes), 0, 1};
}

}  // namespace rim::kernels
