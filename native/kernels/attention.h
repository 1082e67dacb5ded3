// attention.h: attention of a graph (GGML_OP_FLASH_ATTN_EXT), by all threads of ggml's pool together.
//
// A value of the result is summed in one fixed order over the keys, whatever the number of tokens in the pass, the thread or the task: so
// it does not depend on how many tokens ran together, and keys that a token does not see change nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ahead.h"
#include "ggml_private.h"

namespace rim::kernels {

constexpr int64_t most_rows = 96;      // of queries in a task, so at most as many tokens: their sums stay in L2
constexpr int64_t largest_head = 256;  // values
constexpr int64_t block_keys = 64;     // multiplied at a time
constexpr uint16_t lowest_half = 0xFC00;  // -inf: what a mask adds where a key is not seen

// One key/value head and some consecutive tokens, with all the query heads that share it. A row is a token and a query head, token by token.
struct AttentionTask {
    int64_t key_size, value_size;  // values of a head, multiples of 16
    int64_t n_keys, n_tokens, n_heads;
    bool half_precision;  // keys and values are F16, else F32
    float scale;
    const char * keys;  // of this head; one key after the other, key_step bytes apart
    const char * values;
    size_t key_step, value_step;
    const char * queries;  // F32, of the first token and head; steps in bytes
    size_t token_step, head_step;
    const uint16_t * mask;  // F16 to be added, of the first token, one row per token; nullptr: all keys are seen
    size_t mask_step;       // values of a row
    float * out;            // of the first token and head; steps in values
    size_t out_token_step, out_head_step;

    int64_t n_rows() const { return n_tokens * n_heads; }
    const uint16_t * mask_of(int64_t token) const { return mask ? mask + static_cast<size_t>(token) * mask_step : nullptr; }
};

// What some of the keys give for every row: sums of weighted values, the largest score, the sum of the weights exp(score - largest).
struct AttentionPart {
    float * sums;  // [row][value_size]
    float * largest;
    float * totals;

    AttentionPart(float * memory, int64_t n_rows, int64_t value_size)
        : sums(memory), largest(sums + n_rows * value_size), totals(largest + n_rows) {}
    static int64_t size(int64_t n_rows, int64_t value_size) { return (n_rows * (value_size + 2) + 15) / 16 * 16; }  // values
};

struct AttentionKernel {
    int64_t (*work_values)(int64_t key_size, int64_t value_size, int64_t n_rows);
    // The part that keys [first, end) give; where it goes on, added to what the part has of the keys before, whole blocks. `work` has
    // work_values().
    void (*attend)(const AttentionTask & task, int64_t first, int64_t end, bool goes_on, const AttentionPart & part, float * work);
    // The result, from what all keys give.
    void (*finish)(const AttentionTask & task, const AttentionPart & all);
};

// The kernel of the instruction set in use, nullptr where it has none.
const AttentionKernel * attention_kernel() noexcept;

// May be called only where the processor has it.
const AttentionKernel * avx2_attention() noexcept;
const AttentionKernel * avx512_attention() noexcept;
const AttentionKernel * neon_attention() noexcept;

// Whether `op` is an attention that the kernel computes: F32 queries, F16 or F32 keys and values, no bias by distance, no soft cap, no sinks.
bool is_our_attention(const ggml_tensor * op);

// Bytes that the threads share while they compute `op`.
size_t attention_work_size(const ggml_tensor * op, int n_threads);

// Called by every thread of the pool with the same op.
void compute_attention(const ggml_private::ComputeParams & params, ggml_tensor * op);

// The keys and values that a thread reads first of all in compute_attention(), as many as are worth fetching ahead.
std::array<Run, 2> first_keys(const ggml_tensor * op, int thread, int n_threads) noexcept;

}  // namespace rim::kernels
