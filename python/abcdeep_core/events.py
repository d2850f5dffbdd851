"""What happened inside the dot products of a call: overflow, underflow, swamping, extremes."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Count: TypeAlias = int | npt.NDArray[np.int64]
Extreme: TypeAlias = float | npt.NDArray[np.float64]

# The order of cpp/datapath.hpp.
COUNTED = (
    "accumulator_overflow",
    "product_overflow",
    "overflowed_outputs",
    "transient",
    "persistent",
    "product_underflow",
    "accumulator_underflow",
    "swamped",
    "rounded",
    "absorbed",
    "nonfinite",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """Counts of numerical events over terms, steps and outputs; ``a + b`` merges two.

    A step is one addition that the accumulator rounds: of a term, of a group of terms, or of a
    chunk sum. An exact accumulator has one step a sum. With ``per_output=True`` each field is an
    array of the result's shape, else a number.

    Parameters
    ----------
    terms, steps, outputs : int
        Products, steps and dot products looked at.
    accumulator_overflow : int
        Steps whose value before saturation, wrap or Inf is out of range.
    product_overflow : int
        Terms whose product is out of the range of the product quantiser.
    overflowed_outputs : int
        Outputs with one of the two.
    transient, persistent : int
        Integer datapaths, outputs: a prefix of the exact sum is out of range though the sum is not;
        the sum is.
    product_underflow, accumulator_underflow : int
        Float datapaths: terms and steps that were not zero and became zero.
    swamped : int
        Float datapaths, steps: the addend was not zero and changed nothing.
    rounded : int
        Float datapaths, steps whose result is not the exact sum.
    absorbed : int
        Float datapaths, steps: the running sum was not zero and vanished beside the addend.
    nonfinite : int
        Float datapaths, terms or steps that made Inf or NaN from finite values.
    min_partial, max_partial : float
        Extreme partial sums before rounding, saturation or wrap; 0 if there was no step.

    Notes
    -----
    With ``events="overflow"`` only the fields up to `persistent` and the extremes are counted; the
    others are 0.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.full((1, 8), 100, np.int8)
    >>> c, events = ab.matmul(x, x.T, ab.integer_accumulator(16), events=True)
    >>> events.accumulator_overflow, events.persistent, events.max_partial
    (1, 1, 40000.0)
    """

    terms: Count = 0
    steps: Count = 0
    outputs: Count = 0
    accumulator_overflow: Count = 0
    product_overflow: Count = 0
    overflowed_outputs: Count = 0
    transient: Count = 0
    persistent: Count = 0
    product_underflow: Count = 0
    accumulator_underflow: Count = 0
    swamped: Count = 0
    rounded: Count = 0
    absorbed: Count = 0
    nonfinite: Count = 0
    min_partial: Extreme = 0.0
    max_partial: Extreme = 0.0

    def __add__(self, other: Events) -> Events:
        """Return the events of both; extremes of a side without steps do not count."""
        if not isinstance(other, Events):
            return NotImplemented
        merged: dict[str, Any] = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self)
            if not field.name.endswith("_partial")
        }
        for name, pick in (("min_partial", np.minimum), ("max_partial", np.maximum)):
            mine, theirs = getattr(self, name), getattr(other, name)
            extreme = np.where(
                np.equal(self.steps, 0),
                theirs,
                np.where(np.equal(other.steps, 0), mine, pick(mine, theirs)),
            )
            merged[name] = float(extreme) if extreme.ndim == 0 else extreme
        return Events(**merged)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data; arrays become nested lists."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in (
                (field.name, getattr(self, field.name)) for field in dataclasses.fields(self)
            )
        }
