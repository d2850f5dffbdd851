// Bindings: Eigen's float64 and float32 matrix products.
#include <algorithm>

#include "bindings.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"

namespace abcdeep {
namespace {

// Rows of the result in one piece of work: few enough that Ctrl-C is noticed, enough to repay
// Eigen's packing of `b` for each. A function of the shape alone, which Eigen's order of summation
// follows.
std::int64_t rows_per_piece(std::int64_t n, std::int64_t k) {
    constexpr std::int64_t products = std::int64_t(1) << 27;
    return std::clamp<std::int64_t>(products / std::max<std::int64_t>(n * k, 1), 16, 128);
}

template <class Scalar, auto Linalg::* product>
void matmul(ArrayIn<Scalar, 2> a, ArrayIn<Scalar, 2> b, ArrayOut<Scalar, 2> out, int threads) {
    const nb::gil_scoped_release release;
    const auto m = std::int64_t(a.shape(0)), k = std::int64_t(a.shape(1));
    const auto n = std::int64_t(b.shape(1));
    const auto body = [&](std::int64_t begin, std::int64_t end) {
        (linalg().*product)(a.data() + begin * k, b.data(), out.data() + begin * n, end - begin, n,
                            k);
    };
    parallel_ranges(m, rows_per_piece(n, k), threads, body);
}

}  // namespace

void bind_linalg(nb::module_& m) {
    m.def("matmul_float64", &matmul<double, &Linalg::matmul_float64>, "a"_a.noconvert(),
          "b"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
    m.def("matmul_float32", &matmul<float, &Linalg::matmul_float32>, "a"_a.noconvert(),
          "b"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
}

}  // namespace abcdeep
