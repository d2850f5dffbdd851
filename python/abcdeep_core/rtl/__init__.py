"""Test vectors for RTL: dot products as memory files, a Verilog unit, and benches that check it."""

from .bundle import Bundle, read_operands, write_bundle
from .float_text import read_float_text, write_float_text
from .hex_files import read_hex, write_hex
from .scoreboard import Expected, dot_products, expected_results
from .simulators import Simulation, simulate, simulators

__all__ = [
    "Bundle",
    "Expected",
    "Simulation",
    "dot_products",
    "expected_results",
    "read_float_text",
    "read_hex",
    "read_operands",
    "simulate",
    "simulators",
    "write_bundle",
    "write_float_text",
    "write_hex",
]
