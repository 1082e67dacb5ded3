#include "barrier.h"

#include <dlfcn.h>

#include "ggml_private.h"

#if defined(__linux__)  // elsewhere calls cannot be redirected

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <ctime>
#include <thread>

#include "../cpu.h"
#include "ahead.h"
#include "kernel.h"
#include "redirect.h"

#endif

namespace rim::kernels {

namespace {

bool replaced = false;

#if defined(__linux__)

using ggml_private::ThreadPool;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#endif
}

constexpr int looks = 4000;               // with pauses of 15 to 45 ns between them
constexpr int asleep = 1 << 16;           // in n_waiting, above the count of those that wait
constexpr timespec nap = {0, 200'000};  // at most, should nobody know of the sleeper

// Sleeps while `word` has the value, until woken or for a nap.
void sleep_while(std::atomic<int> & word, int value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, &nap, nullptr, 0);
}

void wake_all(std::atomic<int> & word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
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
    Ahead & ahead = Ahead::own();
    for (int i = 0; i < looks; ++i) {
        if (!waits()) {
            return;
        }
        if (!ahead.fetch()) {
            relax();
        }
    }
    // Where the last one has come meanwhile, this stands there until the next barrier, whose last one wakes nobody with it.
    pool.n_waiting.fetch_add(asleep, std::memory_order_relaxed);
    while (waits()) {
        sleep_while(pool.n_passed, passed);
    }
}

#endif

}  // namespace

void replace_barrier() {
#if defined(__linux__)
    ggml_private::ExtraBufferTypes types = nullptr;
    if (are_forbidden() || !ggml_private::why_unknown(types).empty()) {
        return;
    }
    const void * const inside = reinterpret_cast<const void *>(types);
    if (imports(inside, "GOMP_barrier") || imports(inside, "__kmpc_barrier")) {  // else its own barrier has the same counters
        replaced = redirect(inside, ggml_private::barrier_symbol, reinterpret_cast<void *>(wait_for_all));
    }
#endif
}

bool is_barrier_replaced() {
    return replaced;
}

void wait_for_all(void * threadpool) {
#if defined(__linux__)
    if (replaced) {
        return wait_in_our_way(*static_cast<ThreadPool *>(threadpool));
    }
#endif
    static const auto barrier_of_ggml = reinterpret_cast<ggml_private::Barrier>(dlsym(RTLD_DEFAULT, ggml_private::barrier_symbol));
    barrier_of_ggml(threadpool);
}

}  // namespace rim::kernels
