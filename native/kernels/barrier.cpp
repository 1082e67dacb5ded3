#include "barrier.h"

#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "../cpu.h"
#include "ggml_private.h"
#include "redirect.h"

namespace rim::kernels {

namespace {

using ggml_private::Barrier;
using ggml_private::ThreadPool;

bool replaced = false;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#endif
}

// What a thread does while others still work.
class Patience {
  public:
    explicit Patience(int n_threads) {
        static const int n_processors = processors();
        left_ = n_threads <= n_processors ? short_while : 0;  // with more threads than processors, those that work need this one's
    }
    void wait() {
        if (left_ > 0) {
            relax();
        } else if (left_ > -long_while) {
            std::this_thread::yield();
        } else {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
            return;
        }
        --left_;
    }

  private:
    static constexpr int short_while = 4000;  // pauses of 15 to 45 ns
    static constexpr int long_while = 10000;  // turns given to other threads, of 0.3 us where there are none
    int left_;
};

void wait_in_our_way(ThreadPool & pool) {
    const int n_threads = pool.n_graph.load(std::memory_order_relaxed) & ThreadPool::n_threads_mask;
    if (n_threads == 1) {
        return;
    }
    const int passed = pool.n_passed.load(std::memory_order_relaxed);
    if (pool.n_waiting.fetch_add(1, std::memory_order_acq_rel) == n_threads - 1) {
        pool.n_waiting.store(0, std::memory_order_relaxed);
        pool.n_passed.store(passed + 1, std::memory_order_release);
        return;
    }
    for (Patience patience(n_threads); pool.n_passed.load(std::memory_order_acquire) == passed;) {
        patience.wait();
    }
}

}  // namespace

void replace_barrier() {
    const char * const wish = std::getenv("RIM_EDGE_KERNELS");
    ggml_private::ExtraBufferTypes inside = nullptr;
    if ((!wish || strcmp(wish, "0") != 0) && ggml_private::why_unknown(inside).empty()) {
        replaced = redirect(reinterpret_cast<const void *>(inside), ggml_private::barrier_symbol, reinterpret_cast<void *>(wait_for_all));
    }
}

bool is_barrier_replaced() {
    return replaced;
}

void wait_for_all(void * threadpool) {
    if (replaced) {
        return wait_in_our_way(*static_cast<ThreadPool *>(threadpool));
    }
    static const auto barrier_of_ggml = reinterpret_cast<Barrier>(dlsym(RTLD_DEFAULT, ggml_private::barrier_symbol));
    barrier_of_ggml(threadpool);
}

}  // namespace rim::kernels
