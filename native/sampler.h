// sampler.h: choosing the next token of one answer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <llama-cpp.h>
#include <llama.h>

#include "logits.h"

namespace rim {

struct Sampling {
    float temperature = 0.0f;              // <= 0: the most likely token
    int32_t top_k = 40;                    // <= 0: all tokens
    float top_p = 0.95f;                   // 1: off
    float min_p = 0.05f;                   // 0: off
    uint32_t seed = LLAMA_DEFAULT_SEED;    // 0xFFFFFFFF: a random one
    float repeat_penalty = 1.0f;           // 1: off
    int32_t repeat_last_n = 64;            // tokens that the penalty looks back on, visible text included; -1: all
    bool ignore_end = false;               // an end-of-generation token ends nothing: answers of a given length, to measure
};

// Throws Error option for values that make no sense.
void check_sampling(const Sampling & sampling);

// libllama's samplers as one chain: penalties, banned tokens, top-k, top-p, min-p, temperature, seeded draw; or the best
// token. Without temperature and penalty the row is searched directly, which gives the same token.
class Sampler {
  public:
    // `seed` replaces the one in `sampling`. `text`: visible tokens before the answer.
    Sampler(const Sampling & sampling, uint32_t seed, int32_t n_ctx, const Banned & banned, int32_t n_vocab,
            const std::vector<llama_token> & text);

    // `stats` are of the row. The token counts as chosen (penalties see it).
    llama_token sample(const float * logits, const RowStats & stats, std::vector<llama_token_data> & scratch);

  private:
    const Banned & banned_;
    int32_t n_vocab_;
    llama_sampler_ptr chain_;  // none: search the row
};

}  // namespace rim
