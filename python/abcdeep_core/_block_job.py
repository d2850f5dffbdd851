"""What a call of the block kernels needs: the format's struct, maxima, words."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, explicit_words, first_index
from ._block_layout import BlockLayout, Float32Array
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._maxima import INFINITY_BITS, largest_magnitudes
from ._quantizer import float_quantizer
from .block_format import BlockFormat
from .random import random_bits

_SCALE_RULES = {"floor": 0, "ceil": 1, "max": 2}
_FOUR_OVER_SIX = {None: 0, "mse": 1, "mae": 2}


@functools.lru_cache(maxsize=256)
def block_job(form: BlockFormat, rounding: str, bits: int | None, rule: str) -> _core.BlockJob:
    """Return what the kernels need of the format, everything about it checked."""
    element = form.element
    job = _core.BlockJob()
    if isinstance(element, FixedFormat):
        mantissa = element.bits - 1
        job.twos_complement = True
        element = FloatFormat(
            exponent_bits=0,
            mantissa_bits=mantissa,
            bias=1 - mantissa + element.fraction_bits,
            specials="none",
        )
    job.element = float_quantizer(element, rounding, "sat_finite", "gradual", "zero", bits, rule)
    job.element_max = form.element_max
    job.rule = _SCALE_RULES[form.scale_rule]
    job.four_over_six = _FOUR_OVER_SIX[form.four_over_six]
    if form.scale_by_power:
        job.headroom = nearest_float32(Fraction(form.headroom))
        return job
    job.scale = float_quantizer(form.scale, form.scale_rounding, "sat_finite")
    job.scale_max = form.scale.max
    job.scale_factor = nearest_float32(Fraction(form.headroom) / Fraction(form.element_max))
    if form.tensor_scale is not None:
        job.scaled_max = nearest_float32(scaled_max(form))
    return job


def scaled_max(form: BlockFormat) -> Fraction:
    """Return what the largest magnitude of a tensor becomes under its encode scale."""
    maximum = form.scale.max if form.maximum is None else form.maximum
    return Fraction(maximum) * Fraction(form.element_max)


def nearest_float32(exact: Fraction) -> float:
    """Return the nearest float32 number, rounded once."""
    near = np.float32(float(exact))
    candidates = (
        np.nextafter(near, np.float32(-np.inf)),
        near,
        np.nextafter(near, np.float32(np.inf)),
    )
    return float(
        min(candidates, key=lambda c: (abs(Fraction(float(c)) - exact), int(c.view(np.uint32)) & 1))
    )


def lane_bits(bits: int | None) -> int:
    return next(lane for lane in (1, 8, 16, 32) if (32 if bits is None else bits) <= lane)


def draw_words(
    name: str,
    given: npt.ArrayLike | None,
    shape: tuple[int, ...],
    lane: int,
    start: int,
    layout: BlockLayout,
    address: tuple[int, int, int],
    seeded: bool,
) -> Array | None:
    """Return explicit words as the kernels take them; None: none needed, or draws in order."""
    if not lane:
        return None
    if given is not None:
        words = explicit_words(name, given, shape)
    elif not seeded:
        raise ValueError(f"stochastic rounding needs seed= or {name}=, got neither")
    elif layout.in_order:
        return None
    else:
        seed, stream, call = address
        draws = random_bits(shape, seed=seed, stream=stream, call=call, bits=lane, start=start)
        words = draws.astype(np.uint32) << np.uint32(32 - lane)
    return layout.to_rows(words)


def tensor_maxima(
    x: Array,
    rows: Array,
    form: BlockFormat,
    layout: BlockLayout,
    max_abs: npt.ArrayLike | None,
    threads: int,
) -> Float32Array:
    """Return the largest magnitude of the tensor, or of each line, in the kernels' order."""
    lines = layout.lines_shape if form.tensor_scale == "row" else ()
    if max_abs is not None:
        given = as_array("max_abs", max_abs)
        if given.dtype.kind not in "fiu":
            raise TypeError(f"max_abs must be a number or hold floats, got {given.dtype}")
        with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
            given = given.astype(np.float32)
        if not np.all(np.isfinite(given) & (given >= 0)):
            raise ValueError(f"max_abs must be finite float32 numbers >= 0, got {max_abs!r}")
        try:
            largest = np.broadcast_to(given, lines)
        except ValueError:
            raise ValueError(
                f"max_abs must broadcast to one number a line, shape {lines}, got {given.shape}"
            ) from None
        return layout.to_rows(largest) if lines else largest.reshape(1).copy()
    count = int(np.prod(lines, dtype=int)) if lines else 1
    if not rows.size:
        return np.zeros(count, np.float32)
    maxima = largest_magnitudes(rows.reshape(count, -1), threads)
    if int(maxima.max()) >= INFINITY_BITS:
        raise_not_finite(x, form)
    return maxima.view(np.float32)


def raise_not_finite(x: Array, form: BlockFormat) -> None:
    at = first_index(~np.isfinite(x))
    scale = form.scale.name or repr(form.scale)
    raise ValueError(f"x must be finite under {scale} scales, got Inf or NaN at {at}")
