#include "log.h"

#include <llama.h>

#include <memory>
#include <mutex>
#include <utility>

#include "text.h"

namespace rim {
namespace {

std::mutex sink_mutex;
std::shared_ptr<LogSink> current_sink;  // replaced as a whole, so that a line in flight keeps the old one alive

thread_local std::string pending;  // an unfinished line of this thread
thread_local int pending_level = GGML_LOG_LEVEL_INFO;
thread_local LogCapture * capture = nullptr;

std::shared_ptr<LogSink> get_sink() {
    std::lock_guard<std::mutex> lock(sink_mutex);
    return current_sink;
}

void emit(int level, const std::string & line) {
    if (line.find_first_not_of(" .") == std::string::npos) {
        return;  // separators and progress dots
    }
    if (capture) {
        capture->add(level, line);
    }
    if (auto sink = get_sink()) {
        (*sink)(level, one_line(line));
    }
}

void on_log(ggml_log_level level, const char * text, void *) {
    try {
        if (level != GGML_LOG_LEVEL_CONT && level != GGML_LOG_LEVEL_NONE) {
            if (!pending.empty()) {
                emit(pending_level, std::exchange(pending, {}));  // the last message forgot its newline
            }
            pending_level = level;
        }
        for (const char * c = text; *c; ++c) {
            if (*c == '\n') {
                emit(pending_level, std::exchange(pending, {}));
            } else if (pending.size() < 4096) {
                pending += *c;
            }
        }
    } catch (...) {  // out of memory: a lost line is better than an exception through C
    }
}

}  // namespace

void set_log_sink(LogSink sink) {
    auto next = sink ? std::make_shared<LogSink>(std::move(sink)) : nullptr;
    {
        std::lock_guard<std::mutex> lock(sink_mutex);
        current_sink.swap(next);
    }  // the old one is destroyed outside the lock: that may need the interpreter
}

void install_log() {
    llama_log_set(on_log, nullptr);  // sets ggml's too
}

LogCapture::LogCapture() : outer_(std::exchange(capture, this)) {}

LogCapture::~LogCapture() { capture = outer_; }

void LogCapture::add(int level, const std::string & line) {
    if (level >= GGML_LOG_LEVEL_ERROR) {
        (first_error_.empty() ? first_error_ : last_error_) = line;
    }
}

std::string LogCapture::reason() const {
    // "llama_model_load: error loading model: unknown model architecture: 'x'" -> what follows the prefixes of libllama
    std::string reason = first_error_;
    for (const char * prefix : {"error loading model: ", "error loading model hyperparameters: ", "error loading model vocabulary: "}) {
        const size_t at = reason.find(prefix);
        if (at != std::string::npos) {
            reason.erase(0, at + std::char_traits<char>::length(prefix));
        }
    }
    return reason;
}

}  // namespace rim
