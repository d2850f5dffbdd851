// Nearest-even float accumulators of at most 11 bits, and products of no more: a power of two added
// in float32 and taken off again rounds to the quantum of a binade (docs/exactness.md, fact H).
#include "float_tile.hpp"
#include "kernels.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// fused: products are not rounded. flush: numbers below the smallest normal one are zero, by
// float32's own underflow (and for products, whose rounding could save them, by a comparison); else
// they keep its quantum. clamp: numbers past the largest become it.
template <bool fused, bool flush, bool clamp>
class NearestStep : public ScaledStep {
  public:
    explicit NearestStep(const FloatTile& t)
        : ScaledStep(t),
          quanta_(V{} + power_of_two(23 - t.mantissa_bits)),
          anchor_(quanta_ * 1.5f),
          product_floor_(V{} + power_of_two(t.product_floor)),
          sum_floor_(V{} + power_of_two(t.sum_floor)) {}

    V step(V a, V b, V s) const {
        if constexpr (fused) return round(fused_multiply_add(a, b, s), clamp);
        const V p = product(a, b);
        return round(flush ? fused_multiply_add(p, factor_, s) : p + s, clamp);
    }
    V merge(V r, V s) const { return round(r + s, true); }

    float start(double c) const {
        const double scaled = c * sum_scale_;
        const float f = truncated(scaled);
        if (flush && f == 0) return 0;
        const bool inexact = double(f) != scaled;  // to odd: the rounding below is the only one
        return round(V{} + bits_as<float>(bits_as<std::uint32_t>(f) | inexact), true)[0];
    }

  private:
    using I = Vector<std::int32_t>;

    static V magnitude(V x) { return masked(x, U{} + 0x7fffffffu); }

    // The largest power of two not above |x|; at least `floor` under gradual underflow.
    static V binade(V x, V floor) {
        const V power = masked(x, U{} + 0x7f800000u);
        return flush ? power : larger(power, floor);
    }

    // One and a half powers of two, 2^(22-M) binades above the number to round, so that their sum
    // has the quantum of the power whatever the sign. The product's binade is that of its nearest
    // float32 number: where that is the next one, the product is rounded to its beginning in
    // either.
    V product(V a, V b) const {
        const V power = binade(a * (b * quanta_), product_floor_);
        const V anchor = either_bits(power, bits_as<V>(U{} + 0x00400000u));
        V p = fused_multiply_add(a, b, anchor) - anchor;
        if constexpr (flush) {
            const V smallest = V{} + 0x1p-126f;
            const V above = fused_multiply_add(magnitude(a), magnitude(b), -smallest);
            p = select(bits_as<I>(above) < 0, V{}, p);
        }
        return clamp ? clamp_magnitude(p, product_limit_) : p;
    }

    V round(V x, bool limited) const {
        const V power = binade(x, sum_floor_);
        x = fused_negated_multiply_add(power, anchor_, fused_multiply_add(power, anchor_, x));
        return limited ? clamp_magnitude(x, sum_limit_) : x;
    }

    V quanta_, anchor_, product_floor_, sum_floor_;
};

template <bool fused, bool flush>
void run(const FloatJob& job, const FloatTile& tile, const Block& block) {
    (tile.clamp ? run_step<NearestStep<fused, flush, true>>
                : run_step<NearestStep<fused, flush, false>>)(job, tile, block);
}

}  // namespace

void gemm_nearest(const FloatJob& job, const FloatTile& tile, const Block& block) {
    const FloatEnvironment environment(FloatRounding::nearest, true);
    if (tile.product_exact)
        (tile.flush ? run<true, true> : run<true, false>)(job, tile, block);
    else
        (tile.flush ? run<false, true> : run<false, false>)(job, tile, block);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
