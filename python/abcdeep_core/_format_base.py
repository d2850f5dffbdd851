"""What the two classes of format share: checked fields, exact floats, dicts, copies, repr."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _names

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]


def integer(field: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as an int in [low, high], or raise an error that names the field."""
    # bool is an int for Python, but never what a width or a bias is meant to be.
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{field} must be an integer, got {value!r} (bool)")
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # refused below
    except TypeError:
        raise TypeError(
            f"{field} must be an integer, got {value!r} ({type(value).__name__})"
        ) from None
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{field} must be in {low}..{high}, got {number}")
    return number


def boolean(field: str, value: object) -> bool:
    """Return `value` if it is a bool, or raise a TypeError that names the field."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{field} must be a bool, got {value!r} ({type(value).__name__})")
    return bool(value)


def string(field: str, value: object) -> str:
    """Return `value` if it is a string, or raise a TypeError that names the field."""
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a string, got {value!r} ({type(value).__name__})")
    return value


def exact_float(significand: int, exponent: int, what: str) -> float:
    """Return significand * 2^exponent, or raise ValueError if float64 does not hold it exactly."""
    trailing = (significand & -significand).bit_length() - 1 if significand else 0
    odd, exponent = significand >> trailing, exponent + trailing
    width = abs(odd).bit_length()
    if odd and (width > 53 or exponent < -1074 or width + exponent > 1024):
        raise ValueError(f"{what} is {odd} * 2^{exponent}, which does not fit float64")
    return math.ldexp(odd, exponent) if odd else 0.0


def unsigned_dtype(bits: int) -> np.dtype[Any]:
    """Return the smallest unsigned dtype of at least `bits` bits."""
    return np.dtype(next(f"uint{n}" for n in (8, 16, 32, 64) if bits <= n))


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class BaseFormat:
    """What float and fixed-point formats share: dicts, copies and a repr that evaluates."""

    _kind: ClassVar[str]

    def __repr__(self) -> str:
        """Return the constructor call that gives this format, without fields at their default."""
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if field.name == "bias" or getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and ``"kind"``, as a dict of plain Python values (JSON holds it)."""
        return {"kind": self._kind, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the format that `to_dict` described.

        Raises
        ------
        TypeError
            If a required field is missing.
        ValueError
            If there is an unknown field, or ``"kind"`` is that of another class.
        """
        fields = dict(data)
        kind = fields.pop("kind", cls._kind)
        if kind != cls._kind:
            raise ValueError(f"data['kind'] must be {cls._kind!r}, got {kind!r}")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise ValueError(f"unknown field {name!r}; {_names.nearest(name, known)}")
        return cls(**fields)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; the copy has no name unless `name` is given.

        The bias is a field like any other and stays: pass ``bias=None`` for the default bias of a
        new ``exponent_bits``.
        """
        if changes:
            changes.setdefault("name", "")
        return dataclasses.replace(self, **changes)
