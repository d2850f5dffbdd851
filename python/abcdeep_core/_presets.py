"""The table of named floating-point formats, and the names of the IEEE P3109 formats."""

from __future__ import annotations

import re
from typing import NamedTuple


class Preset(NamedTuple):
    """One row: the fields of a `FloatFormat`, its other names, and what the name stands for."""

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str = "ieee"
    code0: str = "subnormal"
    signed: bool = True
    negative_zero: bool | None = None
    padding_bits: int = 0
    aliases: tuple[str, ...] = ()
    dtype_name: str | None = None  # name of the ml_dtypes / NumPy dtype with the same code table
    note: str = ""


# A new format is a new row. Biases are written out, also where they are the default.
PRESETS: tuple[Preset, ...] = (
    Preset("e4m3fn", 4, 3, 7, "fn", dtype_name="float8_e4m3fn",
           aliases=("OCP E4M3",), note="OCP 8-bit E4M3, MXFP8 element"),
    Preset("e5m2", 5, 2, 15, "ieee", dtype_name="float8_e5m2",
           aliases=("OCP E5M2",), note="OCP 8-bit E5M2, MXFP8 element"),
    Preset("e4m3fnuz", 4, 3, 8, "fnuz", dtype_name="float8_e4m3fnuz",
           aliases=("AMD fp8",), note="AMD fp8"),
    Preset("e5m2fnuz", 5, 2, 16, "fnuz", dtype_name="float8_e5m2fnuz",
           aliases=("AMD bf8",), note="AMD bf8"),
    Preset("e4m3b11fnuz", 4, 3, 11, "fnuz", dtype_name="float8_e4m3b11fnuz",
           note="8-bit E4M3 with bias 11"),
    Preset("e4m3", 4, 3, 7, "ieee", dtype_name="float8_e4m3", note="8-bit E4M3, IEEE style"),
    Preset("e3m4", 3, 4, 3, "ieee", dtype_name="float8_e3m4", note="8-bit E3M4, IEEE style"),
    Preset("e2m3", 2, 3, 1, "none", dtype_name="float6_e2m3fn",
           aliases=("e2m3fn",), note="OCP FP6, MXFP6 element"),
    Preset("e3m2", 3, 2, 3, "none", dtype_name="float6_e3m2fn",
           aliases=("e3m2fn",), note="OCP FP6, MXFP6 element"),
    Preset("e2m1", 2, 1, 1, "none", dtype_name="float4_e2m1fn",
           aliases=("e2m1fn", "OCP FP4"), note="OCP FP4, MXFP4 and NVFP4 element"),
    Preset("e3m0", 3, 0, 1, "none", negative_zero=False,
           note="4-bit powers of two of LUQ; the word 0x8 is unused"),
    Preset("uniform4", 1, 2, -1, "none", note="sign-magnitude INT4: the integers -7..7"),
    Preset("fp7_142", 4, 2, 1, "none", code0="zero", note="7-bit product of MF-BPROP"),
    Preset("e8m0", 8, 0, 127, "e8m0", code0="ordinary", signed=False, dtype_name="float8_e8m0fnu",
           aliases=("e8m0fnu",), note="OCP block scale, no zero"),
    Preset("ue4m3", 4, 3, 7, "fn", signed=False, note="NVFP4 block scale, e4m3fn without sign"),
    Preset("fp16", 5, 10, 15, "ieee", dtype_name="float16",
           aliases=("binary16",), note="IEEE 754 binary16"),
    Preset("bf16", 8, 7, 127, "ieee", dtype_name="bfloat16",
           aliases=("BFloat16",), note="bfloat16"),
    Preset("tf32", 8, 10, 127, "ieee", padding_bits=13,
           note="19 bits in a 32-bit word, the low 13 bits zero"),
    Preset("fp22", 8, 13, 127, "ieee", note="accumulator register of some FP8 matrix units"),
    Preset("binary32", 8, 23, 127, "ieee", dtype_name="float32",
           aliases=("fp32",), note="IEEE 754 binary32"),
    Preset("binary64", 11, 52, 1023, "ieee", dtype_name="float64",
           aliases=("fp64",), note="IEEE 754 binary64"),
)  # fmt: skip

# Other name of a preset -> its name. The name of the dtype is one of them.
ALIASES: dict[str, str] = {
    alias: row.name
    for row in PRESETS
    for alias in (*row.aliases, *((row.dtype_name,) if row.dtype_name else ()))
}

# What decides the code table: everything but the rules and the name.
LAYOUT_FIELDS = (
    "exponent_bits",
    "mantissa_bits",
    "bias",
    "specials",
    "code0",
    "signed",
    "negative_zero",
    "padding_bits",
)

_P3109 = re.compile(r"[Bb]inary([1-9][0-9]*)p([0-9]+)([su])([ef])")


def parse_p3109(name: str) -> Preset | None:
    """Return the fields of a P3109 format such as ``binary8p4se``; None if it is no such name.

    Source: IEEE P3109 Interim Report v4.0: ``Binary{K}p{P}`` followed by s(igned) or u(nsigned) and
    e(xtended, with infinities) or f(inite). The bias is 2^(K-P-1) signed and 2^(K-P) unsigned,
    which is 2^(E-1) in both, as E = K - P signed and K - P + 1 unsigned.

    Raises
    ------
    ValueError
        If the name has the form of a P3109 name but K or P is out of range.
    """
    match = _P3109.fullmatch(name)
    if match is None:
        return None
    width, precision = int(match[1]), int(match[2])
    signed = match[3] == "s"
    if not 3 <= width <= 16:
        raise ValueError(f"name {name!r}: the width K must be in 3..16, got {width}")
    highest = width - 1 if signed else width
    if not 1 <= precision <= highest:
        raise ValueError(
            f"name {name!r}: the precision P must be in 1..{highest} for a "
            f"{'signed' if signed else 'unsigned'} format of width {width}, got {precision}"
        )
    exponent_bits = width - precision + (0 if signed else 1)
    return Preset(
        "b" + name[1:],
        exponent_bits,
        precision - 1,
        1 << (exponent_bits - 1),
        "p3109" if match[4] == "e" else "p3109_finite",
        signed=signed,
        note="IEEE P3109 " + ("extended" if match[4] == "e" else "finite"),
    )
