#include "big_stack.h"

#include <pthread.h>

#include <exception>

#include "errors.h"

namespace rim {
namespace {

constexpr size_t kStackBytes = size_t(256) << 20;

struct Task {
    const std::function<void()> & work;
    std::exception_ptr failure;
};

void * run(void * pointer) {
    Task & task = *static_cast<Task *>(pointer);
    try {
        task.work();
    } catch (...) {
        task.failure = std::current_exception();
    }
    return nullptr;
}

}  // namespace

void run_on_big_stack(const std::function<void()> & work) {
    Task task{work, nullptr};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_t thread;
    const bool started =
        pthread_attr_setstacksize(&attributes, kStackBytes) == 0 && pthread_create(&thread, &attributes, run, &task) == 0;
    pthread_attr_destroy(&attributes);
    if (!started) {
        throw Error(ErrorKind::backend, "no memory for a thread with a stack of 256 MiB, which a long text needs: close other programs");
    }
    pthread_join(thread, nullptr);
    if (task.failure) {
        std::rethrow_exception(task.failure);
    }
}

}  // namespace rim
