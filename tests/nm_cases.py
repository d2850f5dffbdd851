"""Blocks for the tests of N:M sparsity: published values and families of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Golden(NamedTuple):
    """One row of the published table of the exact estimator with 16-bit probabilities."""

    n: int
    a: list[float]  # float32 numbers
    q: list[int]
    values: list[str] | None  # magnitudes, eight digits
    kept: dict[int, list[int]]  # by U


def row(n: int, a: str, q: str, values: str | None, kept: dict[int, list[int]]) -> Golden:
    return Golden(
        n,
        [float(np.float32(eval(x))) for x in a.split()],
        [int(x) for x in q.split()],
        None if values is None else values.split(),
        kept,
    )


GOLDEN = {
    "no cap": row(
        2, "3 -1 2 .5", "60494 20165 40330 10083",
        "3.2500412 3.2499876 3.2499876 3.2498264", {0: [0, 1], 40000: [0, 2]},
    ),
    "one capped": row(
        2, "10 1 -1 .5", "65536 26213 26215 13108",
        "10 2.5001335 2.4999428 2.4998474", {0: [0, 1], 40000: [0, 2]},
    ),
    "equal": row(2, "1 1 1 1", "32768 " * 4, "2 2 2 2", {0: [0, 2], 40000: [1, 3]}),
    "two non-zeros": row(2, "0 1 2 0", "0 65536 65536 0", "0 1 2 0", {0: [1, 2], 40000: [1, 2]}),
    "largest last": row(
        2, ".5 1 1.2 2.3", "13108 26215 31458 60291",
        "2.4998474 2.4999428 2.4999428 2.5000877", {0: [0, 2], 40000: [2, 3]},
    ),
    "as many capped as kept": row(
        2, "1 1 2**-30 0", "65535 65536 1 0",
        "1.0000153 1 6.1035156e-05 0", {0: [0, 1], 40000: [0, 1]},
    ),
    "capped last": row(
        2, ".1 .2 .3 2", "10923 21846 32767 65536",
        "0.59998173 0.59998173 0.60001832 2", {0: [0, 3], 40000: [2, 3]},
    ),
    "4:8": row(
        4, ".1 -.2 .3 -.4 .5 -.6 .7 -.8",
        "7282 14564 21846 29128 36409 43691 50973 58251", None, {12345: [1, 4, 5, 7]},
    ),
}  # fmt: skip

PATTERNS = [
    (1, 1), (1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (3, 5), (2, 8), (4, 8), (5, 12), (8, 16),
    (1, 32), (16, 32), (31, 32), (32, 32),
]  # fmt: skip


def signs(rng: np.random.Generator, shape: Any) -> Array:
    return rng.choice([-1.0, 1.0], shape)


def lognormal(sigma: float) -> Callable[[np.random.Generator, Any], Array]:
    return lambda rng, shape: np.exp(sigma * rng.standard_normal(shape)) * signs(rng, shape)


def wide(top: int) -> Callable[[np.random.Generator, Any], Array]:
    """Return numbers over 2^-top to 2^top, half of them within a few binades of the largest."""

    def draw(rng: np.random.Generator, shape: Any) -> Array:
        far, near = rng.integers(-top, top, shape), rng.integers(top - 18, top, shape)
        exponents = np.where(rng.random(shape) < 0.5, near, far)
        return np.ldexp(rng.uniform(1, 2, shape), exponents) * signs(rng, shape)

    return draw


def subnormal(bits: int, smallest: int) -> Callable[[np.random.Generator, Any], Array]:
    """Return multiples of 2^smallest, zeros among them, one normal number in eight."""

    def draw(rng: np.random.Generator, shape: Any) -> Array:
        normal = rng.integers(2**bits, 2 ** (bits + 2), shape)
        multiples = np.where(rng.random(shape) < 0.125, normal, rng.integers(0, 40, shape))
        return np.ldexp(multiples * signs(rng, shape), smallest)

    return draw


def near_ties(bits: int) -> Callable[[np.random.Generator, Any], Array]:
    """Return numbers a few steps of 2^-bits apart; every third block has one near a cap."""

    def draw(rng: np.random.Generator, shape: Any) -> Array:
        count, m = shape
        x = 1 + rng.integers(-2, 3, shape) * 2.0**-bits
        ratio = max(m - 1, 1) / rng.integers(1, max(m, 2), count)
        x[::3, 0] = (ratio * x[:, -1])[::3]
        return x * signs(rng, shape)

    return draw


def sparse(rng: np.random.Generator, shape: Any) -> Array:
    return np.where(rng.random(shape) < 0.7, 0.0 * signs(rng, shape), rng.standard_normal(shape))


FAMILIES: dict[str, Callable[[np.random.Generator, Any], Array]] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "lognormal1": lognormal(1),
    "lognormal2": lognormal(2),
    "lognormal3": lognormal(3),
    "wide": wide(120),
    "subnormal": subnormal(23, -149),
    "ties": lambda rng, shape: rng.integers(-3, 4, shape).astype(np.float64),
    "near_ties": near_ties(23),
    "sparse": sparse,
}
FAMILIES64 = FAMILIES | {
    "wide": wide(1000),
    "subnormal": subnormal(52, -1074),
    "near_ties": near_ties(52),
}


def family(name: str, count: int, m: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Return `count` blocks of m numbers of a dtype, float32 or float64."""
    rng = np.random.default_rng([seed, m, *name.encode()])
    families = FAMILIES64 if dtype is np.float64 else FAMILIES
    return families[name](rng, (count, m)).astype(dtype)


def of_every_family(count: int, m: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Return `count` blocks of m numbers of each family, one below the other."""
    return np.concatenate([family(name, count, m, seed, dtype) for name in FAMILIES])


def exact_pi(block: Sequence[Any]) -> list[Fraction]:
    """Return how likely two draws without replacement take each element, pair by pair."""
    a = [abs(Fraction(x)) for x in block]
    total = sum(a)
    pi = [Fraction(0)] * len(a)
    for i in range(len(a)):
        for j in range(len(a)):
            if i != j and a[i] and a[j]:
                pair = a[i] / total * a[j] / (total - a[i])
                pi[i] += pair
                pi[j] += pair
    return pi
