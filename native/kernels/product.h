// product.h: one product of a graph, by all threads of ggml's pool together.
#pragma once

#include <cstddef>

#include "ggml_private.h"

namespace rim::kernels {

// Bytes that the threads share while they compute `op`.
size_t product_work_size(const ggml_tensor * op, int n_threads);

// Called by every thread of the pool with the same op, whose src[0] is laid out (layout.h).
void compute_product(const ggml_private::ComputeParams & params, ggml_tensor * op);

}  // namespace rim::kernels
