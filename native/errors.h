// errors.h: the one exception that the native code throws on purpose.
//
// Each kind is raised in Python as the class of the same name in rim_edge/errors.py (see module.cpp). A message is one line
// that says what is wrong, where, and what to do.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace rim {

enum class ErrorKind {
    model_file,        // ModelFileError
    spec,              // SpecError
    unsupported,       // UnsupportedError
    option,            // OptionError
    context_full,      // ContextFullError, with needed and available
    cancelled,         // CancelledError
    busy,              // BusyError
    closed,            // ClosedError
    backend,           // BackendError
    library_mismatch,  // LibraryMismatchError
};

struct Error : std::runtime_error {
    Error(ErrorKind kind_, const std::string & message) : std::runtime_error(message), kind(kind_) {}

    ErrorKind kind;
    int64_t needed = 0;     // context_full: tokens that the request needs
    int64_t available = 0;  // context_full: tokens that the context holds
};

inline Error context_full(const std::string & message, int64_t needed, int64_t available) {
    Error error(ErrorKind::context_full, message);
    error.needed = needed;
    error.available = available;
    return error;
}

}  // namespace rim
