// glu.h: the gated activation between a layer's products (SwiGLU).
//
// ggml shares its rows out between threads: of one token one thread computes all, and reads what the other threads have just written. Ours
// takes columns where tokens are few, as products do: each thread those that it has computed itself.
#pragma once

#include "ggml_private.h"

namespace rim::kernels {

// Whether `op` is a SwiGLU that is computed here: of two matrices in F32.
bool is_our_glu(const ggml_tensor * op) noexcept;

// Called by every thread of the pool with the same op.
void compute_glu(const ggml_private::ComputeParams & params, ggml_tensor * op);

}  // namespace rim::kernels
