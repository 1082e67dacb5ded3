#include "trial.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include "../cpu_backend.h"
#include "../errors.h"
#include "../quantize.h"
#include "attention.h"
#include "buffer_type.h"
#include "glu.h"
#include "layout.h"

namespace rim::kernels {

namespace {

void need(bool good, ErrorKind kind, const std::string & what) {
    if (!good) {
        throw Error(kind, what);
    }
}

void need_kernels(int32_t n_threads) {
    const State & here = state();
    need(here.active, ErrorKind::unsupported, "no kernels are active: " + here.reason);
    need(n_threads >= 1 && n_threads <= 1024, ErrorKind::option, "1..1024 threads");
}

void compute(const ggml_backend_ptr & backend, ggml_cgraph * graph) {
    need(ggml_backend_graph_compute(backend.get(), graph) == GGML_STATUS_SUCCESS, ErrorKind::backend, "ggml failed to compute");
}

std::vector<float> values_of(const ggml_tensor * tensor) {
    std::vector<float> values(static_cast<size_t>(ggml_nelements(tensor)));
    ggml_backend_tensor_get(tensor, values.data(), 0, ggml_nbytes(tensor));
    return values;
}

std::vector<float> computed(const ggml_backend_ptr & backend, ggml_context * context, ggml_tensor * output) {
    ggml_cgraph * const graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, output);
    compute(backend, graph);
    return values_of(output);
}

}  // namespace

std::vector<std::vector<float>> trial_products(const std::vector<TrialWeights> & weights, int64_t inner, const float * values,
                                               int64_t n_tokens, int32_t n_threads) {
    need_kernels(n_threads);
    need(n_tokens >= 1, ErrorKind::option, "at least 1 token");
    const ggml_backend_ptr backend = cpu_backend(n_threads);
    const ggml_context_ptr weight_context = small_context(weights.size());
    const ggml_context_ptr work_context = small_context(2 + 3 * weights.size());
    ggml_context * const c = work_context.get();
    std::vector<ggml_tensor *> matrices;
    for (const TrialWeights & of : weights) {
        const ggml_type type = tensor_type(of.type);
        need(fits(type, inner, of.rows), ErrorKind::option,
             "the kernels take no " + of.type + " of " + std::to_string(of.rows) + " rows of " + std::to_string(inner) + " values");
        need(of.n_bytes == static_cast<int64_t>(ggml_row_size(type, inner)) * of.rows, ErrorKind::option, "the weights have another size");
        matrices.push_back(ggml_new_tensor_2d(weight_context.get(), type, inner, of.rows));
    }
    const ggml_backend_buffer_ptr weight_buffer(ggml_backend_alloc_ctx_tensors_from_buft(weight_context.get(), buffer_type()));

    ggml_tensor * const input = ggml_new_tensor_2d(c, GGML_TYPE_F32, inner, n_tokens);
    ggml_tensor * const positions = ggml_new_tensor_1d(c, GGML_TYPE_I32, n_tokens);
    std::vector<ggml_tensor *> outputs;
    ggml_cgraph * const graph = ggml_new_graph(c);
    for (size_t i = 0; i < weights.size(); ++i) {
        constexpr int64_t head = 32;
        outputs.push_back(ggml_mul_mat(c, matrices[i], input));
        ggml_build_forward_expand(graph, outputs.back());
        if (i + 1 < weights.size() && weights[i].rows % head == 0) {
            ggml_tensor * const heads = ggml_reshape_3d(c, outputs.back(), head, weights[i].rows / head, n_tokens);
            ggml_build_forward_expand(graph, ggml_rope(c, heads, positions, head, GGML_ROPE_TYPE_NORMAL));
        }
    }
    const ggml_backend_buffer_ptr work_buffer(ggml_backend_alloc_ctx_tensors(c, backend.get()));
    need(weight_buffer && work_buffer, ErrorKind::backend, "no memory for a matrix product");
    const std::vector<int32_t> zeros(static_cast<size_t>(n_tokens));
    ggml_backend_tensor_set(positions, zeros.data(), 0, ggml_nbytes(positions));
    ggml_backend_tensor_set(input, values, 0, ggml_nbytes(input));
    for (size_t i = 0; i < weights.size(); ++i) {
        need(ggml_backend_dev_supports_op(ggml_backend_get_device(backend.get()), outputs[i]), ErrorKind::unsupported,
             "the kernels do not take this product");
        ggml_backend_tensor_set(matrices[i], weights[i].bytes, 0, static_cast<size_t>(weights[i].n_bytes));
    }
    compute(backend, graph);
    std::vector<std::vector<float>> results;
    for (const ggml_tensor * const output : outputs) {
        results.push_back(values_of(output));
    }
    return results;
}

std::vector<float> trial_norm(const float * values, const float * weights, int64_t rows, int64_t n, float eps, int32_t n_threads) {
    need_kernels(n_threads);
    need(state().norms, ErrorKind::unsupported, "norms are ggml's own here");
    need(rows >= 1 && n >= 1, ErrorKind::option, "at least 1 row of 1 value");
    const ggml_backend_ptr backend = cpu_backend(n_threads);
    const ggml_context_ptr context = small_context(4);
    ggml_tensor * const input = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, n, rows);
    ggml_tensor * const factors = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, n);
    ggml_tensor * const output = ggml_mul(context.get(), ggml_rms_norm(context.get(), input, eps), factors);
    const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(context.get(), backend.get()));
    need(buffer != nullptr, ErrorKind::backend, "no memory for a norm");
    ggml_backend_tensor_set(input, values, 0, ggml_nbytes(input));
    ggml_backend_tensor_set(factors, weights, 0, ggml_nbytes(factors));
    return computed(backend, context.get(), output);
}

std::vector<float> trial_swiglu(const float * gate, const float * up, int64_t rows, int64_t n, int32_t n_threads) {
    need_kernels(n_threads);
    need(rows >= 1 && n >= 1, ErrorKind::option, "at least 1 row of 1 value");
    const ggml_backend_ptr backend = cpu_backend(n_threads);
    const ggml_context_ptr context = small_context(3);
    ggml_tensor * const left = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, n, rows);
    ggml_tensor * const right = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, n, rows);
    ggml_tensor * const output = ggml_swiglu_split(context.get(), left, right);
    const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(context.get(), backend.get()));
    need(buffer != nullptr, ErrorKind::backend, "no memory for a SwiGLU");
    need(is_our_glu(output), ErrorKind::unsupported, "the kernels do not take this SwiGLU");
    ggml_backend_tensor_set(left, gate, 0, ggml_nbytes(left));
    ggml_backend_tensor_set(right, up, 0, ggml_nbytes(right));
    return computed(backend, context.get(), output);
}

std::vector<float> trial_attention(const AttentionShape & shape, const float * queries, const float * keys, const float * values,
                                   const float * mask, int32_t n_threads) {
    need_kernels(n_threads);
    need(shape.n_tokens >= 1 && shape.n_keys >= 1 && shape.n_heads >= 1 && shape.n_groups >= 1 && shape.n_heads % shape.n_groups == 0,
         ErrorKind::option, "query heads must be a multiple of key heads, and nothing may be empty");
    const ggml_backend_ptr backend = cpu_backend(n_threads);
    const ggml_context_ptr context = small_context(12);
    ggml_context * const c = context.get();
    const ggml_type cached = shape.half_precision ? GGML_TYPE_F16 : GGML_TYPE_F32;
    // As a model's cache has them: the heads of one token side by side.
    ggml_tensor * const q = ggml_new_tensor_3d(c, GGML_TYPE_F32, shape.key_size, shape.n_heads, shape.n_tokens);
    ggml_tensor * const k = ggml_new_tensor_3d(c, cached, shape.key_size, shape.n_groups, shape.n_keys);
    ggml_tensor * const v = ggml_new_tensor_3d(c, cached, shape.value_size, shape.n_groups, shape.n_keys);
    ggml_tensor * const m = ggml_new_tensor_2d(c, GGML_TYPE_F16, shape.n_keys, shape.n_tokens);
    ggml_tensor * const output = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), ggml_permute(c, k, 0, 2, 1, 3),
                                                     ggml_permute(c, v, 0, 2, 1, 3), m, shape.scale, 0.0f, 0.0f);
    const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(c, backend.get()));
    need(buffer != nullptr, ErrorKind::backend, "no memory for an attention");
    need(is_our_attention(output), ErrorKind::unsupported, "the kernels do not take this attention");
    const auto set = [](ggml_tensor * tensor, const float * from) {
        if (tensor->type == GGML_TYPE_F32) {
            ggml_backend_tensor_set(tensor, from, 0, ggml_nbytes(tensor));
            return;
        }
        std::vector<ggml_fp16_t> halves(static_cast<size_t>(ggml_nelements(tensor)));
        ggml_fp32_to_fp16_row(from, halves.data(), ggml_nelements(tensor));
        ggml_backend_tensor_set(tensor, halves.data(), 0, ggml_nbytes(tensor));
    };
    set(q, queries);
    set(k, keys);
    set(v, values);
    set(m, mask);
    return computed(backend, c, output);
}

}  // namespace rim::kernels
