// abort_guard.h: a failed assertion of libllama becomes an exception instead of the end of the process.
//
// libllama and ggml check many facts about a model with GGML_ASSERT, which calls abort(). Inside a desktop application that is
// unacceptable, so files are checked first (gguf_check.h); this is the net below those checks. While an AbortGuard lives, an assertion
// that fails in the same thread throws AssertionFailed through libllama, whose loader catches std::exception and cleans up.
// Assertions of compute threads cannot be caught this way.
#pragma once

#include <stdexcept>

namespace rim {

struct AssertionFailed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class AbortGuard {
  public:
    AbortGuard();
    ~AbortGuard();
    AbortGuard(const AbortGuard &) = delete;
    AbortGuard & operator=(const AbortGuard &) = delete;
};

}  // namespace rim
