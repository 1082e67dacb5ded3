// cpu_backend.h: small graphs of our own, computed by ggml's CPU back end.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml-cpp.h>

namespace rim {

// Throws Error backend where ggml has no CPU device.
ggml_backend_ptr cpu_backend(int32_t n_threads);

// For so many tensors, whose data stand elsewhere, and a graph.
ggml_context_ptr small_context(size_t n_tensors);

}  // namespace rim
