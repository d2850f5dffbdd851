"""What narrow accumulators do to the layers of a model: the overflow report."""

from .layer import OverflowLayer
from .source import ArraySource, Source

__all__ = ["ArraySource", "OverflowLayer", "Source"]
