#include "abort_guard.h"

#include <ggml.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

namespace rim {
namespace {

thread_local int depth = 0;
ggml_abort_callback_t previous = nullptr;

void on_abort(const char * message) {
    if (depth > 0) {
        const char * slash = std::strrchr(message, '/');  // the path of libllama's source says nothing to a user
        throw AssertionFailed(slash ? slash + 1 : message);
    }
    if (previous) {
        previous(message);
    } else {
        std::fprintf(stderr, "%s\n", message);  // as ggml does without a callback; abort() follows
    }
}

}  // namespace

AbortGuard::AbortGuard() {
    static std::once_flag once;
    std::call_once(once, [] { previous = ggml_set_abort_callback(on_abort); });
    ++depth;
}

AbortGuard::~AbortGuard() { --depth; }

}  // namespace rim
