"""What narrow accumulators do to the layers of a model: the overflow report."""

from .choice import AccumulatorChoice, LayerChoice
from .layer import OverflowLayer
from .layer_bounds import layer_bounds
from .minimize import minimize_accumulators
from .source import ArraySource, Source

__all__ = [
    "AccumulatorChoice",
    "ArraySource",
    "LayerChoice",
    "OverflowLayer",
    "Source",
    "layer_bounds",
    "minimize_accumulators",
]
