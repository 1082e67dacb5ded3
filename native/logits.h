// logits.h: what a row of logits says.
#pragma once

#include <cstdint>
#include <vector>

#include <llama.h>

namespace rim {

// Softmax statistics over the raw logits of one position. A logit of -inf or NaN has probability 0.
struct RowStats {
    float max = 0;         // largest logit
    int32_t top = 0;       // the first token that has it; the number of tokens where none does
    double log_sum = 0;    // log Σ exp(logit - max), so log p(i) = logit_i - max - log_sum
    double entropy = 0;    // nats

    double log_probability(float logit) const noexcept { return static_cast<double>(logit) - max - log_sum; }
};

// `entropy` costs one more multiplication per token; without it the field stays 0.
RowStats row_stats(const float * logits, int32_t n_vocab, bool entropy);

// The same to the last bit: in the registers that every processor has, and in wider ones where this one has them (kernels/instructions.h).
RowStats row_stats_anywhere(const float * logits, int32_t n_vocab, bool entropy);
RowStats row_stats_avx2(const float * logits, int32_t n_vocab, bool entropy);
RowStats row_stats_avx512(const float * logits, int32_t n_vocab, bool entropy);

// Tokens that are never sampled and never reported as a readout's top token.
class Banned {
  public:
    explicit Banned(int32_t n_vocab) : mask_(static_cast<size_t>(n_vocab), 0) {}

    void add(llama_token token);
    bool has(llama_token token) const noexcept { return mask_[static_cast<size_t>(token)] != 0; }
    const std::vector<llama_token> & tokens() const noexcept { return tokens_; }  // each once

  private:
    std::vector<uint8_t> mask_;
    std::vector<llama_token> tokens_;
};

// The token with the largest logit that is not banned (the first one of equals); `stats` are of the same row.
llama_token top_token(const float * logits, int32_t n_vocab, const RowStats & stats, const Banned & banned);

}  // namespace rim
