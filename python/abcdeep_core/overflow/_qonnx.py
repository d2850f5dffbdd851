"""QONNX quantisers: their codes, and the same in operators of ONNX itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import Array
from .._operand_types import LARGEST_BITS, Range
from ._onnx_extra import helper, numpy_helper

QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
QONNX_OPERATORS = ("Quant", "BipolarQuant")


def quant_range(where: str, bits: float, settings: Mapping[str, Any]) -> Range:
    """Return the codes that a Quant node gives, by its bit width, `signed` and `narrow`.

    Raises
    ------
    ValueError
        A bit width that is not an integer from 1 to 16.
    """
    if bits != round(bits) or not 1 <= bits <= LARGEST_BITS:
        raise ValueError(f"node {where!r}: bit width: expected 1 to {LARGEST_BITS}, got {bits}")
    width, narrow = int(bits), int(settings.get("narrow", 0))
    if settings.get("signed", 1):
        return -(2 ** (width - 1)) + narrow, 2 ** (width - 1) - 1
    return 0, 2**width - 1 - narrow


def _rounding(where: str, settings: Mapping[str, Any]) -> str:
    mode = str(settings.get("rounding_mode", "ROUND")).upper()
    modes = {"ROUND": "Round", "HALF_EVEN": "Round", "CEIL": "Ceil", "FLOOR": "Floor"}
    if mode not in (*modes, "ROUND_TO_ZERO"):
        raise ValueError(
            f"node {where!r}: rounding_mode: expected {', '.join(modes)} or ROUND_TO_ZERO, got"
            f" {mode}"
        )
    return modes.get(mode, "ROUND_TO_ZERO")


def quant_codes(
    where: str,
    operator: str,
    x: Array,
    parameters: Sequence[Array | None],
    settings: Mapping[str, Any],
) -> tuple[Array, Range]:
    """Return the integer codes of constant floats, and the range of codes.

    Raises
    ------
    ValueError
        Parameters that are not constant, or not supported.
    """
    scale = parameters[0]
    assert scale is not None
    if operator == "BipolarQuant":
        return np.where(x >= 0, 1, -1).astype(np.int8), (-1, 1)
    if operator != "Quant":
        raise ValueError(f"node {where!r}: expected Quant or BipolarQuant, got {operator}")
    zero, bits = parameters[1], parameters[2]
    assert zero is not None
    assert bits is not None
    if bits.size != 1 or (zero != np.rint(zero)).any():
        raise ValueError(f"node {where!r}: expected one bit width and integer zero points")
    low, high = quant_range(where, float(bits.reshape(-1)[0]), settings)
    quotient = np.clip((x / scale).astype(x.dtype) + zero.astype(x.dtype), low, high)
    function = {"Round": np.rint, "Ceil": np.ceil, "Floor": np.floor, "ROUND_TO_ZERO": np.trunc}
    return function[_rounding(where, settings)](quotient).astype(np.int32), (low, high)


def standard_nodes(
    node: Any, where: str, settings: Mapping[str, Any], bits: Array | None
) -> tuple[list[Any], list[Any]]:
    """Return nodes of ONNX that compute a QONNX node, and the initializers that they use.

    Raises
    ------
    ValueError
        A node that is not supported.
    """
    prefix = f"{node.output[0]}/"
    constants: list[Any] = []

    def number(name: str, value: float) -> str:
        constants.append(numpy_helper.from_array(np.array(value, np.float32), prefix + name))
        return prefix + name

    nodes: list[Any] = []

    def step(operator: str, *inputs: str, output: str = "") -> str:
        name = output or f"{prefix}{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{where}/{len(nodes)}"))
        return name

    x, scale = node.input[0], node.input[1]
    if node.op_type == "BipolarQuant":
        positive = step("GreaterOrEqual", x, number("zero", 0))
        sign = step("Where", positive, number("plus", 1), number("minus", -1))
        step("Mul", sign, scale, output=node.output[0])
        return nodes, constants
    if node.op_type != "Quant" or bits is None or bits.size != 1:
        raise ValueError(f"node {where!r}: expected Quant with one constant bit width")
    low, high = quant_range(where, float(bits.reshape(-1)[0]), settings)
    zero = node.input[2]
    code = step("Add", step("Div", x, scale), zero)
    code = step("Clip", code, number("low", low), number("high", high))
    rounding = _rounding(where, settings)
    if rounding == "ROUND_TO_ZERO":
        code = step("Mul", step("Sign", code), step("Floor", step("Abs", code)))
    else:
        code = step(rounding, code)
    step("Mul", step("Sub", code, zero), scale, output=node.output[0])
    return nodes, constants
