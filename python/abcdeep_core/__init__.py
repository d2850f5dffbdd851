"""Bit-exact, compiled emulation of low-precision arithmetic on NumPy arrays."""

from __future__ import annotations

from ._backward import matmul_backward
from ._bias_report import BiasReport, bias_report
from ._blocks import decode_blocks, encode_blocks, quantize_blocks
from ._channel_permutation import channel_permutation
from ._conv2d import conv2d, conv2d_backward
from ._hadamard import random_hadamard
from ._luq import luq, luq_encode
from ._magnitude_mask import magnitude_mask
from ._matmul import matmul
from ._ms_eden import ms_eden
from ._nm_mask import nm_mask
from ._nm_soft_threshold import nm_soft_threshold
from ._nm_unbiased import nm_unbiased
from ._pack_24 import pack_24, pack_24_both_ways
from ._quantize import decode, encode, quantize
from ._transposable_mask import transposable_mask
from ._uniform import encode_uniform, quantize_uniform, sawb_clip
from .accumulators import (
    exact_accumulator,
    float_accumulator,
    get_accumulator,
    integer_accumulator,
    lba_accumulator,
)
from .block_array import BlockArray
from .block_format import BlockFormat, block_formats, get_block_format
from .datapath import Datapath, Quantizer
from .events import Events
from .format_selection import (
    critical_noise,
    exponent_bit_limits,
    lognormal_format_error,
    select_exponent_bits,
    stochastic_pruning_threshold,
)
from .formats import FixedFormat, FloatFormat, formats, get_format, lba_format
from .hardware_rounding import HardwareRounding, hardware_roundings, round_hardware
from .isa import isa_info
from .mf_bprop import mf_bprop_accumulator, mf_bprop_product
from .overflow import OverflowLayer
from .packed_24 import Packed24, unpack_24
from .plan import Plan
from .random import philox4x32, random_bits
from .ranges import HindsightMax
from .transposable_certificate import TransposableCertificate

__version__ = "0.1.0"

__all__ = [
    "BiasReport",
    "BlockArray",
    "BlockFormat",
    "Datapath",
    "Events",
    "FixedFormat",
    "FloatFormat",
    "HardwareRounding",
    "HindsightMax",
    "OverflowLayer",
    "Packed24",
    "Plan",
    "Quantizer",
    "TransposableCertificate",
    "__version__",
    "bias_report",
    "block_formats",
    "channel_permutation",
    "conv2d",
    "conv2d_backward",
    "critical_noise",
    "decode",
    "decode_blocks",
    "encode",
    "encode_blocks",
    "encode_uniform",
    "exact_accumulator",
    "exponent_bit_limits",
    "float_accumulator",
    "formats",
    "get_accumulator",
    "get_block_format",
    "get_format",
    "hardware_roundings",
    "integer_accumulator",
    "isa_info",
    "lba_accumulator",
    "lba_format",
    "lognormal_format_error",
    "luq",
    "luq_encode",
    "magnitude_mask",
    "matmul",
    "matmul_backward",
    "mf_bprop_accumulator",
    "mf_bprop_product",
    "ms_eden",
    "nm_mask",
    "nm_soft_threshold",
    "nm_unbiased",
    "pack_24",
    "pack_24_both_ways",
    "philox4x32",
    "quantize",
    "quantize_blocks",
    "quantize_uniform",
    "random_bits",
    "random_hadamard",
    "round_hardware",
    "sawb_clip",
    "select_exponent_bits",
    "stochastic_pruning_threshold",
    "transposable_mask",
    "unpack_24",
]
