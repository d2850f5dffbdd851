"""quantize and encode against the exact oracle: every rounding, underflow and overflow rule."""

from __future__ import annotations

import numpy as np
import pytest
from quantize_cases import (
    DETERMINISTIC,
    HUGE,
    OVERFLOWS,
    TINY,
    UNDERFLOWS,
    Words,
    both_signs,
    check,
    generic_formats,
    magnitudes,
    points,
)

import abcdeep_core as ab

BIASES = [-3, None, 20]


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("bias", BIASES)
def test_rounding_at_every_value_midpoint_and_quarter_point(bias, rounding):
    for fmt in generic_formats(bias=bias, specials="none"):
        x = both_signs(points(magnitudes(fmt)))
        check(x, fmt, rounding, Words(fmt))


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("underflow", UNDERFLOWS[1:])
def test_underflow_rules(underflow, rounding):
    for bias in BIASES:
        for code0 in ("subnormal", "ordinary", "zero"):
            for fmt in generic_formats(bias=bias, specials="none", code0=code0):
                grid = magnitudes(fmt)
                x = points(grid[grid <= 2.0 ** (fmt.emin + 1)])
                x = both_signs(np.concatenate([x, np.float32([TINY, 2.0**-126])]))
                check(x, fmt, rounding, Words(fmt), underflow=underflow)
