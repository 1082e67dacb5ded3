#include "buffer_type.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "attention.h"
#include "ggml_private.h"
#include "glu.h"
#include "kernel.h"
#include "layout.h"
#include "norm.h"
#include "pack.h"
#include "product.h"
#include "rows.h"

namespace rim::kernels {

namespace {

using namespace ggml_private;

constexpr const char * our_name = "RIM_EDGE";

bool can_hold(const ggml_tensor * tensor) {
    return ggml_n_dims(tensor) <= 2 && fits(tensor->type, tensor->ne[0], tensor->ne[1]) && kernel_for(tensor->type);
}

bool is_ours(const ggml_tensor * weights) {
    return weights && weights->buffer && ggml_backend_buffer_get_type(weights->buffer) == buffer_type();
}

// ---- what is computed here

using WorkSize = size_t (*)(const ggml_tensor * op, int n_threads);
using Compute = void (*)(const ComputeParams & params, ggml_tensor * op);

template <WorkSize size_of, Compute compute>
class Traits : public TensorTraits {
  public:
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        size = size_of(op, n_threads);
        return true;
    }
    bool compute_forward(ComputeParams * params, ggml_tensor * op) override {
        compute(*params, op);
        return true;
    }
};

size_t no_work(const ggml_tensor *, int) {
    return 0;
}

Traits<product_work_size, compute_product> product_traits;  // of a weight
// These have no weights: ggml asks every extra buffer type about every operation.
Traits<attention_work_size, compute_attention> attention_traits;
Traits<no_work, compute_glu> glu_traits;

class Context : public ExtraBufferType {
  public:
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * const weights = op->src[0];
        const ggml_tensor * const input = op->src[1];
        return op->op == GGML_OP_MUL_MAT && is_ours(weights) && !weights->view_src && can_hold(weights) && input->type == GGML_TYPE_F32 &&
               input->nb[0] == sizeof(float) && op->type == GGML_TYPE_F32 && ggml_is_contiguous(op) &&
               (!input->buffer || ggml_backend_buffer_is_host(input->buffer));
    }
    TensorTraits * get_tensor_traits(const ggml_tensor * op) override {
        if (is_our_attention(op)) {
            return &attention_traits;
        }
        if (is_our_glu(op)) {
            return &glu_traits;
        }
        return is_our_product(op) ? static_cast<TensorTraits *>(op->src[0]->extra) : nullptr;
    }
};

// ---- buffers: the CPU back end's own memory, with our way of filling it

ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor * tensor) {
    tensor->extra = can_hold(tensor) ? static_cast<TensorTraits *>(&product_traits) : nullptr;
    return GGML_STATUS_SUCCESS;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));  // libllama loads whole tensors
    if (tensor->extra) {
        pack(tensor->type, static_cast<const uint8_t *>(data), tensor->ne[0], tensor->ne[1], static_cast<uint8_t *>(tensor->data));
    } else {
        memcpy(tensor->data, data, size);
    }
}

const char * get_name(ggml_backend_buffer_type_t) {
    return our_name;
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    const ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        auto * const mirror = reinterpret_cast<Buffer *>(buffer);
        mirror->type = type;
        mirror->interface.init_tensor = init_tensor;
        mirror->interface.set_tensor = set_tensor;
        mirror->interface.get_tensor = nullptr;
        mirror->interface.cpy_tensor = nullptr;
        if (size) {
            prefer_large_pages(ggml_backend_buffer_get_base(buffer), size);
        }
    }
    return buffer;
}

size_t get_alignment(ggml_backend_buffer_type_t) {
    return tile_alignment;
}

size_t get_alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    if (!can_hold(tensor)) {
        return ggml_nbytes(tensor);
    }
    return tile_bytes(*layout_of(tensor->type), tensor->ne[0]) * static_cast<size_t>(tile_count(tensor->ne[1]));
}

// ---- installing

bool is_named(ggml_backend_buffer_type_t type, const char * name) {
    return strcmp(ggml_backend_buft_name(type), name) == 0;
}

State try_install() {
    State result{};
    ExtraBufferTypes types = nullptr;
    result.reason = why_unknown(types);
    if (result.reason.empty() && !ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) {
        result.reason = "ggml has no CPU device";
    }
    if (!result.reason.empty()) {
        return result;
    }
    auto & list = types();
    // ggml's own layout for Intel's matrix units ends the process at the first product where the compiler, such as gcc 12, drops the
    // description of the tiles that the instruction reads (llama.cpp issue 20824).
    list.erase(std::remove_if(list.begin(), list.end(), [](auto type) { return is_named(type, "AMX"); }), list.end());
    result.reason = why_none();
    if (!result.reason.empty()) {
        return result;
    }
    const auto place = std::find_if(list.begin(), list.end(), [](auto type) { return is_named(type, "CPU_REPACK"); });
    list.insert(place, buffer_type());
    result.active = true;
    result.attention = attention_kernel() != nullptr;
    result.swiglu = row_kernel() != nullptr;
    result.norms = replace_norm(reinterpret_cast<const void *>(types));
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (const Kernel * const kernel = kernel_for(type)) {
            result.types.emplace_back(ggml_type_name(type));
            if (result.instructions.find(kernel->name) == std::string::npos) {
                result.instructions += (result.instructions.empty() ? "" : ", ") + std::string(kernel->name);
            }
        }
    }
    return result;
}

}  // namespace

bool is_our_product(const ggml_tensor * op) noexcept {
    return op->op == GGML_OP_MUL_MAT && is_ours(op->src[0]) && op->src[0]->extra;
}

ggml_backend_buffer_type_t buffer_type() {
    static Context context;
    static BufferType type = {{get_name, alloc_buffer, get_alignment, nullptr, get_alloc_size, nullptr},
                              ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU),
                              static_cast<ExtraBufferType *>(&context)};
    return reinterpret_cast<ggml_backend_buffer_type_t>(&type);
}

const State & state() {
    static const State state = try_install();
    return state;
}

void install() {
    state();
}

}  // namespace rim::kernels
