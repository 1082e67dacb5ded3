#include "barrier.h"

#include <dlfcn.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ctime>
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

constexpr int looks = 4000;                        // with pauses of 15 to 45 ns between them
constexpr int asleep = 1 << 16;                    // in n_waiting, above the count of those that wait
constexpr std::chrono::nanoseconds nap(200'000);  // at most, should nobody know of the sleeper

// Sleeps while `word` has the value, until woken or for a nap.
void sleep_while(std::atomic<int> & word, int value) {
#if defined(__linux__)
    const timespec time{0, nap.count()};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, &time, nullptr, 0);
#else
    static_cast<void>(value);
    std::this_thread::sleep_for(nap);
#endif
}

void wake_all(std::atomic<int> & word) {
#if defined(__linux__)
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
}

void wait_in_our_way(ThreadPool & pool) {
    const int n_threads = pool.n_graph.load(std::memory_order_relaxed) & ThreadPool::n_threads_mask;
    if (n_threads == 1) {
        return;
    }
    const int passed = pool.n_passed.load(std::memory_order_relaxed);
    const int before = pool.n_waiting.fetch_add(1, std::memory_order_acq_rel);
    if (before % asleep == n_threads - 1) {
        pool.n_waiting.store(0, std::memory_order_relaxed);
        pool.n_passed.store(passed + 1, std::memory_order_release);
        if (before >= asleep) {  // whoever falls asleep between these lines is not seen, and wakes after a nap
            wake_all(pool.n_passed);
        }
        return;
    }
    const auto waits = [&pool, passed] { return pool.n_passed.load(std::memory_order_acquire) == passed; };
    static const int n_processors = processors();
    if (n_threads > n_processors) {  // those that work need this one's
        while (waits()) {
            std::this_thread::yield();
        }
        return;
    }
    for (int i = 0; i < looks; ++i) {
        if (!waits()) {
            return;
        }
        relax();
    }
    if (waits()) {
        pool.n_waiting.fetch_add(asleep, std::memory_order_relaxed);  // after the last one's: it wakes sleepers at the next barrier, for nothing
        while (waits()) {
            sleep_while(pool.n_passed, passed);
        }
    }
}

}  // namespace

void replace_barrier() {
    const char * const wish = std::getenv("RIM_EDGE_KERNELS");
    ggml_private::ExtraBufferTypes inside = nullptr;
    if ((wish && strcmp(wish, "0") == 0) || !ggml_private::why_unknown(inside).empty()) {
        return;
    }
    const void * const library = reinterpret_cast<const void *>(inside);
    if (imports(library, "GOMP_barrier") || imports(library, "__kmpc_barrier")) {  // else its own barrier has the same counters
        replaced = redirect(library, ggml_private::barrier_symbol, reinterpret_cast<void *>(wait_for_all));
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
