"""The search for a permutation of channels: against every order of few, and what it promises."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from oracle_pack_24 import best_kept, kept_magnitude, splits

METHODS = ("swap", "stripe")


def weights(shape: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(w: np.ndarray, n: int, m: int, permutation: np.ndarray, kept: float) -> Fraction:
    """Check that the permutation is one, in canonical order, and keeps what is said."""
    channels = w.shape[-1]
    assert permutation.dtype == np.int64
    assert sorted(permutation.tolist()) == list(range(channels))
    groups = permutation.reshape(-1, m)
    assert (np.diff(groups, axis=1) > 0).all()
    assert (np.diff(groups[:, 0]) > 0).all()
    exact = kept_magnitude(w, permutation.tolist(), n, m)
    assert abs(Fraction(kept) - exact) <= exact * Fraction(w.size, 2**53)
    assert exact >= kept_magnitude(w, list(range(channels)), n, m)
    return exact


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("n", "m", "channels"), [(2, 4, 16), (1, 4, 12), (3, 4, 20), (1, 2, 10), (2, 6, 12), (1, 3, 9)]
)
def test_orders_are_permutations_and_never_worse(isa, method, n, m, channels):
    for rows in (1, 5, 17):
        w = weights((rows, channels), rows)
        check(w, n, m, *ab.channel_permutation(w, n, m, method=method))


@pytest.mark.parametrize("seed", range(12))
def test_two_groups_are_split_in_the_best_way(isa, seed):
    rng = np.random.default_rng(seed)
    rows, n = int(rng.integers(1, 20)), int(rng.integers(1, 4))
    w = weights((rows, 8), seed)
    best = best_kept(w, n, 4)
    assert check(w, n, 4, *ab.channel_permutation(w, n, 4, method="stripe")) == best
    # No exchange of two channels improves what swaps end with; restarts find the best one.
    found = ab.channel_permutation(w, n, 4, escapes=40, seed=seed)
    assert check(w, n, 4, *found) == best


def test_every_split_is_tried_once():
    # 12 channels in three groups of 4: 12! / (4!^3 3!)
    assert len(splits(tuple(range(12)), 4)) == 5775
    w = weights((6, 12), 3)
    best = best_kept(w, 2, 4)
    for method in METHODS:
        kept = check(w, 2, 4, *ab.channel_permutation(w, method=method, escapes=60, seed=1))
        assert kept == best


@pytest.mark.parametrize("method", METHODS)
def test_a_result_is_a_local_optimum(isa, method):
    w = weights((9, 16), 4)
    permutation = ab.channel_permutation(w, 2, 4, method=method)[0]
    exact = kept_magnitude(w, permutation.tolist(), 2, 4)
    for a, b in itertools.combinations(range(16), 2):
        other = permutation.tolist()
        other[a], other[b] = other[b], other[a]
        # Magnitudes are rounded to multiples of 2^-52 * 144 of the largest.
        assert kept_magnitude(w, other, 2, 4) <= exact + Fraction(144 * 144, 2**50)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_depends_on_neither_isa_nor_threads(method):
    w = weights((35, 48), 5)
    w[:, ::3] *= 20
    results = []
    before = _core.selected_isa()
    try:
        for isa, threads in itertools.product(_core.supported_isas(), (1, 2, 7)):
            _core.set_isa(isa)
            for n, m in ((2, 4), (1, 4), (3, 4)):
                results.append(
                    ((n, m), ab.channel_permutation(
                        w, n, m, method=method, escapes=2, seed=6, threads=threads
                    ))
                )  # fmt: skip
    finally:
        _core.set_isa(before)
    for key, (permutation, kept) in results:
        first = next(result for other, result in results if other == key)
        assert np.array_equal(permutation, first[0])
        assert kept == first[1]


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("channels", [4, 23, 25, 100])
def test_sums_of_replacements(isa, rows, channels):
    rng = np.random.default_rng(channels)
    x = rng.integers(0, 1 << 30, (rows, channels)).astype(float)
    floors = rng.integers(0, 1 << 30, (9, rows)).astype(float)
    out = np.full((9, channels), np.nan)
    _core.replacement_sums(x, floors, out, 2)
    assert np.array_equal(out, np.maximum(x, floors[:, :, None]).sum(axis=1))


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6)])
def test_sums_of_splits(isa, n, m):
    rng = np.random.default_rng(m)
    x = rng.integers(0, 1 << 30, (2 * m + 3, 21)).astype(float)
    members = np.stack([rng.permutation(2 * m + 3)[: 2 * m] for _ in range(6)])
    chosen = np.stack([rng.permutation(2 * m) for _ in range(10)]).astype(np.uint8)
    out = np.full((6, 10), np.nan)
    _core.split_sums(x, members, chosen, n, out, 2)
    halves = x[members][:, chosen].reshape(6, 10, 2, m, 21)
    assert np.array_equal(out, np.sort(halves, axis=3)[:, :, :, m - n :].sum(axis=(2, 3, 4)))


def test_what_permutations_are_for():
    # The large channels come in runs: half of them are lost if nothing is moved.
    w = np.abs(weights((64, 64), 7))
    w[:, np.arange(64) % 8 < 4] *= 10
    before = float(np.sort(w.reshape(64, 16, 4), axis=2)[..., 2:].sum())
    for method in METHODS:
        permutation, kept = ab.channel_permutation(w, method=method)
        assert kept > 1.2 * before
        large = (permutation.reshape(-1, 4) % 8 < 4).sum(axis=1)
        assert (large == 2).all()


def test_magnitudes_of_every_size_and_leading_axes(isa):
    w = weights((5, 16), 8).astype(np.float64)
    expected = ab.channel_permutation(w)[0]
    for scale in (2.0**-1040, 2.0**1000, -1.0):
        with np.errstate(under="ignore"):
            scaled = w * scale
        if scale == 2.0**-1040:
            assert sorted(ab.channel_permutation(scaled)[0].tolist()) == list(range(16))
        else:
            assert np.array_equal(ab.channel_permutation(scaled)[0], expected)
    cube = weights((2, 3, 5, 16), 9)
    flat = ab.channel_permutation(cube.reshape(30, 16))
    assert np.array_equal(ab.channel_permutation(cube)[0], flat[0])
    assert np.array_equal(ab.channel_permutation(np.asfortranarray(cube))[0], flat[0])
    assert np.array_equal(ab.channel_permutation(w[0])[0], ab.channel_permutation(w[:1])[0])


def test_trivial_cases():
    for w, n, m in (
        (weights((3, 8)), 4, 4), (weights((3, 4)), 2, 4), (np.zeros((3, 8), np.float32), 2, 4),
        (np.zeros((0, 8), np.float32), 2, 4), (np.zeros((3, 0), np.float32), 2, 4),
        (np.ones((3, 8), np.float32), 2, 4),
    ):  # fmt: skip
        for method in METHODS:
            permutation, kept = ab.channel_permutation(w, n, m, method=method)
            assert permutation.tolist() == list(range(w.shape[-1]))
            expected = kept_magnitude(w, permutation.tolist(), n, m) if w.size else 0
            assert abs(kept - expected) <= 1e-12 * expected


W = weights((4, 16))
SPOILT = np.where(np.arange(64).reshape(4, 16) == 18, np.float32(np.nan), W)
ERRORS = [
    (TypeError, "w must hold floats", {"w": W.astype(int)}),
    (TypeError, "n must be an integer", {"n": 2.0}),
    (TypeError, "method must be a string", {"method": 1}),
    (TypeError, "escapes", {"escapes": True}),
    (TypeError, "seed", {"seed": 1.0}),
    (TypeError, "threads", {"threads": "2"}),
    (ValueError, "n must be in 1..4", {"n": 5}),
    (ValueError, "m must be in 1..32", {"m": 33}),
    (ValueError, "multiple of m=5 channels", {"m": 5}),
    (ValueError, "multiple of m=4 channels", {"w": np.float32(1)}),
    (ValueError, "unknown method 'swaps'; nearest: 'swap'", {"method": "swaps"}),
    (ValueError, "'stripe' expects m <= 6, got 8", {"m": 8, "method": "stripe"}),
    (ValueError, "expected a seed for escapes", {"escapes": 1}),
    (ValueError, r"finite numbers, got NaN or an infinity at \[1, 2\]", {"w": SPOILT}),
    (ValueError, "stream", {"stream": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "change"), ERRORS)
def test_errors(error, message, change):
    arguments: dict[str, Any] = {"w": W, **change}
    with pytest.raises(error, match=message):
        ab.channel_permutation(arguments.pop("w"), **arguments)
