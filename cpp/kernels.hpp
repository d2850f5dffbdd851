// The one list of kernels, and the table of function pointers each instruction set fills from it.
#pragma once

#include <cstdint>

#include "datapath.hpp"
#include "gradient_words.hpp"
#include "philox.hpp"
#include "quantize.hpp"
#include "random_tile.hpp"

// KERNEL(result, name, (arguments)). A new kernel is one line here and its definition in
// kernels/<stem>.cpp inside namespace abcdeep::ABCDEEP_ISA_NAMESPACE.
//
// philox_blocks: words[4 * i ...] = Philox of counters[4 * i ...] under keys[2 * i ...].
// random_lanes:  `count` draws of 32, 16, 8 or 1 bits from draw number `first` on, in elements of
//                4, 2, 1 or 1 bytes.
// quantize, decode, quantize_fixed: elements [begin, end) of the job; why an input failed.
// *_narrow:
//                the same bits for most formats within float32 (quantize.hpp), several times
//                faster.
// gemm_*: one rectangle of outputs, and its events. estimate_gradient: adds the
//                part of a rectangle (rows of `lane`, rows of `other`) to the gradient.
// passing_terms: which terms of a rectangle of truncating chains let their gradient pass.
// sum_gradient:  adds the terms of a rectangle that pass to the gradient, those of the words
//                [begin, end); `transposed`: the rows of `lane` are the columns of the words.
// largest_magnitude: the float bits of the largest |x|; above those of infinity if some x is NaN.
// luq:           logarithmic unbiased quantisation of elements [begin, end) (luq.hpp).
// quantize_blocks, decode_blocks: blocks [begin, end) of a block format (block.hpp).
// hadamard:      rotates groups [begin, end) (hadamard.hpp).
// nm_mask, nm_unbiased: groups [begin, end) of N:M sparsity (nm.hpp); what went wrong.
// transposable_24, transposable_mask: blocks [begin, end) (transposable.hpp); what went wrong.
// pack_24, unpack_24: rows [begin, end) of 2:4 sparse matrices (pack_24.hpp); what went wrong.
// swap_gains:    kept magnitude that exchanging channels gains (channel_swap.hpp).
// accumulator_widths, accumulator_widths64: one rectangle of outputs (accumulator_widths.hpp), with
//                exact sums of 32 and of 64 bits.
// exponent_spans: rows [begin, end) of exponent_spans.hpp.
// clang-format off
#define ABCDEEP_KERNELS(KERNEL)                                                                      \
    KERNEL(void, philox_blocks, (const std::uint32_t* counters, const std::uint32_t* keys,           \
                                 std::int64_t count, int rounds, std::uint32_t* words))              \
    KERNEL(void, random_lanes, (const RandomAddress& address, int bits, std::uint64_t first,         \
                                std::int64_t count, void* lanes))                                    \
    KERNEL(unsigned, quantize, (const QuantizeJob& job, std::int64_t begin, std::int64_t end))       \
    KERNEL(unsigned, quantize_narrow, (const QuantizeJob& job, std::int64_t begin,                   \
                                       std::int64_t end))                                            \
    KERNEL(void, decode, (const QuantizeJob& job, std::int64_t begin, std::int64_t end))             \
    KERNEL(void, decode_narrow, (const QuantizeJob& job, std::int64_t begin, std::int64_t end))      \
    KERNEL(unsigned, quantize_fixed, (const FixedJob& job, std::int64_t begin, std::int64_t end))        \
    KERNEL(void, summarise, (const MatrixView<const float>& x, std::int64_t rows,                    \
                             std::int64_t columns, OperandSummary& summary))                         \
    KERNEL(void, gemm_float_lanes, (const FloatJob& job, const FloatDatapath& datapath,              \
                                    const Block& block, EventTotals& totals))                        \
    KERNEL(void, gemm_integer_lanes, (const IntegerJob& job, const IntegerDatapath& datapath,        \
                                      const Block& block, EventTotals& totals))                      \
    KERNEL(bool, fused_multiply_adds, ())                                                            \
    KERNEL(void, gemm_truncate, (const FloatJob& job, const FloatTile& tile, const Block& block))    \
    KERNEL(void, gemm_truncate_events, (const FloatJob& job, const FloatTile& tile,                  \
                                        const Block& block, EventTotals& totals))                    \
    KERNEL(void, gemm_nearest, (const FloatJob& job, const FloatTile& tile, const Block& block))     \
    KERNEL(void, gemm_odd, (const FloatJob& job, const FloatTile& tile, const Block& block))         \
    KERNEL(void, gemm_odd64, (const FloatJob& job, const FloatTile& tile, const Block& block))       \
    KERNEL(void, gemm_native, (const FloatJob& job, const FloatTile& tile, const Block& block))      \
    KERNEL(void, gemm_integer, (const IntegerJob& job, const IntegerTile& tile, const Block& block)) \
    KERNEL(void, gemm_integer16, (const IntegerJob& job, const IntegerTile& tile,                    \
                                  const Block& block))                                               \
    KERNEL(void, gemm_dot16, (const IntegerJob& job, const IntegerTile& tile,                        \
                              const Block& block))                                                   \
    KERNEL(void, gemm_dot8, (const IntegerJob& job, const IntegerTile& tile,                         \
                             const Block& block))                                                    \
    KERNEL(void, gemm_integer_events, (const IntegerJob& job, const IntegerTile& tile,               \
                                       const Block& block, EventTotals& totals))                     \
    KERNEL(void, estimate_gradient, (const GradientJob& job, const FloatDatapath& datapath,          \
                                     const Block& block))                                            \
    KERNEL(void, passing_terms, (const GradientJob& job, const FloatDatapath& datapath,              \
                                 const FloatTile& tile, const Block& block,                          \
                                 const GradientWords& words))                                        \
    KERNEL(void, sum_gradient, (const GradientJob& job, const Block& block,                          \
                                const GradientWords& words, bool transposed, std::int64_t begin,     \
                                std::int64_t end))                                                   \
    KERNEL(std::uint32_t, largest_magnitude, (const float* x, std::int64_t count))                   \
    KERNEL(void, luq, (const LuqJob& job, std::int64_t begin, std::int64_t end))                     \
    KERNEL(void, quantize_blocks, (const BlockJob& job, std::int64_t begin, std::int64_t end))       \
    KERNEL(void, decode_blocks, (const BlockJob& job, std::int64_t begin, std::int64_t end))         \
    KERNEL(void, hadamard, (const HadamardJob& job, std::int64_t begin, std::int64_t end))           \
    KERNEL(unsigned, nm_mask, (const NmJob& job, std::int64_t begin, std::int64_t end))              \
    KERNEL(unsigned, nm_unbiased, (const NmJob& job, std::int64_t begin, std::int64_t end))          \
    KERNEL(unsigned, transposable_24, (const TransposableJob& job, std::int64_t begin,               \
                                       std::int64_t end))                                            \
    KERNEL(unsigned, transposable_mask, (const TransposableJob& job, std::int64_t begin,             \
                                         std::int64_t end))                                          \
    KERNEL(unsigned, pack_24, (const PackJob& job, std::int64_t begin, std::int64_t end))            \
    KERNEL(unsigned, unpack_24, (const PackJob& job, std::int64_t begin, std::int64_t end))          \
    KERNEL(void, swap_gains, (const SwapJob& job, std::int64_t begin, std::int64_t end))             \
    KERNEL(void, accumulator_widths, (const IntegerJob& job, const WidthJob& widths,                 \
                                      const Block& block, WidthTotals& totals))                      \
    KERNEL(void, accumulator_widths64, (const IntegerJob& job, const WidthJob& widths,               \
                                        const Block& block, WidthTotals& totals))                    \
    KERNEL(void, exponent_spans, (const SpanJob& job, std::int64_t begin, std::int64_t end))
// clang-format on

namespace abcdeep {

struct BlockJob;
struct HadamardJob;
struct LuqJob;
struct NmJob;
struct PackJob;
struct SpanJob;
struct SwapJob;
struct TransposableJob;
struct WidthJob;
struct WidthTotals;

struct Kernels {
#define KERNEL(result, name, arguments) result(*name) arguments;
    ABCDEEP_KERNELS(KERNEL)
#undef KERNEL
};

#ifdef ABCDEEP_ISA_NAMESPACE
namespace ABCDEEP_ISA_NAMESPACE {
#define KERNEL(result, name, arguments) result name arguments;
ABCDEEP_KERNELS(KERNEL)
#undef KERNEL
}  // namespace ABCDEEP_ISA_NAMESPACE
#endif

}  // namespace abcdeep
