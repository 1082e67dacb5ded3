// sampler.cpp: libllama's sampler chain.
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "errors.h"

namespace rim {

void check_sampling(const Sampling & s) {
    const auto refuse = [](const char * name, float value, const char * range) {
        throw Error(ErrorKind::option, std::string(name) + " is " + std::to_string(value) + ", but must be " + range);
    };
    if (std::isnan(s.temperature) || std::isinf(s.temperature)) {
        refuse("temperature", s.temperature, "a finite number");
    }
    if (!(s.top_p >= 0.0f && s.top_p <= 1.0f)) {
        refuse("top_p", s.top_p, "in 0..1");
    }
    if (!(s.min_p >= 0.0f && s.min_p <= 1.0f)) {
        refuse("min_p", s.min_p, "in 0..1");
    }
    if (!(s.repeat_penalty > 0.0f) || std::isinf(s.repeat_penalty)) {
        refuse("repeat_penalty", s.repeat_penalty, "above 0 (1: off)");
    }
    if (s.repeat_last_n < -1) {
        refuse("repeat_last_n", static_cast<float>(s.repeat_last_n), "-1 (all), 0 (off) or a number of tokens");
    }
}

Sampler::Sampler(const Sampling & sampling, uint32_t seed, int32_t n_ctx, const Banned & banned, int32_t n_vocab,
                 const std::vector<llama_token> & text)
    : banned_(banned), n_vocab_(n_vocab) {
    const int32_t last_n = sampling.repeat_last_n < 0 ? n_ctx : sampling.repeat_last_n;
    const bool penalties = sampling.repeat_penalty != 1.0f && last_n > 0;
    const bool greedy = sampling.temperature <= 0.0f;
    if (greedy && !penalties) {
        return;
    }
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    chain_.reset(llama_sampler_chain_init(params));
    const auto add = [this](llama_sampler * sampler) { llama_sampler_chain_add(chain_.get(), sampler); };
    if (penalties) {
        add(llama_sampler_init_penalties(n_vocab, last_n, sampling.repeat_penalty, 0.0f, 0.0f));
    }
    std::vector<llama_logit_bias> biases;
    for (const llama_token token : banned.tokens()) {
        biases.push_back({token, -std::numeric_limits<float>::infinity()});
    }
    add(llama_sampler_init_logit_bias(n_vocab, static_cast<int32_t>(biases.size()), biases.data()));
    if (greedy) {
        add(llama_sampler_init_greedy());
    } else {
        add(llama_sampler_init_top_k(sampling.top_k));
        add(llama_sampler_init_top_p(sampling.top_p, 1));
        add(llama_sampler_init_min_p(sampling.min_p, 1));
        add(llama_sampler_init_temp(sampling.temperature));
        add(llama_sampler_init_dist(seed));
    }
    if (penalties) {
        const size_t n = std::min(text.size(), static_cast<size_t>(last_n));
        for (size_t i = text.size() - n; i < text.size(); ++i) {
            llama_sampler_accept(chain_.get(), text[i]);
        }
    }
}

llama_token Sampler::sample(const float * logits, const RowStats & stats, std::vector<llama_token_data> & scratch) {
    if (!chain_) {
        return top_token(logits, n_vocab_, stats, banned_);
    }
    scratch.resize(static_cast<size_t>(n_vocab_));
    for (llama_token i = 0; i < n_vocab_; ++i) {
        scratch[static_cast<size_t>(i)] = {i, logits[i], 0.0f};
    }
    llama_token_data_array candidates = {scratch.data(), scratch.size(), -1, false};
    llama_sampler_apply(chain_.get(), &candidates);
    // A row without any finite number leaves nothing to choose from.
    const llama_token token = candidates.selected >= 0 && static_cast<size_t>(candidates.selected) < candidates.size
                                  ? candidates.data[candidates.selected].id
                                  : top_token(logits, n_vocab_, stats, banned_);
    llama_sampler_accept(chain_.get(), token);
    return token;
}

}  // namespace rim
