// Spans of the exponents of products.
#include "exponent_spans.hpp"

#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

void exponent_spans(const SpanJob&, std::int64_t, std::int64_t) {}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
