// The scales of blocks from their largest magnitudes, one block in each lane.
#pragma once

#include "block_rounding.hpp"

namespace abcdeep {
namespace {

constexpr std::int32_t float_infinity_bits = 0x7F800000;

struct PowerScale {
    WordLanes code;
    FloatLanes multiplier;  // of the block's elements
    SignedLanes bad;        // lanes whose block is NaN
};

// e8m0: 2^X with X from the exponents of the block's largest magnitude and of the largest element.
class PowerScales {
  public:
    explicit PowerScales(const BlockJob& job)
        : ceil_(job.rule == ScaleRule::ceil), headroom_(job.headroom) {
        const auto bits = bits_as<std::int32_t>(job.element_max);
        element_exponent_ = (bits >> 23) - 127;
        element_fraction_ = bits & 0x7FFFFF;
    }

    PowerScale operator()(SignedLanes largest) const {
        const SignedLanes zero{};
        const SignedLanes subnormal = largest < zero + (1 << 23);
        const FloatLanes raised = bits_as<FloatLanes>(largest) * 0x1p64f;
        const SignedLanes bits = select(subnormal, bits_as<SignedLanes>(raised), largest);
        SignedLanes power = (bits >> 23) - 127 - element_exponent_;
        power -= subnormal & 64;
        if (ceil_) power -= SignedLanes((bits & 0x7FFFFF) > zero + element_fraction_);
        const SignedLanes bad = (largest >= zero + float_infinity_bits) | (power > zero + 127);
        power = larger(power, zero - 127);
        power = select(largest == zero, zero - 127, power);
        const SignedLanes multiplier =
            select(power == zero + 127, zero + (1 << 22), (127 - power) << 23);
        PowerScale scales;
        scales.code = WordLanes(select(bad, zero + 255, power + 127));
        scales.multiplier = bits_as<FloatLanes>(select(bad, zero, multiplier)) * headroom_;
        scales.bad = bad;
        return scales;
    }

  private:
    bool ceil_;
    float headroom_;
    std::int32_t element_exponent_, element_fraction_;
};

// The others: the largest magnitude by the largest element, times the encode scale of the tensor;
// of a run of blocks.
class RoundedScales {
  public:
    explicit RoundedScales(const BlockJob& job) : job_(job), grid_(job.scale) {}

    // codes, multipliers: of `count` blocks, filled up to whole vectors. `factor`: of the largest
    // magnitudes. Whether some magnitude is not finite comes back.
    bool operator()(const std::int32_t* largest, std::int64_t row, int count,
                    const std::uint32_t* random, std::uint32_t* codes, float* multipliers) const {
        const float factor = encode(row) * job_.scale_factor;
        return run(largest, row, count, random, codes, multipliers,
                   [factor](FloatLanes x) { return FloatLanes(x * factor); });
    }

    // Four over six: the scales with which the largest element is 6 (widened = false) or 4.
    bool candidates(const std::int32_t* largest, std::int64_t row, int count, bool widened,
                    std::uint32_t* codes, float* multipliers) const {
        const float factor = encode(row), widening = widened ? 1.5f : 1.0f;
        return run(largest, row, count, nullptr, codes, multipliers,
                   [factor, widening](FloatLanes x) {
                       return FloatLanes(FloatLanes(FloatLanes(x / 6.0f) * factor) * widening);
                   });
    }

    float value(std::uint32_t code) const { return bits_as<float>(index_to_bits(code, grid_)); }

  private:
    float encode(std::int64_t row) const { return job_.encode_scale[job_.row_scaled ? row : 0]; }

    template <class Scale>
    bool run(const std::int32_t* largest, std::int64_t row, int count, const std::uint32_t* random,
             std::uint32_t* codes, float* multipliers, const Scale& scale_of) const {
        constexpr int n = lanes<FloatLanes>;
        const FloatLanes most = FloatLanes{} + job_.scale_max;
        SignedLanes bad{};
        for (int b = 0; b < count; b += n) {
            const SignedLanes bits = load<SignedLanes>(largest + b);
            const SignedLanes not_finite = bits >= SignedLanes{} + float_infinity_bits;
            bad |= not_finite;
            const FloatLanes scale =
                scale_of(bits_as<FloatLanes>(select(not_finite, SignedLanes{}, bits)));
            store(multipliers + b, select(scale > most, most, scale));
        }
        const int whole = (count + n - 1) / n * n;
        if (job_.float_scales)
            std::memcpy(codes, multipliers, std::size_t(count) * sizeof(float));
        else
            round_to_indices(multipliers, random, codes, whole, job_.scale, job_.general);
        const float decode = job_.decode_scale[job_.row_scaled ? row : 0];
        const FloatLanes finite = FloatLanes{} + 0x1.fffffep127f;
        for (int b = 0; b < count; b += n) {
            const WordLanes code = load<WordLanes>(codes + b);
            const FloatLanes scale = job_.float_scales
                                         ? load<FloatLanes>(multipliers + b)
                                         : bits_as<FloatLanes>(index_to_bits(code, grid_));
            const FloatLanes multiplier = 1.0f / FloatLanes(scale * decode);
            store(multipliers + b, select(multiplier > finite, finite, multiplier));
        }
        return any(bad != SignedLanes{});
    }

    const BlockJob& job_;
    Grid<std::uint32_t> grid_;
};

}  // namespace
}  // namespace abcdeep
