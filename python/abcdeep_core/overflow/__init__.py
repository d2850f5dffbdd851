"""What narrow accumulators do to the layers of a model: the overflow report."""

from .layer import OverflowLayer
from .model_files import load_model
from .nn_model import callable_source, network_source
from .source import ArraySource, Source

__all__ = [
    "ArraySource",
    "OverflowLayer",
    "Source",
    "callable_source",
    "load_model",
    "network_source",
]
