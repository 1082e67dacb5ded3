// graph.h: the graph that ggml's threads compute, and where in it they are.
#pragma once

#include "ggml_private.h"

namespace rim::kernels {

// The nodes of a graph, in the order in which they are computed, and the place of one of them.
struct Place {
    ggml_tensor * const * nodes = nullptr;
    int n_nodes = 0;
    int node = -1;  // -1: not in this graph

    // Of `op`, which is being computed. Begins to look where the calling thread found the last one.
    Place(const ggml_private::ComputeParams & params, const ggml_tensor * op) noexcept;

    // The node after another one; after the last one comes the first one of the next token, whose graph is the same.
    int after(int other) const noexcept { return other + 1 < n_nodes ? other + 1 : 0; }
};

}  // namespace rim::kernels
