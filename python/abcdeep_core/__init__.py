"""Bit-exact, compiled emulation of low-precision arithmetic on NumPy arrays."""

from __future__ import annotations

from . import rtl as rtl
from ._accumulator_widths import AccumulatorWidths, accumulator_widths
from ._backward import matmul_backward
from ._bias_report import BiasReport, bias_report
from ._blocks import decode_blocks, encode_blocks, quantize_blocks
from ._channel_permutation import channel_permutation
from ._conv2d import conv2d, conv2d_backward
from ._greedy_order import greedy_order, greedy_width
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
from ._variance_retention import variance_retention, variance_retention_formula
from .accumulators import (
    exact_accumulator,
    float_accumulator,
    get_accumulator,
    integer_accumulator,
    lba_accumulator,
)
from .block_array import BlockArray
from .block_format import BlockFormat, block_formats, get_block_format
from .bounds import AccumulatorBounds, SumRange, accumulator_bounds, signed_width
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
from .overflow import (
    AccumulatorChoice,
    LayerChoice,
    OverflowLayer,
    OverflowReport,
    minimize_accumulators,
    overflow_report,
)
from .packed_24 import Packed24, unpack_24
from .plan import Plan
from .random import philox4x32, random_bits
from .ranges import HindsightMax
from .transposable_certificate import TransposableCertificate
from .width_rules import (
    TileWidths,
    data_type_width,
    dsp_fits,
    fixed_accumulator_format,
    kulisch_width,
    l1_cap,
    l1_width,
    tile_widths,
    zero_sum_widths,
)

__version__ = "0.1.0"

__all__ = [
    "AccumulatorBounds",
    "AccumulatorChoice",
    "AccumulatorWidths",
    "BiasReport",
    "BlockArray",
    "BlockFormat",
    "Datapath",
    "Events",
    "FixedFormat",
    "FloatFormat",
    "HardwareRounding",
    "HindsightMax",
    "LayerChoice",
    "OverflowLayer",
    "OverflowReport",
    "Packed24",
    "Plan",
    "Quantizer",
    "SumRange",
    "TileWidths",
    "TransposableCertificate",
    "__version__",
    "accumulator_bounds",
    "accumulator_widths",
    "bias_report",
    "block_formats",
    "channel_permutation",
    "conv2d",
    "conv2d_backward",
    "critical_noise",
    "data_type_width",
    "decode",
    "decode_blocks",
    "dsp_fits",
    "encode",
    "encode_blocks",
    "encode_uniform",
    "exact_accumulator",
    "exponent_bit_limits",
    "fixed_accumulator_format",
    "float_accumulator",
    "formats",
    "get_accumulator",
    "get_block_format",
    "get_format",
    "greedy_order",
    "greedy_width",
    "hardware_roundings",
    "integer_accumulator",
    "isa_info",
    "kulisch_width",
    "l1_cap",
    "l1_width",
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
    "minimize_accumulators",
    "ms_eden",
    "nm_mask",
    "nm_soft_threshold",
    "nm_unbiased",
    "overflow_report",
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
    "signed_width",
    "stochastic_pruning_threshold",
    "tile_widths",
    "transposable_mask",
    "unpack_24",
    "variance_retention",
    "variance_retention_formula",
    "zero_sum_widths",
]
