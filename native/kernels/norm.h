// norm.h: the norm before a layer's products (root mean square, times weights), in place of ggml's, which adds squares one by one.
//
// ggml computes a norm and the product after it together before it asks any buffer type, so its own function is redirected (redirect.h).
#pragma once

namespace rim::kernels {

// From now on norms are ours, where libggml-cpu's calls can be sent here; whether they can. `inside`: a function of that library, which we
// know (ggml_private.h). There must be a row_kernel().
bool replace_norm(const void * inside);

}  // namespace rim::kernels
