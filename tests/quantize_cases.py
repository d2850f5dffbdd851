"""What the tests of quantize, encode and fixed point share: formats, inputs, exact comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from oracle import ROUNDINGS, all_values, encode_value, round_floats

import abcdeep_core as ab
from abcdeep_core import _core

Array = npt.NDArray[Any]

DETERMINISTIC = tuple(name for name in ROUNDINGS if name != "stochastic")
UNDERFLOWS = ("gradual", "flush_before", "flush_after", "cell")
OVERFLOWS = ("sat_finite", "sat_propagate", "ieee", "to_nan", "to_inf")
TINY = float(np.finfo(np.float32).smallest_subnormal)
HUGE = float(np.finfo(np.float32).max)


def each_isa() -> Iterator[str]:
    """Select one instruction set after the other; for tests whose expected results are dear."""
    previous = _core.selected_isa()
    try:
        for isa in _core.supported_isas():
            _core.set_isa(isa)
            yield isa
    finally:
        _core.set_isa(previous)


def bits_of(x: Array) -> Array:
    return x.view(f"u{x.dtype.itemsize}")


def assert_same(got: Array, expected: Array, x: Array, *context: object) -> None:
    """Compare bit for bit: the sign of zero counts, and NaN is the quiet, positive one."""
    assert got.dtype == expected.dtype
    different = bits_of(got) != bits_of(expected)
    if different.any():
        at = int(np.argmax(different))
        raise AssertionError(
            f"{int(different.sum())} of {x.size} differ; {context}: of x={float(x[at]).hex()} "
            f"({x[at]!r}) got {got[at]!r}, expected {expected[at]!r}"
        )


def generic_formats(**fields: Any) -> Iterator[ab.FloatFormat]:
    """Return the formats with E in 1..5, M in 0..4 and these other fields that exist."""
    for exponent_bits in range(1, 6):
        for mantissa_bits in range(5):
            try:
                yield ab.FloatFormat(
                    exponent_bits=exponent_bits, mantissa_bits=mantissa_bits, **fields
                )
            except ValueError:  # no NaN word left, or no finite value but zero
                continue


def magnitudes(fmt: ab.FloatFormat) -> Array:
    """Return the finite magnitudes of a small format, and the like beyond both of its ends."""
    values = np.abs([float(value) for value in all_values(fmt)])
    values = values[np.isfinite(values)]
    steps = 1 + np.arange(0, 1 << fmt.mantissa_bits) / (1 << fmt.mantissa_bits)
    smallest, largest = 2.0**fmt.emin, values.max()
    power = 2.0 ** np.floor(np.log2(largest))
    return np.unique(
        np.concatenate(
            [[0.0], values, smallest * steps, smallest / 2 * steps, smallest / 4 * steps]
            + [power * 2 * steps, [power * 4, power * 8]]
        )
    )


def points(grid: Array) -> Array:
    """Return the grid, its quarter points and midpoints, and the float32 neighbours of all."""
    between = grid[:-1, None] + np.diff(grid)[:, None] * [0.25, 0.5, 0.75]
    x = np.unique(np.concatenate([grid, between.ravel()]).astype(np.float32))
    around = [np.nextafter(x, np.float32(direction)) for direction in (-np.inf, np.inf)]
    return np.unique(np.abs(np.concatenate([x, *around])))


def both_signs(x: Array) -> Array:
    return np.concatenate([x, -x])


def quantized(
    x: Array, fmt: ab.FloatFormat, rounding: str = "nearest_even", **rules: Any
) -> Array:
    """Return the oracle's results, as float64."""
    return np.array(round_floats(x, fmt, rounding=rounding, **rules), np.float64)


class Words:
    """The oracle's code words of a format, found by value."""

    def __init__(self, fmt: ab.FloatFormat) -> None:
        codes = {}
        for value in {*map(float, all_values(fmt))}:
            codes[value] = encode_value(value, fmt)
        self.nan = codes.pop(np.nan, None)
        if fmt.has_nan:
            self.nan = encode_value(np.nan, fmt)
        zero = codes.pop(0.0, None)
        pairs = [(value, code) for value, code in codes.items() if value == value]
        if zero is not None:
            pairs.append((0.0, encode_value(0, fmt)))
        if fmt.has_negative_zero:
            pairs.append((-0.0, encode_value(-0.0, fmt)))
        keys = bits_of(np.array([value for value, _ in pairs], np.float64))
        order = np.argsort(keys)
        self._keys = keys[order]
        self._codes = np.array([code for _, code in pairs], np.uint64)[order]

    def __call__(self, values: Array) -> tuple[Array, Array]:
        """Return the words of float64 values, and which of them have one."""
        bits = bits_of(values)
        at = np.minimum(np.searchsorted(self._keys, bits), self._keys.size - 1)
        found = self._keys[at] == bits
        codes = self._codes[at]
        if self.nan is not None:
            nan = np.isnan(values)
            codes, found = np.where(nan, np.uint64(self.nan), codes), found | nan
        return codes, found


def check(x32: Array, fmt: ab.FloatFormat, rounding: str, words: Words, **rules: Any) -> None:
    """Compare float32 inputs, through every path and on every instruction set, with the oracle."""
    expected = quantized(x32, fmt, rounding, **rules)
    codes, found = words(expected)
    codes = codes[found].astype(fmt.code_dtype)
    with np.errstate(over="ignore"):
        expected32 = expected.astype(np.float32)
    x64, with_code = x32.astype(np.float64), x32[found]
    for isa in each_isa():
        context = (fmt, rounding, rules, isa)
        assert_same(ab.quantize(x32, fmt, rounding, **rules), expected32, x32, *context)
        assert_same(ab.quantize(x64, fmt, rounding, **rules), expected, x32, *context, "float64")
        got = ab.encode(with_code, fmt, rounding, **rules)
        assert_same(got, codes, with_code, *context, "encode")
