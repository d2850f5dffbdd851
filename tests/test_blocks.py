"""quantize_blocks under e8m0 scales: the MX rules, layouts, words, packing, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_blocks
from oracle import ROUNDINGS
from quantize_cases import HUGE, TINY, each_isa

DETERMINISTIC = tuple(name for name in ROUNDINGS if name != "stochastic")
MX = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8")
POWERS = (*MX, "mxfp4_ceil", "mxfp4_headroom", "nvfp4_pow2")
SEED = 0x0123456789ABCDEF


def assert_equal(got, expected, *context):
    for field in ("codes", "scales"):
        a, b = getattr(got, field), getattr(expected, field)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if not np.array_equal(a, b):
            at = tuple(np.argwhere(a != b)[0])
            raise AssertionError(f"{field}{at}: got {a[at]}, expected {b[at]}; {context}")
    assert np.array_equal(
        np.float32(got.tensor_scale).view(np.uint32), expected.tensor_scale.view(np.uint32)
    ), context
    assert got.clipped == expected.clipped, context


def check(x, fmt, *args, **kwargs):
    """Compare with the oracle on every instruction set; oracle-only arguments are words."""
    form = ab.get_block_format(fmt)
    expected = oracle_blocks.quantize(x, form, *args, **kwargs)
    given = dict(kwargs)
    words, scale_words = given.pop("words", None), given.pop("scale_words", None)
    for isa in each_isa():
        got = ab.quantize_blocks(
            x, fmt, *args, random_bits=words, scale_random_bits=scale_words, **given
        )
        assert_equal(got, expected, fmt, args, given, isa)
    return got


def wide(rng, shape, low=-12, high=12):
    """Return numbers with exponents from `low` to `high`, a few zeros of both signs among them."""
    x = rng.standard_normal(shape) * np.exp2(rng.uniform(low, high, shape))
    x[rng.random(shape) < 0.05] = 0.0
    x[rng.random(shape) < 0.05] = -0.0
    return x.astype(np.float32)


def around(a):
    a = np.float32(a)
    with np.errstate(over="ignore"):
        return [np.nextafter(a, np.float32(0)), a, np.nextafter(a, np.float32(np.inf))]


@pytest.mark.parametrize("name", POWERS)
def test_scale_rules_at_powers_of_two_and_multiples_of_the_largest_element(name):
    fmt = ab.get_block_format(name).replace(block=4)
    largest = []
    significand = np.frexp(fmt.element_max)[0] * 2
    for power in (-149, -140, -127, -126, -125, -110, -1, 0, 1, 63, 118, 119, 120, 126, 127):
        for factor in (1.0, significand):
            a = np.float32(np.ldexp(factor, power))
            if a > 0:
                largest += around(a)
    largest += [0.0, TINY, HUGE, np.nextafter(np.float32(HUGE), np.float32(0))]
    a = np.unique(np.float32([v for v in largest if np.isfinite(v)]))
    x = np.stack([a, -a / 3, a * np.float32(0.01), np.zeros_like(a)], axis=1)
    check(x, fmt)
    check(-x[:, ::-1], fmt)


@pytest.mark.parametrize("name", POWERS)
def test_a_block_with_nan_or_infinity_is_nan_as_a_whole(name, isa):
    fmt = ab.get_block_format(name).replace(block=4)
    x = np.ones((4, 8), np.float32)
    x[0, 1], x[1, 5], x[2, 7], x[3, 0] = np.nan, np.inf, -np.inf, -np.nan
    q = ab.quantize_blocks(x, fmt)
    bad = np.isin(np.arange(8).reshape(4, 2), [0, 3, 5, 6])
    assert np.array_equal(q.scales == 0xFF, bad)
    assert np.array_equal(np.isnan(q.dequantize()), np.repeat(bad, 4, axis=1))
    assert np.array_equal(q.codes[np.repeat(bad, 4, axis=1)], np.zeros(16))
    assert q.clipped == 0
    assert_equal(q, oracle_blocks.quantize(x, fmt))


def test_a_scale_above_the_range_makes_its_block_nan(isa):
    x = np.float32([[HUGE, 1], [2.0**127, 1]])
    fmt = ab.get_block_format("mxint8").replace(block=2, scale_rule="ceil")
    q = ab.quantize_blocks(x, fmt)
    assert q.scales.ravel().tolist() == [0xFF, 254]
    assert_equal(q, oracle_blocks.quantize(x, fmt))


@pytest.mark.parametrize("name", POWERS)
def test_every_deterministic_rounding(name):
    rng = np.random.default_rng(1)
    fmt = ab.get_block_format(name).replace(block=8)
    x = wide(rng, (24, 8), -4, 3)
    x[-1] = [1e38, 1e-45, -1e-45, 1e-38, -1e-38, 0.0, -0.0, 1]  # far below: directed modes see it
    for rounding in DETERMINISTIC:
        check(x, fmt, rounding)


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "mxfp8_e5m2"])
@pytest.mark.parametrize("block", [1, 3, 16, 32, 33])
def test_block_sizes_and_short_last_blocks(name, block):
    rng = np.random.default_rng(block)
    fmt = ab.get_block_format(name).replace(block=block)
    for length in (1, 31, 64, 70):
        check(wide(rng, (3, length)), fmt)


@pytest.mark.parametrize("block", [(2, 3), (16, 16), (4, 1)])
def test_blocks_of_several_rows(block):
    rng = np.random.default_rng(2)
    fmt = ab.get_block_format("mxfp4").replace(block=block)
    for shape in ((16, 16), (17, 33), (2, 5, 18)):
        check(wide(rng, shape), fmt)


def test_long_rows_are_cut_into_runs_of_blocks():
    rng = np.random.default_rng(3)
    x = wide(rng, (3, 5000))
    for fmt in (ab.get_block_format("mxfp4"), ab.get_block_format("mxfp4").replace(block=4096)):
        q = check(x, fmt, "toward_zero")
        for threads in (1, 3):
            assert_equal(
                ab.quantize_blocks(x, fmt, "toward_zero", threads=threads),
                oracle_blocks.Quantized(q.codes, q.scales, np.asarray(q.tensor_scale), q.clipped),
            )


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("bits", [None, 1, 3, 8, 13, 16, 20])
def test_stochastic_rounding_of_elements(name, bits):
    rng = np.random.default_rng(6)
    fmt = ab.get_block_format(name).replace(block=16)
    x = wide(rng, (6, 16), -3, 3)
    words = rng.integers(0, 2**32, x.shape, dtype=np.uint32)
    words[0], words[1] = 0, 0xFFFFFFFF
    for rule in ("a", "b", "c", "odd") if bits else ("c",):
        check(x, fmt, "stochastic", bits=bits, rule=rule, words=words)


@pytest.mark.parametrize("name", ["mxfp4", "mxfp6_e2m3", "nvfp4"])
@pytest.mark.parametrize("bits", [2, 8])
def test_all_random_words_give_exact_counts(name, bits, isa):
    # The whole block scales by powers of two, so that the fractions are known exactly.
    nu = np.float32([0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8])
    fmt = ab.get_block_format(name).replace(block=16)
    top, unit = np.float32(fmt.element_max), fmt.element.smallest_subnormal
    x = np.concatenate([1 + nu * fmt.element.eps, nu * unit]).astype(np.float32)
    x[-1] = top
    r = np.arange(2**bits, dtype=np.uint32)
    words = np.broadcast_to((r << np.uint32(32 - bits))[:, None], (r.size, 16))
    q = ab.quantize_blocks(
        np.broadcast_to(x, words.shape),
        fmt,
        "stochastic",
        bits=bits,
        rule="a",
        random_bits=words,
        max_abs=None if name != "nvfp4" else 2688.0,
    )
    assert len(set(q.scales.ravel().tolist())) == 1
    values = q.dequantize()
    low = np.where(x >= 1, 1, 0)
    away = (values > low).sum(axis=0)
    step = np.where(x >= 1, fmt.element.eps, unit)
    fraction = (x - low) / step
    expected = np.floor(fraction * 2**bits).astype(int)
    assert np.array_equal(away[:-1], expected[:-1])
    assert np.array_equal(values[:, -1], np.full(r.size, top))


@pytest.mark.parametrize("name", ab.block_formats())
def test_fast_and_general_rounding_agree(name, isa):
    from abcdeep_core import _blocks, _core

    rng = np.random.default_rng(7)
    x = wide(rng, (8, 512), -6, 4)
    run = _core.quantize_blocks
    for rounding, bits in (("nearest_even", None), ("stochastic", None), ("stochastic", 8)):
        for rule in "abc":
            results = []
            for general in (False, True):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(
                        _blocks._core,
                        "quantize_blocks",
                        lambda *args, general=general: run(*args, general=general),
                    )
                    results.append(
                        ab.quantize_blocks(x, name, rounding, bits=bits, rule=rule, seed=SEED)
                    )
            fast, general_result = results
            assert np.array_equal(fast.codes, general_result.codes)
            assert np.array_equal(fast.scales, general_result.scales)
            if bits is None:
                break


def test_gfloat_gives_the_same_blocks():
    gfloat = pytest.importorskip("gfloat")
    formats = pytest.importorskip("gfloat.formats")
    from gfloat.block import compute_scale_amax, decode_block, encode_block

    rng = np.random.default_rng(8)
    infos = {
        "mxfp8_e4m3": formats.format_info_mxfp8_e4m3,
        "mxfp8_e5m2": formats.format_info_mxfp8_e5m2,
        "mxfp6_e3m2": formats.format_info_mxfp6_e3m2,
        "mxfp6_e2m3": formats.format_info_mxfp6_e2m3,
        "mxfp4": formats.format_info_mxfp4_e2m1,
    }
    x = (rng.standard_normal((20, 32)) * np.exp2(rng.uniform(-30, 30, (20, 1)))).astype(np.float32)
    for name, info in infos.items():
        q = ab.quantize_blocks(x, name)
        for i, row in enumerate(x):
            scale = compute_scale_amax(info.etype.emax, row.astype(np.float64))
            block = list(encode_block(info, scale, row / scale, gfloat.RoundMode.TiesToEven))
            assert block[0] == q.scales[i, 0]
            assert np.array_equal(np.array(block[1:]), q.codes[i])
            values = np.fromiter(decode_block(info, block), np.float64)
            assert np.array_equal(values, q.dequantize()[i])


def test_narrow_floats_are_widened_and_lists_are_taken(isa):
    import ml_dtypes

    x = np.float32([1, 2, -3, 0.5])
    expected = ab.quantize_blocks(x, "mxfp4")
    for given in (x.astype(np.float16), x.astype(ml_dtypes.bfloat16)):
        assert np.array_equal(ab.quantize_blocks(given, "mxfp4").codes, expected.codes)


def test_words_of_every_preset_and_scale_decode(isa):
    for name, fmt in ab.block_formats().items():
        bits = fmt.element.bits
        words = np.arange(1 << bits, dtype=np.uint8)
        codes = words if not isinstance(fmt.element, ab.FixedFormat) else words.view(np.int8)
        element = ab.decode(codes, fmt.element)
        for scale_code in (0, 1, 127, 254 if fmt.scale_by_power else 126):
            shape = (16, -(-codes.size // fmt.block[1])) if fmt.block[0] > 1 else None
            q = ab.BlockArray(
                codes=np.tile(codes, (16, 1)) if shape else codes,
                element=fmt.element,
                scales=np.full(
                    (1, shape[1]) if shape else -(-codes.size // fmt.block[1]), scale_code, np.uint8
                ),
                scale_format=fmt.scale,
                block=fmt.block,
                axis=-1,
            )
            scale = ab.decode(np.uint8([scale_code]), fmt.scale)
            with np.errstate(over="ignore"):
                expected = element * scale
            values = q.values()[0] if shape else q.values()
            assert np.array_equal(values, expected, equal_nan=True), (name, scale_code)


def test_elements_and_scales_of_any_format():
    # Every allowed combination of narrow elements and scales agrees with the oracle.
    rng = np.random.default_rng(10)
    x = wide(rng, (4, 12), -2, 2)
    elements = ("e2m1", "uniform4", "e3m0", "e4m3fn", "e5m2", "binary8p4se", "e4m3fnuz", "e3m4")
    scales = ("e8m0", "e4m3fn", "ue4m3", "e3m4", "binary32")
    for element, scale in itertools.product(elements, scales):
        fmt = ab.BlockFormat(
            element=ab.get_format(element), scale=ab.get_format(scale), block=(1, 6)
        )
        check(x, fmt)
        check(x, fmt, "away_from_zero")
