// hidden.h: the state after the final norm, read from the graph while it is computed.
#pragma once

#include <cstddef>
#include <vector>

#include <ggml-backend.h>
#include <ggml.h>

namespace rim {

// Collects the rows of libllama's tensor `result_norm` through the scheduler's evaluation callback: one row per requested
// output, in batch order, over all micro-batches of a pass. Costs nothing while disarmed (one comparison per graph node).
// `embeddings = true` would give the same state but makes every token an output.
class HiddenTap {
  public:
    explicit HiddenTap(int32_t n_embd) : n_embd_(static_cast<size_t>(n_embd)) {}

    // For llama_context_params.cb_eval, with the tap as user data.
    static bool callback(ggml_tensor * tensor, bool ask, void * tap);

    void arm() noexcept {
        armed_ = true;
        rows_.clear();
        usable_ = true;
    }
    void disarm() noexcept { armed_ = false; }

    // Rows collected since arm(); -1 if the graph's tensor is not [n_embd, rows] float32.
    int64_t count() const noexcept { return usable_ ? static_cast<int64_t>(rows_.size() / n_embd_) : -1; }
    const float * row(size_t i) const noexcept { return rows_.data() + i * n_embd_; }

  private:
    void take(ggml_tensor * tensor);

    size_t n_embd_;
    std::vector<float> rows_;
    bool armed_ = false;
    bool usable_ = true;
};

}  // namespace rim
