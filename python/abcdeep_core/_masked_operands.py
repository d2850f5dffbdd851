"""Masked operands of matrix products: terms that sparse hardware would skip."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, first_index


def mask_operands(
    operands: tuple[Array, Array],
    names: tuple[str, str],
    masks: tuple[npt.ArrayLike | None, npt.ArrayLike | None],
) -> tuple[Array, Array]:
    """Return both operands with zeros where their masks are False.

    The term of a skipped element then is a zero, which changes no sum and raises no event. A zero
    times NaN or infinity would do both, so the operand beside a mask must be finite. In floats
    skipped elements are -0 and other zeros +0: the engine that counts events tells them apart.
    """
    masked = tuple(
        operand if mask is None else _masked(name, operand, mask)
        for operand, name, mask in zip(operands, names, masks, strict=True)
    )
    for mask, other, name in zip(masks, masked[::-1], names[::-1], strict=True):
        if mask is not None and other.dtype.kind == "f" and not np.isfinite(other).all():
            at = first_index(~np.isfinite(other))
            raise ValueError(
                f"{name} must be finite beside a masked operand, got NaN or an infinity at {at}"
            )
    return masked[0], masked[1]


def _masked(name: str, operand: Array, mask: Any) -> Array:
    kept = as_array(f"{name}_mask", mask)
    if kept.dtype != np.bool_:
        raise TypeError(f"{name}_mask must have dtype bool, got {kept.dtype}")
    try:
        kept = np.broadcast_to(kept, operand.shape)
    except ValueError:
        raise ValueError(
            f"{name}_mask must have a shape that broadcasts to that of {name}, {operand.shape}, "
            f"got {kept.shape}"
        ) from None
    zero = np.zeros((), operand.dtype)
    if operand.dtype.kind != "f":
        return np.where(kept, operand, zero)
    with _core.NearestEnvironment():
        return np.where(kept, operand + zero, -zero)
