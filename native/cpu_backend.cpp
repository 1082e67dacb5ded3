#include "cpu_backend.h"

#include <ggml-backend.h>
#include <ggml.h>

#include "errors.h"

namespace rim {

ggml_backend_ptr cpu_backend(int32_t n_threads) {
    ggml_backend_dev_t const device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    ggml_backend_ptr backend(device ? ggml_backend_dev_init(device, nullptr) : nullptr);
    if (!backend) {
        throw Error(ErrorKind::backend, "ggml has no CPU device");
    }
    if (const auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
            ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_set_n_threads"))) {
        set(backend.get(), n_threads);
    }
    return backend;
}

ggml_context_ptr small_context(size_t n_tensors) {
    ggml_init_params params = {};
    params.mem_size = ggml_tensor_overhead() * n_tensors + ggml_graph_overhead();
    params.no_alloc = true;
    return ggml_context_ptr(ggml_init(params));
}

}  // namespace rim
