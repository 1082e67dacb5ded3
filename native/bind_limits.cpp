// bind_limits.cpp: Python face of the machine's limits (machine_limits.h). Translates types; decides nothing.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

#include "bind.h"
#include "machine_limits.h"

namespace nb = nanobind;
using namespace nb::literals;

void bind_limits(nb::module_ & m) {
    constexpr auto free_gil = nb::call_guard<nb::gil_scoped_release>();
    m.def("read_bandwidth", &rim::read_bandwidth, "n_bytes"_a, nb::kw_only(), "n_threads"_a, "n_samples"_a = 5, "min_seconds"_a = 0.05,
          free_gil,
          "Bytes per second that the threads read together from a buffer of n_bytes, one figure per sample.\n\n"
          "Raises OptionError, MemoryError.");
    m.def(
        "product_rate",
        [](std::string type, int64_t rows, int64_t inner, int64_t columns, int32_t n_threads, int32_t n_samples, double min_seconds) {
            return rim::product_rate({std::move(type), rows, inner, columns}, n_threads, n_samples, min_seconds);
        },
        "type"_a, nb::kw_only(), "rows"_a, "inner"_a, "columns"_a, "n_threads"_a, "n_samples"_a = 5, "min_seconds"_a = 0.05, free_gil,
        "Operations per second of ggml's product of weights [inner, rows] of `type` (\"Q4_0\") with [inner, columns] of F32 on "
        "the CPU, one figure per sample.\n\nRaises OptionError, BackendError, UnsupportedError.");
}
