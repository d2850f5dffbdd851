// Code words of a small float format back to floats.
#include "float_environment.hpp"
#include "kernels.hpp"
#include "narrow_lanes.hpp"
#include "quantize_special.hpp"
#include "rounding.hpp"

namespace abcdeep::ABCDEEP_ISA_NAMESPACE {

namespace {

// Code words to float bits; every code is an index and a sign, or special.
template <class E, class Code, class Out>
void decode_range(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    using F = typename FloatLayout<E>::Float;
    const Quantizer& q = job.quantizer;
    const Grid<E> grid(q);
    const Special<E> special(q, false);
    const Code* in = static_cast<const Code*>(job.in);
    Out* out = static_cast<Out*>(job.out);
    const E sign_mask = E(q.sign_mask), offset = E(q.code_offset);
    const E largest = grid.max_index[0] - offset, infinity = E(q.infinity_magnitude_code);
    const E padding = E(q.padding_bits);
    const E first_nonzero = q.zero_code_only ? grid.first_normal : E(q.has_zero);
    const E negative_zero = q.negative_zero ? special.sign : 0;
    const E sign_only = q.sign_only_is_nan && sign_mask ? special.nan : negative_zero;
    for (std::int64_t i = begin; i < end; ++i) {
        E code = E(in[i]);
        E magnitude = (sign_mask ? code & (sign_mask - 1) : code) >> padding;
        bool negative = (code & sign_mask) != 0;
        E bits = index_to_bits<E>(magnitude + offset, grid) | (negative ? special.sign : 0);
        bits = magnitude < first_nonzero ? (negative ? negative_zero : 0) : bits;
        bits = code == sign_mask && negative ? sign_only : bits;
        E beyond = infinity && magnitude == infinity ? (negative ? bits_as<E>(-F(__builtin_inf()))
                                                                 : bits_as<E>(F(__builtin_inf())))
                                                     : special.nan;
        bits = magnitude > largest ? beyond : bits;
        out[i] = Out(bits_as<F>(bits));
    }
}

template <class E, class Out>
[[gnu::noinline]] void decode_width(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    switch (job.code_bytes) {
        case 1:
            decode_range<E, std::uint8_t, Out>(job, begin, end);
            break;
        case 2:
            decode_range<E, std::uint16_t, Out>(job, begin, end);
            break;
        case 4:
            decode_range<E, std::uint32_t, Out>(job, begin, end);
            break;
        default:
            decode_range<E, std::uint64_t, Out>(job, begin, end);
    }
}

// The same for codes of at most 16 bits whose values are float32 numbers.
class NarrowDecoder {
    using U = WordLanes;
    using V = FloatLanes;

  public:
    explicit NarrowDecoder(const Quantizer& q)
        : discard_(23 - q.mantissa_bits),
          sign_shift_(q.sign_mask ? __builtin_clz(std::uint32_t(q.sign_mask)) : 0),
          sign_only_(std::int32_t(q.sign_mask)),
          magnitude_mask_(std::uint32_t(q.sign_mask) - 1u),
          sign_(q.sign_mask ? 0x80000000u : 0u),
          // An exponent code of 0 read as 1 is 2^emin too much.
          first_normal_(std::uint32_t(q.emin + 127) << 23),
          offset_((std::uint32_t(q.code_offset) << discard_) - (1u << 23)),
          gradual_(q.underflow == Underflow::gradual && !q.zero_code_only),
          low_(gradual_ || q.zero_code_only ? 1 << q.mantissa_bits : 1),
          largest_(std::int32_t(q.max_index[0] - q.code_offset)),
          infinity_(std::int32_t(q.infinity_magnitude_code)),
          negative_zero_(q.negative_zero),
          sign_only_is_nan_(q.sign_only_is_nan && q.sign_mask),
          has_beyond_(!q.sign_mask || std::uint32_t(largest_) != magnitude_mask_),
          nan_(bits_as<std::uint32_t>(float(q.nan_value))) {}

    struct Seen {
        void operator|=(const Seen&) {}
    };

    template <class Code>
    U operator()(const Code* from, std::int64_t, Seen&) const {
        const U code = widen(from);
        using S = SignedLanes;
        const U magnitude = code & magnitude_mask_;
        const U raised = (magnitude << discard_) + first_normal_;
        const U lowered =
            gradual_ ? bits_as<U>(V(bits_as<V>(raised) - bits_as<float>(first_normal_))) : U{};
        U value = select(S(magnitude) < low_, lowered, raised + offset_);
        U sign = (code << sign_shift_) & sign_;
        if (!negative_zero_) sign = select(value == 0u, U{}, sign);
        value |= sign;
        if (has_beyond_) value = select(S(magnitude) > largest_, U{} + nan_, value);
        if (infinity_) value = select(S(magnitude) == infinity_, sign | 0x7F800000u, value);
        if (sign_only_is_nan_) value = select(S(code) == sign_only_, U{} + nan_, value);
        return value;
    }

  private:
    int discard_, sign_shift_;
    std::int32_t sign_only_;
    std::uint32_t magnitude_mask_, sign_, first_normal_, offset_;
    bool gradual_;
    std::int32_t low_, largest_, infinity_;
    bool negative_zero_, sign_only_is_nan_, has_beyond_;
    std::uint32_t nan_;
};

template <class Code, bool stream>
[[gnu::noinline]] void decode_lanes(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    const NarrowDecoder decoder(job.quantizer);
    NarrowDecoder::Seen seen;
    for_lanes<stream>(static_cast<const Code*>(job.in) + begin,
                      static_cast<float*>(job.out) + begin, end - begin, decoder, seen);
    if constexpr (stream) finish_streaming();
}

}  // namespace

void decode(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    if (job.float64) return decode_width<std::uint64_t, double>(job, begin, end);
    if (job.quantizer.emin < -126 || job.code_bytes == 8)
        return decode_width<std::uint64_t, float>(job, begin, end);
    decode_width<std::uint32_t, float>(job, begin, end);
}

void decode_narrow(const QuantizeJob& job, std::int64_t begin, std::int64_t end) {
    const FloatEnvironment environment(FloatRounding::nearest, false);
    if (job.code_bytes == 2)
        return (job.stream ? decode_lanes<std::uint16_t, true>
                           : decode_lanes<std::uint16_t, false>)(job, begin, end);
    return (job.stream ? decode_lanes<std::uint8_t, true>
                       : decode_lanes<std::uint8_t, false>)(job, begin, end);
}

}  // namespace abcdeep::ABCDEEP_ISA_NAMESPACE
