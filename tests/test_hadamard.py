"""Hadamard rotations: bit for bit against butterflies in NumPy, and what they are for."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
from oracle_rotation import hadamard_matrix, inverse_root, rotate, sign_bits
from test_float_environment import float_state

BLOCKS = [1 << k for k in range(1, 11)]
SEED = 0x0123456789ABCDEF
TRANSFORMER_ENGINE = [1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1]


def wide(shape: Any, seed: int = 0) -> np.ndarray:
    """Return float32 numbers of both signs over many binades, zeros of both signs among them."""
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.standard_normal(shape), rng.integers(-30, 30, shape)).astype(np.float32)
    x[rng.random(shape) < 0.05] = 0.0
    x[rng.random(shape) < 0.05] = -0.0
    return x


def random_signs(length: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1, 1], length)


def same(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype == np.float32
    assert got.shape == expected.shape
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_bits_of_every_block_and_axis(isa, block, inverse):
    shapes = [((3 * block,), 0), ((5, 2 * block), 1), ((3 * block, 37), 0), ((2, block, 3, 5), 1)]
    if block == 1024:
        shapes.append(((1024, 70), 0))  # more columns than a tile of this block takes
    for shape, axis in shapes:
        x = wide(shape, block)
        length = shape[axis]
        for signs in (random_signs(length), random_signs(block)):
            every = np.resize(signs, length)
            for a in (axis, axis - len(shape)):
                got = ab.random_hadamard(x, block=block, signs=signs, axis=a, inverse=inverse)
                same(got, rotate(x, every, block, axis, inverse))


@pytest.mark.parametrize("length", [2, 6, 10, 14, 18, 34])
def test_rows_shorter_than_a_vector_and_odd_lengths(isa, length):
    x, signs = wide((33, length)), random_signs(length)
    for inverse in (False, True):
        got = ab.random_hadamard(x, block=2, signs=signs, inverse=inverse)
        same(got, rotate(x, signs, 2, -1, inverse))


def test_large_arrays_and_threads(isa):
    # Above 4 MiB results are written past the caches.
    for shape, axis in (((1027, 1040), 1), ((1040, 1027), 0), ((2, 1040, 520), 1)):
        x = wide(shape)
        signs = random_signs(1040)
        for inverse in (True, False):
            expected = rotate(x, signs, 16, axis, inverse)
            for threads in (1, 2, 7):
                got = ab.random_hadamard(
                    x, signs=signs, axis=axis, inverse=inverse, threads=threads
                )
                same(got, expected)
        unaligned = np.empty(x.size + 1, np.float32)[1:].reshape(shape)
        same(ab.random_hadamard(x, signs=signs, axis=axis, out=unaligned), expected)


def test_strided_and_aliased_arrays(isa):
    x, signs = wide((64, 96)), random_signs(64)
    expected = rotate(x, signs, 32, 0)

    def run(a: np.ndarray, **options: Any) -> np.ndarray:
        return ab.random_hadamard(a, block=32, signs=signs, axis=0, **options)

    same(run(np.asfortranarray(x)), expected)
    spread = np.zeros((64, 192), np.float32)
    spread[:, ::2] = x
    same(run(spread[:, ::2]), expected)
    same(run(x[:, ::-1])[:, ::-1].copy(), expected)
    same(run(x, out=(target := np.asfortranarray(np.zeros_like(x)))), expected)
    assert target.flags.f_contiguous
    in_place = x.copy()
    assert run(in_place, out=in_place) is in_place
    same(in_place, expected)
    row = np.concatenate([wide(64), np.zeros(2, np.float32)])
    rotated = rotate(row[:64], signs, 32, 0)
    ab.random_hadamard(row[:64], block=32, signs=signs, out=row[2:])
    same(row[2:], rotated)


def test_signs_from_an_address(isa):
    words = ab.random_bits(3, seed=SEED, stream=3, call=9)
    x = wide((2, 80))
    got = ab.random_hadamard(x, seed=SEED, stream=3, call=9)
    same(got, rotate(x, sign_bits(words, 80), 16, 1))
    # The address of a sign is its position on the axis, not its element.
    same(ab.random_hadamard(x.T.copy(), seed=SEED, stream=3, call=9, axis=0).T.copy(), got)
    same(ab.random_hadamard(x[1:], seed=SEED, stream=3, call=9), got[1:])
    assert not np.array_equal(got, ab.random_hadamard(x, seed=SEED, stream=3, call=10))


def test_transformer_engine_signs(isa):
    x = wide((7, 48))
    expected = rotate(x, TRANSFORMER_ENGINE * 3, 16, 1)
    same(ab.random_hadamard(x, signs="transformer_engine"), expected)


@pytest.mark.parametrize("block", BLOCKS)
def test_round_trip(block):
    # Each of the 2 log2(n) additions and 2 multiplications on the way there and back has a relative
    # error of at most 2^-24; an element passes on at most the norm of its group.
    x = np.random.default_rng(2).standard_normal((8, 2 * block)).astype(np.float32)
    signs = random_signs(2 * block)
    y = ab.random_hadamard(x, block=block, signs=signs)
    back = ab.random_hadamard(y, block=block, signs=signs, inverse=True)
    groups = x.astype(np.float64).reshape(-1, block)
    error = np.linalg.norm(back.astype(np.float64).reshape(-1, block) - groups, axis=1)
    operations = 2 * (int(np.log2(block)) + 2)  # + 2: the product, and the constant itself
    assert (error <= operations * 2.0**-24 * np.linalg.norm(groups, axis=1) * 1.001).all()


@pytest.mark.parametrize("block", [4, 16, 64])
def test_the_product_of_rotated_operands_is_exact(isa, block):
    # Powers of four divide exactly: with small integers nothing is rounded.
    rng = np.random.default_rng(3)
    a = rng.integers(-8, 9, (5, 2 * block)).astype(np.float32)
    b = rng.integers(-8, 9, (2 * block, 6)).astype(np.float32)
    address = {"seed": 4, "stream": 1, "block": block}
    rotated = ab.random_hadamard(a, **address), ab.random_hadamard(b, axis=0, **address)
    exact = ab.exact_accumulator()
    same(ab.matmul(*rotated, exact), (a.astype(int) @ b.astype(int)).astype(np.float32))
    assert not np.array_equal(rotated[0], a)


@pytest.mark.parametrize("block", BLOCKS)
def test_it_is_the_hadamard_matrix(block):
    signs = random_signs(block)
    got = ab.random_hadamard(np.eye(block, dtype=np.float32), block=block, signs=signs, axis=0)
    same(got, (hadamard_matrix(block) * signs * inverse_root(block)).astype(np.float32))


def test_special_values(isa):
    x = np.zeros((6, 16), np.float32)
    x[0, 3] = np.nan
    x[1, 3] = np.inf
    x[2, [3, 5]] = np.inf, -np.inf
    x[3, :] = 3e38
    x[4, :] = 2.0**-149 * np.arange(16)
    x[5, 3] = np.uint32(0xFF80_0001).view(np.float32)  # a signalling NaN, negative
    for inverse in (False, True):
        got = ab.random_hadamard(x, signs="transformer_engine", inverse=inverse)
        same(got, rotate(x, TRANSFORMER_ENGINE, 16, 1, inverse))
    assert np.isnan(got[[0, 5]]).all()
    assert np.isinf(got[1]).all()
    columns = ab.random_hadamard(x.T.copy(), signs="transformer_engine", axis=0, inverse=True)
    same(columns.T.copy(), got)


def test_the_callers_rounding_mode_does_not_matter(isa):
    x = wide((3, 64)) * np.float32(2.0**-100)
    expected = [rotate(x, np.ones(64), 32, 1), rotate(x[:2], random_signs(2), 2, 0)]
    for flush in (False, True):
        for rounding in range(4):
            with float_state(flush, rounding):
                got = ab.random_hadamard(x, block=32, signs=np.ones(32))
                columns = ab.random_hadamard(x[:2], block=2, signs=random_signs(2), axis=0)
            same(got, expected[0])
            same(columns, expected[1])


def test_empty_arrays_and_narrow_floats(isa):
    for shape, axis in (((0, 16), 1), ((16, 0), 0), ((3, 0), 1), ((2, 0, 16), 2)):
        assert ab.random_hadamard(np.zeros(shape, np.float32), seed=1, axis=axis).shape == shape
    for dtype in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        x = wide((2, 16)).clip(-8, 8).astype(dtype)
        got = ab.random_hadamard(x, signs="transformer_engine")
        same(got, rotate(x.astype(np.float32), TRANSFORMER_ENGINE, 16, 1))
    assert ab.random_hadamard([np.float32(1)] * 2, block=2, signs=[1.0, -1.0])[0] == 0


X = np.zeros((2, 32), np.float32)
ERRORS = [
    (TypeError, "x", {"x": X.astype(np.float64)}),
    (TypeError, "x", {"x": X.astype(int)}),
    (TypeError, "block", {"block": 2.0}),
    (TypeError, "axis", {"axis": "last"}),
    (TypeError, "inverse", {"inverse": 1}),
    (TypeError, "threads", {"threads": 1.5}),
    (TypeError, "out", {"out": X.astype(np.float64)}),
    (TypeError, "signs", {"seed": None, "signs": ["+"] * 16}),
    (TypeError, "signs", {"seed": None, "signs": [True] * 16}),
    (TypeError, "seed", {"seed": 1.0}),
    (ValueError, "block", {"block": 1}),
    (ValueError, "block", {"block": 2048}),
    (ValueError, "block", {"block": 24}),
    (ValueError, "multiple of block=64", {"block": 64}),
    (ValueError, "multiple of block=16", {"axis": 0}),
    (ValueError, "axis", {"axis": 2}),
    (ValueError, "axis", {"x": np.float32(1)}),
    (ValueError, "neither", {"seed": None}),
    (ValueError, "both", {"signs": [1] * 16}),
    (ValueError, "signs", {"seed": None, "signs": "nvidia"}),
    (ValueError, "block=16", {"seed": None, "signs": "transformer_engine", "block": 8}),
    (ValueError, "signs", {"seed": None, "signs": [1] * 15}),
    (ValueError, "signs", {"seed": None, "signs": [1] * 15 + [0]}),
    (ValueError, "signs", {"seed": None, "signs": [1.0] * 15 + [np.nan]}),
    (ValueError, "signs", {"seed": None, "signs": [[1] * 16]}),
    (ValueError, "seed", {"seed": 1 << 64}),
    (ValueError, "stream", {"stream": 1 << 32}),
    (ValueError, "call", {"call": -1}),
    (ValueError, "threads", {"threads": 0}),
    (ValueError, "out", {"out": np.zeros((2, 16), np.float32)}),
]


@pytest.mark.parametrize(("error", "message", "change"), ERRORS, ids=str)
def test_errors(error, message, change):
    arguments: dict[str, Any] = {"x": X, "seed": 1, **change}
    with pytest.raises(error, match=message):
        ab.random_hadamard(arguments.pop("x"), **arguments)
