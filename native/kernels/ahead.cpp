#include "ahead.h"

#include "attention.h"
#include "barrier.h"
#include "buffer_type.h"
#include "product.h"

namespace rim::kernels {

Ahead & Ahead::own() noexcept {
    static thread_local Ahead ahead;
    return ahead;
}

void Ahead::begin_run(int index) noexcept {
    run_ = index;
    piece_ = 0;
    offset_ = 0;
}

void Ahead::add(const ggml_tensor * op, int node, const Run & run) noexcept {
    entries_[static_cast<size_t>(n_++)] = {op, node, run};
}

void Ahead::reach(const ggml_tensor * op) noexcept {
    int end = n_;  // where it was not expected, another graph has begun
    for (int i = first_; i < n_; ++i) {
        if (entries_[static_cast<size_t>(i)].op == op) {
            end = i + 1;
            reached_ = entries_[static_cast<size_t>(i)].node;
        }
    }
    first_ = end;
    if (run_ < first_) {
        begin_run(first_);
    }
}

void Ahead::look(const ggml_private::ComputeParams & params, const ggml_tensor * op) noexcept {
    if (first_ < n_ || params.n_threads == 1 || !is_barrier_replaced()) {
        return;
    }
    first_ = n_ = 0;
    begin_run(0);
    auto * const graph = static_cast<ggml_cgraph *>(static_cast<const ggml_private::ThreadPool *>(params.threadpool)->graph);
    ggml_tensor * const * const nodes = ggml_graph_nodes(graph);
    const int n_nodes = ggml_graph_n_nodes(graph);
    const auto after = [n_nodes](int node) { return node + 1 < n_nodes ? node + 1 : 0; };
    int node = reached_ < n_nodes ? reached_ : 0;
    for (int i = 0; nodes[node] != op; ++i, node = after(node)) {
        if (i == n_nodes) {
            return;
        }
    }
    // After the last one comes the first one of the next token, whose graph is the same.
    for (int i = 0; i < n_nodes; ++i) {
        node = after(node);
        const ggml_tensor * const next = nodes[node];
        if (ggml_is_empty(next)) {
            continue;
        }
        if (is_our_product(next)) {
            add(next, node, first_weights(next, params.thread, params.n_threads));
            return;
        }
        if (n_ == 0 && is_our_attention(next)) {
            for (const Run & run : first_keys(next, params.thread, params.n_threads)) {
                add(next, node, run);
            }
        }
    }
}

}  // namespace rim::kernels
