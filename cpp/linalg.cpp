// Eigen's matrix products, compiled for each instruction set; the only file that includes Eigen.
#include "linalg.hpp"

#include <Eigen/Core>

#include "float_environment.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {
namespace {

template <class Scalar>
[[gnu::noinline]] void product(const Scalar* a, const Scalar* b, Scalar* c, std::int64_t m,
                               std::int64_t n, std::int64_t k) {
    using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<Matrix>(c, m, n).noalias() =
        Eigen::Map<const Matrix>(a, m, k) * Eigen::Map<const Matrix>(b, k, n);
}

template <class Scalar>
void matmul(const Scalar* a, const Scalar* b, Scalar* c, std::int64_t m, std::int64_t n,
            std::int64_t k) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    product(a, b, c, m, n, k);
}

}  // namespace

extern const Linalg linalg;
const Linalg linalg = {&matmul<double>, &matmul<float>};

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
