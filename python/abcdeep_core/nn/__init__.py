"""Small NumPy training loops in which every matrix product has an arithmetic."""

from ._weight_masks import MaskedDecay, weight_masks
from .arithmetic import (
    Arithmetic,
    GemmArithmetic,
    float32_arithmetic,
    integer_arithmetic,
    lba_arithmetic,
)
from .convolution import AvgPool2d, Conv2d, MaxPool2d
from .layers import Flatten, Layer, Parameter, ReLU, Sequential
from .linear import GemmLayer, Linear
from .loss import softmax_cross_entropy
from .normalization import BatchNorm, LayerNorm
from .operand import (
    FormatQuantizer,
    OperandContext,
    RandomAddress,
    ScaledArray,
    SymmetricQuantizer,
)
from .optimizer import (
    Optimizer,
    OptimizerState,
    adamw,
    cosine_schedule,
    sgd,
    triangle_schedule,
)
from .progress import ProgressBar
from .quantizers import (
    BlockQuantizer,
    DelayedScaleQuantizer,
    LuqQuantizer,
    UniformQuantizer,
)
from .recipes import (
    fnt_arithmetic,
    fp8_arithmetic,
    luq_arithmetic,
    mxfp4_arithmetic,
    nvfp4_arithmetic,
)
from .sparse_recipe import nm_arithmetic
from .sparsity import (
    MagnitudeMask,
    QuantizerChain,
    TransposableMask,
    UnbiasedMask,
)
from .training import Evaluation, History, evaluate, train

__all__ = [
    "Arithmetic",
    "AvgPool2d",
    "BatchNorm",
    "BlockQuantizer",
    "Conv2d",
    "DelayedScaleQuantizer",
    "Evaluation",
    "Flatten",
    "FormatQuantizer",
    "GemmArithmetic",
    "GemmLayer",
    "History",
    "Layer",
    "LayerNorm",
    "Linear",
    "LuqQuantizer",
    "MagnitudeMask",
    "MaskedDecay",
    "MaxPool2d",
    "OperandContext",
    "Optimizer",
    "OptimizerState",
    "Parameter",
    "ProgressBar",
    "QuantizerChain",
    "RandomAddress",
    "ReLU",
    "ScaledArray",
    "Sequential",
    "SymmetricQuantizer",
    "TransposableMask",
    "UnbiasedMask",
    "UniformQuantizer",
    "adamw",
    "cosine_schedule",
    "evaluate",
    "float32_arithmetic",
    "fnt_arithmetic",
    "fp8_arithmetic",
    "integer_arithmetic",
    "lba_arithmetic",
    "luq_arithmetic",
    "mxfp4_arithmetic",
    "nm_arithmetic",
    "nvfp4_arithmetic",
    "sgd",
    "softmax_cross_entropy",
    "train",
    "triangle_schedule",
    "weight_masks",
]
