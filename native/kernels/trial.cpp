#include "trial.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include "../cpu_backend.h"
#include "../errors.h"
#include "../quantize.h"
#include "attention.h"
#include "buffer_type.h"
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

std::vector<float> computed(const ggml_backend_ptr & backend, ggml_context * context, ggml_tensor * output) {
    ggml_cgraph * const graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, output);
    need(ggml_backend_graph_compute(backend.get(), graph) == GGML_STATUS_SUCCESS, ErrorKind::backend, "ggml failed to compute");
    std::vector<float> result(static_cast<size_t>(ggml_nelements(output)));
    ggml_backend_tensor_get(output, result.data(), 0, ggml_nbytes(output));
    return result;
}

}  // namespace

std::vector<float> trial_product(const std::string & name, const uint8_t * weights, int64_t n_weight_bytes, int64_t rows, int64_t inner,
                                 const float * values, int64_t n_tokens, int32_t n_threads) {
    need_kernels(n_threads);
    const ggml_type type = tensor_type(name);
    need(fits(type, inner, rows), ErrorKind::option,
         "the kernels take no " + name + " of " + std::to_string(rows) + " rows of " + std::to_string(inner) + " values");
    need(n_weight_bytes == static_cast<int64_t>(ggml_row_size(type, inner)) * rows, ErrorKind::option, "the weights have another size");
    need(n_tokens >= 1, ErrorKind::option, "at least 1 token");

    const ggml_backend_ptr backend = cpu_backend(n_threads);
    const ggml_context_ptr weight_context = small_context(1);
    const ggml_context_ptr work_context = small_context(2);
    ggml_tensor * const matrix = ggml_new_tensor_2d(weight_context.get(), type, inner, rows);
    const ggml_backend_buffer_ptr weight_buffer(ggml_backend_alloc_ctx_tensors_from_buft(weight_context.get(), buffer_type()));
    ggml_tensor * const input = ggml_new_tensor_2d(work_context.get(), GGML_TYPE_F32, inner, n_tokens);
    ggml_tensor * const output = ggml_mul_mat(work_context.get(), matrix, input);
    const ggml_backend_buffer_ptr work_buffer(ggml_backend_alloc_ctx_tensors(work_context.get(), backend.get()));
    need(weight_buffer && work_buffer, ErrorKind::backend, "no memory for a matrix product of " + name);
    need(ggml_backend_dev_supports_op(ggml_backend_get_device(backend.get()), output), ErrorKind::unsupported,
         "the kernels do not take this product");
    ggml_backend_tensor_set(matrix, weights, 0, static_cast<size_t>(n_weight_bytes));
    ggml_backend_tensor_set(input, values, 0, ggml_nbytes(input));
    return computed(backend, work_context.get(), output);
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
