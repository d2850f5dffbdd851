"""Bit-exact, compiled emulation of low-precision arithmetic on NumPy arrays."""

from __future__ import annotations

from ._quantize import decode, encode, quantize
from .formats import FixedFormat, FloatFormat, formats, get_format, lba_format
from .isa import isa_info
from .random import philox4x32, random_bits

__version__ = "0.1.0"

__all__ = [
    "FixedFormat",
    "FloatFormat",
    "__version__",
    "decode",
    "encode",
    "formats",
    "get_format",
    "isa_info",
    "lba_format",
    "philox4x32",
    "quantize",
    "random_bits",
]
