#include "graph.h"

namespace rim::kernels {

Place::Place(const ggml_private::ComputeParams & params, const ggml_tensor * op) noexcept {
    static thread_local int last = 0;
    auto * const graph = static_cast<ggml_cgraph *>(static_cast<const ggml_private::ThreadPool *>(params.threadpool)->graph);
    nodes = ggml_graph_nodes(graph);
    n_nodes = ggml_graph_n_nodes(graph);
    int at = last < n_nodes ? last : 0;
    for (int i = 0; i < n_nodes; ++i, at = after(at)) {
        if (nodes[at] == op) {
            last = node = at;
            return;
        }
    }
}

}  // namespace rim::kernels
