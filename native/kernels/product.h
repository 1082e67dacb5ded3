// product.h: one product of a graph, by all threads of ggml's pool together.
#pragma once

#include <cstddef>

#include "ahead.h"
#include "ggml_private.h"

namespace rim::kernels {

// Bytes that the threads share while they compute `op`.
size_t product_work_size(const ggml_tensor * op, int n_threads);

// Called by every thread of the pool with the same op, whose src[0] is laid out (layout.h).
void compute_product(const ggml_private::ComputeParams & params, ggml_tensor * op);

// The weights that a thread reads first of all in compute_product(), as many as are worth fetching ahead.
Run first_weights(const ggml_tensor * op, int thread, int n_threads) noexcept;

}  // namespace rim::kernels
