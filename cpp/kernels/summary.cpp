// One pass over an operand: what a fast path needs to know of its values.
#include <algorithm>

#include "kernels.hpp"
#include "simd.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// A line of `count` elements, `stride` apart.
void summarise_line(const float* line, std::int64_t count, std::int64_t stride, OperandSummary& s) {
    std::uint32_t largest = 0, smallest_less_one = ~0u, significand = 0;
    auto look = [&](float x) {
        const std::uint32_t magnitude = bits_as<std::uint32_t>(x) & 0x7fffffffu;
        largest = std::max(largest, magnitude);
        smallest_less_one = std::min(smallest_less_one, magnitude - 1);  // zero becomes the maximum
        significand |= magnitude;
    };
    if (stride == 1)
        for (std::int64_t i = 0; i < count; ++i) look(line[i]);
    else
        for (std::int64_t i = 0; i < count; ++i) look(line[i * stride]);
    s.largest = std::max(s.largest, largest);
    s.smallest_less_one = std::min(s.smallest_less_one, smallest_less_one);
    s.significand |= significand & 0x7fffffu;
}

}  // namespace

void summarise(const MatrixView<const float>& x, std::int64_t rows, std::int64_t columns,
               OperandSummary& summary) {
    if (x.column_stride == 1 || x.row_stride != 1) {
        for (std::int64_t i = 0; i < rows; ++i)
            summarise_line(x.data + i * x.row_stride, columns, x.column_stride, summary);
    } else {
        for (std::int64_t j = 0; j < columns; ++j)
            summarise_line(x.data + j * x.column_stride, rows, x.row_stride, summary);
    }
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
