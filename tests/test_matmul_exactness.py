"""matmul against the exact oracle, bit for bit, on random datapaths and operands.

Each kind of datapath is compared on at least 8 * 12,000 dot products, on every instruction set, for
one thread and three, without events and with each level of them.
"""

from __future__ import annotations

import collections

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core
from datapath_cases import assert_bits, check
from datapath_random import RANDOM, TERMS, pick, random_datapath, random_operands

SHARDS, OUTPUTS = 8, 12_000
SHAPES = ((1, 64), (8, 16), (3, 37), (67, 2), (128, 1), (12, 20), (5, 33))


def random_case(rng, kind):
    """Return a datapath, its operands and start values."""
    datapath = random_datapath(rng, kind)
    k = pick(rng, TERMS, (3, 4, 5, 6, 5, 2, 0.3))
    rows, columns = pick(rng, SHAPES) if k < 1000 else (2, 9)
    return datapath, *random_operands(rng, datapath, rows, k, columns)


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("kind", RANDOM)
def test_random_datapaths(kind, shard):
    rng = np.random.default_rng([*map(ord, kind), shard])
    done = 0
    while done < OUTPUTS:
        datapath, a, b, c = random_case(rng, kind)
        done += check(a, b, datapath, c, seed=shard, stream=3, call=done)


@pytest.mark.parametrize("chunk", [0, 3, 16, 1000, 1024, 3000, 4097, 5000])
def test_long_sums_in_blocks_of_terms(isa, chunk):
    # events are counted by the general engine, which the oracle checks on shorter sums
    rng = np.random.default_rng(chunk)
    for kind in ("lba", "plain"):
        datapath = random_datapath(rng, kind).replace(chunk=chunk, merge_order="forward")
        for k in (2500, 5003):
            a, b, c = random_operands(rng, datapath, 9, k, 33)
            for threads in (1, 2):
                got = ab.matmul(a, b, datapath, c=c, seed=1, threads=threads)
                general, _ = ab.matmul(a, b, datapath, c=c, seed=1, events="overflow")
                assert_bits(got, general, datapath)
    x = rng.integers(-128, 128, (9, 5003)).astype(np.int8)
    for overflow in ("wrap", "saturate"):
        narrow = ab.integer_accumulator(17, overflow, chunk=chunk)
        assert_bits(ab.matmul(x, x.T, narrow), ab.matmul(x, x.T, narrow, events=True)[0])


@pytest.mark.parametrize("kind", ["lba", "float", "plain"])
def test_random_operands_meet_every_event(kind):
    rng = np.random.default_rng(1)
    seen = ab.Events()
    for _ in range(150):
        datapath, a, b, c = random_case(rng, kind)
        seen += ab.matmul(a, b, datapath, c=c, seed=1, events=True)[1]
    missing = {name for name, count in seen.to_dict().items() if not count}
    assert missing == {"transient", "persistent"} | ({"nonfinite"} if kind == "lba" else set())


@pytest.mark.skipif(not _core.has_fused_multiply_add(), reason="fast kernels need a fused multiply")
def test_random_datapaths_take_every_path():
    rng = np.random.default_rng(2)
    paths: collections.Counter[str] = collections.Counter()
    for kind in ("lba", "plain"):
        for _ in range(150):
            datapath, a, b, _ = random_case(rng, kind)
            paths[datapath.plan(a, b).path] += 1
    assert set(paths) == {"truncate", "nearest", "odd", "odd64", "native", "lanes"}
    assert min(paths.values()) >= 3
