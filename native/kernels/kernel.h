// kernel.h: what a kernel offers to whoever runs it: activations are prepared once, then any part of the result may be computed by any
// thread.
//
// A value of the result is summed in one fixed order over k, whatever the batch, the part or the thread: so it does not depend on how many
// tokens ran together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <ggml.h>

namespace rim::kernels {

// Activations as the kernels read them, in one buffer of prepared_bytes().
struct Prepared {
    uint8_t * bytes;
    int64_t inner;  // values of a token
    int64_t n_tokens;
};

// A part of the result: rows of whole tiles, and tokens. Whether the processor is told ahead what comes, for few tokens, where the kernel
// has both ways (foresight.h): the same bits.
struct Part {
    int64_t first_tile, end_tile;
    int64_t first_token, end_token;
    bool told = false;
};

// Where the sums of a token and some tiles stand, of the weights before and of these too. Between panels of weights they stay in memory of
// the thread's own: rows of the result lie at multiples of large powers of two, which few sets of a cache share, and beside rows of
// another thread, which the processor fetches along.
struct Sums {
    const float * before;  // nullptr: there is none before
    size_t before_stride;
    float * after;
    size_t after_stride;
};
constexpr int64_t tokens_near = 192;  // whose sums stay near, 48 KiB with 4 tiles

constexpr int64_t few_tokens = 8;     // up to so many, reading weights is what takes the time
constexpr int64_t tokens_beside = 4;  // of few tokens stand side by side when prepared, block by block

struct Kernel {
    const char * name;  // instruction set
    size_t (*prepared_bytes)(int64_t inner, int64_t n_tokens);
    // Prepares values [first, end) of one token, both multiples of 32 (or `inner`).
    void (*prepare)(const float * values, int64_t token, int64_t first, int64_t end, const Prepared & prepared);
    // out[token * out_stride + row] of a part.
    void (*multiply)(const uint8_t * tiles, const Prepared & prepared, const Part & part, float * out, size_t out_stride);
    bool signed_quants;  // whether quants of 8 bits are to be laid out (layout.h) as signed numbers
    bool may_tell;       // whether it has both ways of reading
    int64_t few;         // up to so many tokens are a matter of reading: parts are tiles, of all tokens
    int64_t token_step;  // of more, parts begin at multiples of it
};

// The kernel for a type of the instruction set in use, nullptr where it has none.
const Kernel * kernel_for(ggml_type type) noexcept;

// Whether the environment leaves everything to libllama: RIM_EDGE_KERNELS is 0.
bool are_forbidden() noexcept;

// Why no kernel is used, "" if some are: the environment (RIM_EDGE_KERNELS: 0, or an instruction set) or the processor.
std::string why_none();

// ---- one per instruction set; may be called only where the processor has it (instructions.h)

const Kernel * avx2_kernel(ggml_type type) noexcept;
const Kernel * avx2_bf16_kernel(ggml_type type) noexcept;
const Kernel * avx_vnni_kernel(ggml_type type) noexcept;
const Kernel * avx512_vnni_kernel(ggml_type type) noexcept;
const Kernel * avx512_bf16_kernel(ggml_type type) noexcept;
const Kernel * amx_bf16_kernel(ggml_type type) noexcept;
const Kernel * neon_kernel(ggml_type type) noexcept;
const Kernel * neon_i8mm_kernel(ggml_type type) noexcept;

}  // namespace rim::kernels
