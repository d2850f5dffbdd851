// The results that do not come from a format's grid: out of range, infinite, NaN.
#pragma once

#include "format.hpp"
#include "rounding.hpp"

namespace abcdeep {
namespace {

// In the working width: values or code words.
template <class E>
struct Special {
    using F = typename FloatLayout<E>::Float;

    Special(const Quantizer& q, bool codes) {
        auto pattern = [codes](double value, std::uint64_t code) {
            return codes ? E(code) : bits_as<E>(F(value));
        };
        for (int s = 0; s < 2; ++s) {
            overflow[s] = pattern(q.overflow_value[s], q.overflow_code[s]);
            infinity[s] = pattern(q.infinity_value[s], q.infinity_code[s]);
        }
        nan = pattern(q.nan_value, q.nan_code);
        sign = codes ? E(q.sign_mask) : E(1) << (FloatLayout<E>::width - 1);
    }

    E overflow[2], infinity[2], nan, sign;
};

}  // namespace
}  // namespace abcdeep
