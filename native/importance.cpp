#include "importance.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <ggml-backend.h>
#include <ggml.h>

#include "abort_guard.h"
#include "context.h"
#include "errors.h"
#include "log.h"
#include "text.h"

namespace rim {
namespace {

constexpr int32_t slice_tokens = 512;

// "CUDA0#blk.0.attn_k.weight#0", a copy on a device -> "blk.0.attn_k.weight"
std::string weight_name(const ggml_tensor * tensor) {
    std::string name = tensor->name;
    const size_t first = name.find('#');
    if (first != std::string::npos) {
        name.erase(0, first + 1);
        name.erase(std::min(name.find('#'), name.size()));
    }
    return name;
}

bool is_product(const ggml_tensor * tensor) { return tensor->op == GGML_OP_MUL_MAT || tensor->op == GGML_OP_MUL_MAT_ID; }

const float * row_at(const std::vector<uint8_t> & data, const ggml_tensor * tensor, int64_t i1, int64_t i2, int64_t i3) {
    const size_t offset = static_cast<size_t>(i1) * tensor->nb[1] + static_cast<size_t>(i2) * tensor->nb[2] + static_cast<size_t>(i3) * tensor->nb[3];
    return reinterpret_cast<const float *>(data.data() + offset);
}

void add_squares(double * sums, const float * row, int64_t n, double weight) {
    for (int64_t i = 0; i < n; ++i) {
        sums[i] += weight * static_cast<double>(row[i]) * static_cast<double>(row[i]);
    }
}

}  // namespace

ImportanceCollector::ImportanceCollector(std::shared_ptr<const Model> model, int32_t n_ctx, int32_t n_threads,
                                         std::unordered_set<std::string> names)
    : model_(std::move(model)), names_(std::move(names)) {
    SessionOptions options;
    options.n_ctx = n_ctx;
    options.n_batch = slice_tokens;
    options.n_ubatch = slice_tokens;
    options.n_threads = n_threads;
    options.cache_type = "f32";  // and no flash attention, which rounds to half precision: sums that anyone can recompute
    options.flash_attention = "off";
    llama_context_params params = context_params(options, 1, slice_tokens);
    params.cb_eval = callback;
    params.cb_eval_user_data = this;
    context_ = make_context(*model_, params, nullptr);
}

void ImportanceCollector::add(const std::vector<llama_token> & tokens, const std::vector<float> & weights, const std::function<void()> & poll) {
    if (tokens.empty() || tokens.size() != weights.size()) {
        throw Error(ErrorKind::option, "a sequence needs at least one token, and a weight for each");
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
        model_->check_token(tokens[i]);
        if (!(weights[i] >= 0) || !std::isfinite(weights[i])) {
            throw Error(ErrorKind::option, "the weight of a token is " + std::to_string(weights[i]) + ", but must be 0 or more");
        }
    }
    const auto size = static_cast<int64_t>(tokens.size());
    if (size > n_ctx()) {
        throw context_full("a sequence of " + std::to_string(size) + " tokens does not fit the context of " + std::to_string(n_ctx()), size,
                           n_ctx());
    }
    llama_memory_clear(llama_get_memory(context_.get()), true);
    std::vector<llama_token> copy = tokens;  // llama_batch wants them writable
    std::vector<int8_t> output(slice_tokens, 1);
    for (int64_t at = 0; at < size; at += slice_tokens) {
        if (poll) {
            poll();
        }
        const auto count = static_cast<int32_t>(std::min<int64_t>(slice_tokens, size - at));
        llama_batch batch = llama_batch_get_one(copy.data() + at, count);
        batch.logits = output.data();
        weights_ = weights.data() + at;
        n_weights_ = count;
        LogCapture log;
        int32_t status = 0;
        std::string reason;
        try {
            const AbortGuard guard;
            status = llama_decode(context_.get(), batch);
            llama_synchronize(context_.get());
        } catch (const std::exception & error) {
            status = -3;
            reason = error.what();
        }
        n_weights_ = 0;
        if (!failure_.empty()) {
            throw Error(ErrorKind::backend, model_->path() + ": " + std::exchange(failure_, {}));
        }
        if (status != 0) {
            reason = one_line(reason.empty() ? log.reason() : reason);
            throw Error(ErrorKind::backend, "libllama failed to compute " + std::to_string(count) + " tokens (status " + std::to_string(status) +
                                                ")" + (reason.empty() ? "" : ": " + reason));
        }
    }
}

bool ImportanceCollector::callback(ggml_tensor * tensor, bool ask, void * collector) {
    auto * self = static_cast<ImportanceCollector *>(collector);
    if (self->n_weights_ == 0) {
        return !ask;  // while the context is being made
    }
    if (ask) {
        return self->wanted(tensor);
    }
    try {
        self->take(tensor);
    } catch (const std::exception & error) {
        self->failure_ = error.what();
    }
    return self->failure_.empty();
}

bool ImportanceCollector::wanted(const ggml_tensor * tensor) const {
    return is_product(tensor) && tensor->src[1]->type == GGML_TYPE_F32 && names_.count(weight_name(tensor->src[0])) > 0;
}

void ImportanceCollector::take(const ggml_tensor * tensor) {
    if (!wanted(tensor)) {
        return;
    }
    const ggml_tensor * activations = tensor->src[1];
    const std::string name = weight_name(tensor->src[0]);
    data_.resize(ggml_nbytes(activations));
    ggml_backend_tensor_get(activations, data_.data(), 0, data_.size());
    ImportanceSums & result = results_[name];
    if (tensor->op == GGML_OP_MUL_MAT_ID) {
        take_experts(tensor, result);
    } else {
        take_plain(tensor, result);
    }
    for (const double sum : result.sums) {
        if (!std::isfinite(sum)) {
            throw Error(ErrorKind::backend, "the activations of " + name + " are not finite: the model is damaged, or its type too narrow");
        }
    }
}

// Activations [n_columns, n_tokens, n_heads or 1, ...]; the weight is one matrix, or one per head.
void ImportanceCollector::take_plain(const ggml_tensor * tensor, ImportanceSums & result) {
    const ggml_tensor * matrix = tensor->src[0];
    const ggml_tensor * activations = tensor->src[1];
    const int64_t n = activations->ne[0];
    const int64_t n_matrices = matrix->ne[2] * matrix->ne[3];
    result.sums.resize(static_cast<size_t>(n * n_matrices));
    result.counts.resize(std::max<size_t>(result.counts.size(), 1));
    double count = 0;
    for (int64_t i3 = 0; i3 < activations->ne[3]; ++i3) {
        for (int64_t i2 = 0; i2 < activations->ne[2]; ++i2) {
            const int64_t which = (i3 % matrix->ne[3]) * matrix->ne[2] + i2 % matrix->ne[2];
            for (int64_t row = 0; row < activations->ne[1]; ++row) {
                const float w = weight(row, activations->ne[1]);
                add_squares(result.sums.data() + which * n, row_at(data_, activations, row, i2, i3), n, w);
                count += w;
            }
        }
    }
    for (double & total : result.counts) {
        total += count / static_cast<double>(n_matrices);
    }
}

// Activations [n_columns, n_used or 1, n_tokens] and the experts [n_used, n_tokens] that each token goes to.
void ImportanceCollector::take_experts(const ggml_tensor * tensor, ImportanceSums & result) {
    const ggml_tensor * activations = tensor->src[1];
    const ggml_tensor * ids = tensor->src[2];
    const int64_t n = activations->ne[0];
    const int64_t n_experts = tensor->src[0]->ne[2];
    result.sums.resize(static_cast<size_t>(n * n_experts));
    result.counts.resize(static_cast<size_t>(n_experts));
    ids_.resize(ggml_nbytes(ids));
    ggml_backend_tensor_get(ids, ids_.data(), 0, ids_.size());
    for (int64_t token = 0; token < activations->ne[2]; ++token) {
        for (int64_t used = 0; used < ids->ne[0]; ++used) {
            int32_t expert;
            std::memcpy(&expert, ids_.data() + static_cast<size_t>(token) * ids->nb[1] + static_cast<size_t>(used) * ids->nb[0], sizeof expert);
            if (expert < 0 || expert >= n_experts) {
                throw Error(ErrorKind::backend, "a token goes to expert " + std::to_string(expert) + " of " + std::to_string(n_experts));
            }
            const float w = weight(token, activations->ne[2]);
            add_squares(result.sums.data() + expert * n, row_at(data_, activations, used % activations->ne[1], token, 0), n, w);
            result.counts[static_cast<size_t>(expert)] += w;
        }
    }
}

// Rows are the slice's tokens in order; a graph that arranges them otherwise gets the same weight for all.
float ImportanceCollector::weight(int64_t row, int64_t n_rows) const { return n_rows == n_weights_ ? weights_[row] : 1.0f; }

}  // namespace rim
