"""Uniform quantisers and their clips: the exact oracle, the published fits, layouts and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core._uniform import code_range
from oracle_uniform import code_of, grid_of, sawb, value_of
from quantize_cases import DETERMINISTIC, bits_of

RANGES = {  # bits, signed, levels: Qn, Qp
    (4, True, "corrected"): (-7, 7),
    (4, True, "reference"): (-8, 8),
    (4, True, "reference_activations"): (-8, 15),
    (4, False, "corrected"): (0, 15),
    (4, False, "reference"): (0, 15),
    (4, False, "reference_activations"): (0, 15),
    (2, True, "corrected"): (-1, 1),
    (7, True, "reference_activations"): (-64, 127),
    (8, True, "corrected"): (-127, 127),
    (8, False, "reference"): (0, 255),
}
ROWS = {  # levels: c1, c2 of IBM
    3: (2.6, 1.71), 4: (3.12, 2.064), 8: (7.509, 6.892), 15: (12.035, 12.03), 16: (12.68, 12.8),
    32: (17.74, 18.64), 127: (28.24, 30.81), 255: (31.76, 35.04),
}  # fmt: skip
TINY = float(np.finfo(np.float32).smallest_subnormal)


def inputs(size=600, seed=1):
    """Return elements of several sizes, zeros, ties of a power-of-two scale and an outlier."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=size)
    x[::7] = rng.integers(-40, 40, x[::7].size) / 8
    x[3::50] = 0
    x[5::90] *= 1e-6
    x[-1] = -9.5
    return x.astype(np.float32)


def expected_grid(x, clip, bits, signed, levels, coefficients="luq"):
    """Return the oracle's grid of a flat list."""
    low, high = code_range(bits, signed, levels)
    if clip == "sawb":
        rows = {2: 3 if signed and levels == "corrected" else 4, 3: 8, 5: 32, 7: 127, 8: 255}
        row = rows.get(bits, 16)
        luq = coefficients == "luq" and row == 16
        limit = sawb(x, *((12.1, 12.2) if luq else ROWS[row]))
    elif clip == "max_abs":
        limit = max((abs(v) for v in x), default=0.0)
    elif isinstance(clip, tuple):
        limit = sorted(abs(v) for v in x)[math.ceil(len(x) * clip[1] / 100) - 1]
    else:
        limit = clip
    return grid_of(limit, low, high, doubled=signed or clip == "sawb")


def check(x, bits=4, *, random=None, rounding="nearest_even", **choice):
    """Compare codes, scale and values with the oracle."""
    arguments = {"rounding": rounding, **choice}
    if random is not None:
        arguments["random_bits"] = np.uint32(random)
    codes, scale = ab.encode_uniform(x, bits, **arguments)
    values = ab.quantize_uniform(x, bits, **arguments)
    flat = x.astype(np.float32).tolist()
    grid = expected_grid(
        flat, choice.get("clip", "sawb"), bits, choice.get("signed", True),
        choice.get("levels", "corrected"), choice.get("coefficients", "luq"),
    )  # fmt: skip
    words = [None] * len(flat) if random is None else np.asarray(random).tolist()
    expected = [code_of(v, grid, rounding, r) for v, r in zip(flat, words, strict=True)]
    assert scale.dtype == np.float32
    assert codes.dtype == (np.int8 if choice.get("signed", True) else np.uint8)
    assert float(scale) == float(grid.scale)
    assert codes.tolist() == expected
    exact = np.array([value_of(q, grid) for q in expected], np.float32)
    assert np.array_equal(bits_of(values), bits_of(exact))  # the sign of zero too: it is +0


@pytest.mark.parametrize(("choice", "codes"), RANGES.items())
def test_ranges(choice, codes):
    bits, signed, levels = choice
    assert code_range(bits, signed, levels) == codes
    x = np.float32([-1e30, 1e30, 0, -1, 1])
    got, scale = ab.encode_uniform(x, bits, clip=3.0, signed=signed, levels=levels)
    assert (got.min(), got.max()) == codes
    assert scale == np.float32((2 if signed else 1) * 3 / (codes[1] - codes[0]))


@pytest.mark.parametrize("clip", ["sawb", "max_abs", ("percentile", 97.5), 2.0, 0.3])
@pytest.mark.parametrize("choice", RANGES)
def test_every_range_and_clip_against_the_oracle(isa, choice, clip):
    bits, signed, levels = choice
    check(inputs(), bits, clip=clip, signed=signed, levels=levels)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("coefficients", ["luq", "ibm"])
def test_every_width_against_the_oracle(isa, bits, coefficients):
    for signed in (True, False):
        clip = "max_abs" if bits == 6 else "sawb"
        check(inputs(300, bits), bits, signed=signed, coefficients=coefficients, clip=clip)


@pytest.mark.parametrize("rounding", [name for name in DETERMINISTIC if name != "jam"])
def test_every_rounding_against_the_oracle(isa, rounding):
    for clip in (3.5, 7.0, "sawb"):  # 3.5 and 7: scales that are powers of two, hence ties
        for levels in ("corrected", "reference"):
            check(inputs(), 4, rounding=rounding, clip=clip, levels=levels)


def test_stochastic_against_the_oracle(isa):
    rng = np.random.default_rng(3)
    x = inputs()
    for bits, signed in ((4, True), (2, True), (4, False), (8, True)):
        words = rng.integers(0, 1 << 32, x.size)
        check(x, bits, rounding="stochastic", random=words, signed=signed)


def test_fixed_point_gives_the_same_integers(isa):
    y = np.linspace(-8.2, 8.2, 4001).astype(np.float32)
    clipped = np.clip(y, -7, 7)
    form = ab.FixedFormat(bits=8, fraction_bits=0, overflow="saturate")
    for rounding in (*DETERMINISTIC, "stochastic"):
        random = {"seed": 5} if rounding == "stochastic" else {}
        expected = ab.encode(clipped, form, rounding, **random)
        codes, scale = ab.encode_uniform(y, clip=7.0, rounding=rounding, **random)
        assert scale == 1
        assert np.array_equal(codes, expected), rounding


@pytest.mark.parametrize("levels", ROWS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 65536, 65537, 200_001])
def test_sawb_clip_against_its_definition(levels, size):
    x = np.random.default_rng(size).laplace(size=size).astype(np.float32)
    for coefficients in ("luq", "ibm"):
        pair = (12.1, 12.2) if (levels, coefficients) == (16, "luq") else ROWS[levels]
        got = ab.sawb_clip(x, levels=levels, coefficients=coefficients)
        assert isinstance(got, float)
        assert got == sawb(x.tolist(), *pair)


def test_sawb_of_equal_magnitudes_is_their_magnitude():
    # rms = mean|x|, hence c1 - c2 < 0 in the LUQ row.
    assert ab.sawb_clip(np.float32([-3, 3, 3])) == 3
    assert ab.sawb_clip(np.zeros(5, np.float32)) == 0
    assert ab.sawb_clip(np.empty((3, 0), np.float32)) == 0


# Densities of the regression, symmetric about 0, and where the integral may stop.
DENSITIES = {
    "gauss": (lambda t: np.exp(-t * t / 2), 9.0),
    "laplace": (lambda t: np.exp(-t), 30.0),
    "uniform": (np.ones_like, 1.0),
    "triangular": (lambda t: 1 - t, 1.0),
    "von_mises": (lambda t: np.exp(np.cos(t)), math.pi),
    "logistic": (lambda t: 1 / np.cosh(t / 2) ** 2, 45.0),
}


def best_clip(density, end, levels):
    """Return (rms, best clip), each over mean|x|, for the grid of `levels` from -clip to clip."""
    points = 200_000
    t = (np.arange(points) + 0.5) * (end / points)
    weight = density(t)
    weight /= weight.sum()
    mean, rms = (weight * t).sum(), math.sqrt((weight * t * t).sum())

    def error(clip):
        step = 2 * clip / (levels - 1)
        offset = 0.0 if levels % 2 else 0.5
        q = (np.rint(np.minimum(t, clip) / step - offset) + offset) * step
        return float((weight * (np.minimum(q, clip) - t) ** 2).sum())

    low, high = 0.3 * rms, min(end, 14 * rms)
    candidates = np.linspace(low, high, 60)
    at = int(np.argmin([error(c) for c in candidates]))
    low, high = candidates[max(at - 1, 0)], candidates[min(at + 1, 59)]
    for _ in range(22):  # golden section
        a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
        low, high = (low, b) if error(a) < error(b) else (a, high)
    return rms / mean, (low + high) / 2 / mean


@pytest.mark.parametrize(
    ("levels", "coefficients", "within"),
    [(16, "luq", 0.01), (3, "ibm", 0.06), (4, "ibm", 0.06), (8, "ibm", 0.06), (15, "ibm", 0.06),
     (16, "ibm", 0.06), (255, "ibm", 0.06)],
)  # fmt: skip
def test_published_coefficients_are_a_least_squares_fit(levels, coefficients, within):
    ratios = np.array([best_clip(*case, levels) for case in DENSITIES.values()])
    design = np.stack([ratios[:, 0], -np.ones(len(ratios))], axis=1)
    c1, c2 = np.linalg.lstsq(design, ratios[:, 1], rcond=None)[0]
    published = (12.1, 12.2) if coefficients == "luq" else ROWS[levels]
    assert abs(c1 / published[0] - 1) < within, (c1, c2)
    assert abs(c2 / published[1] - 1) < within, (c1, c2)


def test_gaussian_clips():
    # Quantiles of N(0, 1) stand for the distribution: rms 1 within 1e-4.
    from statistics import NormalDist

    normal = NormalDist()
    x = np.float32([normal.inv_cdf((i + 0.5) / 50_000) for i in range(50_000)])
    rms = math.sqrt(float(np.mean(x.astype(np.float64) ** 2)))
    assert round(ab.sawb_clip(x) / rms, 2) == 2.37
    assert round(ab.sawb_clip(x, coefficients="ibm") / rms, 2) == 2.47
    ratio, best = best_clip(*DENSITIES["gauss"], 16)
    assert round(best / ratio, 2) == 2.51


def test_stochastic_is_unbiased(isa):
    # 200 elements inside the range, 4,000 draws each: |z| < 5 fails by chance with 200 * 6e-7.
    x = np.linspace(-2.9, 2.9, 200).astype(np.float32)
    draws = 4000
    y = ab.quantize_uniform(
        np.tile(x, (draws, 1)), clip=3.0, rounding="stochastic", seed=11
    ).astype(np.float64)
    scale = float(np.float32(6 / 14))
    low = np.floor(x / scale) * scale
    deviation = np.sqrt((x - low) * (low + scale - x) / draws)
    z = (y.mean(axis=0) - x) / np.maximum(deviation, 1e-7)
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("clip", ["sawb", "max_abs", ("percentile", 90), 1.5])
def test_axis_gives_every_slice_its_own_scale(clip):
    x = inputs(5 * 6 * 7).reshape(5, 6, 7) * np.float32([[[1]], [[2]], [[30]], [[0]], [[1e-4]]])
    codes, scale = ab.encode_uniform(x, clip=clip, axis=(1, -1))
    values = ab.quantize_uniform(x, clip=clip, axis=(2, 1))
    assert scale.shape == (5, 1, 1)
    assert np.array_equal(codes * scale, values)
    for i in range(5):
        alone, its_scale = ab.encode_uniform(x[i], clip=clip)
        assert np.array_equal(codes[i], alone)
        assert scale[i, 0, 0] == its_scale
    rows = ab.encode_uniform(x, clip=clip, axis=2)[1]
    assert rows.shape == (5, 6, 1)
    assert rows[2, 3, 0] == ab.encode_uniform(x[2, 3], clip=clip)[1]
    if clip == "sawb":
        assert np.array_equal(ab.sawb_clip(x, axis=2)[1, :, 0], [ab.sawb_clip(v) for v in x[1]])
        per_slice = ab.sawb_clip(x, axis=(2, 1))
        assert per_slice[:, 0, 0].tolist() == [ab.sawb_clip(v) for v in x]
        assert ab.sawb_clip(x, axis=(0, 1, 2)).shape == (1, 1, 1)


def test_memory_layout_and_threads_do_not_matter(isa):
    x = inputs(40 * 31 * 70).reshape(40, 31, 70)
    rules = {"rounding": "stochastic", "seed": 4}
    for view in (x, x.T, x[::-1, ::2, ::3], np.asfortranarray(x), x.transpose(1, 2, 0)):
        plain = np.ascontiguousarray(view)
        assert ab.sawb_clip(view) == ab.sawb_clip(plain)
        expected = ab.quantize_uniform(plain, threads=1, **rules)
        out = np.zeros(view.shape, np.float32, order="F")
        for threads in (1, 2, 7):
            assert np.array_equal(ab.quantize_uniform(view, threads=threads, **rules), expected)
            assert ab.quantize_uniform(view, out=out, threads=threads, **rules) is out
            assert np.array_equal(out, expected)
        codes = np.zeros(view.shape, np.int8, order="F")
        assert ab.encode_uniform(view, out=codes, **rules)[0] is codes
        assert np.array_equal(codes, ab.encode_uniform(plain, **rules)[0])
        words = ab.random_bits(view.shape, seed=4)
        explicit = ab.quantize_uniform(view, rounding="stochastic", random_bits=words)
        assert np.array_equal(explicit, expected)
    expected = ab.quantize_uniform(x)
    assert ab.quantize_uniform(x, out=x) is x
    assert np.array_equal(x, expected)


def test_extreme_inputs():
    for x in ([0.0, -0.0], [3 * TINY, -TINY], [3.4e38, -3.4e38], [1e-38, 3e38, -5e-39]):
        for signed in (True, False):
            check(np.float32(x), signed=signed)
            check(np.float32(x), signed=signed, clip="max_abs")
    assert ab.quantize_uniform(np.float32([3 * TINY, -TINY])).tolist() == [3 * TINY, -TINY]
    assert ab.quantize_uniform(np.float32(3), clip=7) == 3
    assert isinstance(ab.encode_uniform(np.float32(3), clip=7)[0], np.int8)
    assert ab.encode_uniform(np.float32([1, -1]), clip=TINY)[0].tolist() == [7, -7]
    for shape in ((0,), (3, 0), (0, 3)):
        empty = np.empty(shape, np.float32)
        for axis in range(len(shape)):
            for clip in ("sawb", "max_abs", ("percentile", 50)):
                assert ab.encode_uniform(empty, clip=clip, axis=axis)[0].shape == shape
        assert ab.quantize_uniform(empty).shape == shape


def test_narrow_floats_are_widened():
    x = inputs().astype(np.float16)
    assert np.array_equal(ab.quantize_uniform(x), ab.quantize_uniform(x.astype(np.float32)))
    assert ab.sawb_clip(x) == ab.sawb_clip(x.astype(np.float32))


ONE = np.ones(3, np.float32)


@pytest.mark.parametrize("function", [ab.quantize_uniform, ab.encode_uniform])
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"x": np.ones(3)}, TypeError, "x must hold float32 or narrower floats, got float64"),
        ({"x": np.arange(3)}, TypeError, "x must hold floats"),
        ({"x": np.float32([1, np.nan])}, ValueError, r"x must be finite, got nan at \[1\]"),
        ({"x": np.float32([[np.inf]])}, ValueError, r"x must be finite, got inf at \[0, 0\]"),
        ({"bits": 1}, ValueError, "bits must be in 2..8"),
        ({"bits": 4.0}, TypeError, "bits must be an integer"),
        ({"bits": 8, "levels": "reference"}, ValueError, "bits: expected 2 to 7"),
        ({"bits": 6}, ValueError, "no published coefficients"),
        ({"clip": "sawbb"}, ValueError, "unknown clip 'sawbb'; nearest: 'sawb'"),
        ({"clip": "percentile"}, ValueError, r"expected \('percentile', p\)"),
        ({"clip": ("percentile", 0)}, ValueError, r"a percentage in \(0, 100\]"),
        ({"clip": ("percentile", 101)}, ValueError, r"a percentage in \(0, 100\]"),
        ({"clip": ("quantile", 1)}, ValueError, r"expected \('percentile', p\)"),
        ({"clip": 0}, ValueError, "clip: expected a positive number, got 0"),
        ({"clip": math.nan}, ValueError, "clip: expected a positive number"),
        ({"clip": 1e300}, ValueError, "a scale that float32 holds"),
        ({"clip": True}, TypeError, "clip: expected a name or a number"),
        ({"clip": ONE}, TypeError, "clip: expected a name or a number"),
        ({"signed": 1}, TypeError, "signed must be a bool"),
        ({"levels": "paper"}, ValueError, "unknown levels"),
        ({"coefficients": 16}, TypeError, "coefficients must be a string"),
        ({"axis": 1}, ValueError, "axis: expected axes of an array of 1 dimensions"),
        ({"axis": (0, -1)}, ValueError, "axis: expected every axis once"),
        ({"axis": 0.5}, TypeError, "axis: expected an integer, a tuple"),
        ({"rounding": "nearest"}, ValueError, "unknown rounding"),
        ({"rounding": "stochastic"}, ValueError, "needs seed= or random_bits="),
        ({"out": np.ones(3)}, TypeError, "out must have dtype"),
        ({"threads": 0}, ValueError, "threads: expected 1 to"),
    ],
)
def test_errors(function, arguments, error, text):
    with pytest.raises(error, match=text):
        function(**{"x": ONE, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"x": np.ones(3)}, TypeError, "got float64; convert it explicitly"),
        ({"levels": 9}, ValueError, "levels: expected one of 3, 4, 8"),
        ({"levels": True}, TypeError, "levels must be an integer"),
        ({"coefficients": "IBM"}, ValueError, "nearest: 'ibm'"),
        ({"axis": 2}, ValueError, "axis: expected axes of an array of 1 dimensions"),
    ],
)
def test_errors_of_the_clip(arguments, error, text):
    with pytest.raises(error, match=text):
        ab.sawb_clip(**{"x": ONE, **arguments})
