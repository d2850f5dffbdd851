"""N:M masks and the unbiased N:M estimator, one block at a time.

The exact estimator rounds the probabilities of least variance (arXiv 2203.10991) to multiples of
2^-b and samples them systematically. Whatever has to be float32 or float64 arithmetic is an exact
fraction that is rounded once, to nearest even, so that neither the machine's arithmetic nor a
second rounding enters. Python's own floats are used only where the definition is float64
arithmetic operation by operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Binary(NamedTuple):
    """A binary floating-point format: significand bits, exponents of its smallest and largest."""

    precision: int
    smallest: int
    largest: int


BINARY32 = Binary(24, -149, 127)
BINARY64 = Binary(53, -1074, 1023)
ARITHMETIC = {16: BINARY32, 30: BINARY64}  # by the bits of a probability


def exponent_of(value: Fraction) -> int:
    """Return floor(log2 value) for value > 0."""
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def rounded(value: Fraction, form: Binary) -> Fraction:
    """Return `value` in the format, to nearest even with gradual underflow.

    Raises OverflowError beyond the largest number.
    """
    if value == 0:
        return value
    magnitude = abs(value)
    unit = Fraction(2) ** max(exponent_of(magnitude) - form.precision + 1, form.smallest)
    result = round(magnitude / unit) * unit  # round() of a fraction: ties to even
    if result >= Fraction(2) ** (form.largest + 1):
        raise OverflowError
    return result if value > 0 else -result


# ---- Magnitude masks ----------------------------------------------------------------------------


def mask_of(block: Sequence[Any], n: int, nonzero_only: bool = False) -> list[bool]:
    """Return which elements are the n largest in magnitude, the lowest index first on ties."""
    magnitudes = [abs(Fraction(a)) for a in block]
    order = sorted(range(len(block)), key=lambda i: (-magnitudes[i], i))
    kept = set(order[:n])
    return [i in kept and not (nonzero_only and magnitudes[i] == 0) for i in range(len(block))]


# ---- The exact estimator, by its numbered steps -------------------------------------------------


def tree_sum(values: Sequence[Fraction], form: Binary) -> Fraction:
    """Return the sum of neighbours, level by level, over the next power of two of terms."""
    level = list(values) + [Fraction(0)] * ((1 << (len(values) - 1).bit_length()) - len(values))
    while len(level) > 1:
        level = [rounded(level[i] + level[i + 1], form) for i in range(0, len(level), 2)]
    return level[0]


def scaled(block: Sequence[Fraction], active: set[int], form: Binary) -> list[Fraction]:
    """Return the magnitudes of the active elements with the largest in [1, 2)."""
    exponent = exponent_of(max(abs(block[i]) for i in active))
    unit = Fraction(2) ** exponent
    return [
        rounded(abs(a) / unit, form) if i in active else Fraction(0) for i, a in enumerate(block)
    ]


def probabilities_of(values: Sequence[Any], n: int, bits: int) -> list[int]:
    """Return q: the inclusion probabilities in units of 2^-bits (steps 1 to 6)."""
    block, form, one = [Fraction(a) for a in values], ARITHMETIC[bits], 1 << bits
    active = {i for i, a in enumerate(block) if a != 0}
    if len(active) <= n:
        return [one if a != 0 else 0 for a in block]
    capped: set[int] = set()
    remaining = n
    for _ in range(n):
        m = scaled(block, active, form)
        total = tree_sum(m, form)
        new = {i for i in active if rounded(remaining * m[i], form) >= total}
        if not 0 < len(new) < remaining:
            break
        active -= new
        capped |= new
        remaining -= len(new)
    m = scaled(block, active, form)
    total = tree_sum(m, form)
    factor = rounded(rounded(Fraction(remaining << bits), form) / total, form)
    q = [one if i in capped else 0 for i in range(len(block))]
    for i in active:
        q[i] = min(max(math.ceil(rounded(factor * m[i], form)), 1), one)
    largest = min(active, key=lambda i: (-m[i], i))
    q[largest] -= sum(q[i] for i in active) - (remaining << bits)
    return q


def sample(q: Sequence[int], bits: int, u: int) -> list[bool]:
    """Return which elements systematic sampling with the offset u keeps (step 7)."""
    kept, before = [], 0
    for probability in q:
        after = before + probability
        picks = ceil_shift(after - u, bits) - ceil_shift(before - u, bits)
        assert picks in (0, 1)
        kept.append(picks == 1)
        before = after
    return kept


def ceil_shift(value: int, bits: int) -> int:
    """Return ceil(value / 2^bits)."""
    return -(-value >> bits)


def estimate(a: Fraction, q: int, bits: int, result: Binary) -> Fraction:
    """Return the value of an element that is kept (step 8)."""
    divisor = Fraction(q, 1 << bits)
    return rounded(a / rounded(divisor, result), result)


class Block(NamedTuple):
    """What becomes of one block: values, which are kept, probabilities."""

    y: list[Fraction]
    kept: list[bool]
    p: list[Fraction]


def unbiased(values: Sequence[Any], n: int, u: int, bits: int = 16, wide: bool = False) -> Block:
    """Return one block of the exact estimator; `wide` asks for float64 results."""
    result = BINARY64 if wide else BINARY32
    q = probabilities_of(values, n, bits)
    kept = sample(q, bits, u)
    y = [
        estimate(Fraction(a), p, bits, result) if k else Fraction(0)
        for a, p, k in zip(values, q, kept, strict=True)
    ]
    return Block(y, kept, [Fraction(p, 1 << bits) for p in q])


# ---- The two-draw estimator of 2:4 --------------------------------------------------------------


def sum_of(values: Iterable[float]) -> float:
    """Return the sum from left to right; `sum` may compensate for rounding."""
    total = 0.0
    for value in values:
        total += value
    return total


def draw(weights: Sequence[float], candidates: Sequence[int], word: int) -> int:
    """Return the first candidate below whose running sum of weights the uniform number lies."""
    u, cumulative = word * 2.0**-32, 0.0
    for i in candidates:
        cumulative += weights[i]
        if u < cumulative and weights[i] != 0:
            return i
    return [i for i in candidates if weights[i] != 0][-1]


def two_draw_terms(values: Sequence[Any]) -> tuple[list[float], list[float], list[float]]:
    """Return m, the sums of the other three, and pi, in float64 operation by operation."""
    block = [float(a) for a in values]
    exponent = math.frexp(max(abs(a) for a in block))[1] - 1
    m = [math.ldexp(abs(a), -exponent) for a in block]
    total = (m[0] + m[1]) + (m[2] + m[3])
    others = [sum_of(m[j] for j in range(4) if j != i) for i in range(4)]
    t = [m[i] / total for i in range(4)]
    k = [t[i] / others[i] for i in range(4)]
    pi = [t[i] + m[i] * sum_of(k[j] for j in range(4) if j != i) for i in range(4)]
    return m, others, pi


def two_draws(values: Sequence[Any], words: Sequence[int], wide: bool = False) -> Block:
    """Return one block of four of the two-draw estimator."""
    if sum(a != 0 for a in values) <= 2:
        kept = [bool(a != 0) for a in values]
        return Block([Fraction(a) for a in values], kept, [Fraction(k) for k in kept])
    m, others, pi = two_draw_terms(values)
    total = (m[0] + m[1]) + (m[2] + m[3])
    first = draw([a / total for a in m], range(4), words[0])
    rest = [j for j in range(4) if j != first]
    second = draw([a / others[first] for a in m], rest, words[1])
    kept = [i in (first, second) for i in range(4)]
    y = [Fraction(0)] * 4
    for i in (first, second):
        quotient = rounded(Fraction(values[i]) / Fraction(pi[i]), BINARY64)
        y[i] = quotient if wide else rounded(quotient, BINARY32)
    return Block(y, kept, [Fraction(p) for p in pi])


# ---- The optimum, in exact fractions ------------------------------------------------------------


def water_filling(values: Sequence[Any], n: int) -> list[Fraction]:
    """Return the inclusion probabilities min(1, c |a|) of least variance that sum to n."""
    magnitudes = [abs(Fraction(a)) for a in values]
    order = sorted(range(len(values)), key=lambda i: -magnitudes[i])
    if sum(a != 0 for a in magnitudes) <= n:
        return [Fraction(a != 0) for a in magnitudes]
    p = [Fraction(0)] * len(values)
    rest = sum(magnitudes, Fraction(0))
    capped = 0
    while (n - capped) * magnitudes[order[capped]] > rest:
        p[order[capped]] = Fraction(1)
        rest -= magnitudes[order[capped]]
        capped += 1
    for i in order[capped:]:
        p[i] = (n - capped) * magnitudes[i] / rest
    return p


def variance(values: Sequence[Any], p: Sequence[Fraction]) -> Fraction:
    """Return the variance of a block sampled with the probabilities p, summed over elements."""
    return sum(
        (Fraction(a) ** 2 * (1 / Fraction(q) - 1) for a, q in zip(values, p, strict=True) if a),
        Fraction(0),
    )


# ---- Random words by logical index --------------------------------------------------------------


def philox_word(index: int, seed: int, stream: int = 0, call: int = 0) -> int:
    """Return word `index` of Philox4x32-10 with this key and these upper counter words."""
    low, word = divmod(index, 4)
    c = [low % 2**32, low >> 32, stream, call]
    key = [seed % 2**32, seed >> 32]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ key[0], low1, high0 ^ c[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return c[word]


def offset(index: int, bits: int, seed: int, stream: int = 0, call: int = 0) -> int:
    """Return U of block `index`: a 16-bit lane, or the top 30 bits of a word."""
    if bits == 30:
        return philox_word(index, seed, stream, call) >> 2
    return philox_word(index // 2, seed, stream, call) >> 16 * (index % 2) & 0xFFFF


# ---- Arrays -------------------------------------------------------------------------------------


def blocks_of(x: Array, m: int, axis: int = -1) -> Array:
    """Return groups of m along the axis, padded with zeros: (*other axes, groups, m)."""
    moved = np.moveaxis(x, axis, -1)
    padding = -moved.shape[-1] % m
    padded = np.concatenate([moved, np.zeros((*moved.shape[:-1], padding), x.dtype)], axis=-1)
    return padded.reshape(*moved.shape[:-1], -1, m)


def array_of(blocks: Array, shape: tuple[int, ...], axis: int = -1) -> Array:
    """Return blocks put back into an array of this shape; padding is dropped."""
    rows = blocks.reshape(*blocks.shape[:-2], -1)[..., : shape[axis]]
    return np.ascontiguousarray(np.moveaxis(rows, -1, axis))


def nm_mask(x: Array, n: int, m: int, axis: int = -1, nonzero_only: bool = False) -> Array:
    """Return the magnitude mask of an array."""
    blocks = blocks_of(x, m, axis)
    kept = np.zeros(blocks.shape, bool)
    for index in np.ndindex(blocks.shape[:-1]):
        kept[index] = mask_of([number(a) for a in blocks[index]], n, nonzero_only)
    return array_of(kept, x.shape, axis)


def number(a: Any) -> int | float:
    """Return a NumPy scalar as the Python number of the same value."""
    return int(a) if a.dtype.kind in "iub" else float(a)


def nm_unbiased(
    x: Array,
    m: int,
    axis: int,
    words: Callable[[int], Any],
    block: Callable[[list[float], Any], Block],
) -> tuple[Array, Array, Array]:
    """Return y, mask and probabilities (float64) of an array, by the block function.

    `words(B)` is what the block of logical index B draws; `block(values, draws)` one block.
    """
    blocks = blocks_of(x, m, axis)
    y, kept, p = np.zeros(blocks.shape), np.zeros(blocks.shape, bool), np.zeros(blocks.shape)
    for logical, index in enumerate(np.ndindex(blocks.shape[:-1])):
        result = block([float(a) for a in blocks[index]], words(logical))
        y[index] = [float(a) for a in result.y]
        kept[index] = result.kept
        p[index] = [float(a) for a in result.p]
    return tuple(array_of(part, x.shape, axis) for part in (y, kept, p))  # type: ignore[return-value]
