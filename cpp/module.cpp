// The compiled module: sets up dispatch and the interrupt hook, then calls every binding file.
#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

NB_MODULE(_core, m) {
    m.doc() = "Compiled kernels of abcdeep_core. Private: arguments are checked in Python.";
    nb::set_leak_warnings(false);  // caches of resolved datapaths live until the process ends
    abcdeep::select_isa_from_environment();
    abcdeep::set_interrupt_poll([] {
        nb::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
    });
    abcdeep::bind_accumulator_widths(m);
    abcdeep::bind_float_environment(m);
    abcdeep::bind_blocks(m);
    abcdeep::bind_gradient(m);
    abcdeep::bind_hadamard(m);
    abcdeep::bind_isa(m);
    abcdeep::bind_linalg(m);
    abcdeep::bind_luq(m);
    abcdeep::bind_quantize(m);
    abcdeep::bind_matmul(m);
    abcdeep::bind_nm(m);
    abcdeep::bind_pack_24(m);
    abcdeep::bind_random(m);
    abcdeep::bind_transposable(m);
}
