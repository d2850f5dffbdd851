"""The rows of the N:M study: sparse gradients and weights, and what is expected of them."""

from __future__ import annotations

import dataclasses
import functools

import abcdeep_core as ab
from abcdeep_core import nn

from .training_study import Row
from .training_text import Expectation

FLOAT32 = "float32"
HALF, FEWER = ("1:2", "2:4", "4:8"), ("1:8", "1:16")
UNBIASED = {pattern: f"MVUE gradients {pattern}" for pattern in (*HALF, *FEWER)}
MAGNITUDE = {pattern: f"magnitude gradients {pattern}" for pattern in UNBIASED}
APPROX = "approx-MVUE gradients 2:4"
WEIGHTS = "magnitude weights 2:4"
TRANSPOSABLE = {pattern: f"transposable weights {pattern}" for pattern in ("2:4", "4:8")}
SPARSE = "transposable weights + MVUE gradients 2:4"
NARROW, NARROW_SPARSE = "LUQ, 12-bit sums", "LUQ, 12-bit sums, all 2:4"


def counts(pattern: str) -> tuple[int, int]:
    """Return n and m of a text n:m."""
    n, m = pattern.split(":")
    return int(n), int(m)


def float32(seed: int) -> nn.Arithmetic:
    """Return the reference."""
    return nn.float32_arithmetic()


def gradients(seed: int, *, pattern: str, kind: str) -> nn.Arithmetic:
    """Return sparse output gradients in the weight gradient, everything else float32."""
    n, m = counts(pattern)
    return nn.nm_arithmetic(n, m, weight=None, gradient=kind, seed=seed)


def weights(seed: int, *, pattern: str, kind: str) -> nn.Arithmetic:
    """Return sparse weights, everything else float32."""
    n, m = counts(pattern)
    return nn.nm_arithmetic(n, m, weight=kind, gradient=None)


def sparse(seed: int) -> nn.Arithmetic:
    """Return all three products with a 2:4 operand."""
    return nn.nm_arithmetic(2, 4, seed=seed)


def narrow(seed: int) -> nn.Arithmetic:
    """Return LUQ whose forward products are summed in an accumulator of 12 bits."""
    luq = nn.luq_arithmetic(seed=seed)
    forward = dataclasses.replace(luq.forward, datapath=ab.get_accumulator("m7e4"))
    return dataclasses.replace(luq, forward=forward)


def narrow_sparse(seed: int) -> nn.Arithmetic:
    """Return `narrow` with a 2:4 operand in all three products."""
    return nn.nm_arithmetic(2, 4, base=narrow(seed))


ROWS = (
    Row(FLOAT32, float32),
    *(
        Row(name, functools.partial(gradients, pattern=pattern, kind="unbiased"))
        for pattern, name in UNBIASED.items()
    ),
    Row(APPROX, functools.partial(gradients, pattern="2:4", kind="approx")),
    *(
        Row(name, functools.partial(gradients, pattern=pattern, kind="magnitude"))
        for pattern, name in MAGNITUDE.items()
    ),
    Row(WEIGHTS, functools.partial(weights, pattern="2:4", kind="magnitude")),
    *(
        Row(name, functools.partial(weights, pattern=pattern, kind="transposable"))
        for pattern, name in TRANSPOSABLE.items()
    ),
    Row(SPARSE, sparse),
    Row(NARROW, narrow),
    Row(NARROW_SPARSE, narrow_sparse),
)

NEAR = (*(UNBIASED[pattern] for pattern in HALF), APPROX, WEIGHTS, *TRANSPOSABLE.values(), SPARSE)

EXPECTATIONS = (
    *(
        Expectation(
            f"magnitude masks on gradients are worse than unbiased ones ({pattern})",
            MAGNITUDE[pattern],
            UNBIASED[pattern],
            False,
        )
        for pattern in UNBIASED
    ),
    Expectation("2:4 gradients train better than 1:2", UNBIASED["2:4"], UNBIASED["1:2"], True),
    Expectation("4:8 gradients train better than 2:4", UNBIASED["4:8"], UNBIASED["2:4"], True),
    Expectation("exact MVUE trains better than its approximation", UNBIASED["2:4"], APPROX, True),
    Expectation(
        "4:8 weights train better than 2:4", TRANSPOSABLE["4:8"], TRANSPOSABLE["2:4"], True
    ),
    Expectation("transposable weights cost more", TRANSPOSABLE["2:4"], WEIGHTS, False),
    Expectation("sparsity costs LUQ more", NARROW_SPARSE, NARROW, False),
)
