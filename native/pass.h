// pass.h: the tokens of one forward pass.
#pragma once

#include <cstdint>
#include <vector>

#include <llama.h>

namespace rim {

// A batch under construction. Every token lies in a run of neighbouring sequences, so no list of sequences is ever copied.
// Reused from pass to pass: after the first ones nothing is allocated.
class Pass {
  public:
    explicit Pass(int32_t n_sequences);

    void clear() noexcept;

    // Token at `position` in the sequences first .. first + count - 1. Returns its place in the pass.
    size_t add(llama_token token, llama_pos position, llama_seq_id first, int32_t count, bool output);

    void set_output(size_t place) noexcept { output_[place] = 1; }
    size_t size() const noexcept { return tokens_.size(); }

    // The tokens begin .. end - 1, for llama_decode; valid until the pass changes.
    llama_batch slice(size_t begin, size_t end) noexcept;

  private:
    std::vector<llama_seq_id> sequences_;  // 0, 1, 2, ...
    std::vector<llama_token> tokens_;
    std::vector<llama_pos> positions_;
    std::vector<int32_t> n_sequences_;
    std::vector<llama_seq_id *> sequence_runs_;
    std::vector<int8_t> output_;
};

}  // namespace rim
