// bind_round_trip.cpp: Python face of round_trip.h.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <utility>
#include <vector>

#include "bind.h"
#include "round_trip.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

nb::object round_trip(const std::string & type, const Rows & rows) {
    auto * data = new std::vector<float>;
    const nb::capsule owner(data, [](void * p) noexcept { delete static_cast<std::vector<float> *>(p); });
    const size_t n = rows.shape(0);
    const size_t width = rows.shape(1);
    const std::vector<float> values(rows.data(), rows.data() + rows.size());
    {
        nb::gil_scoped_release release;
        *data = rim::round_trip(type, values, static_cast<int64_t>(width));
    }
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(data->data(), {n, width}, owner));
}

}  // namespace

void bind_round_trip(nb::module_ & m) {
    m.def("round_trip", &round_trip, "type"_a, "rows"_a,
          nb::sig("def round_trip(type: str, rows: numpy.typing.NDArray[numpy.float32]) -> numpy.typing.NDArray[numpy.float32]"),
          "[n, width] float32 rows, quantized to a tensor type and back, as the quantizer does without an importance matrix. Raises "
          "OptionError for a type that is unknown, needs an importance matrix, or whose blocks do not fit the width.");
}
