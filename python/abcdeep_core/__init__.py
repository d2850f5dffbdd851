"""Bit-exact, compiled emulation of low-precision arithmetic on NumPy arrays."""

from __future__ import annotations

from ._backward import matmul_backward
from ._conv2d import conv2d, conv2d_backward
from ._matmul import matmul
from ._quantize import decode, encode, quantize
from .accumulators import (
    exact_accumulator,
    float_accumulator,
    get_accumulator,
    integer_accumulator,
    lba_accumulator,
)
from .datapath import Datapath, Quantizer
from .events import Events
from .formats import FixedFormat, FloatFormat, formats, get_format, lba_format
from .isa import isa_info
from .plan import Plan
from .random import philox4x32, random_bits

__version__ = "0.1.0"

__all__ = [
    "Datapath",
    "Events",
    "FixedFormat",
    "FloatFormat",
    "Plan",
    "Quantizer",
    "__version__",
    "conv2d",
    "conv2d_backward",
    "decode",
    "encode",
    "exact_accumulator",
    "float_accumulator",
    "formats",
    "get_accumulator",
    "get_format",
    "integer_accumulator",
    "isa_info",
    "lba_accumulator",
    "lba_format",
    "matmul",
    "matmul_backward",
    "philox4x32",
    "quantize",
    "random_bits",
]
