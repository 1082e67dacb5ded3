#include "trial.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include "../errors.h"
#include "../quantize.h"
#include "buffer_type.h"
#include "layout.h"

namespace rim::kernels {

namespace {

ggml_context_ptr small_context() {
    ggml_init_params params = {};
    params.mem_size = ggml_tensor_overhead() * 2 + ggml_graph_overhead();
    params.no_alloc = true;
    return ggml_context_ptr(ggml_init(params));
}

void need(bool good, ErrorKind kind, const std::string & what) {
    if (!good) {
        throw Error(kind, what);
    }
}

}  // namespace

std::vector<float> trial_product(const std::string & name, const uint8_t * weights, int64_t n_weight_bytes, int64_t rows, int64_t inner,
                                 const float * values, int64_t n_tokens, int32_t n_threads) {
    const State & here = state();
    need(here.active, ErrorKind::unsupported, "no kernels are active: " + here.reason);
    const ggml_type type = tensor_type(name);
    need(fits(type, inner, rows), ErrorKind::option,
         "the kernels take no " + name + " of " + std::to_string(rows) + " rows of " + std::to_string(inner) + " values");
    need(n_weight_bytes == static_cast<int64_t>(ggml_row_size(type, inner)) * rows, ErrorKind::option, "the weights have another size");
    need(n_tokens >= 1 && n_threads >= 1 && n_threads <= 1024, ErrorKind::option, "at least 1 token and 1..1024 threads");

    ggml_backend_dev_t const device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const ggml_backend_ptr backend(ggml_backend_dev_init(device, nullptr));
    need(backend != nullptr, ErrorKind::backend, "ggml has no CPU device");
    if (const auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
            ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"))) {
        set(backend.get(), n_threads);
    }
    const ggml_context_ptr weight_context = small_context();
    const ggml_context_ptr work_context = small_context();
    ggml_tensor * const matrix = ggml_new_tensor_2d(weight_context.get(), type, inner, rows);
    const ggml_backend_buffer_ptr weight_buffer(ggml_backend_alloc_ctx_tensors_from_buft(weight_context.get(), buffer_type()));
    ggml_tensor * const input = ggml_new_tensor_2d(work_context.get(), GGML_TYPE_F32, inner, n_tokens);
    ggml_tensor * const output = ggml_mul_mat(work_context.get(), matrix, input);
    const ggml_backend_buffer_ptr work_buffer(ggml_backend_alloc_ctx_tensors(work_context.get(), backend.get()));
    need(weight_buffer && work_buffer, ErrorKind::backend, "no memory for a matrix product of " + name);
    need(ggml_backend_dev_supports_op(device, output), ErrorKind::unsupported, "the kernels do not take this product");
    ggml_backend_tensor_set(matrix, weights, 0, static_cast<size_t>(n_weight_bytes));
    ggml_backend_tensor_set(input, values, 0, ggml_nbytes(input));
    ggml_cgraph * const graph = ggml_new_graph(work_context.get());
    ggml_build_forward_expand(graph, output);
    need(ggml_backend_graph_compute(backend.get(), graph) == GGML_STATUS_SUCCESS, ErrorKind::backend, "ggml failed to compute a product");
    std::vector<float> result(static_cast<size_t>(rows * n_tokens));
    ggml_backend_tensor_get(output, result.data(), 0, ggml_nbytes(output));
    return result;
}

}  // namespace rim::kernels
