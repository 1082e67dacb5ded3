// bind.h: what the binding files share. The only native header that knows Python.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "errors.h"
#include "model.h"

namespace rim {

// The Python class Model: a closable holder of a shared model.
class ModelHandle {
  public:
    explicit ModelHandle(std::shared_ptr<const Model> model) : path_(model->path()), model_(std::move(model)) {}

    // The model, kept alive by the caller; throws Error closed after close().
    std::shared_ptr<const Model> get() const {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!model_) {
            throw Error(ErrorKind::closed, "the model is closed: load it again");
        }
        return model_;
    }

    void close() {
        std::shared_ptr<const Model> last;  // freed outside the lock
        std::lock_guard<std::mutex> lock(mutex_);
        last.swap(model_);
    }

    bool closed() const {
        std::lock_guard<std::mutex> lock(mutex_);
        return !model_;
    }

    const std::string & path() const noexcept { return path_; }

  private:
    std::string path_;
    mutable std::mutex mutex_;
    std::shared_ptr<const Model> model_;
};

}  // namespace rim

// Bytes of a path given as str, bytes or os.PathLike, in the file system's encoding. In bind_gguf.cpp.
std::string path_bytes(nanobind::object path);
nanobind::object file_system_text(const std::string & path);  // and back, as str

// Each adds its part to the module; called in this order by module.cpp.
void bind_log(nanobind::module_ & m);
void bind_gguf(nanobind::module_ & m);
void bind_model(nanobind::module_ & m);
void bind_session(nanobind::module_ & m);
void bind_quantize(nanobind::module_ & m);
void bind_importance(nanobind::module_ & m);
void bind_limits(nanobind::module_ & m);
void bind_round_trip(nanobind::module_ & m);
void bind_kernels(nanobind::module_ & m);
