// log.h: libllama's log, as whole lines, to one callback.
//
// libllama and ggml keep one global log function, which anybody else in the process may replace; install() sets ours again and
// is called at every load. Messages come from any thread, in pieces; they are joined to lines here. Nothing goes to the terminal.
#pragma once

#include <functional>
#include <string>

namespace rim {

// Level as in ggml_log_level: 1 debug, 2 info, 3 warning, 4 error.
using LogSink = std::function<void(int level, const std::string & line)>;

// Where lines go from now on; an empty function drops them.
void set_log_sink(LogSink sink);

// Make libllama and ggml log to us.
void install_log();

// Collects the error lines of the calling thread while it lives, e.g. to say why a load failed.
class LogCapture {
  public:
    LogCapture();
    virtual ~LogCapture();
    LogCapture(const LogCapture &) = delete;
    LogCapture & operator=(const LogCapture &) = delete;

    // The error line to show, "" if there was none.
    std::string reason() const;

    // Used by the log function.
    virtual void add(int level, const std::string & line);

  private:
    LogCapture * outer_;
    std::string first_error_;
    std::string last_error_;
};

}  // namespace rim
