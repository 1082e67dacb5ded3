// ggml_private.h: the parts of ggml's back-end interface that are not among its installed headers, as they are in the versions below.
//
// Declarations alone, with our own names: structures in the same order, classes with the same virtual functions in the same order.
// They hold for these versions only: why_unknown() compares them with the library that is loaded.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ggml-backend.h>
#include <ggml.h>

namespace rim::kernels::ggml_private {

constexpr const char * ggml_version_mirrored = "0.25.3";
constexpr const char * llama_version_mirrored = "0.5.0-dev";

// ---- ggml-backend-impl.h

struct BufferTypeInterface {
    const char * (*get_name)(ggml_backend_buffer_type_t type);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t type, size_t size);
    size_t (*get_alignment)(ggml_backend_buffer_type_t type);
    size_t (*get_max_size)(ggml_backend_buffer_type_t type);
    size_t (*get_alloc_size)(ggml_backend_buffer_type_t type, const ggml_tensor * tensor);
    bool (*is_host)(ggml_backend_buffer_type_t type);
};

struct BufferType {
    BufferTypeInterface interface;
    ggml_backend_dev_t device;
    void * context;
};

struct BufferInterface {
    void (*free_buffer)(ggml_backend_buffer_t buffer);
    void * (*get_base)(ggml_backend_buffer_t buffer);
    ggml_status (*init_tensor)(ggml_backend_buffer_t buffer, ggml_tensor * tensor);
    void (*memset_tensor)(ggml_backend_buffer_t buffer, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size);
    void (*set_tensor)(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size);
    void (*get_tensor)(ggml_backend_buffer_t buffer, const ggml_tensor * tensor, void * data, size_t offset, size_t size);
    void (*set_tensor_2d)(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size,
                          size_t n_copies, size_t stride_tensor, size_t stride_data);
    void (*get_tensor_2d)(ggml_backend_buffer_t buffer, const ggml_tensor * tensor, void * data, size_t offset, size_t size,
                          size_t n_copies, size_t stride_tensor, size_t stride_data);
    bool (*cpy_tensor)(ggml_backend_buffer_t buffer, const ggml_tensor * source, ggml_tensor * target);
    void (*clear)(ggml_backend_buffer_t buffer, uint8_t value);
    void (*reset)(ggml_backend_buffer_t buffer);
};

struct Buffer {
    BufferInterface interface;
    ggml_backend_buffer_type_t type;
    void * context;
    size_t size;
    ggml_backend_buffer_usage usage;
};

// ---- ggml-cpu/ggml-cpu-impl.h

struct ComputeParams {
    int thread, n_threads;
    size_t work_size;
    void * work;
    void * threadpool;
    bool use_reference;
};

// ---- ggml-cpu/traits.h: what a buffer type's context and a tensor's `extra` point at

class TensorTraits {
  public:
    virtual ~TensorTraits() = default;
    virtual bool work_size(int n_threads, const ggml_tensor * op, size_t & size) = 0;
    virtual bool compute_forward(ComputeParams * params, ggml_tensor * op) = 0;
};

class ExtraBufferType {
  public:
    virtual ~ExtraBufferType() = default;
    virtual bool supports_op(ggml_backend_dev_t device, const ggml_tensor * op) = 0;
    virtual TensorTraits * get_tensor_traits(const ggml_tensor * op) = 0;
};

// ---- ggml-cpu/ggml-cpu.c, the beginning of what a graph's threads share

struct ThreadPool {
    static constexpr int n_threads_mask = 0xffff;

    pthread_mutex_t mutex;
    pthread_cond_t condition;
    void * graph;
    void * plan;
    std::atomic<int> n_graph;  // its lower half is the number of threads
    alignas(64) std::atomic<int> n_waiting;
    alignas(64) std::atomic<int> n_passed;
};

// ---- functions of libggml-cpu, by the name of their symbol

// ggml_backend_cpu_get_extra_buffer_types(): the list that the CPU back end itself reads, as a C++ reference
using ExtraBufferTypes = std::vector<ggml_backend_buffer_type_t> & (*)();
constexpr const char * extra_buffer_types_symbol = "_Z39ggml_backend_cpu_get_extra_buffer_typesv";

using Barrier = void (*)(void * threadpool);
constexpr const char * barrier_symbol = "ggml_barrier";

// ggml_compute_forward_rms_norm_mul_fused(params, norm, product)
constexpr const char * norm_symbol = "ggml_compute_forward_rms_norm_mul_fused";

// Why nothing here may be used with the library that is loaded, "" if it may and `types` is set.
std::string why_unknown(ExtraBufferTypes & types);

}  // namespace rim::kernels::ggml_private
