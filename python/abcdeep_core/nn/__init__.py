"""Small NumPy training loops in which every matrix product has an arithmetic."""

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
from .operand import FormatQuantizer, RandomAddress, ScaledArray, SymmetricQuantizer
from .optimizer import Optimizer, OptimizerState, adamw, cosine_schedule, sgd
from .progress import ProgressBar
from .training import Evaluation, History, evaluate, train

__all__ = [
    "Arithmetic",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Evaluation",
    "Flatten",
    "FormatQuantizer",
    "GemmArithmetic",
    "GemmLayer",
    "History",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "Optimizer",
    "OptimizerState",
    "Parameter",
    "ProgressBar",
    "RandomAddress",
    "ReLU",
    "ScaledArray",
    "Sequential",
    "SymmetricQuantizer",
    "adamw",
    "cosine_schedule",
    "evaluate",
    "float32_arithmetic",
    "integer_arithmetic",
    "lba_arithmetic",
    "sgd",
    "softmax_cross_entropy",
    "train",
]
