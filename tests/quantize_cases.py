"""What the tests of quantize, encode and fixed point share: formats, inputs, exact comparison."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab
from abcdeep_core import _core
from oracle import ROUNDINGS, all_values, encode_value, round_floats

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


@cache
def floats_of(fmt: ab.FloatFormat) -> Array:
    """Return the value of every word, as float64."""
    return np.array([float(value) for value in all_values(fmt)])


@cache
def magnitudes(fmt: ab.FloatFormat) -> Array:
    """Return the finite magnitudes of a small format, and the like beyond both of its ends."""
    values = np.abs(floats_of(fmt))
    values = values[np.isfinite(values)]
    steps = 1 + np.arange(1 << fmt.mantissa_bits) / (1 << fmt.mantissa_bits)
    below = [np.ldexp(steps, fmt.emin - binade) for binade in range(3)]
    power = np.frexp(values.max())[1]
    with np.errstate(over="ignore"):
        above = [np.ldexp(steps, power), np.ldexp(1.0, [power + 1, power + 2])]
    grid = np.unique(np.concatenate([[0.0], values, *below, *above]))
    return grid[np.isfinite(grid)]


def points(grid: Array, dtype: npt.DTypeLike = np.float32) -> Array:
    """Return the grid, its quarter points and midpoints, and the neighbours of all these."""
    between = grid[:-1, None] + np.diff(grid)[:, None] * [0.25, 0.5, 0.75]
    x = np.concatenate([grid, between.ravel()])
    x = x[x <= np.finfo(dtype).max].astype(dtype)
    around = [np.nextafter(x, x.dtype.type(direction)) for direction in (0, np.inf)]
    return np.unique(np.concatenate([x, *around]))


def both_signs(x: Array) -> Array:
    return np.concatenate([x, -x])


def quantized(x: Array, fmt: ab.FloatFormat, rounding: str = "nearest_even", **rules: Any) -> Array:
    """Return the oracle's results, as float64."""
    return np.array(round_floats(x, fmt, rounding=rounding, **rules), np.float64)


class Words:
    """The code words of a small format, found by value."""

    def __init__(self, fmt: ab.FloatFormat) -> None:
        values = floats_of(fmt)
        keys, first = np.unique(bits_of(values[~np.isnan(values)]), return_index=True)
        self._keys, self._codes = keys, np.flatnonzero(~np.isnan(values))[first].astype(np.uint64)
        self._nan = np.uint64(encode_value(np.nan, fmt) if fmt.has_nan else 0)

    def __call__(self, values: Array) -> tuple[Array, Array]:
        """Return the words of float64 values, and which of them have one."""
        at = np.minimum(np.searchsorted(self._keys, bits_of(values)), self._keys.size - 1)
        nan = np.isnan(values)
        return np.where(nan, self._nan, self._codes[at]), nan | (self._keys[at] == bits_of(values))


words_of = cache(Words)


def check(x: Array, fmt: ab.FloatFormat, rounding: str, **rules: Any) -> None:
    """Compare `x`, in its own dtype and in float64, on every instruction set with the oracle."""
    expected = quantized(x, fmt, rounding, **rules)
    codes, found = words_of(fmt)(expected)
    codes = codes[found].astype(fmt.code_dtype)
    values = {x.dtype: (x, expected.astype(x.dtype)), np.float64: (x.astype(np.float64), expected)}
    for isa in each_isa():
        for source, result in values.values():
            got = ab.quantize(source, fmt, rounding, **rules)
            assert_same(got, result, source, fmt, rounding, rules, isa)
        got = ab.encode(x[found], fmt, rounding, **rules)
        assert_same(got, codes, x[found], fmt, rounding, rules, isa, "encode")
