// bind_model.cpp: Python face of the model (model.h).
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>

#include "bind.h"
#include "model.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using rim::Model;
using rim::ModelHandle;

void load(ModelHandle * self, nb::object path, int n_gpu_layers, bool use_mmap, bool vocab_only, nb::object progress) {
    rim::ModelOptions options;
    options.n_gpu_layers = n_gpu_layers;
    options.use_mmap = use_mmap;
    options.vocab_only = vocab_only;
    if (!progress.is_none()) {
        options.progress = [&progress](float fraction) {
            nb::gil_scoped_acquire gil;
            const nb::object answer = progress(fraction);
            return !answer.is(nb::bool_(false));  // None goes on
        };
    }
    const std::string name = path_bytes(std::move(path));
    std::shared_ptr<const Model> model;
    {
        nb::gil_scoped_release release;
        model = Model::load(name, options);
    }
    new (self) ModelHandle(std::move(model));
}

nb::bytes to_bytes(const std::string & text) { return nb::bytes(text.data(), text.size()); }

std::vector<llama_token> tokenize(const ModelHandle & self, nb::str text, bool parse_special) {
    Py_ssize_t size = 0;
    const char * data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (!data) {
        PyErr_Clear();
        throw rim::Error(rim::ErrorKind::option, "the text holds lone surrogates, which are no characters: decode it as UTF-8 first");
    }
    const auto model = self.get();
    nb::gil_scoped_release release;
    return model->tokenize({data, static_cast<size_t>(size)}, parse_special);
}

// A fact of the model as a read-only property; ClosedError after close().
template <typename Result> auto fact(Result (Model::*get)() const noexcept) {
    return [get](const ModelHandle & self) { return std::decay_t<Result>((self.get().get()->*get)()); };
}

}  // namespace

void bind_model(nb::module_ & m) {
    nb::class_<ModelHandle>(m, "Model",
                            "Weights and vocabulary of one GGUF file; may be shared by threads and sessions.\n\n"
                            "The file is checked before libllama sees it. `progress` is called with 0..1 while loading; returning False stops it "
                            "(CancelledError), an exception in it stops it and is raised. `n_gpu_layers` -1: all.\n\n"
                            "Raises ModelFileError. After close() everything but `path` and `closed` raises ClosedError.")
        .def("__init__", &load, "path"_a, "n_gpu_layers"_a = -1, "use_mmap"_a = true, "vocab_only"_a = false, "progress"_a = nb::none(),
             nb::sig("def __init__(self, path: str | bytes | os.PathLike[str], n_gpu_layers: int = -1, use_mmap: bool = True, vocab_only: bool = False, "
                     "progress: collections.abc.Callable[[float], bool | None] | None = None) -> None"))
        .def("close", &ModelHandle::close, nb::call_guard<nb::gil_scoped_release>(),
             "Let go of the weights; they are freed once no session holds them.")
        .def_prop_ro("closed", &ModelHandle::closed)
        .def_prop_ro("path", [](const ModelHandle & self) { return file_system_text(self.path()); }, nb::sig("def path(self) -> str"))
        .def_prop_ro("architecture", fact(&Model::architecture), "\"llama\", \"gpt2\", ...")
        .def_prop_ro("description", [](const ModelHandle & self) { return self.get()->description(); }, "Such as \"llama 1B Q4_0\".")
        .def_prop_ro("n_vocab", fact(&Model::n_vocab))
        .def_prop_ro("n_embd", fact(&Model::n_embd), "Width of the hidden state.")
        .def_prop_ro("n_layer", fact(&Model::n_layer))
        .def_prop_ro("n_head", fact(&Model::n_head))
        .def_prop_ro("n_head_kv", fact(&Model::n_head_kv))
        .def_prop_ro("n_ctx_train", fact(&Model::n_ctx_train), "Context length in training, in tokens.")
        .def_prop_ro("n_swa", fact(&Model::n_swa), "Sliding window in tokens, 0 if none.")
        .def_prop_ro("n_params", fact(&Model::n_params))
        .def_prop_ro("size_bytes", fact(&Model::size_bytes), "Of all tensors.")
        .def_prop_ro("coupled", fact(&Model::coupled), "Whether one pass can hold several readouts.")
        .def_prop_ro("coupled_reason", fact(&Model::coupled_reason), "Why not; empty if it can.")
        .def_prop_ro("has_encoder", fact(&Model::has_encoder))
        .def_prop_ro("has_decoder", fact(&Model::has_decoder))
        .def_prop_ro("bos_id", fact(&Model::bos_id), "-1 where absent.")
        .def_prop_ro("eos_id", fact(&Model::eos_id), "-1 where absent.")
        .def_prop_ro("eot_id", fact(&Model::eot_id), "-1 where absent.")
        .def_prop_ro("add_bos", fact(&Model::add_bos), "Whether text should start with BOS.")
        .def_prop_ro("add_eos", fact(&Model::add_eos))
        .def_prop_ro("vocab_type", [](const ModelHandle & self) { return std::string(self.get()->vocab_type()); },
                     "\"bpe\", \"spm\", \"wpm\", \"ugm\", \"rwkv\", \"plamo2\" or \"none\".")
        .def_prop_ro(
            "chat_template",
            [](const ModelHandle & self) -> nb::object {
                const auto model = self.get();
                const std::string * text = model->chat_template();
                return text ? nb::steal(PyUnicode_DecodeUTF8(text->data(), static_cast<Py_ssize_t>(text->size()), "replace")) : nb::none();
            },
            nb::sig("def chat_template(self) -> str | None"))
        .def_prop_ro("control_ids", [](const ModelHandle & self) { return self.get()->control_ids(); },
                     "Every token with the CONTROL attribute, ascending.")
        .def("token_text", [](const ModelHandle & self, llama_token token) { return to_bytes(self.get()->token_text(token)); }, "token"_a,
             "The vocabulary entry as written.")
        .def("token_piece", [](const ModelHandle & self, llama_token token) { return to_bytes(self.get()->token_piece(token)); }, "token"_a,
             "The bytes that a token stands for; empty for control tokens.")
        .def("is_eog", [](const ModelHandle & self, llama_token token) { return self.get()->is_eog(token); }, "token"_a,
             "Whether the token ends a generation.")
        .def("tokenize", &tokenize, "text"_a, "parse_special"_a = false,
             "Token ids of a text; never adds BOS or EOS. parse_special: texts of control tokens become those tokens.")
        .def(
            "detokenize",
            [](const ModelHandle & self, const std::vector<llama_token> & tokens) {
                return to_bytes(self.get()->detokenize(tokens.data(), tokens.size()));
            },
            "tokens"_a, "The bytes that tokens stand for; control tokens give nothing.")
        .def_prop_ro("devices", [](const ModelHandle &) { return rim::device_names(); }, "Names of the devices that libllama sees.");
}
