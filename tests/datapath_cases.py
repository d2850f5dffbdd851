"""What the tests of matmul share: expected results and events of the oracle, exact comparison."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab
from abcdeep_core import _core
from oracle import BINARY32, round_value
from oracle_datapath import dot

Array = npt.NDArray[Any]

# What events="overflow" fills besides the counts of terms, steps and outputs.
OVERFLOW_GROUP = (
    "accumulator_overflow",
    "product_overflow",
    "overflowed_outputs",
    "transient",
    "persistent",
    "min_partial",
    "max_partial",
)


def each_isa() -> Iterator[str]:
    """Select one instruction set after the other; for tests whose expected results are dear."""
    previous = _core.selected_isa()
    try:
        for isa in _core.supported_isas():
            _core.set_isa(isa)
            yield isa
    finally:
        _core.set_isa(previous)


def bits_of(x: Array) -> Array:
    return x.view(f"u{x.dtype.itemsize}")


def assert_bits(got: Any, expected: Array, *context: object) -> None:
    """Compare bit for bit: a zero is +0 and NaN the quiet, positive one."""
    got = np.asarray(got)
    assert got.dtype == expected.dtype, (got.dtype, expected.dtype, context)
    assert got.shape == expected.shape, (got.shape, expected.shape, context)
    different = bits_of(got) != bits_of(expected)
    if different.any():
        at = np.unravel_index(int(np.argmax(different)), different.shape)
        raise AssertionError(
            f"{int(different.sum())} of {got.size} differ: at {tuple(map(int, at))} got "
            f"{got[at]!r}, expected {expected[at]!r}; {context}"
        )


def random_words(
    datapath: ab.Datapath,
    m: int,
    n: int,
    k: int,
    seed: int,
    stream: int,
    call: int,
    batch: int = 0,
) -> Callable[[int, int], Callable[[str, int], int]]:
    """Return words(row, column), the oracle's `random` of that output: spec/api.md's addresses.

    The words come from `random_bits`, each kind as draws of the lane that its quantiser reads.
    """
    chunk = datapath.chunk or max(k, 1)
    chunks = -(-k // chunk)
    merge = datapath.accumulator if datapath.merge == "same" else datapath.merge
    shapes = {
        "product": (datapath.product, 3 * call, k),
        "step": (datapath.accumulator, 3 * call + 1, k),
        "merge": (merge, 3 * call + 2, chunks),
    }
    drawn = {}
    for kind, (q, number, count) in shapes.items():
        if not isinstance(q, ab.Quantizer) or q.rounding != "stochastic":
            continue
        lane = next(width for width in (1, 8, 16, 32) if width >= (q.bits or 32))
        draws = ab.random_bits(
            (m, n, count),
            seed=seed,
            stream=stream,
            call=number,
            bits=lane,
            start=batch * m * n * count,
        )
        drawn[kind] = (draws.astype(np.uint64) << np.uint64(32 - lane)).tolist()
    return lambda row, column: lambda kind, place: drawn[kind][row][column][place]


class Expected(NamedTuple):
    """The oracle's result of a matrix product, and its events as arrays of the result's shape."""

    result: Array
    events: dict[str, Array] | None


def expected_product(
    a: Array,
    b: Array,
    datapath: ab.Datapath,
    c: Array | None = None,
    *,
    dtype: npt.DTypeLike,
    events: bool = True,
    seed: int = 0,
    stream: int = 0,
    call: int = 0,
    batch: int = 0,
) -> Expected:
    """Return the oracle's product of (M, K) and (K, N) with start values (M, N).

    `batch` is the index of the product in a batch, for random words.
    """
    (m, k), n = a.shape, b.shape[1]
    words = random_words(datapath, m, n, k, seed, stream, call, batch)
    result = np.zeros((m, n), dtype)
    rows, columns = a.tolist(), b.T.tolist()
    counted: list[dict[str, Any]] = []
    for i, j in itertools.product(range(m), range(n)):
        start = None if c is None else c[i, j].item()
        one = dot(rows[i], columns[j], datapath, start, words(i, j), events)
        result[i, j] = to_dtype(one.value, result.dtype)
        counted.append(one.events)
    if not events:
        return Expected(result, None)
    tables = {
        name: np.array(
            [float(e[name]) if name.endswith("_partial") else e[name] for e in counted],
            np.float64 if name.endswith("_partial") else np.int64,
        ).reshape(m, n)
        for name in (counted[0] if counted else ())
    }
    return Expected(result, tables)


def to_dtype(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return an oracle value in a result's dtype: an exact sum is rounded to nearest even."""
    if dtype.kind == "i":
        assert value.denominator == 1
        return int(value)
    if value != value:
        return np.nan
    rounded = round_value(value, BINARY32) if dtype == np.float32 else value
    return float(rounded) + 0.0  # -0 becomes +0


def assert_events(got: ab.Events, expected: dict[str, Array], level: Any, *context: object) -> None:
    """Compare events an output with the oracle's."""
    for name, table in expected.items():
        field = getattr(got, name)
        counts = name in ("terms", "steps", "outputs")
        wanted = table if level is True or counts or name in OVERFLOW_GROUP else 0 * table
        different = np.asarray(field) != wanted
        if different.any():
            at = np.unravel_index(int(np.argmax(different)), different.shape)
            raise AssertionError(
                f"{name}: {int(different.sum())} of {different.size} differ: at "
                f"{tuple(map(int, at))} got {field[at]!r}, expected {wanted[at]!r}; {context}"
            )


def assert_total(got: ab.Events, expected: dict[str, Array], *context: object) -> None:
    """Compare the events of all outputs together."""
    total = got.to_dict()
    for name, table in expected.items():
        if not name.endswith("_partial"):
            assert total[name] == table.sum(), (name, table.sum(), context)
            continue
        pick = np.min if name == "min_partial" else np.max
        counted = table[expected["steps"] > 0]
        # zero may also stand for an output whose steps were all on Inf or NaN
        somewhere = counted[counted != 0]
        wanted = {float(pick(x)) for x in (counted, somewhere) if x.size} or {0.0}
        assert total[name] in wanted, (name, wanted, context)


def check(
    a: Array,
    b: Array,
    datapath: ab.Datapath,
    c: Array | None = None,
    *,
    threads: tuple[int, ...] = (1, 3),
    compare_events: bool | None = None,
    seed: int = 0,
    stream: int = 0,
    call: int = 0,
) -> int:
    """Compare a product with the oracle on every instruction set; return its number of outputs.

    Results without events, with those of range, and with all; for each number of threads; events an
    output and in total; an exact accumulator has no steps to compare (see docs/accumulators.md).
    """
    if compare_events is None:
        compare_events = datapath.is_integer or datapath.accumulator is not None
    address = {"seed": seed, "stream": stream, "call": call}
    a_exact, b_exact = (x if x.dtype.kind == "f" else x.astype(np.int64) for x in (a, b))
    expected: Expected | None = None
    for isa in each_isa():
        for workers in threads:
            got = ab.matmul(a, b, datapath, c=c, threads=workers, **address)
            if expected is None:
                expected = expected_product(
                    a_exact, b_exact, datapath, c, dtype=got.dtype, events=compare_events, **address
                )
            context = (isa, workers, datapath, datapath.plan(a, b))
            assert_bits(got, expected.result, *context)
        if expected.events is None:
            continue
        for level in (True, "overflow"):
            got, seen = ab.matmul(
                a, b, datapath, c=c, events=level, per_output=True, threads=workers, **address
            )
            assert_bits(got, expected.result, level, *context)
            assert_events(seen, expected.events, level, *context)
        got, seen = ab.matmul(a, b, datapath, c=c, events=True, threads=workers, **address)
        assert_bits(got, expected.result, "total", *context)
        assert_total(seen, expected.events, *context)
    return a.shape[0] * b.shape[1]
