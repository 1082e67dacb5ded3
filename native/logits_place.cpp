// logits_place.cpp: libllama's copying of logits, left out.
#include "logits_place.h"

#include <utility>

#include <ggml-backend.h>
#include <ggml.h>
#include <llama.h>

#include "kernels/kernel.h"
#include "kernels/redirect.h"

namespace rim {

namespace {

thread_local LogitsPlace * watching = nullptr;
bool enabled = false;

}  // namespace

struct LogitsPlace::Call {
    // In place of ggml_backend_tensor_get_async() of ggml-backend.cpp. The first thing that llama_decode() copies out of a graph are its logits.
    static void get(ggml_backend_t backend, const ggml_tensor * tensor, void * copy, size_t offset, size_t size) {
        LogitsPlace * const place = std::exchange(watching, nullptr);
        if (!place || !tensor->buffer || !ggml_backend_buffer_is_host(tensor->buffer)) {
            return ggml_backend_tensor_get_async(backend, tensor, copy, offset, size);
        }
        place->copy_ = static_cast<const char *>(copy);
        place->place_ = static_cast<const char *>(tensor->data) + offset;
        place->n_bytes_ = size;
    }
};

void LogitsPlace::enable() {
    if (!kernels::are_forbidden()) {
        enabled = kernels::redirect(reinterpret_cast<const void *>(&llama_init_from_model), "ggml_backend_tensor_get_async",
                                    reinterpret_cast<void *>(&Call::get));
    }
}

bool LogitsPlace::is_enabled() noexcept {
    return enabled;
}

LogitsPlace::Watch::Watch(LogitsPlace & place, bool one_micro_batch) noexcept {
    place.n_bytes_ = 0;  // of the last pass
    watching = one_micro_batch ? &place : nullptr;
}

LogitsPlace::Watch::~Watch() {
    watching = nullptr;
}

const float * LogitsPlace::row(const float * copy) const noexcept {
    const auto * const at = reinterpret_cast<const char *>(copy);
    return copy && at >= copy_ && at < copy_ + n_bytes_ ? reinterpret_cast<const float *>(place_ + (at - copy_)) : copy;
}

}  // namespace rim
