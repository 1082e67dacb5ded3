// bind_log.cpp: libllama's log as a Python callback.
#include "bind.h"
#include "log.h"

#include <memory>

namespace nb = nanobind;

namespace {

// A Python callable that may be called and dropped from any thread, also while the interpreter is going away.
class Callback {
  public:
    explicit Callback(nb::callable function) : function_(function.release().ptr()) {}
    Callback(const Callback &) = delete;
    Callback & operator=(const Callback &) = delete;

    ~Callback() {
        if (nb::is_alive()) {
            nb::gil_scoped_acquire gil;
            Py_DECREF(function_);
        }
    }

    void operator()(int level, const std::string & line) const {
        if (!nb::is_alive()) {
            return;
        }
        nb::gil_scoped_acquire gil;
        PyObject *type, *value, *trace;  // the caller's own error stays as it is
        PyErr_Fetch(&type, &value, &trace);
        PyObject * result = nullptr;
        if (PyObject * text = PyUnicode_DecodeUTF8(line.data(), static_cast<Py_ssize_t>(line.size()), "replace")) {
            result = PyObject_CallFunction(function_, "iO", level, text);
            Py_DECREF(text);
        }
        if (!result && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
            PyErr_Clear();
            PyErr_SetInterrupt();  // nothing can be raised from here: Ctrl-C is heard again after the call that logs
        } else if (!result) {
            PyErr_WriteUnraisable(function_);
        }
        Py_XDECREF(result);
        PyErr_Restore(type, value, trace);
    }

  private:
    PyObject * function_;
};

void set_log_callback(nb::object callback) {
    if (callback.is_none()) {
        rim::set_log_sink({});
    } else {
        auto shared = std::make_shared<Callback>(nb::cast<nb::callable>(callback));
        rim::set_log_sink([shared](int level, const std::string & line) { (*shared)(level, line); });
    }
    rim::install_log();
}

}  // namespace

void bind_log(nb::module_ & m) {
    m.def("set_log_callback", &set_log_callback, nb::arg("callback").none(),
          nb::sig("def set_log_callback(callback: collections.abc.Callable[[int, str], object] | None) -> None"),
          "Send libllama's log, line by line, to callback(level, line); None drops it. Levels: 1 debug, 2 info, 3 warning, 4 error. "
          "The callback runs in the thread that logs.");
    rim::install_log();
    // Threads of libllama may outlive the interpreter.
    nb::module_::import_("atexit").attr("register")(nb::cpp_function([] { rim::set_log_sink({}); }));
}
