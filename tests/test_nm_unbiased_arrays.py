"""`nm_unbiased` on arrays: axes, layouts, padding, threads, `out=`, dtypes, ranges, errors."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
import oracle_nm as oracle
from nm_cases import of_every_family
from test_float_environment import STATES, float_state

Array = np.ndarray[Any, Any]

# Keyword arguments of every path, with the input dtypes it takes.
PATHS: dict[str, tuple[dict[str, Any], Any]] = {
    "16": ({}, np.float32),
    "30": ({"probability_bits": 30}, np.float32),
    "wide": ({}, np.float64),
    "approx": ({"method": "approx"}, np.float32),
    "approx_wide": ({"method": "approx"}, np.float64),
}
EVERY = {"return_mask": True, "return_probabilities": True}


def numbers(shape: Any, dtype: Any = np.float32, seed: int = 0) -> Array:
    """Return numbers of both signs over some binades, zeros of both signs among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 7, shape))
    x[rng.random(shape) < 0.2] *= 0.0
    return x.astype(dtype)


def identical(got: Any, expected: Any) -> None:
    """Compare two arrays, or two tuples of them, by bits."""
    if isinstance(expected, tuple):
        assert isinstance(got, tuple)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            identical(one, other)
        return
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(expected).tobytes()


def move(parts: tuple[Array, ...], source: int, target: int) -> tuple[Array, ...]:
    return tuple(np.moveaxis(part, source, target) for part in parts)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((24,), 0), ((24, 5), 0), ((5, 24), 1), ((2, 24, 7), 1), ((24, 3, 4), 0), ((3, 24, 33), -2),
        ((6, 24, 3, 3), 1), ((24, 6, 1, 1), 0), ((2, 3, 4, 24), 3), ((24, 130), 0), ((1, 24, 1), 1),
    ],
)  # fmt: skip
def test_axes(isa: str, path: str, shape: tuple[int, ...], axis: int) -> None:
    options, dtype = PATHS[path]
    x = numbers(shape, dtype)
    innermost = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    rng = np.random.default_rng(1)
    for n, m in ((2, 4),) if "approx" in path else ((2, 4), (1, 2), (2, 3), (4, 8), (12, 24)):
        draws = (*innermost.shape[:-1], 24 // m, *((2,) if "approx" in path else ()))
        words = rng.integers(0, 2**32, draws, dtype=np.uint32)
        for address in ({"seed": 2, "stream": 1, "call": 5}, {"random_bits": words}):
            given: dict[str, Any] = {**options, **address, **EVERY}
            expected = move(ab.nm_unbiased(innermost, n, m, **given), -1, axis)
            identical(ab.nm_unbiased(x, n, m, axis, **given), expected)
            identical(ab.nm_unbiased(x, n, m, axis % x.ndim, **given), expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 9, 31, 33])
def test_padding(isa: str, path: str, length: int) -> None:
    options, dtype = PATHS[path]
    patterns = ((2, 4),) if "approx" in path else ((2, 4), (1, 2), (3, 5), (4, 8), (16, 32))
    for n, m in patterns:
        for shape, axis in (((6, length), 1), ((length, 6), 0), ((2, length, 3), 1)):
            x = numbers(shape, dtype)
            widths = [(0, -length % m if i == axis else 0) for i in range(x.ndim)]
            given: dict[str, Any] = {**options, **EVERY, "seed": 4, "axis": axis}
            full = ab.nm_unbiased(np.pad(x, widths), n, m, **given)
            expected = tuple(part.take(range(length), axis) for part in full)
            identical(ab.nm_unbiased(x, n, m, remainder="pad", **given), expected)


def test_padding_against_the_oracle(isa: str) -> None:
    x = numbers((3, 11))
    expected = oracle.nm_unbiased(
        x, 4, -1,
        lambda index: oracle.offset(index, 16, 8),
        lambda block, u: oracle.unbiased(block, 2, u),
    )  # fmt: skip
    got = ab.nm_unbiased(x, 2, 4, seed=8, remainder="pad", **EVERY)
    identical(got, tuple(e.astype(g.dtype) for e, g in zip(expected, got, strict=True)))


@pytest.mark.parametrize("path", PATHS)
def test_layouts(isa: str, path: str) -> None:
    options, dtype = PATHS[path]
    x = numbers((48, 40), dtype)
    for axis in (0, 1):
        given: dict[str, Any] = {**options, **EVERY, "seed": 6}
        expected = ab.nm_unbiased(x, 2, 4, axis, **given)
        spread = np.full((96, 120), np.nan, dtype)
        spread[1::2, 2::3] = x
        backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
        for view in (np.asfortranarray(x), spread[1::2, 2::3], backwards):
            identical(ab.nm_unbiased(view, 2, 4, axis, **given), expected)
        turned = ab.nm_unbiased(x.T, 2, 4, 1 - axis, **given)
        identical(tuple(part.T for part in turned), expected)
    repeated = np.broadcast_to(x[0], (7, 40))
    identical(
        ab.nm_unbiased(repeated, 2, 4, seed=1, **options),
        ab.nm_unbiased(repeated.copy(), 2, 4, seed=1, **options),
    )
    raw = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:]
    unaligned = raw.view(dtype).reshape(x.shape)
    identical(
        ab.nm_unbiased(unaligned, 2, 4, seed=1, **options),
        ab.nm_unbiased(x, 2, 4, seed=1, **options),
    )
    words = np.random.default_rng(2).integers(0, 2**32, (48, 10, 4), dtype=np.uint32)
    given_words = words[::-1, :, 1:3] if "approx" in path else words[::-1, :, 1]
    identical(
        ab.nm_unbiased(x, 2, 4, random_bits=given_words, **options),
        ab.nm_unbiased(x, 2, 4, random_bits=given_words.copy(), **options),
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 5), (16, 32)])
def test_threads_and_words_of_large_arrays(isa: str, path: str, n: int, m: int) -> None:
    options, dtype = PATHS[path]
    if "approx" in path and m != 4:
        pytest.skip("two draws are of 2:4")
    address = {"seed": 2**64 - 1, "stream": 2**32 - 1, "call": 7}
    for shape, axis in (
        ((517, 512 // m * m), 1),
        ((512 // m * m, 517), 0),
        ((300_000 // m * m,), 0),
    ):
        x = numbers(shape, dtype)
        given: dict[str, Any] = {**options, **EVERY}
        expected = ab.nm_unbiased(x, n, m, axis, **address, threads=1, **given)
        for threads in (2, 7, None):
            identical(ab.nm_unbiased(x, n, m, axis, **address, threads=threads, **given), expected)
        groups = (*(s for i, s in enumerate(shape) if i != axis), shape[axis] // m)
        if "approx" in path:
            words = ab.random_bits((*groups, 2), **address)
        elif path == "16":
            words = ab.random_bits(groups, bits=16, **address).astype(np.uint32) << np.uint32(16)
        else:
            words = ab.random_bits(groups, **address)
        for threads in (1, 7):
            identical(
                ab.nm_unbiased(x, n, m, axis, random_bits=words, threads=threads, **given), expected
            )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(0,), (0, 8), (4, 0), (0, 0), (4, 0, 8), (4, 8, 0)])
def test_nothing(isa: str, path: str, shape: tuple[int, ...]) -> None:
    options, dtype = PATHS[path]
    x = np.zeros(shape, dtype)
    for axis in range(len(shape)):
        others = tuple(size for i, size in enumerate(shape) if i != axis)
        pairs = (2,) if "approx" in path else ()
        words = np.zeros((*others, shape[axis] // 4, *pairs), np.uint32)
        for address in ({"seed": 1}, {"random_bits": words}):
            for remainder in ("error", "pad"):
                given: dict[str, Any] = {**options, **address, "remainder": remainder}
                y, mask, p = ab.nm_unbiased(x, 2, 4, axis, **given, **EVERY)
                identical(y, x)
                identical(mask, np.zeros(shape, bool))
                assert p.shape == shape


@pytest.mark.parametrize("path", PATHS)
def test_out_and_the_order_of_the_results(isa: str, path: str) -> None:
    options, dtype = PATHS[path]
    x = numbers((12, 16), dtype)
    for axis in (0, 1):
        given: dict[str, Any] = {**options, "seed": 3, "axis": axis}
        y, mask, p = ab.nm_unbiased(x, 2, 4, **given, **EVERY)
        assert p.dtype == (np.float32 if path == "16" else np.float64)
        identical(ab.nm_unbiased(x, 2, 4, **given), y)
        identical(ab.nm_unbiased(x, 2, 4, return_mask=True, **given), (y, mask))
        identical(ab.nm_unbiased(x, 2, 4, return_probabilities=True, **given), (y, p))
        for out in (np.ones_like(x), np.asfortranarray(np.ones_like(x)), x.copy()):
            source = out if np.array_equal(out, x) else x
            results = ab.nm_unbiased(source, 2, 4, out=out, **given, **EVERY)
            assert results[0] is out
            identical(results, (y, mask, p))
        source = x.copy()
        assert ab.nm_unbiased(source, 2, 4, out=source, **given) is source
        identical(source, y)
    buffer = numbers(50, dtype)
    expected = ab.nm_unbiased(buffer[:48], 2, 4, seed=3, **options)
    ab.nm_unbiased(buffer[:48], 2, 4, seed=3, out=buffer[2:], **options)
    identical(buffer[2:], expected)


def test_out_of_another_dtype_than_the_input(isa: str) -> None:
    x = numbers((6, 8)).astype(np.float16)
    out = np.zeros((6, 8), np.float32)
    assert ab.nm_unbiased(x, 2, 4, seed=1, out=out) is out
    identical(out, ab.nm_unbiased(x.astype(np.float32), 2, 4, seed=1))


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
)
def test_narrower_floats_are_widened(isa: str, dtype: Any) -> None:
    x = numbers((30, 32)).astype(dtype)
    for options in ({}, {"probability_bits": 30}, {"method": "approx"}):
        given: dict[str, Any] = {"seed": 5, **options, **EVERY}
        got = ab.nm_unbiased(x, 2, 4, **given)
        assert got[0].dtype == np.float32
        identical(got, ab.nm_unbiased(x.astype(np.float32), 2, 4, **given))
    identical(
        ab.nm_unbiased(x.tolist(), 2, 4, seed=1), ab.nm_unbiased(x.astype(float), 2, 4, seed=1)
    )


# Two equal elements of 1:2 double; one of two that is kept almost surely grows by 2^-16 of itself.
LARGEST32, LARGEST64 = float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)
BEYOND: list[tuple[str, list[float], int, int, int]] = [
    ("16", [0.75 * 2.0**128] * 2, 1, 2, 0),
    ("16", [LARGEST32, 1.0], 1, 2, 0),
    ("30", [0.75 * 2.0**128] * 2, 1, 2, 0),
    ("wide", [LARGEST64, 1.0], 1, 2, 0),
    ("wide", [0.75 * 2.0**1023 * 2] * 4, 2, 4, 0),
    ("approx", [0.75 * 2.0**128] * 4, 2, 4, 0),
    ("approx_wide", [0.75 * 2.0**1023 * 2] * 4, 2, 4, 0),
]


@pytest.mark.parametrize(("path", "block", "n", "m", "u"), BEYOND, ids=str)
def test_results_beyond_the_range_are_refused(
    isa: str, path: str, block: list[float], n: int, m: int, u: int
) -> None:
    options, dtype = PATHS[path]
    pairs = (2,) if "approx" in path else ()
    x = np.ones((5000, m), dtype)
    words = np.full((5000, 1, *pairs), u, np.uint32)
    ab.nm_unbiased(x, n, m, random_bits=words, **options)
    x[3210] = block
    for threads in (1, 7):
        with pytest.raises(ValueError, match=re.escape("[3210, 0]")):
            ab.nm_unbiased(x, n, m, random_bits=words, threads=threads, **options)
    x[3210] /= 4
    assert np.isfinite(ab.nm_unbiased(x, n, m, random_bits=words, **options)).all()


def test_only_what_is_kept_can_be_beyond_the_range(isa: str) -> None:
    x = np.array([[LARGEST32, 1.0]], np.float32)
    assert oracle.probabilities_of(x[0].tolist(), 1, 16) == [65535, 1]
    words = np.array([[0xFFFF0000]], np.uint32)
    assert ab.nm_unbiased(x, 1, 2, random_bits=words).tolist() == [[0, 65536]]
    with pytest.raises(ValueError, match=re.escape("[0, 0]")):
        ab.nm_unbiased(x, 1, 2, random_bits=words - np.uint32(1 << 16))
    # The largest number itself, where nothing is divided.
    assert ab.nm_unbiased(x, 2, 2, seed=1).tolist() == x.tolist()
    capped = np.array([[LARGEST32, 1, 1, 1]], np.float32)
    assert ab.nm_unbiased(capped, 2, 4, seed=1)[0, 0] == LARGEST32


@pytest.mark.parametrize("path", PATHS)
def test_the_callers_float_state_does_not_matter(isa: str, path: str) -> None:
    options, dtype = PATHS[path]
    patterns = ((2, 4),) if "approx" in path else ((2, 4), (3, 5), (16, 32))
    for n, m in patterns:
        x = of_every_family(9, m, 3, dtype if "approx" not in path else np.float32).astype(dtype)
        given: dict[str, Any] = {**options, **EVERY, "seed": 7}
        expected = ab.nm_unbiased(x, n, m, **given)
        for flush, rounding in STATES:
            with float_state(flush, rounding):
                got = ab.nm_unbiased(x, n, m, **given)
                several = ab.nm_unbiased(x, n, m, threads=2, **given)
            identical(got, expected)
            identical(several, expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_input_names_the_first_index(isa: str, path: str, bad: float) -> None:
    options, dtype = PATHS[path]
    for axis in (0, 1):
        x = numbers((8, 36), dtype)
        x[2, 33] = x[3, 1] = x[7, 35] = bad
        with pytest.raises(ValueError, match=re.escape("[2, 33]")):
            ab.nm_unbiased(x, 2, 4, axis, seed=1, **options)
    x = numbers(400_000, dtype)
    x[250_001] = x[300_000] = bad
    for threads in (1, 7):
        with pytest.raises(ValueError, match=re.escape("[250001]")):
            ab.nm_unbiased(x, 2, 4, seed=1, threads=threads, **options)


X = numbers((4, 8))
WORDS = np.zeros((4, 2), np.uint32)
ERRORS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "x", {"x": X.astype(np.int8)}),
    (TypeError, "x", {"x": X.astype(np.complex64)}),
    (TypeError, "x", {"x": X > 0}),
    (TypeError, "n", {"n": 2.0}),
    (TypeError, "m", {"m": "4"}),
    (TypeError, "axis", {"axis": 1.0}),
    (TypeError, "seed", {"seed": 1.0}),
    (TypeError, "stream", {"stream": 1.0}),
    (TypeError, "call", {"call": 1.0}),
    (TypeError, "return_mask", {"return_mask": 1}),
    (TypeError, "return_probabilities", {"return_probabilities": "yes"}),
    (TypeError, "probability_bits", {"probability_bits": 16.0}),
    (TypeError, "threads", {"threads": 1.5}),
    (TypeError, "out", {"out": np.zeros((4, 8))}),
    (TypeError, "random_bits", {"seed": None, "random_bits": WORDS.astype(np.int64)}),
    (ValueError, "n", {"n": 0}),
    (ValueError, "n", {"n": 5}),
    (ValueError, "m", {"m": 0}),
    (ValueError, "m", {"m": 33}),
    (ValueError, "axis", {"axis": 2}),
    (ValueError, "axis", {"x": np.float32(1)}),
    (ValueError, "m=3", {"m": 3}),
    (ValueError, "m=8", {"m": 8, "axis": 0}),
    (ValueError, "remainder", {"remainder": "drop"}),
    (ValueError, "method", {"method": "pivotal"}),
    (ValueError, "method", {"method": "approx", "n": 1}),
    (ValueError, "method", {"method": "approx", "n": 4, "m": 8}),
    (ValueError, "probability_bits", {"probability_bits": 8}),
    (ValueError, "probability_bits", {"x": X.astype(np.float64), "probability_bits": 16}),
    (ValueError, "seed", {"seed": None}),
    (ValueError, "random_bits", {"seed": None}),
    (ValueError, "random_bits", {"seed": None, "random_bits": WORDS[:3]}),
    (ValueError, "random_bits", {"seed": None, "random_bits": WORDS, "method": "approx"}),
    (ValueError, "seed", {"seed": 1 << 64}),
    (ValueError, "seed", {"seed": -1}),
    (ValueError, "stream", {"stream": 1 << 32}),
    (ValueError, "call", {"call": -1}),
    (ValueError, "threads", {"threads": 0}),
    (ValueError, "out", {"out": np.zeros((8, 4), np.float32)}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "argument", "change"), ERRORS, ids=str)
def test_errors(error: type[Exception], argument: str, change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"x": X, "n": 2, "m": 4, "seed": 1, **change}
    with pytest.raises(error, match=rf"\b{re.escape(argument)}\b"):
        ab.nm_unbiased(arguments.pop("x"), arguments.pop("n"), arguments.pop("m"), **arguments)
