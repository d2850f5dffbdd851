// A dot product as plain data, the operands of a GEMM, and what one call of a kernel carries.
#pragma once

#include <cstdint>
#include <utility>

#include "format.hpp"

namespace abcdeep {

// docs/accumulators.md, "One description of every datapath". The compiled engine runs the steps
// chain (group = 1) and exact_group.
enum class Merge : std::uint8_t { quantized, exact };
enum class MergeOrder : std::uint8_t { forward, first_then_back, pairwise };

struct FloatDatapath {
    bool product_exact = true;
    Quantizer product, accumulator, merge;
    std::int64_t group = 1;
    std::int64_t chunk = 0;  // 0: all terms
    Merge merge_kind = Merge::quantized;
    MergeOrder merge_order = MergeOrder::forward;
    bool float32_steps = false;  // fp32_mask: products and sums are rounded to binary32 first
    bool exact_start = false;    // c is not rounded before the first step
    bool exact_chunks = false;   // the accumulator is exact: groups are chunks, steps their merges
    bool merge_to_odd = false;   // an exact merge is rounded again afterwards
    // Overflow is |v| >= largest for formats that saturate there (LBA), |v| > largest after
    // rounding else.
    bool product_overflow_at_largest = false, accumulator_overflow_at_largest = false,
         merge_overflow_at_largest = false;
    // Operands with a mask, -0 where it skips: such a step is no overflow of a sum at the largest.
    bool a_is_masked = false, b_is_masked = false;
};

struct IntegerDatapath {
    bool product_exact = true;
    FixedQuantizer product, accumulator, merge, node, output;
    std::int64_t group = 1;
    std::int64_t chunk = 0;
    Merge merge_kind = Merge::quantized;
    MergeOrder merge_order = MergeOrder::forward;
    bool tree = false;         // the terms of a group are added by halves
    bool node_exact = true;    // of a tree's leaves and inner sums; of the sum of an exact group
    bool output_exact = true;  // the result is not rounded once more
    static constexpr bool exact_chunks = false;
};

// One matrix of a batch: element (i, j) at data[i * row_stride + j * column_stride].
template <class T>
struct MatrixView {
    T* data = nullptr;
    std::int64_t row_stride = 0, column_stride = 0;

    T& operator()(std::int64_t i, std::int64_t j) const {
        return data[i * row_stride + j * column_stride];
    }
};

enum class IntegerType : std::uint8_t { int8, uint8, int16, uint16 };

// f(x) with the elements of an integer operand, x, as they are.
template <class F>
[[gnu::always_inline]] inline auto with_type(const void* data, IntegerType type, const F& f) {
    if (type == IntegerType::int8) return f(static_cast<const std::int8_t*>(data));
    if (type == IntegerType::uint8) return f(static_cast<const std::uint8_t*>(data));
    if (type == IntegerType::int16) return f(static_cast<const std::int16_t*>(data));
    return f(static_cast<const std::uint16_t*>(data));
}

// A MatrixView of integers of a type known at run time.
struct IntegerView {
    const void* data = nullptr;
    std::int64_t row_stride = 0, column_stride = 0;
    IntegerType type = IntegerType::int8;

    [[gnu::always_inline]] std::int32_t operator()(std::int64_t i, std::int64_t j) const {
        const std::int64_t at = i * row_stride + j * column_stride;
        return with_type(data, type, [at](auto* x) { return std::int32_t(x[at]); });
    }
};

// Of the magnitudes of an operand, as float32 bits.
struct OperandSummary {
    std::uint32_t largest = 0;              // at least 0x7f800000: an infinity or NaN is there
    std::uint32_t smallest_less_one = ~0u;  // of those that are not zero, less one
    std::uint32_t significand = 0;          // OR of the stored significands
};

// Counts of docs/accumulators.md, "Events"; the order is that of events.py.
enum EventCount {
    accumulator_overflow,
    product_overflow,
    overflowed_outputs,
    transient,
    persistent,
    product_underflow,
    accumulator_underflow,
    swamped,
    rounded,
    absorbed,
    nonfinite,
    event_counts
};

// What was seen in one rectangle of outputs.
struct EventTotals {
    std::int64_t counts[event_counts] = {};
    double smallest = 0, largest = 0;  // partial sums, if any == true
    bool any = false;
};

// The same for each output (m, n) at [m * columns + n], a plane of `plane` outputs each.
struct EventTable {
    std::int64_t* counts = nullptr;  // event_counts planes
    double* extremes = nullptr;      // two planes: smallest, largest
    std::int64_t plane = 0;
};

// One matrix product of a batch. View: of an operand; C: element type of c; Narrow: of the result
// unless wide_out, then C.
template <class View, class C, class Narrow>
struct GemmJob {
    std::int64_t rows = 0, columns = 0, terms = 0;  // M, N, K
    View a, b;
    MatrixView<const C> c;  // data == nullptr: start at zero
    void* out = nullptr;
    std::int64_t out_row_stride = 0, out_column_stride = 1;
    bool wide_out = false;
    const std::int64_t* order = nullptr;  // term k of the sum is term order[k] of the operands
    RandomSource random;
    std::uint64_t first_output = 0;  // logical index of out(0, 0), for random words
    int event_level = 0;             // 0 none, 1 the overflow group, 2 all
    EventTable table;

    std::int64_t out_bytes() const { return wide_out ? sizeof(C) : sizeof(Narrow); }
    // Place of output (m, n) in memory, and, from first_output on, in the count of all outputs.
    std::int64_t place(std::int64_t m, std::int64_t n) const {
        return m * out_row_stride + n * out_column_stride;
    }
    // Outputs (m, n), (m, n + 1), ...
    template <class Value>
    [[gnu::always_inline]] void write(std::int64_t m, std::int64_t n, std::int64_t count,
                                      const Value* values) const {
        const std::int64_t at = place(m, n), stride = out_column_stride;
        if (wide_out)
            for (std::int64_t j = 0; j < count; ++j)
                static_cast<C*>(out)[at + j * stride] = C(values[j]);
        else
            for (std::int64_t j = 0; j < count; ++j)
                static_cast<Narrow*>(out)[at + j * stride] = Narrow(values[j]);
    }
    // The same products as rows of the transposed result: terms commute.
    GemmJob transposed() const {
        GemmJob t = *this;
        auto turned = [](auto view) {
            std::swap(view.row_stride, view.column_stride);
            return view;
        };
        std::swap(t.rows, t.columns);
        t.a = turned(b), t.b = turned(a), t.c = turned(c);
        std::swap(t.out_row_stride, t.out_column_stride);
        return t;
    }
};
using FloatJob = GemmJob<MatrixView<const float>, double, float>;
using IntegerJob = GemmJob<IntegerView, std::int64_t, std::int32_t>;

// The gradient of one operand through a recomputed chain (docs/accumulators.md, "Training"): that
// of `lane` (L x K), where dot product (l, s) is of row l of `lane` and row s of `other` (S x K).
enum class Estimator : std::uint8_t {
    recursive_overflow,
    immediate_overflow,
    immediate_difference
};

struct GradientJob {
    std::int64_t lane_rows = 0, other_rows = 0, terms = 0;
    MatrixView<const float> lane, other;
    MatrixView<const float> gradient;  // (l, s): of the result
    MatrixView<const double> start;    // (l, s): c; data == nullptr: zero
    MatrixView<float> out;             // (l, k)
    const std::int64_t* order = nullptr;
    Estimator estimator = Estimator::recursive_overflow;
    RandomSource random;
    std::uint64_t first_output = 0, lane_stride = 1, other_stride = 1;  // index of output (l, s)
};

// What the planner (plan.py) found for the fast kernels; every condition is checked there.
//
// Float kernels work on scaled numbers: the smallest normal product, and the smallest normal sum,
// become 2^-126, so that float32's own underflow is that of the formats.
struct FloatTile {
    std::int32_t mantissa_bits = 23;
    bool product_exact = false;             // one rounding a step: a fused multiply-add
    bool clamp = true;                      // a product or a sum may leave the range
    bool flush = true;                      // numbers below 2^-126 become zero
    bool nearest = false;                   // binary32 operations round to nearest (fp32_mask)
    std::int32_t scale_a = 0, scale_b = 0;  // exponents of the powers of two of packing
    std::int32_t product_to_sum = 0;        // and from a scaled product to a scaled sum
    std::int32_t sum_scale = 0;             // and from a sum to a scaled sum
    // Exponents of the scaled powers of two whose float32 quantum, and of those whose own format's,
    // is that of the subnormal products and sums (kernels/gemm_nearest.cpp).
    std::int32_t product_floor = 0, sum_floor = 0;
    double product_limit = 0, sum_limit = 0;  // largest finite values, not scaled
    double product_overflow = 0,
           sum_overflow = 0;  // what numbers past them become: finite, Inf or NaN
    // For events: overflow is |v| >= largest (FloatDatapath), the largest term, exponents of the
    // lowest bits of scaled terms and sums, bits of a term after its first.
    bool product_overflow_at_largest = false, sum_overflow_at_largest = false;
    double largest_term = 0;
    std::int32_t lowest_term = 0, lowest_sum = 0, term_bits = 0;
    std::int64_t chunk = 0;
    Quantizer product, sum, start;  // of which the rounding is read

    FloatTile transposed() const {
        FloatTile t = *this;
        std::swap(t.scale_a, t.scale_b);
        return t;
    }
};

struct IntegerTile {
    std::int32_t bits = 32;
    bool is_signed = true;
    bool saturate = false;   // else wrap, where order and chunks do not matter
    bool may_carry = false;  // a sum before saturation may need more than 32 bits
    std::int64_t lowest = 0, highest = 0;
    std::int64_t chunk = 0;
    std::int64_t group = 0;  // terms of a step; 0: all of a chunk

    IntegerTile transposed() const { return *this; }
};

// A rectangle of outputs: what one call of a kernel computes.
struct Block {
    std::int64_t row_begin, row_end, column_begin, column_end;

    Block transposed() const { return {column_begin, column_end, row_begin, row_end}; }
};

}  // namespace abcdeep
