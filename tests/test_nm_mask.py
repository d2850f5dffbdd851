"""`nm_mask`: every element against a full sort, for all patterns, axes, dtypes and layouts."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
import oracle_nm as oracle
from nm_cases import FAMILIES, family
from test_float_environment import STATES, float_state

Array = np.ndarray[Any, Any]

FLOATS = [
    np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn,
]  # fmt: skip
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4]


def magnitudes(x: Array) -> Array:
    """Return |x| in a type that holds every one of them."""
    is_integer = x.dtype in [np.dtype(t) for t in INTEGERS]
    return np.abs(x.astype(np.int64 if is_integer else np.float64))


def sorted_mask(x: Array, n: int, m: int, axis: int = -1, nonzero_only: bool = False) -> Array:
    """Return the mask by a full stable sort of each group, the larger first."""
    blocks = oracle.blocks_of(magnitudes(x), m, axis)
    kept = np.zeros(blocks.shape, bool)
    np.put_along_axis(kept, np.argsort(-blocks, axis=-1, kind="stable")[..., :n], True, -1)
    if nonzero_only:
        kept &= blocks != 0
    return oracle.array_of(kept, x.shape, axis)


def same(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def check(x: Array, n: int, m: int, axis: int = -1, **options: Any) -> None:
    """Compare the three outputs with the sort."""
    for nonzero_only in (False, True):
        expected = sorted_mask(x, n, m, axis, nonzero_only)
        rule = {"nonzero_only": nonzero_only, **options}
        same(ab.nm_mask(x, n, m, axis, **rule), expected)
        values = np.where(expected, x, np.zeros_like(x))
        same(ab.nm_mask(x, n, m, axis, output="values", **rule), values)
    if x.shape[axis] % m in (0, *range(n, m)):
        kept = oracle.blocks_of(sorted_mask(x, n, m, axis), m, axis)
        indices = np.nonzero(kept)[-1].astype(np.uint8).reshape(*kept.shape[:-1], n)
        same(ab.nm_mask(x, n, m, axis, output="indices", **options), indices)


def mixed(shape: Any, seed: int = 0) -> Array:
    """Return float32 numbers with many zeros of both signs and many ties."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(shape) < 0.4, rng.integers(-2, 3, shape), rng.standard_normal(shape))
    x[rng.random(shape) < 0.1] = -0.0
    return x.astype(np.float32)


@pytest.mark.parametrize("m", [*range(1, 17), 24, 31, 32])
def test_every_pattern_against_the_sort_and_the_oracle(isa: str, m: int) -> None:
    for n in range(1, m + 1):
        for groups in (1, 3, 37):
            check(mixed((2, groups * m), n), n, m)
        x = mixed((2, 3 * m), n)
        same(ab.nm_mask(x, n, m), oracle.nm_mask(x, n, m))


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_blocks(isa: str, name: str) -> None:
    for n, m in ((1, 2), (2, 4), (3, 5), (4, 8), (8, 16), (16, 32)):
        x = family(name, 60, m)
        check(x, n, m)
        same(ab.nm_mask(x[:8], n, m), oracle.nm_mask(x[:8], n, m))


def test_known_masks(isa: str) -> None:
    x = np.array([3, -4, 0.5, 4, 1, -1, 1, 1, -0.0, 0, 5, 0], np.float32)
    assert ab.nm_mask(x, 2, 4).astype(int).tolist() == [0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 0]
    assert ab.nm_mask(x, 2, 4, output="indices").tolist() == [[1, 3], [0, 1], [0, 2]]
    assert ab.nm_mask(x, 2, 4, output="values").tolist() == [0, -4, 0, 4, 1, -1, 0, 0, 0, 0, 5, 0]
    nonzero = ab.nm_mask(x, 2, 4, nonzero_only=True)
    assert nonzero.astype(int).tolist() == [0, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (4, 8), (3, 7), (16, 32)])
def test_the_sign_and_the_scale_do_not_matter(isa: str, n: int, m: int) -> None:
    x = mixed((50, 4 * m))
    mask = ab.nm_mask(x, n, m)
    same(ab.nm_mask(-x, n, m), mask)
    same(ab.nm_mask(np.abs(x), n, m), mask)
    same(ab.nm_mask(x * np.float32(2.0**-100), n, m), mask)
    same(ab.nm_mask(x * np.float32(2.0**120), n, m), mask)
    multiples = np.random.default_rng(1).integers(-9, 10, x.shape)
    tiny = (multiples * 2.0**-149).astype(np.float32)
    same(ab.nm_mask(tiny, n, m), ab.nm_mask(multiples.astype(np.int8), n, m))
    same(ab.nm_mask(multiples * 2.0**-1074, n, m), ab.nm_mask(multiples.astype(np.float32), n, m))


def test_float64_is_not_rounded_first(isa: str) -> None:
    steps = np.random.default_rng(2).integers(0, 6, (40, 64))
    x = np.where(steps % 2 == 0, -1, 1) * (1 + steps * 2.0**-52)
    assert len(np.unique(np.abs(x).astype(np.float32))) == 1
    for n, m in ((1, 2), (2, 4), (4, 8), (5, 16), (16, 32)):
        check(x, n, m)
    huge = np.ldexp(x, np.random.default_rng(3).integers(-1074, 1023, x.shape))
    check(huge, 2, 4)
    check(huge, 16, 32)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=lambda t: np.dtype(t).name)
def test_dtypes(isa: str, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    low, high = (-8, 8) if dtype not in (np.uint8, np.uint16, ml_dtypes.uint4) else (0, 16)
    x = rng.integers(low, high, (6, 96)).astype(dtype)
    if dtype in FLOATS:
        x = (x.astype(np.float64) * rng.standard_normal(x.shape)).astype(dtype)
    else:
        wide = np.iinfo(dtype) if dtype in INTEGERS[:4] else ml_dtypes.iinfo(dtype)
        x[:, ::5], x[:, 1::7] = int(wide.min), int(wide.max)  # |min| does not fit the type
    for n, m in ((1, 2), (2, 4), (3, 6), (8, 16), (16, 32)):
        check(x, n, m)
        check(x, n, m if 6 % m == 0 else 2, axis=0, remainder="pad") if n < 3 else None


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((24,), 0), ((24, 5), 0), ((5, 24), 1), ((2, 24, 7), 1), ((24, 3, 4), 0), ((3, 24, 33), -2),
        ((6, 24, 3, 3), 1), ((24, 6, 1, 1), 0), ((2, 3, 4, 24), 3), ((24, 130), 0), ((1, 24, 1), 1),
    ],
)  # fmt: skip
def test_axes(isa: str, shape: tuple[int, ...], axis: int) -> None:
    # Among them weights of a convolution, (O, I, kH, kW), with groups over I.
    x = mixed(shape)
    for n, m in ((1, 2), (2, 4), (4, 8), (2, 3), (7, 12), (12, 24)):
        check(x, n, m, axis)
        innermost = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        moved = np.moveaxis(ab.nm_mask(innermost, n, m), -1, axis)
        same(ab.nm_mask(x, n, m, axis), np.ascontiguousarray(moved))
        same(ab.nm_mask(x, n, m, axis % x.ndim), ab.nm_mask(x, n, m, axis % x.ndim - x.ndim))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 9, 31, 33, 37])
def test_padding(isa: str, length: int) -> None:
    for n, m in ((1, 1), (1, 2), (2, 4), (4, 4), (3, 5), (4, 8), (16, 32), (32, 32)):
        check(mixed((5, length)), n, m, remainder="pad")
        check(mixed((length, 5)), n, m, axis=0, remainder="pad")
        check(mixed((2, length, 3)).astype(np.float64), n, m, axis=1, remainder="pad")


def test_a_short_last_group_has_no_indices_to_fill(isa: str) -> None:
    x = np.arange(1, 11, dtype=np.float32)
    assert ab.nm_mask(x, 2, 4, remainder="pad", output="indices").tolist()[-1] == [0, 1]
    with pytest.raises(ValueError, match=r"(?s)indices.*3|3.*indices"):
        ab.nm_mask(x, 3, 4, remainder="pad", output="indices")
    assert ab.nm_mask(x, 3, 4, remainder="pad")[8:].all()


def test_layouts(isa: str) -> None:
    x = mixed((48, 40))
    for axis in (0, 1):
        mask = ab.nm_mask(x, 2, 4, axis)
        same(ab.nm_mask(np.asfortranarray(x), 2, 4, axis), mask)
        spread = np.full((96, 120), np.nan, np.float32)
        spread[1::2, 2::3] = x
        same(ab.nm_mask(spread[1::2, 2::3], 2, 4, axis), mask)
        backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
        same(ab.nm_mask(backwards, 2, 4, axis), mask)
        same(ab.nm_mask(backwards, 2, 4, axis, output="values"), np.where(mask, x, np.float32(0)))
        same(ab.nm_mask(x.T, 2, 4, 1 - axis), np.ascontiguousarray(mask.T))
    row = x[:1]
    repeated = np.broadcast_to(row, (7, 40))
    same(ab.nm_mask(repeated, 2, 4), np.repeat(ab.nm_mask(row, 2, 4), 7, axis=0))
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    same(ab.nm_mask(unaligned, 2, 4), ab.nm_mask(x, 2, 4))
    assert ab.nm_mask([[1, 2.5, -3, 0]], 2, 4).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("shape", [(0,), (0, 8), (4, 0), (0, 0), (4, 0, 8), (4, 8, 0)])
def test_nothing(isa: str, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    for axis in range(len(shape)):
        for remainder in ("error", "pad"):
            mask = ab.nm_mask(x, 2, 4, axis, remainder=remainder)
            same(mask, np.zeros(shape, bool))
            same(ab.nm_mask(x, 2, 4, axis, remainder=remainder, output="values"), x)
            indices = ab.nm_mask(x, 2, 4, axis, remainder=remainder, output="indices")
            others = tuple(size for i, size in enumerate(shape) if i != axis)
            same(indices, np.zeros((*others, -(-shape[axis] // 4), 2), np.uint8))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (3, 5), (16, 32)])
def test_threads_and_large_arrays(isa: str, n: int, m: int) -> None:
    for shape, axis in (((1031, 1000 // m * m), 1), ((1000 // m * m, 1031), 0)):
        x = mixed(shape)
        expected = sorted_mask(x, n, m, axis)
        for threads in (1, 2, 7):
            same(ab.nm_mask(x, n, m, axis, threads=threads), expected)
            values = ab.nm_mask(x, n, m, axis, threads=threads, output="values")
            same(values, np.where(expected, x, np.float32(0)))
        kept = oracle.blocks_of(expected, m, axis)
        indices = np.nonzero(kept)[-1].astype(np.uint8).reshape(*kept.shape[:-1], n)
        for threads in (1, 2, 7):
            same(ab.nm_mask(x, n, m, axis, threads=threads, output="indices"), indices)


def test_out(isa: str) -> None:
    x = mixed((12, 16))
    for axis in (0, 1):
        for output in ("mask", "values", "indices"):
            expected = ab.nm_mask(x, 2, 4, axis, output=output)
            out = np.ones_like(expected)
            assert ab.nm_mask(x, 2, 4, axis, output=output, out=out) is out
            same(out, expected)
            fortran = np.asfortranarray(np.ones_like(expected))
            assert ab.nm_mask(x, 2, 4, axis, output=output, out=fortran) is fortran
            assert np.array_equal(fortran, expected)
        in_place = x.copy()
        ab.nm_mask(in_place, 2, 4, axis, output="values", out=in_place)
        same(in_place, ab.nm_mask(x, 2, 4, axis, output="values"))
    buffer = mixed(50)
    expected = ab.nm_mask(buffer[:48], 2, 4, output="values")
    ab.nm_mask(buffer[:48], 2, 4, output="values", out=buffer[2:])
    same(buffer[2:], expected)


def test_the_callers_float_state_does_not_matter(isa: str) -> None:
    tiny = (np.random.default_rng(5).integers(-9, 10, (20, 64)) * 2.0**-149).astype(np.float32)
    expected = sorted_mask(tiny, 3, 8), sorted_mask(tiny, 4, 8, nonzero_only=True)
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            got = ab.nm_mask(tiny, 3, 8), ab.nm_mask(tiny, 4, 8, nonzero_only=True)
            wide = ab.nm_mask(tiny.astype(np.float64), 3, 8)
        same(got[0], expected[0])
        same(got[1], expected[1])
        if not flush:  # widening is NumPy's, in the caller's state
            same(wide, expected[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_nonfinite_input_names_the_first_index(isa: str, dtype: Any, bad: float) -> None:
    for axis in (0, 1):
        x = mixed((8, 36)).astype(dtype)
        x[2, 33] = x[3, 1] = x[7, 35] = bad
        for remainder in ("error", "pad"):
            with pytest.raises(ValueError, match=re.escape("[2, 33]")):
                ab.nm_mask(x, 2, 4, axis, remainder=remainder)
    x = mixed(1 << 20).astype(dtype)
    x[700_001] = x[900_000] = bad
    for threads in (1, 7):
        with pytest.raises(ValueError, match=re.escape("[700001]")):
            ab.nm_mask(x, 2, 4, threads=threads)


def test_random_bit_patterns_of_half_precision(isa: str) -> None:
    # All 63,488 finite numbers of float16, in an order that mixes the binades.
    every = np.random.default_rng(6).permutation(np.arange(1 << 16, dtype=np.uint16))
    x = every.view(np.float16)
    x = x[np.isfinite(x)]
    for n, m in ((1, 2), (2, 4), (8, 16), (16, 32)):
        check(x, n, m)


X = mixed((4, 8))
ERRORS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "x", {"x": X.astype(np.int32)}),
    (TypeError, "x", {"x": X.astype(np.int64)}),
    (TypeError, "x", {"x": X.astype(np.complex64)}),
    (TypeError, "x", {"x": X > 0}),
    (TypeError, "x", {"x": X.astype(object)}),
    (TypeError, "x", {"x": "text"}),
    (TypeError, "n", {"n": 2.0}),
    (TypeError, "n", {"n": True}),
    (TypeError, "m", {"m": "4"}),
    (TypeError, "axis", {"axis": 1.0}),
    (TypeError, "nonzero_only", {"nonzero_only": 1}),
    (TypeError, "threads", {"threads": 1.5}),
    (TypeError, "out", {"out": np.zeros((4, 8), np.float32)}),
    (TypeError, "out", {"out": [0]}),
    (TypeError, "out", {"output": "values", "out": np.zeros((4, 8), bool)}),
    (TypeError, "out", {"output": "indices", "out": np.zeros((4, 2, 2), np.int64)}),
    (ValueError, "n", {"n": 0}),
    (ValueError, "n", {"n": -1}),
    (ValueError, "n", {"n": 5}),
    (ValueError, "m", {"m": 0}),
    (ValueError, "m", {"m": 33}),
    (ValueError, "axis", {"axis": 2}),
    (ValueError, "axis", {"axis": -3}),
    (ValueError, "axis", {"x": np.float32(1)}),
    (ValueError, "m=3", {"m": 3}),
    (ValueError, "m=8", {"m": 8, "axis": 0}),
    (ValueError, "remainder", {"remainder": "drop"}),
    (ValueError, "output", {"output": "packed"}),
    (ValueError, "nonzero_only", {"output": "indices", "nonzero_only": True}),
    (ValueError, "threads", {"threads": 0}),
    (ValueError, "out", {"out": np.zeros((8, 4), bool)}),
    (ValueError, "out", {"output": "indices", "out": np.zeros((4, 8), np.uint8)}),
    (ValueError, "out", {"out": np.broadcast_to(np.zeros(8, bool), (4, 8))}),
]


@pytest.mark.parametrize(("error", "argument", "change"), ERRORS, ids=str)
def test_errors(error: type[Exception], argument: str, change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"x": X, "n": 2, "m": 4, **change}
    with pytest.raises(error, match=rf"\b{re.escape(argument)}\b") as caught:
        ab.nm_mask(arguments.pop("x"), arguments.pop("n"), arguments.pop("m"), **arguments)
    if "nonzero_only" not in change or error is TypeError:
        assert re.search(r"\b(got|unknown)\b", str(caught.value))


def test_values_need_a_zero() -> None:
    x = np.array([1, 2, 4, 8]).astype(ml_dtypes.float8_e8m0fnu)
    assert ab.nm_mask(x, 2, 4).tolist() == [False, False, True, True]
    with pytest.raises(TypeError, match="a dtype that has a zero"):
        ab.nm_mask(x, 2, 4, output="values")
