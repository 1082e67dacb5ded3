// module.cpp: the extension module rim_edge._native and the translation of rim::Error into rim_edge.errors.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <dlfcn.h>
#include <ggml.h>
#include <llama.h>

#include <cstring>
#include <exception>
#include <string>

#include "bind.h"

namespace nb = nanobind;

namespace {

// Name of the class in rim_edge/errors.py.
const char * class_name(rim::ErrorKind kind) noexcept {
    switch (kind) {
        case rim::ErrorKind::model_file: return "ModelFileError";
        case rim::ErrorKind::spec: return "SpecError";
        case rim::ErrorKind::unsupported: return "UnsupportedError";
        case rim::ErrorKind::option: return "OptionError";
        case rim::ErrorKind::context_full: return "ContextFullError";
        case rim::ErrorKind::cancelled: return "CancelledError";
        case rim::ErrorKind::busy: return "BusyError";
        case rim::ErrorKind::closed: return "ClosedError";
        case rim::ErrorKind::backend: return "BackendError";
        case rim::ErrorKind::library_mismatch: return "LibraryMismatchError";
    }
    return "RimError";
}

// A message may quote bytes of an untrusted file: whatever is not UTF-8 becomes U+FFFD.
nb::object to_str(const char * text) {
    return nb::steal(PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(strlen(text)), "replace"));
}

void raise(const rim::Error & error) {
    try {
        nb::object type = nb::module_::import_("rim_edge.errors").attr(class_name(error.kind));
        nb::object message = to_str(error.what());
        nb::object value = error.kind == rim::ErrorKind::context_full
                               ? type(message, error.needed, error.available)
                               : type(message);
        PyErr_SetObject(type.ptr(), value.ptr());
    } catch (nb::python_error & failure) {  // e.g. at interpreter exit
        failure.restore();
    }
}

// The headers that this module was compiled against describe one libllama only.
void check_library() {
    const std::string llama = llama_version();
    const std::string ggml = ggml_version();
    if (llama != RIM_LLAMA_VERSION || ggml != RIM_GGML_VERSION) {
        raise(rim::Error(rim::ErrorKind::library_mismatch,
                         "RiM Edge was built for libllama " RIM_LLAMA_VERSION " with ggml " RIM_GGML_VERSION ", but libllama " + llama + " with ggml " +
                             ggml + " was loaded: run pip install --force-reinstall llama-cpp-python==" RIM_LLAMA_PYTHON_VERSION));
        throw nb::python_error();
    }
}

// Path of the library that the process really uses.
std::string library_path() {
    Dl_info info{};
    return dladdr(reinterpret_cast<const void *>(&llama_version), &info) && info.dli_fname ? info.dli_fname : "";
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The latent loop over libllama: models, sessions and checked GGUF reading.";
#ifdef NDEBUG
    nb::set_leak_warnings(false);  // objects that a traceback or a global keeps alive until the end are no user's concern
#endif
    check_library();
    m.attr("BUILT_FOR") = RIM_LLAMA_PYTHON_VERSION;  // version of llama-cpp-python
    m.def("library_path", [] { return file_system_text(library_path()); }, nb::sig("def library_path() -> str"),
          "Path of the libllama that this process uses.");

    nb::register_exception_translator([](const std::exception_ptr & pointer, void *) {
        try {
            std::rethrow_exception(pointer);
        } catch (const rim::Error & error) {
            raise(error);
        }
    });

    bind_log(m);
    bind_gguf(m);
    bind_model(m);
    bind_session(m);
    bind_quantize(m);
    bind_importance(m);
    bind_limits(m);
    bind_round_trip(m);
    bind_kernels(m);

    if (nb::cast<std::string>(m.attr("__name__")) == "rim_edge._native") {  // not when the build makes the stub
        nb::module_::import_("rim_edge._library").attr("attach")(m);
    }
}
