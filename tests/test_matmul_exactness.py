"""matmul against the exact oracle, bit for bit, on random datapaths and operands."""

from __future__ import annotations

import numpy as np
import pytest

from datapath_cases import check
from datapath_random import TERMS, pick, random_datapath, random_operands

SHARDS = 16
OUTPUTS = 13_000  # a shard, at least


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("kind", ["lba", "float"])
def test_random_float_datapaths(kind, shard):
    rng = np.random.default_rng([len(kind), shard])
    done = 0
    while done < OUTPUTS // 2:
        datapath = random_datapath(rng, kind)
        k = pick(rng, TERMS, (3, 4, 5, 6, 5, 2, 0.02))
        rows, columns = pick(rng, ((1, 64), (8, 16), (3, 37), (67, 2), (128, 1), (12, 20), (5, 33)))
        if k > 64:
            rows, columns = 2, 9
        a, b, c = random_operands(rng, datapath, rows, k, columns)
        done += check(a, b, datapath, c, seed=shard, stream=3, call=done)
