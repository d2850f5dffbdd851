// Spans of the exponents of products.
#include "exponent_spans.hpp"

#include <algorithm>

#include "kernels.hpp"
#include "simd.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

// Rows [begin, end) of a; a step of zeros alone has no span and is not counted.
void exponent_spans(const SpanJob& job, std::int64_t begin, std::int64_t end) {
    for (std::int64_t m = begin; m < end; ++m) {
        const std::int16_t* a = job.a + m * job.terms;
        std::int64_t* counts = job.counts + m * span_bins;
        for (std::int64_t n = 0; n < job.columns; ++n) {
            const std::int16_t* b = job.b + n * job.terms;
            for (std::int64_t k = 0; k < job.terms; k += job.group) {
                const std::int64_t stop = std::min(job.terms, k + job.group);
                std::int32_t largest = zero_exponent, smallest = -zero_exponent;
                for (std::int64_t i = k; i < stop; ++i) {
                    const std::int32_t e = std::int32_t(a[i]) + b[i];
                    const bool zero = e < zero_exponent / 2;
                    largest = std::max(largest, e);
                    smallest = std::min(smallest, zero ? -zero_exponent : e);
                }
                if (smallest == -zero_exponent) continue;
                ++counts[std::min(largest - smallest, span_bins - 1)];
            }
        }
    }
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
