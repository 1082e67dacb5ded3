// bind_kernels.cpp: Python face of the kernels (kernels/buffer_type.h). Translates types; decides nothing.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind.h"
#include "kernels/buffer_type.h"

namespace nb = nanobind;

void bind_kernels(nb::module_ & m) {
    using rim::kernels::State;
    nb::class_<State>(m, "Kernels", "What multiplies weights on the CPU: our kernels for `types`, libllama's own for all else.")
        .def_ro("active", &State::active)
        .def_ro("instructions", &State::instructions, "Such as \"AVX-512 VNNI, AVX-512 BF16\"; empty if not active.")
        .def_ro("reason", &State::reason, "Why they are not active; empty if they are.")
        .def_ro("types", &State::types, "Weight types with a kernel of ours, as ggml names them.");
    m.def("kernels", &rim::kernels::state, nb::rv_policy::reference,
          "The kernels of this process. RIM_EDGE_KERNELS=0 in its environment before the first model leaves all to libllama.");
}
