// context.h: options and the making of one llama_context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <llama-cpp.h>
#include <llama.h>

#include "model.h"

namespace rim {

struct SessionOptions {
    int32_t n_ctx = 4096;    // cells in all: visible text, blocks and answers of every lane; rounded up to a multiple of 256
    int32_t n_batch = 2048;  // most tokens of one llama_decode
    int32_t n_ubatch = 512;  // most tokens that libllama computes at once
    int32_t n_lanes = 1;
    int32_t n_threads = 0;        // 0: physical cores available to the process
    int32_t n_threads_batch = 0;  // 0: as n_threads
    std::string cache_type = "f16";       // f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0 iq4_nl
    std::string flash_attention = "auto";  // auto on off
    bool offload_kqv = true;
};

struct MemoryUse {
    uint64_t cache = 0;    // bytes of the key-value or state cache
    uint64_t compute = 0;  // bytes of libllama's compute buffers; 0 if unknown
};

// libllama's parameters for these options with `n_sequences` in a unified cache (a sliding window keeps full size, so that
// text can be cut back) and room for `n_outputs` rows per pass. Throws Error option.
llama_context_params context_params(const SessionOptions & options, int32_t n_sequences, int32_t n_outputs);

// Throws Error unsupported for models that cannot decode left to right, backend if libllama refuses.
llama_context_ptr make_context(const Model & model, const llama_context_params & params, MemoryUse * memory);

// Plain single-sequence llama_decode of `tokens` in one batch, in a context of its own: logits at the positions `rows`,
// [rows, n_vocab]. `pad_outputs` more positions are computed as outputs and thrown away (the widths of the last layers follow
// the number of outputs). What the readouts of a session are compared with.
std::vector<float> batch_logits(const Model & model, const std::vector<llama_token> & tokens, const SessionOptions & options,
                                const std::vector<int32_t> & rows, int32_t pad_outputs);

}  // namespace rim
