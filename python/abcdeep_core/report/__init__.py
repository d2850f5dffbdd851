"""Reports: one self-contained HTML file with tables and plots (extra ``[report]``)."""

from .figures import (
    Curve,
    Series,
    accuracy_against_bits,
    event_rates,
    layer_gains,
    partial_sum_range,
    training_curves,
)
from .page import Column, Figure, Page, Row, Section, Table, missing_extra, render, write

__all__ = [
    "Column",
    "Curve",
    "Figure",
    "Page",
    "Row",
    "Section",
    "Series",
    "Table",
    "accuracy_against_bits",
    "event_rates",
    "layer_gains",
    "missing_extra",
    "partial_sum_range",
    "render",
    "training_curves",
    "write",
]
