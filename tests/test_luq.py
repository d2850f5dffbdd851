"""`luq` and `luq_encode`, bit for bit against exact fractions."""

from __future__ import annotations

import functools
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_luq as oracle
from abcdeep_core import _core
from test_float_environment import STATES, float_state

Array = np.ndarray[Any, Any]

DETERMINISTIC: dict[str, Any] = {"underflow": "nearest", "log_rounding": "nearest"}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "8 levels": {"levels": 8},
    "5 levels": {"levels": 5},
    "power of two": {"alpha_rounding": "power_of_two"},
    "nearest": DETERMINISTIC,
    "zero": {"underflow": "zero", "log_rounding": "nearest", "levels": 8},
    "underflow zero": {"underflow": "zero"},
    "underflow nearest": {"underflow": "nearest", "levels": 5},
    "log nearest": {"log_rounding": "nearest", "alpha_rounding": "power_of_two"},
}


def assert_same_bits(actual: Any, expected: Any) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))


def words_for(shape: tuple[int, ...], seed: int) -> Array:
    """Return random words, many of them at the ends of the range or around powers of two."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, shape, dtype=np.uint32)
    powers = np.uint64(1) << rng.integers(0, 33, shape, dtype=np.uint64)
    edges = (powers + rng.integers(-1, 2, shape).astype(np.uint64)).astype(np.uint32)
    return np.where(rng.random(shape) < 0.3, edges, words)


@functools.cache
def data(kind: str) -> Array:
    """Return float32 numbers for one kind of trouble; the largest is the maximum of the tensor."""
    rng = np.random.default_rng(11)
    if kind == "lognormal":
        x = np.exp(2 * rng.standard_normal(1500)) * rng.choice([-1, 1], 1500)
    elif kind == "every exponent":
        bits = rng.integers(0, 0x7F800000, 1500) | rng.integers(0, 2, 1500) << 31
        return bits.astype(np.uint32).view(np.float32)
    elif kind == "edges":  # powers of two, their neighbours, midpoints, for a maximum of 1 or 1.7
        powers = np.exp2(np.arange(-45, 1)).astype(np.float32)
        around = [powers, np.nextafter(powers, 0), np.nextafter(powers, 9), 1.5 * powers]
        around += [np.nextafter(np.float32(1.5) * powers, 0), np.float32([0, -0.0])]
        x = np.concatenate(around)
        return np.concatenate([x[x <= 1], -x[x <= 1]]).astype(np.float32)
    elif kind == "subnormal":
        return (rng.integers(0, 900, 400) | rng.integers(0, 2, 400) << 31).astype(np.uint32).view(
            np.float32
        )  # fmt: skip
    elif kind == "one subnormal":
        return np.uint32([1, 0, 0x80000001, 0x80000000]).view(np.float32)
    elif kind == "small":  # alpha is subnormal, or just not
        x = np.ldexp(rng.uniform(-1, 1, 600), rng.integers(-135, -118, 600))
    elif kind == "large":
        x = np.append(np.ldexp(rng.uniform(-1, 1, 600), rng.integers(110, 128, 600)), -oracle.MAX32)
    elif kind == "negative":
        x = -np.abs(rng.standard_normal(300))
    else:
        raise KeyError(kind)
    return x.astype(np.float32)


KINDS = ("lognormal", "every exponent", "edges", "subnormal", "one subnormal", "small", "large",
         "negative")  # fmt: skip


@functools.cache
def expected(kind: str, option: str, samples: int = 1, maximum: float | None = None) -> Array:
    x = data(kind)
    words = words_for((samples, *x.shape), 5)
    return oracle.luq(x, words, maxima=None if maximum is None else np.array(maximum),
                      **OPTIONS[option])  # fmt: skip


def beyond_float32(kind: str, option: str) -> bool:
    """Return whether the highest level would be 2^128."""
    power = OPTIONS[option].get("alpha_rounding") is not None
    return power and bool(np.abs(data(kind)).max() > 2.0**127)


def test_golden_vector(isa: str) -> None:
    x = np.float32([64, -40, 24, -6.5, 3, 1, -0.75, 0.25, 0, 48])
    u = np.array([0.5, 0.2, 0.6, 0.7, 0.49, 0.9, 0.74, 0.26, 0.1, 0.5])
    words = np.floor(u * 2**32).astype(np.uint32)
    result = np.float32([64, -64, 16, -4, 4, 1, -1, 0, 0, 32])
    assert_same_bits(ab.luq(x, random_bits=words), result)
    codes, alpha = ab.luq_encode(x, random_bits=words)
    assert alpha == 1
    assert codes.tolist() == [7, 15, 5, 11, 3, 1, 9, 0, 0, 6]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_explicit_words_match_the_oracle(isa: str, kind: str, option: str) -> None:
    x = data(kind)
    words = words_for((1, *x.shape), 5)[0]
    if beyond_float32(kind, option):
        with pytest.raises(ValueError, match="alpha_rounding: expected None for a maximum above"):
            ab.luq(x, random_bits=words, **OPTIONS[option])
        return
    result = ab.luq(x, random_bits=words, **OPTIONS[option], threads=1)
    assert_same_bits(result, expected(kind, option))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_times_alpha_are_the_values(isa: str, kind: str, option: str) -> None:
    x, options = data(kind), OPTIONS[option]
    if beyond_float32(kind, option):
        return
    if options.get("levels") == 8:
        with pytest.raises(ValueError, match="levels: expected 7 or 5"):
            ab.luq_encode(x, random_bits=words_for(x.shape, 5), **options)
        return
    codes, alpha = ab.luq_encode(x, random_bits=words_for(x.shape, 5), **options)
    assert codes.dtype == np.uint8
    assert codes.shape == x.shape
    assert not (codes == 8).any()
    exact = oracle.spacing(
        Fraction(float(np.abs(x).max())),
        options.get("levels", 7),
        options.get("alpha_rounding"),
    )
    rounded = oracle.round32(exact)
    assert rounded is not None
    assert_same_bits(alpha, np.float32(float(rounded)))
    if rounded >= Fraction(2) ** -126:
        assert_same_bits(ab.decode(codes, "e3m0") * alpha, expected(kind, option))
    else:
        levels = ab.decode(codes, "e3m0")
        values = [oracle.round32(abs(Fraction(float(v))) * exact) or 0 for v in levels]
        assert np.float32([float(v) for v in values]).tolist() == np.abs(
            expected(kind, option)
        ).tolist()  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("option", ["default", "power of two", "underflow zero", "nearest"])
def test_seeded_words_are_those_of_the_logical_index(
    isa: str, option: str, samples: int, threads: int
) -> None:
    rng = np.random.default_rng(3)
    x = (np.exp(3 * rng.standard_normal((7, 3001))) * rng.choice([-1, 1], (7, 3001))).astype(
        np.float32
    )
    calls = range(9, 9 + samples)
    address = {"seed": 2**63 + 5, "stream": 7}
    words = np.stack([ab.random_bits(x.shape, **address, call=call) for call in calls])
    given = words[0] if samples == 1 else words
    options = {**OPTIONS[option], "samples": samples, "threads": threads}
    for axis in (None, 0, 1, ()):
        explicit = ab.luq(x, random_bits=given, axis=axis, **options)
        seeded = ab.luq(x, **address, call=9, axis=axis, **options)
        assert_same_bits(seeded, explicit)
    wide = np.zeros((7, 3001 + 5), np.float32)
    for offset in range(5):  # every alignment of the output and of rows
        out = wide.reshape(-1)[offset : offset + x.size].reshape(x.shape)
        ab.luq(x, **address, call=9, out=out, **options)
        assert_same_bits(out, ab.luq(x, random_bits=given, **options))


def test_streamed_stores(isa: str) -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((1 << 20) + 77).astype(np.float32)
    words = ab.random_bits(x.shape, seed=1)
    reference = ab.luq(x, random_bits=words)
    assert_same_bits(ab.luq(x, seed=1), reference)
    buffer = np.empty(x.size + 3, np.float32)
    assert_same_bits(ab.luq(x, seed=1, out=buffer[3:], threads=3), reference)


def test_tensor_and_slices_match_the_oracle(isa: str) -> None:
    rng = np.random.default_rng(2)
    x = np.ldexp(rng.standard_normal((3, 4, 5, 6)), rng.integers(-9, 9, (3, 4, 5, 6))).astype(
        np.float32
    )
    x[1] = 0
    x[2, 1] = np.ldexp(x[2, 1], -130)
    words = words_for((1, *x.shape), 4)
    for size in range(5):
        for axis in itertools.combinations(range(4), size):
            result = ab.luq(x, axis=axis, random_bits=words[0])
            assert_same_bits(result, oracle.luq(x, words, axis=axis))
            maxima = np.abs(x).max(axis=axis, keepdims=True)
            assert_same_bits(ab.luq(x, axis=axis, max_abs=maxima, random_bits=words[0]), result)
            codes, alpha = ab.luq_encode(x, axis=axis, random_bits=words[0])
            assert alpha.shape == (maxima.shape if size < 4 else ())
            normal = np.broadcast_to(np.asarray(alpha) >= 2.0**-126, x.shape)
            decoded = ab.decode(codes, "e3m0") * alpha
            assert_same_bits(decoded[normal], result[normal])
    assert_same_bits(ab.luq(x, axis=-1, seed=1), ab.luq(x, axis=[3], seed=1))


@pytest.mark.parametrize("option", ["default", "8 levels", "underflow nearest", "nearest"])
@pytest.mark.parametrize("samples", [2, 3, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_of_samples_matches_the_oracle(isa: str, kind: str, samples: int, option: str) -> None:
    x = data(kind)
    words = words_for((samples, *x.shape), 5)
    result = ab.luq(x, samples=samples, random_bits=words, **OPTIONS[option])
    assert_same_bits(result, expected(kind, option, samples))


def test_mean_is_a_quotient(isa: str) -> None:
    # 97 alpha / 49 lies in the middle of two float32 numbers; a product with 1 / 49 does not.
    alpha = np.float32(16_367_323)
    words = np.zeros((49, 1), np.uint32)
    words[0] = 2**32 - 1
    x = np.float32([1.5]) * alpha
    result = ab.luq(x, max_abs=64 * alpha, samples=49, random_bits=words)
    assert_same_bits(result, oracle.luq(x, words, maxima=64 * alpha))
    assert result[0] != np.float32(97 * float(alpha) * (1 / 49))


@pytest.mark.parametrize("over_range", ["clip", "grow"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    ("kind", "maximum"),
    [("lognormal", 0.01), ("lognormal", 1e30), ("lognormal", 1e-30), ("lognormal", 7),
     ("subnormal", 1), ("subnormal", 1e-44), ("subnormal", 3e38), ("large", 2.0**120),
     ("edges", 1.7), ("edges", 2.0**-100), ("edges", 2.0**-149), ("small", 0)],
)  # fmt: skip
def test_given_maximum(isa: str, kind: str, maximum: float, samples: int, over_range: str) -> None:
    x, m = data(kind), np.float32(maximum)
    words = words_for((samples, *x.shape), 6)
    reference = oracle.luq(x, words, maxima=np.array(m), over_range=over_range)
    given = words[0] if samples == 1 else words
    arguments: dict[str, Any] = {"max_abs": m, "samples": samples, "over_range": over_range}
    if np.isinf(reference).any():
        out = np.full(x.shape, np.float32(9))
        with pytest.raises(ValueError, match=r"max_abs: expected .* \[\d+\]"):
            ab.luq(x, **arguments, random_bits=given, out=out)
        assert (out == 9).all()
    else:
        assert_same_bits(ab.luq(x, **arguments, random_bits=given), reference)
        assert_same_bits(ab.luq(x, max_abs=float(m), random_bits=given, samples=samples,
                                over_range=over_range), reference)  # fmt: skip


def test_levels_up_to_the_largest_float32(isa: str) -> None:
    # alpha = 2^-7 and r = 1.5 * 2^127 goes up to level 128: 2^121 is a float32 number.
    x = np.ldexp(np.float32([1.5, 1.5]), 120)
    words = np.uint32([0, 2**32 - 1])
    options: dict[str, Any] = {"levels": 8, "max_abs": 1, "over_range": "grow"}
    result = ab.luq(x, **options, random_bits=words)
    assert result.tolist() == [2.0**121, 2.0**120]
    means = ab.luq(x, **options, samples=2, random_bits=np.stack([words, words]))
    assert means.tolist() == result.tolist()
    largest = np.finfo(np.float32).max
    with pytest.raises(ValueError, match="max_abs"):
        ab.luq(largest, max_abs=1e30, over_range="grow", random_bits=np.uint32(0))


def test_probabilities_counted_at_the_boundary_words(isa: str) -> None:
    # Up is decided by word < floor(r 2^32) and (word >> 9) < fraction: both sides of each edge.
    rng = np.random.default_rng(1)
    r = np.concatenate(
        [
            np.ldexp(rng.uniform(0.5, 1, 300), -rng.integers(0, 34, 300)),
            np.ldexp(rng.uniform(1, 2, 300), rng.integers(0, 6, 300)),
            [1, 32, 64],
        ]
    )
    x = np.append(r.astype(np.float32), np.float32(64))
    fractions = x.view(np.uint32).astype(np.int64) & 0x7FFFFF
    counts = np.where(
        x < 1, np.floor(x.astype(np.float64) * 2**32).astype(np.int64), fractions << 9
    )
    low = np.where(x < 1, 0, np.exp2(np.floor(np.log2(x.astype(np.float64)))))
    high = np.where(x < 1, 1, np.minimum(2 * low, 64))
    below = np.maximum(counts - 1, 0).astype(np.uint32)
    lower = ab.luq(x, random_bits=below)
    assert (lower == np.where(counts > 0, high, low)).all()
    assert (ab.luq(x, random_bits=counts.astype(np.uint32)) == low).all()


def test_round_to_nearest_power_is_stochastic_rounding_through_noise(isa: str) -> None:
    # |x| plus noise uniform in (-lo / 2, lo / 2), rounded to the nearest power, at least lo.
    steps = 512
    noise = (np.arange(steps) + 0.5) / steps - 0.5
    for lo, fraction in itertools.product([1.0, 2.0, 16.0], range(64)):
        x = lo * (1 + fraction / 64)
        noisy = (x + lo * noise).astype(np.float32)
        nearest = ab.luq(noisy, max_abs=64, **DETERMINISTIC)
        clamped = np.maximum(nearest, lo)
        assert set(clamped.tolist()) <= {lo, 2 * lo}
        assert np.count_nonzero(clamped == 2 * lo) == steps * fraction // 64
        k = np.floor(np.log2(4 * noisy.astype(np.float64) / 3))
        assert (nearest[noisy >= 1] == np.exp2(k)[noisy >= 1]).all()


def test_power_of_two_never_clips(isa: str) -> None:
    rng = np.random.default_rng(4)
    for exponent in (-149, -140, -1, 0, 1, 100, 126):
        x = np.ldexp(rng.uniform(-2, 2, 200), exponent).astype(np.float32)
        largest = float(np.abs(x).max())
        everything_up = np.zeros(x.shape, np.uint32)
        result = ab.luq(x, alpha_rounding="power_of_two", random_bits=everything_up)
        assert float(np.abs(result).max()) >= largest
        assert np.log2(float(np.abs(result).max())) % 1 == 0
    # Without it nothing is above the maximum; 128 would need alpha = 2.
    assert ab.luq(np.float32([100]), alpha_rounding="power_of_two", random_bits=np.zeros(1, "u4")) \
        == 128  # fmt: skip


def test_caller_float_state_does_not_matter(isa: str) -> None:
    x, word, words = data("small"), words_for((1, 600), 5)[0], words_for((3, 600), 5)
    subnormal = data("subnormal")
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            single = ab.luq(x, random_bits=word, threads=1)
            mean = ab.luq(x, random_bits=words, samples=3, threads=1)
            rows = ab.luq(subnormal.reshape(20, 20), seed=1, axis=0, threads=1)
            alpha = ab.luq_encode(subnormal, seed=1)[1]
            given = ab.luq(subnormal, seed=1, max_abs=3e-42)
        assert_same_bits(single, expected("small", "default"))
        assert_same_bits(mean, expected("small", "default", 3))
        assert_same_bits(rows, ab.luq(subnormal.reshape(20, 20), seed=1, axis=0))
        assert_same_bits(alpha, ab.luq_encode(subnormal, seed=1)[1])
        assert_same_bits(given, ab.luq(subnormal, seed=1, max_abs=np.float32(3e-42)))


def test_largest_magnitudes(isa: str) -> None:
    rng = np.random.default_rng(5)
    for shape in ((1, 0), (0, 4), (3, 1), (5, 37), (2, 100_001), (3000, 17)):
        bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
        found = np.empty(shape[0], np.uint32)
        for threads in (1, 3):
            _core.largest_magnitudes(bits.view(np.float32), found, threads)
            assert (found == (bits & 0x7FFFFFFF).max(axis=1, initial=0)).all()
    for at in range(70):
        x = np.zeros((1, 70), np.float32)
        x[0, at] = -at - 1
        _core.largest_magnitudes(x, found[:1], 1)
        assert found[:1].view(np.float32) == at + 1
