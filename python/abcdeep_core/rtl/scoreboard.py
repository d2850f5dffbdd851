"""What a multiply-accumulate unit must return: results, sticky flags, and the first overflow."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from .._matmul import matmul, operand_order
from ..datapath import Datapath
from .hex_files import fit, integers
from .mac_unit import MacUnit, OperandType

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Expected:
    """Expected outputs of a unit, one element a dot product.

    Attributes
    ----------
    result : ndarray of int64
        The accumulator after the last step.
    overflow : ndarray of bool
        The sticky flag: some step, or some merge of chunks, left the range.
    first_step : ndarray of int64
        The step at whose end the flag is first raised, counted from 0; -1 without overflow. A step
        is a cycle of the unit: a group of products. The sum of a chunk is merged in the cycle of
        its last group.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> x = [[100, 100, 100, 100]]
    >>> expected = ab.rtl.expected_results(
    ...     x, x, ab.integer_accumulator(16, "saturate"), x_type="s8", w_type="s8"
    ... )
    >>> expected.result.tolist(), expected.overflow.tolist(), expected.first_step.tolist()
    ([32767], [True], [3])
    """

    result: IntArray
    overflow: npt.NDArray[np.bool_]
    first_step: IntArray


@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
    """Checked operands of dot products: rows in summing order, and the start values."""

    x: IntArray
    w: IntArray
    c: IntArray | None
    x_type: OperandType
    w_type: OperandType
    unit: MacUnit
    datapath: Datapath  # its order is natural

    @classmethod
    def of(
        cls,
        x: npt.ArrayLike,
        w: npt.ArrayLike,
        datapath: Datapath,
        c: npt.ArrayLike | None = None,
        x_type: str | None = None,
        w_type: str | None = None,
    ) -> Operands:
        """Check the operands of `write_bundle`."""
        if not isinstance(datapath, Datapath):
            raise TypeError(f"datapath must be a Datapath, got {type(datapath).__name__}")
        rows_x, type_x = _operand("x", x, x_type)
        rows_w, type_w = _operand("w", w, w_type)
        if rows_x.shape != rows_w.shape:
            raise ValueError(f"x and w must have one shape, got {rows_x.shape}, {rows_w.shape}")
        if 0 in rows_x.shape:
            raise ValueError(f"x must have rows and terms, got shape {rows_x.shape}")
        dots, terms = rows_x.shape
        unit = MacUnit.of(datapath, type_x, type_w, terms, c is not None)
        order = operand_order(datapath, terms)
        if order is not None:
            rows_x, rows_w = rows_x[:, order], rows_w[:, order]
        addend = None
        if c is not None:
            addend = integers("c", c)
            fit("c", addend, -(1 << 63), (1 << 63) - 1)
            try:
                addend = np.broadcast_to(addend.astype(np.int64), (dots,))
            except ValueError:
                raise ValueError(f"c must broadcast to ({dots},), got {addend.shape}") from None
        return cls(rows_x, rows_w, addend, type_x, type_w, unit, datapath.replace(order="natural"))

    def starts(self) -> list[int]:
        """Return the start value of each dot product, in the accumulator's range."""
        if self.c is None:
            return [0] * len(self.x)
        return [self.unit.accumulator.apply(value) for value in self.c.tolist()]

    def expected(self) -> Expected:
        """Return results and flags as `matmul` computes them, and the step of the first flag.

        RuntimeError: the steps, one after another in Python's integers, give something else.
        """
        rows = self.x.astype(_operand_dtype(self.x_type))[:, None, :]
        columns = self.w.astype(_operand_dtype(self.w_type))[:, :, None]
        addend = None if self.c is None else self.c[:, None, None]
        product, events = matmul(
            rows, columns, self.datapath, c=addend, events="overflow", per_output=True
        )
        result = product.reshape(-1).astype(np.int64)
        overflow = np.asarray(events.accumulator_overflow).reshape(-1) > 0
        traces = list(map(self.trace, range(len(self.x))))
        first_step = np.array([step for _, step in traces], np.int64)
        if [value for value, _ in traces] != result.tolist() or (
            (first_step >= 0) != overflow
        ).any():
            raise RuntimeError(f"matmul and the steps of {self.datapath!r} disagree")
        return Expected(result, overflow, first_step)

    def trace(self, dot: int) -> tuple[int, int]:
        """Return result and first overflow of a dot product, step after step."""
        unit = self.unit
        products = [a * b for a, b in zip(self.x[dot].tolist(), self.w[dot].tolist(), strict=True)]
        running, merged, step, first = self.starts()[dot] if self.c is not None else 0, 0, 0, -1
        length = unit.chunk or unit.terms
        for begin in range(0, unit.terms, length):
            end = min(begin + length, unit.terms)
            for k in range(begin, end, unit.group):
                entering = running + sum(products[k : min(k + unit.group, end)])
                if first < 0 and not unit.accumulator.in_range(entering):
                    first = step
                running = unit.accumulator.apply(entering)
                step += 1
            if unit.chunk:
                merged += running
                if unit.merge is not None:
                    if first < 0 and not unit.merge.in_range(merged):
                        first = step - 1
                    merged = unit.merge.apply(merged)
                running = 0
        return (merged, first) if unit.chunk else (running, first)


def expected_results(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    datapath: Datapath,
    *,
    c: npt.ArrayLike | None = None,
    x_type: str | None = None,
    w_type: str | None = None,
) -> Expected:
    """Return what a unit that computes `datapath` must give for rows of operands.

    Parameters
    ----------
    x, w, datapath, c, x_type, w_type
        As for `write_bundle`.

    Returns
    -------
    Expected

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `write_bundle` does.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> rows = np.full((2, 8), 100, np.int8)
    >>> datapath = ab.integer_accumulator(16, "wrap", group=4)
    >>> expected = ab.rtl.expected_results(rows, rows, datapath, c=[0, -10000])
    >>> expected.result.tolist(), expected.first_step.tolist()
    ([14464, 4464], [0, 1])
    """
    return Operands.of(x, w, datapath, c, x_type, w_type).expected()


def dot_products(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    outputs: npt.ArrayLike | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the operand rows of some dot products of a matrix product.

    Parameters
    ----------
    a : array_like of int, shape (M, K)
    b : array_like of int, shape (K, N)
    outputs : array_like of int, shape (D, 2), optional
        Row and column of each output; all M*N outputs, row after row, by default.

    Returns
    -------
    x, w : ndarray, shape (D, K)
        For `write_bundle`: row d holds the operands of output d.

    Raises
    ------
    TypeError, ValueError
        If the operands are no integer matrices that fit, or an output is not there.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> a, b = np.arange(6, dtype=np.int8).reshape(2, 3), np.ones((3, 4), np.int8)
    >>> x, w = ab.rtl.dot_products(a, b, [(1, 3)])
    >>> x.tolist(), w.tolist()
    ([[3, 4, 5]], [[1, 1, 1]])
    """
    rows, columns = np.asarray(a), np.asarray(b)
    integers("a", rows)
    integers("b", columns)
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[0]:
        raise ValueError(f"a, b must have shapes (M, K), (K, N), got {rows.shape}, {columns.shape}")
    shape = rows.shape[0], columns.shape[1]
    if outputs is None:
        m, n = np.divmod(np.arange(shape[0] * shape[1]), max(shape[1], 1))
    else:
        places = integers("outputs", outputs)
        if places.ndim != 2 or places.shape[1] != 2:
            raise ValueError(f"outputs must have shape (D, 2), got {places.shape}")
        m, n = places[:, 0], places[:, 1]
        fit("outputs", m, 0, shape[0] - 1, "row")
        fit("outputs", n, 0, shape[1] - 1, "column")
    return rows[m], np.ascontiguousarray(columns[:, n].T)


def _operand(
    argument: str, values: npt.ArrayLike, text: str | None
) -> tuple[IntArray, OperandType]:
    array = np.asarray(values)
    numbers = integers(argument, array)
    if array.ndim != 2:
        raise ValueError(f"{argument} must have shape (dots, terms), got {array.shape}")
    if text is None:
        return numbers.astype(np.int64), OperandType.of_dtype(argument, array.dtype)
    kind = OperandType.named(f"{argument}_type", text)
    fit(argument, numbers, kind.lowest, kind.highest, text)
    return numbers.astype(np.int64), kind


def _operand_dtype(kind: OperandType) -> np.dtype[Any]:
    return np.dtype(f"{'' if kind.signed else 'u'}int{8 if kind.bits <= 8 else 16}")
