"""NVFP4 and its variants: the order of float32 operations bit for bit, and the published bias."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_blocks
from quantize_cases import HUGE, TINY
from test_blocks import DETERMINISTIC, SEED, assert_equal, check, wide

NVFP4 = ab.get_block_format("nvfp4")
VARIANTS = {
    "plain": NVFP4,
    "2d": NVFP4.replace(block=(4, 16)),
    "2d_4over6": NVFP4.replace(block=(4, 16), four_over_six="mse", maximum=256),
    "row": NVFP4.replace(tensor_scale="row"),
    "pow2": ab.get_block_format("nvfp4_pow2"),
    "down": NVFP4.replace(scale_rounding="toward_zero"),
    "up": NVFP4.replace(scale_rounding="away_from_zero"),
    "headroom": NVFP4.replace(headroom=17 / 16),
    "other_headroom": NVFP4.replace(headroom=17 / 16 * 0.93),
    "maximum_256": NVFP4.replace(maximum=256),
    "maximum_255.99": NVFP4.replace(maximum=255.99),
    "4over6_mse": NVFP4.replace(four_over_six="mse", maximum=256),
    "4over6_mae": NVFP4.replace(four_over_six="mae"),
    "no_tensor_scale": NVFP4.replace(tensor_scale=None),
    "float32_scales": NVFP4.replace(tensor_scale=None, scale="binary32"),
    "e3m4_scales": NVFP4.replace(scale="e3m4"),
    "uniform4": NVFP4.replace(element="uniform4"),
}
GOLDEN = np.float32(
    [-4.875, .375, 4.875, 3.5, -5.125, 7.875, 3.125, 5.75, -2.75, .5, 7.875, -8, 1.375, -1.125,
     -7.25, -5.625]
)  # fmt: skip


def steps_1_to_8(x, amax):
    """Transcribe the eight steps for rows of 16, with thresholds instead of a rounding function."""
    f = np.float32
    most = np.finfo(f).max
    g_enc = min(f(2688) / f(amax), most)
    g_dec = f(1) / g_enc
    mult = f(g_enc * (f(1) / f(6)))
    scales, codes = [], []
    e4m3 = ab.get_format("e4m3fn").code_values()[:127]
    for row in x:
        s = min(f(np.abs(row).max() * mult), f(448))
        below = int(np.searchsorted(e4m3, s, side="right")) - 1
        above = min(below + 1, 126)
        low, high = s - e4m3[below], e4m3[above] - s
        s_code = above if high < low or (high == low and above % 2 == 0) else below
        with np.errstate(divide="ignore"):
            enc = min(f(1) / f(e4m3[s_code] * g_dec), most)
        with np.errstate(over="ignore"):
            y = np.clip((row * enc).astype(f), f(-6), f(6))
        thresholds = f([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5])
        magnitude = np.abs(y)
        code = (magnitude[:, None] > thresholds).sum(axis=1)
        for even, tie in ((2, 0.75), (4, 1.75), (6, 3.5)):
            code[magnitude == f(tie)] = even
        codes.append(code + 8 * (y < 0))
        scales.append(s_code)
    return np.uint8(codes), np.uint8(scales), g_enc, g_dec, enc


def hexadecimal(x):
    return f"{int(np.float32(x).view(np.uint32)):08x}"


def test_golden_block(isa):
    q = ab.quantize_blocks(GOLDEN, "nvfp4", max_abs=20)
    assert "".join(f"{code:x}" for code in q.codes) == "e165e746c17f2afe"
    assert q.scales.tolist() == [0x73]
    assert hexadecimal(q.tensor_scale) == "3bf3cf3e"
    assert np.float32(7.857) == pytest.approx(-q.dequantize()[11], abs=1e-3)
    assert q.clipped == 3
    codes, scales, g_enc, g_dec, enc = steps_1_to_8(GOLDEN[None], 20)
    assert hexadecimal(g_enc) == "43066666"
    assert hexadecimal(g_dec) == "3bf3cf3e"
    assert hexadecimal(np.float32(g_enc * np.float32(1 / 6))) == "41b33333"
    assert hexadecimal(enc) == "3f437dab"
    assert np.array_equal(codes[0], q.codes)
    assert np.array_equal(scales, q.scales)
    packed, _, _ = ab.encode_blocks(GOLDEN, "nvfp4", max_abs=20)
    assert packed[:2].tolist() == [0x1E, 0x56]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 3e4, 1e30])
def test_eight_steps_on_many_blocks(scale, isa):
    rng = np.random.default_rng(1)
    x = (wide(rng, (500, 16), -3, 3) * np.float32(scale)).astype(np.float32)
    x[:8] *= np.float32(2) ** -(np.arange(1, 9, dtype=np.float32)[:, None] ** 2)
    codes, scales, _, g_dec, _ = steps_1_to_8(x, np.abs(x).max())
    q = ab.quantize_blocks(x, "nvfp4")
    assert np.array_equal(q.scales[:, 0], scales)
    assert np.array_equal(q.codes, codes)
    assert np.float32(q.tensor_scale) == g_dec


def adversarial(fmt, rng):
    """Return blocks whose scales and elements lie at and around halfway points, in float32."""
    grid = fmt.scale.values() if fmt.scale.bits <= 8 else np.exp2(np.arange(-9, 9))
    grid = np.float32(grid[grid > 0])
    halfway = (grid[1:] + grid[:-1]) / 2
    tops = np.concatenate([grid, halfway])
    tops = rng.choice(np.concatenate([tops, np.nextafter(tops, np.float32(np.inf))]), 24)
    elements = np.abs(np.float32(fmt.element.values()))
    points = np.concatenate([elements, (elements[1:] + elements[:-1]) / 2, [0.0, 0.01]])
    x = rng.choice(points, (24, 32)).astype(np.float32) * rng.choice([-1, 1], (24, 32))
    x[:, 0] = fmt.element_max
    x = (x * tops[:, None]).astype(np.float32)
    return np.concatenate([x, np.nextafter(x, np.float32(0))])


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_bit_for_bit(name):
    rng = np.random.default_rng(2)
    fmt = VARIANTS[name]
    for x in (wide(rng, (12, 37), -3, 3), adversarial(fmt, rng)):
        check(x, fmt)
        check(x.T[:16].copy(), fmt, axis=-1)
    if fmt.tensor_scale is not None:
        check(adversarial(fmt, rng), fmt, max_abs=448.0 * 6)
        check(wide(rng, (12, 32), -3, 3), fmt, max_abs=2.0)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_with_stochastic_elements(name):
    rng = np.random.default_rng(3)
    x = wide(rng, (8, 37), -3, 3)
    words = rng.integers(0, 2**32, x.shape, dtype=np.uint32)
    for bits in (None, 4, 8):
        check(x, VARIANTS[name], "stochastic", bits=bits, rule="a", words=words)


@pytest.mark.parametrize("scale", ["e4m3fn", "ue4m3", "e3m4"])
@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic"])
def test_scale_roundings(rounding, scale):
    rng = np.random.default_rng(4)
    fmt = NVFP4.replace(scale=scale, scale_rounding=rounding)
    x = np.concatenate([wide(rng, (24, 32), -8, 3), adversarial(fmt, rng)])
    words = rng.integers(0, 2**32, (72, 2), dtype=np.uint32)
    words[0], words[1] = 0, 0xFFFFFFFF
    check(x, fmt, scale_words=words if rounding == "stochastic" else None)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_element_roundings(rounding):
    check(adversarial(NVFP4, np.random.default_rng(5)), "nvfp4", rounding)


@pytest.mark.parametrize("name", VARIANTS)
def test_zeros_and_extreme_magnitudes(name):
    fmt = VARIANTS[name]
    zero = np.zeros((4, 32), np.float32)
    zero[1] = -0.0
    check(zero, fmt)
    assert not ab.quantize_blocks(zero, fmt).dequantize().any()
    x = np.random.default_rng(6).standard_normal((8, 32)).astype(np.float32)
    x[0] = 0  # a block of zeros in a tensor that is not
    x[1] *= np.float32(2.0**-30)  # so small that s = 0
    x[2, :16] *= np.float32(1e-40)
    check(x, fmt)
    for magnitude in (TINY, 2.0**-127, 1e-38, 1e-35, 1e34, HUGE):
        y = np.zeros((4, 32), np.float32)
        y[0, 3], y[0, 4], y[1, 20], y[2, 0] = magnitude, -TINY, -magnitude / 3, magnitude / 1000
        check(y, fmt)


def test_a_scale_of_zero_makes_elements_zero_or_the_largest(isa):
    x = np.zeros((2, 16), np.float32)
    x[0, 0], x[1, :2] = 1.0, [1e-9, -0.0]
    q = ab.quantize_blocks(x, "nvfp4")
    assert q.scales[1, 0] == 0
    assert q.codes[1, :2].tolist() == [7, 0]  # y = 1e-9 * FLT_MAX, cut to 6; -0 is 0
    assert not q.dequantize()[1].any()


@pytest.mark.parametrize("name", [n for n, fmt in VARIANTS.items() if fmt.scale_rule == "max"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_raise(name, bad, isa):
    x = np.ones((4, 40), np.float32)
    x[2, 33] = bad
    with pytest.raises(ValueError, match=r"x must be finite .* got Inf or NaN at \[2, 33\]"):
        ab.quantize_blocks(x, VARIANTS[name])
    if VARIANTS[name].tensor_scale is not None:
        with pytest.raises(ValueError, match=r"\[33, 2\]"):
            ab.quantize_blocks(x.T, VARIANTS[name].replace(block=16), axis=0, max_abs=1.0)


def test_max_abs():
    x = wide(np.random.default_rng(7), (3, 32), -1, 1)
    rows = NVFP4.replace(tensor_scale="row")
    given = np.float32([[1], [2], [3]])
    check(x, rows, max_abs=given)
    assert_equal(
        ab.quantize_blocks(x, "nvfp4", max_abs=float(np.abs(x).max())),
        oracle_blocks.quantize(x, NVFP4),
    )
    for bad, error in ((-1.0, ValueError), (np.inf, ValueError), ("1", TypeError), (1j, TypeError)):
        with pytest.raises(error, match="max_abs"):
            ab.quantize_blocks(x, "nvfp4", max_abs=bad)
    with pytest.raises(ValueError, match="one number a line"):
        ab.quantize_blocks(x, rows, max_abs=given.ravel()[:2])
    with pytest.raises(ValueError, match="one number a line"):
        ab.quantize_blocks(x, NVFP4, max_abs=given)


def test_scale_words_begin_at_2_to_the_63(isa):
    x = wide(np.random.default_rng(8), (5, 64), -2, 2)
    fmt = NVFP4.replace(scale_rounding="stochastic")
    seeded = ab.quantize_blocks(x, fmt, seed=SEED, stream=5, call=6)
    words = ab.random_bits((5, 4), seed=SEED, stream=5, call=6, start=2**63)
    explicit = ab.quantize_blocks(x, fmt, scale_random_bits=words)
    assert np.array_equal(seeded.scales, explicit.scales)
    assert np.array_equal(seeded.codes, explicit.codes)
    assert len(set(ab.quantize_blocks(x, fmt, seed=1).scales.ravel().tolist())) > 3
    assert not np.array_equal(seeded.scales, ab.quantize_blocks(x, NVFP4).scales)
