"""What narrow accumulators do to the layers of a model: the overflow report."""

from .choice import AccumulatorChoice, LayerChoice
from .first_overflow import FirstOverflow
from .layer import OverflowLayer
from .layer_bounds import layer_bounds
from .minimize import minimize_accumulators
from .model_files import load_model
from .nn_model import callable_source, network_source
from .report import LayerReport, OverflowReport, WidthCurve
from .run import overflow_report
from .source import ArraySource, Source

__all__ = [
    "AccumulatorChoice",
    "ArraySource",
    "FirstOverflow",
    "LayerChoice",
    "LayerReport",
    "OverflowLayer",
    "OverflowReport",
    "Source",
    "WidthCurve",
    "callable_source",
    "layer_bounds",
    "load_model",
    "minimize_accumulators",
    "network_source",
    "overflow_report",
]
