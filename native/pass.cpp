// pass.cpp: building batches.
#include "pass.h"

#include <numeric>

namespace rim {

Pass::Pass(int32_t n_sequences) : sequences_(static_cast<size_t>(n_sequences)) {
    std::iota(sequences_.begin(), sequences_.end(), 0);
}

void Pass::clear() noexcept {
    tokens_.clear();
    positions_.clear();
    n_sequences_.clear();
    sequence_runs_.clear();
    output_.clear();
}

size_t Pass::add(llama_token token, llama_pos position, llama_seq_id first, int32_t count, bool output) {
    tokens_.push_back(token);
    positions_.push_back(position);
    n_sequences_.push_back(count);
    sequence_runs_.push_back(sequences_.data() + first);
    output_.push_back(output ? 1 : 0);
    return tokens_.size() - 1;
}

llama_batch Pass::slice(size_t begin, size_t end) noexcept {
    llama_batch batch = {};
    batch.n_tokens = static_cast<int32_t>(end - begin);
    batch.token = tokens_.data() + begin;
    batch.pos = positions_.data() + begin;
    batch.n_seq_id = n_sequences_.data() + begin;
    batch.seq_id = sequence_runs_.data() + begin;
    batch.logits = output_.data() + begin;
    return batch;
}

}  // namespace rim
