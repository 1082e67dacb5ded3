#include "ahead.h"

#include "attention.h"
#include "barrier.h"
#include "buffer_type.h"
#include "graph.h"
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

void Ahead::add(const ggml_tensor * op, const Run & run) noexcept {
    entries_[static_cast<size_t>(n_++)] = {op, run};
}

void Ahead::reach(const ggml_tensor * op) noexcept {
    int end = n_;  // where it was not expected, another graph has begun
    for (int i = first_; i < n_; ++i) {
        if (entries_[static_cast<size_t>(i)].op == op) {
            end = i + 1;
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
    const Place place(params, op);
    if (place.node < 0) {
        return;
    }
    for (int node = place.after(place.node); node != place.node; node = place.after(node)) {
        const ggml_tensor * const next = place.nodes[node];
        if (ggml_is_empty(next)) {
            continue;
        }
        if (is_our_product(next)) {
            add(next, first_weights(next, params.thread, params.n_threads));
            return;
        }
        if (n_ == 0 && is_our_attention(next)) {
            for (const Run & run : first_keys(next, params.thread, params.n_threads)) {
                add(next, run);
            }
        }
    }
}

}  // namespace rim::kernels
