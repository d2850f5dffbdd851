// Bindings: the selected instruction set, what the machine supports, and the thread count.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace abcdeep {

void bind_isa(nb::module_& m) {
    m.def("selected_isa", &selected_isa, nb::sig("def selected_isa() -> str"));
    m.def("supported_isas", &supported_isas);
    m.def("set_isa", &select_isa, "name"_a.noconvert());
    m.def("cpu_features", &cpu_features);
    m.def("default_threads", &default_threads);
}

}  // namespace abcdeep
