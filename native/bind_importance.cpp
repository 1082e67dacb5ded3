// bind_importance.cpp: Python face of collecting an importance matrix (importance.h).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <unordered_set>
#include <utility>

#include "bind.h"
#include "importance.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using rim::ImportanceCollector;
using rim::ModelHandle;

nb::object to_array(const std::vector<double> & values) {
    auto * copy = new std::vector<float>(values.begin(), values.end());
    const nb::capsule owner(copy, [](void * p) noexcept { delete static_cast<std::vector<float> *>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<1>>(copy->data(), {copy->size()}, owner));
}

void check_signals() {
    nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) {
        throw nb::python_error();
    }
}

}  // namespace

void bind_importance(nb::module_ & m) {
    nb::class_<ImportanceCollector>(m, "ImportanceCollector",
                                    "Sums of squared activations per input column of each weight matrix, over sequences of tokens.\n\n"
                                    "Raises OptionError, UnsupportedError, BackendError. For one thread at a time.")
        .def(
            "__init__",
            [](ImportanceCollector * self, const ModelHandle & model, int32_t n_ctx, const std::vector<std::string> & names, int32_t n_threads) {
                auto shared = model.get();
                nb::gil_scoped_release release;
                new (self) ImportanceCollector(std::move(shared), n_ctx, n_threads, {names.begin(), names.end()});
            },
            "model"_a, "n_ctx"_a, "names"_a, "n_threads"_a = 0,
            nb::sig("def __init__(self, model: Model, n_ctx: int, names: collections.abc.Sequence[str], n_threads: int = 0) -> None"),
            "`n_ctx`: tokens of the longest sequence. `names`: the matrices to collect. `n_threads` 0: physical cores.")
        .def(
            "add",
            [](ImportanceCollector & self, const std::vector<llama_token> & tokens, const std::vector<float> & weights) {
                nb::gil_scoped_release release;
                self.add(tokens, weights, check_signals);
            },
            "tokens"_a, "weights"_a,
            nb::sig("def add(self, tokens: collections.abc.Sequence[int], weights: collections.abc.Sequence[float]) -> None"),
            "Run one sequence, every token an output, and add weights[i] times the squares at token i.\n\nRaises ContextFullError.")
        .def(
            "results",
            [](const ImportanceCollector & self) {
                nb::dict result;
                for (const auto & [name, sums] : self.results()) {
                    result[name.c_str()] = nb::make_tuple(to_array(sums.sums), to_array(sums.counts));
                }
                return result;
            },
            nb::sig("def results(self) -> dict[str, tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]]"),
            "By tensor name: sums [n_experts * n_columns], and weights that were summed, [n_experts] (one for a plain matrix).");
}
