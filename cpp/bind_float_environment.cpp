// Bindings: the calling thread's floating-point state, for arithmetic that NumPy does.
#include <optional>

#include "bindings.hpp"
#include "float_environment.hpp"

namespace abcdeep {
namespace {

// A Python context in which the calling thread rounds to nearest and flushes nothing.
struct NearestEnvironment {
    void enter() { environment.emplace(FloatRounding::nearest, false); }
    void leave(const nb::args&) { environment.reset(); }

    std::optional<FloatEnvironment> environment;
};

}  // namespace

void bind_float_environment(nb::module_& m) {
    nb::class_<NearestEnvironment>(m, "NearestEnvironment")
        .def(nb::init<>())
        .def("__enter__", &NearestEnvironment::enter)
        .def("__exit__", &NearestEnvironment::leave,
             nb::sig("def __exit__(self, *args: object) -> None"));
}

}  // namespace abcdeep
