// buffer_type.h: our kernels inside libllama, as a place for weights that the CPU back end prefers to its own.
//
// ggml's CPU back end keeps a list of extra buffer types. libllama puts a weight in the first of them that supports its operation; ours
// lays the weight out for our kernels when its data arrive, and computes its products on ggml's own threads. So graphs are not split, every
// architecture works, and whatever we do not support goes the way it went before.
#pragma once

#include <string>
#include <vector>

#include <ggml-backend.h>

namespace rim::kernels {

struct State {
    bool active;
    std::string instructions;        // "AVX-512 VNNI, AVX-512 BF16" or "AVX2"; empty if not active
    std::string reason;              // why not; empty if active
    bool attention;                  // whether attention is computed here, too
    bool norms;                      // whether norms are
    bool swiglu;                     // whether SwiGLU is
    std::vector<std::string> types;  // weight types with a kernel, as ggml names them
};

// Puts our buffer type into the list, once; must run before the first model is loaded. Does nothing, and says why in state(), where the
// processor lacks the instructions, the library is not the one that we know, or RIM_EDGE_KERNELS forbids it.
void install();

// install() and what came of it.
const State & state();

// The place itself, for products outside of a model.
ggml_backend_buffer_type_t buffer_type();

// Whether `op` is a product that is computed here.
bool is_our_product(const ggml_tensor * op) noexcept;

}  // namespace rim::kernels
