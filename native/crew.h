// crew.h: the threads that compute passes, for work of ours after one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include <ggml-cpp.h>

namespace rim {

// Not for two threads at the same time.
class Crew {
  public:
    Crew() = default;
    Crew(const Crew &) = delete;
    Crew & operator=(const Crew &) = delete;

    // Calls work(i) for every i from 0 to n - 1: so many threads, the calling one among them, take one after another. They are ggml's, which
    // after a pass with as many threads are still awake. `work` must not throw. Throws Error backend.
    void run(int32_t n_threads, int64_t n, const std::function<void(int64_t)> & work);

  private:
    static void take(ggml_tensor *, int, int, void * crew);
    void engage(int32_t n_threads);

    ggml_context_ptr context_;
    ggml_backend_ptr backend_;
    ggml_cgraph * graph_ = nullptr;
    int32_t n_threads_ = 0;  // of the back end
    const std::function<void(int64_t)> * work_ = nullptr;
    int64_t n_ = 0;
    std::atomic<int64_t> taken_{0};
};

}  // namespace rim
