"""Stochastic rounding as processors and their libraries do it, from explicit random words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core, _names
from ._arrays import Array, as_array, as_float32_array, check_out, first_index
from ._float_format import FloatFormat
from ._format_base import boolean
from ._quantize import encode as encode_values
from ._quantize import quantize
from ._threads import check_threads
from .formats import formats

_UInt32Array = npt.NDArray[np.uint32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardwareRounding:
    """One instruction or library function that rounds stochastically: what it does with its word.

    Parameters
    ----------
    name : str
        As `round_hardware` takes it.
    format : FloatFormat
        What is rounded to.
    elements : int
        Elements that share a random word.
    random_bits : int
        Random bits R of an element.
    shifts : tuple of int
        Place in the word of the lowest bit of R, for each element. Empty: each element takes the
        whole word, and the word steps on from element to element (`draws`).
    rounding : {"rule_a", "float32_sum"}
        rule_a: away from zero iff floor(nu * 2^random_bits) + R >= 2^random_bits, nu the discarded
        fraction. float32_sum: R as a fraction of a step is added in float32, then truncated.
    nan : {"nan", "max", "error"}
        What NaN becomes; "error" where no source says it.
    infinity : {"max", "nan"}
        What infinities become; finite values out of range become the largest of their sign.
    status : {"documented", "from source", "unverified"}
        Whether a vendor's text or source says all of it, or some is assumed.
    source : str
        What says it, and what is assumed.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> preset = ab.hardware_roundings()["ptx_rs_f16x2"]
    >>> preset.random_bits, preset.shifts, preset.status
    (13, (16, 0), 'documented')
    """

    name: str
    format: FloatFormat
    elements: int
    random_bits: int
    shifts: tuple[int, ...]
    rounding: Literal["rule_a", "float32_sum"] = "rule_a"
    nan: Literal["nan", "max", "error"]
    infinity: Literal["max", "nan"] = "max"
    status: Literal["documented", "from source", "unverified"]
    source: str

    def draws(self, random_bits: npt.ArrayLike) -> _UInt32Array:
        """Return R of each element, uint32 of shape (..., elements), for words of shape (...).

        Where `shifts` is empty, the word of an element is that of the one before it moved up by one
        bit, with 197 exclusive-ored in where a bit fell out.
        """
        word = _words(random_bits)
        if self.shifts:
            fields = [word >> np.uint32(shift) for shift in self.shifts]
        else:
            fields = [word]
            for _ in range(1, self.elements):
                word = (word << np.uint32(1)) ^ (word >> np.uint32(31)) * np.uint32(197)
                fields.append(word)
        mask = np.uint32((1 << self.random_bits) - 1)
        return np.stack([field & mask for field in fields], axis=-1)


def _rows() -> tuple[HardwareRounding, ...]:
    named = formats()
    ptx = "PTX ISA, cvt.rs.satfinite"
    return (
        HardwareRounding(
            name="ptx_rs_f16x2", format=named["fp16"], elements=2, random_bits=13, shifts=(16, 0),
            nan="nan", status="documented",
            source=f"{ptx}.f16x2.f32 d, a, b, rbits; elements are a, b (sm_100a, sm_103a)",
        ),
        HardwareRounding(
            name="ptx_rs_bf16x2", format=named["bf16"], elements=2, random_bits=16, shifts=(16, 0),
            nan="nan", status="documented",
            source=f"{ptx}.bf16x2.f32 d, a, b, rbits; elements are a, b (sm_100a, sm_103a)",
        ),
        HardwareRounding(
            name="ptx_rs_e2m1x4", format=named["e2m1"], elements=4, random_bits=8,
            shifts=(24, 8, 16, 0), nan="max", status="unverified",
            source=f"{ptx}.e2m1x4.f32 d, {{a, b, e, f}}, rbits; elements are a, b, e, f. The text "
            "gives the upper bytes of both halves to a and b, the lower ones to e and f; that the "
            "upper half is for a and e is assumed",
        ),
        HardwareRounding(
            name="te_software_e2m1", format=named["e2m1"], elements=4, random_bits=8,
            shifts=(0, 8, 16, 24), rounding="float32_sum", nan="error", status="from source",
            source="Transformer Engine's rounding to E2M1 in software; byte k is for element k",
        ),
        HardwareRounding(
            name="amd_hip_sw_fp8", format=named["e4m3fnuz"], elements=1, random_bits=20,
            shifts=(0,), nan="nan", infinity="nan", status="from source",
            source="HIP's cast_to_f8 to E4M3 FNUZ with stochastic rounding and saturation",
        ),
        HardwareRounding(
            name="amd_hip_sw_bf8", format=named["e5m2fnuz"], elements=1, random_bits=21,
            shifts=(0,), nan="nan", infinity="nan", status="from source",
            source="HIP's cast_to_f8 to E5M2 FNUZ with stochastic rounding and saturation",
        ),
        HardwareRounding(
            name="gfx950_pk_fp4", format=named["e2m1"], elements=2, random_bits=32, shifts=(),
            nan="error", status="unverified",
            source="gfx950's packed conversions to FP4: the sequence of words is documented, that "
            "an element is rounded by the top bits of its word is assumed",
        ),
    )  # fmt: skip


_PRESETS: Mapping[str, HardwareRounding] = MappingProxyType({row.name: row for row in _rows()})


def hardware_roundings() -> Mapping[str, HardwareRounding]:
    """Return the known hardware stochastic roundings, as a read-only mapping from their names.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> for name, preset in ab.hardware_roundings().items():
    ...     print(f"{name:17} {preset.format.name:9} {preset.elements} {preset.status}")
    ptx_rs_f16x2      fp16      2 documented
    ptx_rs_bf16x2     bf16      2 documented
    ptx_rs_e2m1x4     e2m1      4 unverified
    te_software_e2m1  e2m1      4 from source
    amd_hip_sw_fp8    e4m3fnuz  1 from source
    amd_hip_sw_bf8    e5m2fnuz  1 from source
    gfx950_pk_fp4     e2m1      2 unverified
    """
    return _PRESETS


def round_hardware(
    x: npt.ArrayLike,
    name: str,
    random_bits: npt.ArrayLike,
    *,
    encode: bool = False,
    out: Array | None = None,
    threads: SupportsIndex | None = None,
) -> Array:
    """Round as an instruction or a library function does, from the random words it is given.

    Parameters
    ----------
    x : array_like of float32 or a narrower float, shape (..., elements)
        The last axis holds the elements that share a random word.
    name : str
        A key of `hardware_roundings`.
    random_bits : array_like of uint32, shape (...)
        The random words.
    encode : bool
        Return code words instead of values.
    out : ndarray, optional
        Array for the result, of its shape and dtype; for values it may be `x` itself.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray, shape of `x`
        float32 values of the preset's format, or its code words.

    Raises
    ------
    TypeError
        If `x` is float64 or holds no floats, or `random_bits` are not uint32.
    ValueError
        If the name is unknown, a shape is wrong, or `x` holds a NaN of which no source says what
        it becomes.

    Notes
    -----
    The definitions are in docs/hardware_rounding.md.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float32([[2.5, -2.5, 0.125, 7]])
    >>> ab.round_hardware(x, "te_software_e2m1", np.uint32([0x00C08080]))
    array([[ 3. , -3. ,  0.5,  6. ]], dtype=float32)
    >>> ab.round_hardware(x, "te_software_e2m1", np.uint32([0x00BF7F7F]), encode=True)
    array([[ 4, 12,  0,  7]], dtype=uint8)
    """
    preset = _PRESETS[_names.canonical("name", name, {known: known for known in _PRESETS})]
    array = as_float32_array("x", x)
    words = _words(random_bits)
    expected = (*words.shape, preset.elements)
    if array.shape != expected:
        raise ValueError(f"x: expected shape {expected} for these random_bits, got {array.shape}")
    if preset.nan == "error" and np.isnan(array).any():
        at = first_index(np.isnan(array))
        raise ValueError(f"x: expected no NaN for {preset.name}, got NaN at {at}")
    encode = boolean("encode", encode)
    if out is not None:
        dtype = preset.format.code_dtype if encode else np.dtype(np.float32)
        check_out(out, array.shape, dtype)
    count = check_threads(threads) or None
    if preset.infinity == "nan":
        array = np.where(np.isinf(array), np.float32(np.nan), array)
    draws = preset.draws(words)
    run: Callable[..., Array] = encode_values if encode else quantize
    if preset.rounding == "float32_sum":
        return run(_add_and_truncate(array, draws), preset.format, out=out, threads=count)
    return run(
        array,
        preset.format,
        "stochastic",
        overflow="sat_finite",
        nan_to="max_pos" if preset.nan == "max" else None,
        bits=preset.random_bits,
        rule="a",
        random_bits=draws << np.uint32(32 - preset.random_bits),
        out=out,
        threads=count,
    )


def _add_and_truncate(x: Array, draws: _UInt32Array) -> Array:
    """Return t = fma(u, step(|x|), |x|) cut to a multiple of step(t) and to 6, with the sign of x.

    u = draws / 256. The float64 sum is exact, or what it loses cannot change the float32 one.
    """
    with _core.NearestEnvironment():
        magnitude = np.abs(x).astype(np.float64)
        total = (magnitude + draws / 256 * _step(magnitude)).astype(np.float32)
        cut = np.floor(total / _step(total)) * _step(total)
        rounded: Array = np.copysign(np.minimum(cut, 6), x).astype(np.float32)
    return rounded


def _step(magnitude: Array) -> Array:
    """Return the distance of the E2M1 values around `magnitude`."""
    return np.where(magnitude < 2, 0.5, np.where(magnitude < 4, 1.0, 2.0))


def _words(random_bits: npt.ArrayLike) -> _UInt32Array:
    words = as_array("random_bits", random_bits)
    if words.dtype != np.uint32:
        raise TypeError(f"random_bits: expected dtype uint32, got {words.dtype}")
    return words
