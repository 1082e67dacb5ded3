#include "product.h"

#include <algorithm>
#include <cstdint>

#include "barrier.h"
#include "foresight.h"
#include "kernel.h"
#include "layout.h"
#include "turns.h"

namespace rim::kernels {

namespace {

constexpr size_t work_alignment = 64;

template <typename Integer>
Integer rounded_up(Integer value, Integer step) {
    return (value + step - 1) / step * step;
}

// How a product is cut into chunks, which the threads take one after another: large ones first, then smaller ones.
struct Chunks {
    int64_t n_large, large_tiles;  // large chunks: how many share no tiles, and tiles of each
    int64_t small_tiles, tokens;   // tiles of a smaller chunk; tokens of any chunk
    int64_t across, count;         // chunks that share tiles; all
    int64_t n_tiles, n_tokens;

    Chunks(int64_t n_tiles, int64_t tile_size, int64_t n_tokens, int64_t token_step, int n_threads)
        : n_tiles(n_tiles), n_tokens(n_tokens) {
        const auto share = [n_threads](int64_t tiles) { return (tiles + n_threads - 1) / n_threads; };
        if (n_tokens <= few_tokens) {
            // Reading weights is all that takes time: a long run of them, then shorter ones until all are done. Where even these would
            // be read sooner than the count of them travels between cores, equal shares.
            constexpr int64_t worth_a_turn = 256 << 10;  // bytes
            const bool large = share(n_tiles) * tile_size > 4 * worth_a_turn;
            n_large = large ? n_threads : 0;
            large_tiles = share(n_tiles) * 3 / 4;
            small_tiles = large ? worth_a_turn / tile_size + 1 : share(n_tiles);
            tokens = n_tokens;
        } else {
            // Four tiles are widened together, as many for each thread; what is left is shared out. All tokens at once where there are
            // enough chunks so: the work of widening is worth it for 24 tokens.
            constexpr int64_t per_thread = 6;  // so that a thread that was interrupted holds nobody up for long
            large_tiles = 4;
            n_large = n_tiles / (large_tiles * n_threads) * n_threads;
            small_tiles = std::max<int64_t>(share(n_tiles - n_large * large_tiles), 1);
            const int64_t groups = n_large + n_small();
            const int64_t parts = std::clamp<int64_t>((per_thread * n_threads + groups - 1) / groups, 1, std::max<int64_t>(n_tokens / 24, 1));
            tokens = rounded_up<int64_t>((n_tokens + parts - 1) / parts, token_step);
        }
        across = (n_tokens + tokens - 1) / tokens;
        count = (n_large + n_small()) * across;
    }

    Part part(int64_t chunk) const {
        const int64_t group = chunk / across, token = chunk % across * tokens;
        const int64_t tile = std::min(group, n_large) * large_tiles + std::max<int64_t>(group - n_large, 0) * small_tiles;
        const int64_t end = std::min(tile + (group < n_large ? large_tiles : small_tiles), n_tiles);
        return {tile, end, token, std::min(token + tokens, n_tokens)};
    }

  private:
    int64_t n_small() const { return (n_tiles - n_large * large_tiles + small_tiles - 1) / small_tiles; }
};

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

size_t prepared_step(const Shape & shape) {
    return rounded_up(kernel_for(shape.weights->type)->prepared_bytes(shape.inner, shape.n_tokens), work_alignment);
}

// Where in the work memory the results of a last tile go that is not full: the rows that it lacks have no place in the output.
size_t last_tile_offset(const Shape & shape, int n_threads) {
    return prepared_step(shape) * static_cast<size_t>(prepares_alone(shape) ? n_threads : 1);
}

// Blocks [first, end) of the activations, counted through all tokens.
void prepare(const Kernel & kernel, const Shape & shape, int64_t first, int64_t end, const Prepared & prepared) {
    const int64_t blocks = shape.inner / block_values;
    while (first < end) {
        const int64_t token = first / blocks;
        const int64_t next = std::min(end, (token + 1) * blocks);
        kernel.prepare(shape.token(token), token, first % blocks * block_values, (first % blocks + next - first) * block_values, prepared);
        first = next;
    }
}

Chunks chunks_of(const Shape & shape, int n_threads) {
    return Chunks(shape.n_tiles, shape.tile_size, shape.n_tokens, kernel_for(shape.weights->type)->token_step, n_threads);
}

}  // namespace

size_t product_work_size(const ggml_tensor * op, int n_threads) {
    const Shape shape(op);
    return last_tile_offset(shape, n_threads) + static_cast<size_t>(shape.n_tokens * tile_rows) * sizeof(float) + work_alignment;
}

void compute_product(const ggml_private::ComputeParams & params, ggml_tensor * op) {
    const Shape shape(op);
    const Kernel & kernel = *kernel_for(shape.weights->type);
    auto * const work = reinterpret_cast<uint8_t *>(rounded_up<uintptr_t>(reinterpret_cast<uintptr_t>(params.work), work_alignment));
    Prepared prepared{work, shape.inner, shape.n_tokens};
    const int64_t blocks = shape.inner / block_values * shape.n_tokens;
    if (prepares_alone(shape)) {
        prepared.bytes += prepared_step(shape) * static_cast<size_t>(params.thread);
        prepare(kernel, shape, 0, blocks, prepared);
    } else {
        prepare(kernel, shape, blocks * params.thread / params.n_threads, blocks * (params.thread + 1) / params.n_threads, prepared);
        wait_for_all(params.threadpool);
    }

    Ahead & ahead = Ahead::own();
    ahead.reach(op);
    const Chunks chunks = chunks_of(shape, params.n_threads);
    const auto * const tiles = static_cast<const uint8_t *>(shape.weights->data);
    auto * const out = static_cast<float *>(op->data);
    const size_t out_stride = op->nb[1] / sizeof(float);
    auto * const last = reinterpret_cast<float *>(work + last_tile_offset(shape, params.n_threads));
    Foresight foresight(kernel, shape.weights->type, shape.n_tokens);
    Turns turns(params, op, chunks.count);
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
    if (thread >= chunks.count) {
        return {};
    }
    const Part part = chunks.part(thread);
    const int64_t bytes = std::min((part.end_tile - part.first_tile) * shape.tile_size, worth_fetching);
    return {static_cast<const char *>(shape.weights->data) + part.first_tile * shape.tile_size, static_cast<size_t>(bytes), 0, 1};
}

}  // namespace rim::kernels
