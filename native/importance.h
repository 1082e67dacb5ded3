// importance.h: how much each input column of each weight matrix is used: sums of squared activations, for a quantizer.
//
// The same sums as llama.cpp's llama-imatrix: for every product of a weight matrix W with activations x, the sum of x squared per
// column of W, and the number of activations. Here each token has a weight, so that memory tokens can count more or less.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include <llama-cpp.h>
#include <llama.h>

#include "model.h"

namespace rim {

struct ImportanceSums {
    std::vector<double> sums;    // [n_matrices * n_columns]: sum of weight * x^2; experts one after the other
    std::vector<double> counts;  // sum of weights: one per expert, a single one for a plain matrix
};

class ImportanceCollector {
  public:
    // Room for sequences of up to `n_ctx` tokens. `names`: the matrices to collect, as the file names them.
    // Throws Error option, unsupported, backend.
    ImportanceCollector(std::shared_ptr<const Model> model, int32_t n_ctx, int32_t n_threads, std::unordered_set<std::string> names);
    ImportanceCollector(const ImportanceCollector &) = delete;
    ImportanceCollector & operator=(const ImportanceCollector &) = delete;

    // Run one sequence from an empty context, every token an output (else libllama leaves the others out of the last layer), and
    // add weights[i] times the squares at token i. `poll` is called between slices; what it throws stops the work.
    // A sequence that fails in between leaves its first slices in the sums. Throws Error option, context_full, backend.
    void add(const std::vector<llama_token> & tokens, const std::vector<float> & weights, const std::function<void()> & poll);

    const std::map<std::string, ImportanceSums> & results() const noexcept { return results_; }
    int32_t n_ctx() const noexcept { return static_cast<int32_t>(llama_n_ctx(context_.get())); }

  private:
    static bool callback(ggml_tensor * tensor, bool ask, void * collector);
    bool wanted(const ggml_tensor * tensor) const;
    void take(const ggml_tensor * tensor);
    void take_plain(const ggml_tensor * tensor, ImportanceSums & result);
    void take_experts(const ggml_tensor * tensor, ImportanceSums & result);
    float weight(int64_t row, int64_t n_rows) const;

    std::shared_ptr<const Model> model_;
    std::unordered_set<std::string> names_;
    std::map<std::string, ImportanceSums> results_;
    llama_context_ptr context_;
    const float * weights_ = nullptr;  // of the slice being computed
    int64_t n_weights_ = 0;
    std::string failure_;         // of the callback, which must not throw through libllama
    std::vector<uint8_t> data_;   // activations and expert ids, copied from the device
    std::vector<uint8_t> ids_;
};

}  // namespace rim
