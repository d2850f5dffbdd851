"""The oracle of block formats: MX scales in exact fractions, NVFP4 step by step in NumPy float32.

It shares no code with the library and reads only the fields of a BlockFormat (docs/blocks.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from oracle import BINARY32, NEG_ZERO, Value, encode_value, round_value
from oracle_fixed import fixed_value, round_fixed
from oracle_formats import decode_code, to_value

F = np.float32
MOST = np.finfo(np.float32).max


class Quantized(NamedTuple):
    """What quantize_blocks has to return."""

    codes: np.ndarray
    scales: np.ndarray
    tensor_scale: np.ndarray
    clipped: int


class Block(NamedTuple):
    """Where a block is: its scale's index, and the indices of its elements in C order."""

    scale: tuple[int, ...]
    elements: list[tuple[int, ...]]


def blocks_of(shape: tuple[int, ...], axis: int, block: tuple[int, int]) -> Iterator[Block]:
    """Yield the blocks of an array, in C order of the scales."""
    sizes = [1] * len(shape)
    sizes[axis] = block[1]
    if block[0] > 1:
        sizes[axis - 1] = block[0]
    counts = [-(-n // size) for n, size in zip(shape, sizes, strict=True)]
    for scale in itertools.product(*map(range, counts)):
        ranges = [
            range(i * size, min((i + 1) * size, n))
            for i, size, n in zip(scale, sizes, shape, strict=True)
        ]
        yield Block(scale, list(itertools.product(*ranges)))


def float32_of(exact: Fraction) -> np.float32:
    """Return the nearest float32, ties to even, of any fraction."""
    lowest = Fraction(2) ** -400  # a sticky bit keeps the denominator a power of two
    kept = exact // lowest * lowest
    sticky = kept + lowest / 2 if kept != exact else kept
    return F(float(round_value(sticky, BINARY32)))


def scaled_result(sums: Any, left: Any, right: Any) -> np.ndarray:
    """Return sums times both tensor scales: rounded to float64, and then to float32."""
    sums, left, right = np.broadcast_arrays(sums, left, right)
    exact = (
        Fraction(float(x)) * Fraction(float(a)) * Fraction(float(b))
        for x, a, b in zip(sums.flat, left.flat, right.flat, strict=True)
    )
    return np.array([float32_of(Fraction(float(x))) for x in exact], F).reshape(sums.shape)


def exponent_of(x: Fraction) -> int:
    """Return floor(log2 x)."""
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e - 1 if Fraction(2) ** e > x else e


class Elements:
    """Rounding of scaled elements, saturating."""

    def __init__(self, fmt: Any, rounding: str | None, bits: int | None, rule: str) -> None:
        self.format = fmt.element
        self.is_fixed = hasattr(self.format, "fraction_bits")
        self.largest = to_value(float(self.format.max))
        default = self.format.rounding if self.is_fixed else "nearest_even"
        self.rules = {"rounding": rounding or default, "bits": bits, "rule": rule}
        self.shift = 0 if bits is None else 32 - bits

    def __call__(self, scaled: Any, word: int) -> tuple[int, bool]:
        """Return the code and whether the element was above the largest."""
        value = to_value(scaled)
        clipped = abs(Fraction(value)) > self.largest
        random = int(word) >> self.shift
        if self.is_fixed:
            code = round_fixed(
                value, self.format, overflow="saturate_symmetric", random=random, **self.rules
            )
        else:
            out = round_value(
                value, self.format, overflow="sat_finite", random=random, **self.rules
            )
            code = encode_value(out, self.format)
        return code, clipped

    def value(self, code: int) -> Value:
        """Return the value of a code."""
        return fixed_value(code, self.format) if self.is_fixed else decode_code(code, self.format)


def quantize(
    x: np.ndarray,
    fmt: Any,
    rounding: str | None = None,
    axis: int = -1,
    max_abs: Any = None,
    bits: int | None = None,
    rule: str = "c",
    words: np.ndarray | None = None,
    scale_words: np.ndarray | None = None,
) -> Quantized:
    """Return what quantize_blocks has to return; `words` are the 32-bit words of the elements."""
    axis %= x.ndim
    blocks = list(blocks_of(x.shape, axis, fmt.block))
    scales_shape = tuple(i + 1 for i in blocks[-1].scale)
    elements = Elements(fmt, rounding, bits, rule)
    words = np.zeros(x.shape, np.uint32) if words is None else words
    scale_words = np.zeros(scales_shape, np.uint32) if scale_words is None else scale_words
    codes = np.zeros(x.shape, np.int8 if elements.is_fixed else np.uint8)
    scales = np.zeros(scales_shape, np.uint32 if fmt.scale.bits == 32 else np.uint8)
    clipped = 0
    tensor = Tensor(x, fmt, axis, max_abs)
    for block in blocks:
        values = [x[i] for i in block.elements]
        drawn = [int(words[i]) for i in block.elements]
        if fmt.scale_rule == "max":
            encode, decode = tensor.scales(block.elements[0])
            largest = tensor.largest(block.elements[0])
            found = rounded_block(
                values, drawn, fmt, elements, encode, decode, largest, int(scale_words[block.scale])
            )
        else:
            found = power_block(values, drawn, fmt, elements)
        scales[block.scale] = found[0]
        for i, (code, was_clipped) in zip(block.elements, found[1], strict=True):
            codes[i] = code
            clipped += was_clipped
    return Quantized(codes, scales, tensor.decode_scale(), clipped)


def power_block(values: list, words: list[int], fmt: Any, elements: Elements) -> tuple[int, list]:
    """Return the scale's code and the elements of a block under an e8m0 scale."""
    if not np.all(np.isfinite(values)):
        return 0xFF, [(0, False)] * len(values)
    largest = max(abs(Fraction(float(v))) for v in values)
    top = elements.largest
    power = -127
    if largest:
        power = exponent_of(largest) - exponent_of(top)
        if fmt.scale_rule == "ceil":  # the smallest power with largest / 2^power <= top
            power = exponent_of(largest / top)
            power += Fraction(2) ** power * top < largest
    if power > 127:
        return 0xFF, [(0, False)] * len(values)
    power = max(power, -127)
    results = []
    for value, word in zip(values, words, strict=True):
        scaled: Value = to_value(value) if value else (NEG_ZERO if np.signbit(value) else 0)
        if value:
            scaled = Fraction(scaled) / Fraction(2) ** power
            if fmt.headroom != 1:
                rounded = float32_of(scaled * Fraction(fmt.headroom))
                # a product below the smallest normal float is known not to be zero, no more
                scaled = Fraction(float(rounded)) if abs(rounded) >= 2.0**-126 else scaled
        results.append(elements(scaled, word))
    return power + 127, results


class Tensor:
    """Steps 1 to 3 of NVFP4: the largest magnitude and the two scales of the tensor or its rows."""

    def __init__(self, x: np.ndarray, fmt: Any, axis: int, max_abs: Any) -> None:
        self.fmt, self.axis, self.rows = fmt, axis, fmt.tensor_scale == "row"
        self.maximum = Fraction(fmt.scale.max if fmt.maximum is None else fmt.maximum)
        if max_abs is not None:
            shape = [1 if i == axis else n for i, n in enumerate(x.shape)] if self.rows else ()
            self.amax = np.broadcast_to(F(max_abs), shape)
        else:
            self.amax = (
                np.max(np.abs(x), axis=axis, keepdims=True) if self.rows else np.abs(x).max()
            )

    def largest(self, element: tuple[int, ...]) -> np.float32:
        if not self.rows:
            return F(self.amax)
        return F(self.amax[tuple(0 if i == self.axis else n for i, n in enumerate(element))])

    def pair(self, amax: np.float32) -> tuple[np.float32, np.float32]:
        top = Fraction(float(self.fmt.element.max))
        numerator = float32_of(self.maximum * top / Fraction(self.fmt.headroom))
        with np.errstate(all="ignore"):
            encode = np.minimum(F(numerator / amax), MOST)
            if amax == 0 or encode == 0:
                encode = F(1)
            return encode, F(F(1) / encode)

    def scales(self, element: tuple[int, ...]) -> tuple[np.float32, np.float32]:
        if self.fmt.tensor_scale is None:
            return F(1), F(1)
        return self.pair(self.largest(element))

    def decode_scale(self) -> np.ndarray:
        if self.fmt.scale_rule != "max":
            return np.asarray(float32_of(1 / Fraction(self.fmt.headroom)))
        if self.fmt.tensor_scale is None:
            return np.asarray(F(1))
        flat = [self.pair(F(a))[1] for a in np.ravel(self.amax)]
        return np.array(flat, F).reshape(np.shape(self.amax))


def rounded_block(
    values: list,
    words: list[int],
    fmt: Any,
    elements: Elements,
    encode: np.float32,
    decode: np.float32,
    amax: np.float32,
    scale_word: int,
) -> tuple[int, list]:
    """Return the scale's code and the elements of a block under a rounded scale (steps 4 to 8)."""
    x = np.array(values, F)
    block_max = np.abs(x).max()
    top = F(fmt.element.max)

    def stored(scale: np.float32) -> tuple[int, np.float32]:
        scale = np.minimum(scale, MOST)
        if fmt.scale.bits == 32:
            return int(scale.view(np.uint32)), scale
        value = round_value(
            float(np.minimum(scale, F(fmt.scale.max))),
            fmt.scale,
            fmt.scale_rounding,
            "sat_finite",
            random=scale_word,
        )
        return encode_value(value, fmt.scale), F(float(value))

    def rounded(scale: np.float32) -> list:
        with np.errstate(all="ignore"):
            factor = np.minimum(F(F(1) / F(scale * decode)), MOST)
            y = np.clip(x * factor, F(-2) * top, F(2) * top)  # Inf is above the largest too
        y = np.where(y == 0, F(0), y)  # -0 becomes code 0
        return [elements(v, word) for v, word in zip(y, words, strict=True)]

    with np.errstate(all="ignore"):
        if fmt.four_over_six is None:
            factor = float32_of(Fraction(fmt.headroom) / Fraction(float(top)))
            code, scale = stored(F(block_max * F(encode * factor)))
            return code, rounded(scale)
        six = F(F(block_max / F(6)) * encode)
        best = None
        scaled_max = float32_of(Fraction(fmt.maximum or fmt.scale.max) * 6)
        for candidate in (six, F(six * F(1.5))):
            code, scale = stored(candidate)
            results = rounded(scale)
            error = F(0)
            for value, (element, _) in zip(x, results, strict=True):
                q = F(float(elements.value(element)))
                d = F(F(F(F(q * scale) * amax) / scaled_max) - value)
                error = F(error + (F(d * d) if fmt.four_over_six == "mse" else abs(d)))
            if best is None or error < best[0]:
                best = (error, code, results)
        assert best is not None
        return best[1], best[2]
