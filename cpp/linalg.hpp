// Plain matrix products the emulation is measured against; a table for each instruction set.
#pragma once

#include <cstdint>

namespace abcdeep {

// c[m, n] = a[m, k] b[k, n], all row-major and contiguous. matmul_float64 is the reference from
// which errors are reported, matmul_float32 the bench's second yardstick beside NumPy's.
struct Linalg {
    void (*matmul_float64)(const double* a, const double* b, double* c, std::int64_t m,
                           std::int64_t n, std::int64_t k);
    void (*matmul_float32)(const float* a, const float* b, float* c, std::int64_t m, std::int64_t n,
                           std::int64_t k);
};

}  // namespace abcdeep
