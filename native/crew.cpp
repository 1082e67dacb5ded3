#include "crew.h"

#include <ggml-backend.h>
#include <ggml.h>

#include "cpu_backend.h"
#include "errors.h"

namespace rim {

void Crew::take(ggml_tensor *, int, int, void * crew) {
    auto & self = *static_cast<Crew *>(crew);
    for (int64_t i; (i = self.taken_.fetch_add(1, std::memory_order_relaxed)) < self.n_;) {
        (*self.work_)(i);
    }
}

// A graph of one operation, which is take().
void Crew::engage(int32_t n_threads) {
    backend_ = cpu_backend(n_threads);
    context_ = small_context(1);
    graph_ = ggml_new_graph(context_.get());
    ggml_build_forward_expand(graph_, ggml_custom_4d(context_.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, take, GGML_N_TASKS_MAX, this));
    n_threads_ = n_threads;
}

void Crew::run(int32_t n_threads, int64_t n, const std::function<void(int64_t)> & work) {
    if (n_threads <= 1 || n <= 1) {
        for (int64_t i = 0; i < n; ++i) {
            work(i);
        }
        return;
    }
    if (n_threads != n_threads_) {
        engage(n_threads);
    }
    work_ = &work;
    n_ = n;
    taken_ = 0;
    if (ggml_backend_graph_compute(backend_.get(), graph_) != GGML_STATUS_SUCCESS) {
        throw Error(ErrorKind::backend, "ggml failed to compute");
    }
}

}  // namespace rim
