// bind_kernels.cpp: Python face of the kernels (kernels/buffer_type.h) and of what a row of logits says (logits.h). Translates types; decides
// nothing.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <utility>

#include "bind.h"
#include "errors.h"
#include "kernels/barrier.h"
#include "kernels/buffer_type.h"
#include "kernels/trial.h"
#include "logits.h"
#include "logits_place.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <size_t n>
nb::object array_of(std::vector<float> && values, const size_t (&shape)[n]) {
    auto * data = new std::vector<float>(std::move(values));
    const nb::capsule owner(data, [](void * p) noexcept { delete static_cast<std::vector<float> *>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<n>>(data->data(), n, shape, owner));
}

nb::list products(const std::vector<std::string> & types, const std::vector<Bytes> & weights, const Rows & values, int32_t n_threads) {
    if (types.size() != weights.size()) {
        throw rim::Error(rim::ErrorKind::option, "as many types as weights");
    }
    std::vector<rim::kernels::TrialWeights> all;
    for (size_t i = 0; i < types.size(); ++i) {
        all.push_back({types[i], weights[i].data(), static_cast<int64_t>(weights[i].size()), static_cast<int64_t>(weights[i].shape(0))});
    }
    std::vector<std::vector<float>> results;
    {
        nb::gil_scoped_release release;
        results = rim::kernels::trial_products(all, static_cast<int64_t>(values.shape(1)), values.data(),
                                               static_cast<int64_t>(values.shape(0)), n_threads);
    }
    nb::list arrays;
    for (size_t i = 0; i < results.size(); ++i) {
        arrays.append(array_of(std::move(results[i]), {values.shape(0), weights[i].shape(0)}));
    }
    return arrays;
}

nb::object product(const std::string & type, const Bytes & weights, const Rows & values, int32_t n_threads) {
    return products({type}, {weights}, values, n_threads)[0];
}

using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::object norm(const Rows & values, const Row & weights, float eps, int32_t n_threads) {
    if (values.shape(1) != weights.shape(0)) {
        throw rim::Error(rim::ErrorKind::option, "a row has another number of values than the weights");
    }
    std::vector<float> result;
    {
        nb::gil_scoped_release release;
        result = rim::kernels::trial_norm(values.data(), weights.data(), static_cast<int64_t>(values.shape(0)),
                                          static_cast<int64_t>(values.shape(1)), eps, n_threads);
    }
    return array_of(std::move(result), {values.shape(0), values.shape(1)});
}

nb::object swiglu(const Rows & gate, const Rows & up, int32_t n_threads) {
    if (gate.shape(0) != up.shape(0) || gate.shape(1) != up.shape(1)) {
        throw rim::Error(rim::ErrorKind::option, "gate and up have different shapes");
    }
    std::vector<float> result;
    {
        nb::gil_scoped_release release;
        result = rim::kernels::trial_swiglu(gate.data(), up.data(), static_cast<int64_t>(gate.shape(0)), static_cast<int64_t>(gate.shape(1)),
                                            n_threads);
    }
    return array_of(std::move(result), {gate.shape(0), gate.shape(1)});
}

using Heads = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

nb::object attention(const Heads & queries, const Heads & keys, const Heads & values, const Rows & mask, float scale, bool half_precision,
                     int32_t n_threads) {
    const rim::kernels::AttentionShape shape{static_cast<int64_t>(queries.shape(0)), static_cast<int64_t>(keys.shape(0)),
                                             static_cast<int64_t>(queries.shape(1)), static_cast<int64_t>(keys.shape(1)),
                                             static_cast<int64_t>(keys.shape(2)),    static_cast<int64_t>(values.shape(2)),
                                             scale,                                  half_precision};
    if (queries.shape(2) != keys.shape(2) || values.shape(0) != keys.shape(0) || values.shape(1) != keys.shape(1) ||
        mask.shape(0) != queries.shape(0) || mask.shape(1) != keys.shape(0)) {
        throw rim::Error(rim::ErrorKind::option, "queries, keys, values and mask do not fit each other");
    }
    std::vector<float> result;
    {
        nb::gil_scoped_release release;
        result = rim::kernels::trial_attention(shape, queries.data(), keys.data(), values.data(), mask.data(), n_threads);
    }
    return array_of(std::move(result), {queries.shape(0), queries.shape(1), values.shape(2)});
}

std::tuple<float, double, double> row_statistics(const Row & logits, bool widest) {
    const auto of = widest ? rim::row_stats : rim::row_stats_anywhere;
    const rim::RowStats stats = of(logits.data(), static_cast<int32_t>(logits.shape(0)), true);
    return {stats.max, stats.log_sum, stats.entropy};
}

}  // namespace

void bind_kernels(nb::module_ & m) {
    using rim::kernels::State;
    nb::class_<State>(m, "Kernels", "What multiplies weights on the CPU: our kernels for `types`, libllama's own for all else.")
        .def_ro("active", &State::active)
        .def_ro("instructions", &State::instructions, "Such as \"AVX-512 VNNI, AVX-512 BF16\" or \"AVX2\"; empty if not active.")
        .def_ro("reason", &State::reason, "Why they are not active; empty if they are.")
        .def_ro("attention", &State::attention, "Whether attention is ours, too.")
        .def_ro("norms", &State::norms, "Whether the norms before products are ours, too.")
        .def_ro("swiglu", &State::swiglu, "Whether the gated activation SwiGLU is ours, too.")
        .def_prop_ro("barrier", [](const State &) { return rim::kernels::is_barrier_replaced(); },
                     "Whether the threads that compute wait for each other in our way.")
        .def_prop_ro("logits_in_place", [](const State &) { return rim::LogitsPlace::is_enabled(); },
                     "Whether sessions read logits where they were computed, known once a model was loaded; else libllama copies them.")
        .def_ro("types", &State::types, "Weight types with a kernel of ours, as ggml names them.");
    m.def("kernels", &rim::kernels::state, nb::rv_policy::reference,
          "The kernels of this process. RIM_EDGE_KERNELS in its environment before the first model chooses: 0 leaves all to "
          "libllama; amx, avx512, avx-vnni, avx2, i8mm or neon take these instructions instead of the best.");
    m.def("replace_barrier", &rim::kernels::replace_barrier,
          "From now on the threads that compute wait for each other in our way, where that can be: see kernels().barrier. Only while no "
          "thread of this process computes.");
    m.def("kernel_product", &product, "type"_a, "weights"_a, "values"_a, "n_threads"_a = 1,
          nb::sig("def kernel_product(type: str, weights: numpy.typing.NDArray[numpy.uint8], values: numpy.typing.NDArray[numpy.float32], "
                  "n_threads: int = 1) -> numpy.typing.NDArray[numpy.float32]"),
          "[n_tokens, rows] float32: one product through ggml and our kernels. weights: [rows, bytes of a row] as in a file; values: "
          "[n_tokens, inner] float32.\n\nRaises OptionError for a type or shape without a kernel, UnsupportedError where none is active.");
    m.def("kernel_products", &products, "types"_a, "weights"_a, "values"_a, "n_threads"_a = 1,
          nb::sig("def kernel_products(types: collections.abc.Sequence[str], weights: "
                  "collections.abc.Sequence[numpy.typing.NDArray[numpy.uint8]], values: numpy.typing.NDArray[numpy.float32], "
                  "n_threads: int = 1) -> list[numpy.typing.NDArray[numpy.float32]]"),
          "The same of several weights, in one graph one after the other, as queries, keys and values of a layer are.");
    m.def("kernel_norm", &norm, "values"_a, "weights"_a, "eps"_a = 1e-5f, "n_threads"_a = 1,
          nb::sig("def kernel_norm(values: numpy.typing.NDArray[numpy.float32], weights: numpy.typing.NDArray[numpy.float32], "
                  "eps: float = 1e-5, n_threads: int = 1) -> numpy.typing.NDArray[numpy.float32]"),
          "[rows, n] float32: rows of values divided by their root mean square, times weights[n], through ggml and our kernels.\n\nRaises "
          "OptionError for shapes that do not fit, UnsupportedError where norms are ggml's own.");
    m.def("kernel_swiglu", &swiglu, "gate"_a, "up"_a, "n_threads"_a = 1,
          nb::sig("def kernel_swiglu(gate: numpy.typing.NDArray[numpy.float32], up: numpy.typing.NDArray[numpy.float32], "
                  "n_threads: int = 1) -> numpy.typing.NDArray[numpy.float32]"),
          "[rows, n] float32: gate / (1 + exp(-gate)) * up, through ggml and our kernels.\n\nRaises OptionError for shapes that do not fit, "
          "UnsupportedError where no kernel takes them.");
    m.def("kernel_attention", &attention, "queries"_a, "keys"_a, "values"_a, "mask"_a, "scale"_a, "half_precision"_a = true,
          "n_threads"_a = 1,
          nb::sig("def kernel_attention(queries: numpy.typing.NDArray[numpy.float32], keys: numpy.typing.NDArray[numpy.float32], "
                  "values: numpy.typing.NDArray[numpy.float32], mask: numpy.typing.NDArray[numpy.float32], scale: float, "
                  "half_precision: bool = True, n_threads: int = 1) -> numpy.typing.NDArray[numpy.float32]"),
          "[n_tokens, n_heads, value_size] float32: one attention through ggml and our kernels. queries: [n_tokens, n_heads, key_size]; "
          "keys, values: [n_keys, n_groups, size], kept as F16 or F32; mask: [n_tokens, n_keys], added to the scores.\n\nRaises "
          "OptionError for shapes that do not fit, UnsupportedError where no kernel takes them.");
    m.def("row_statistics", &row_statistics, "logits"_a, "widest"_a = true,
          nb::sig("def row_statistics(logits: numpy.typing.NDArray[numpy.float32], widest: bool = True) -> tuple[float, float, float]"),
          "(largest logit, log of the sum of exp(logit - largest), entropy in nats) of a row; -inf and NaN have probability 0. In the "
          "widest registers of this processor, or in those that every one has.");
}
