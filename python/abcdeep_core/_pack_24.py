"""`pack_24` and `pack_24_both_ways`: 2:4 sparse arrays as hardware reads them."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array, first_index
from ._packing_rules import PackingRule, check_convention, check_layout, check_shape, rule_of
from ._threads import check_threads
from .packed_24 import Packed24, flat_bytes


def pack_24(
    x: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike | None = None,
    *,
    layout: str = "rowmajor",
    convention: str = "torch",
    threads: SupportsIndex | None = None,
) -> Packed24:
    """Return a 2:4 sparse array as the elements kept and 4 bits of metadata a group.

    Parameters
    ----------
    x : array_like, shape (..., rows, K)
        float32, float16, int8, or bfloat16, float8_e4m3fn, float8_e5m2, int4, float4_e2m1fn of
        ml_dtypes. Groups are four elements along the last axis of which two are kept; for float32
        (tf32) two elements of which one is; for elements of 4 bits four pairs of which two are. K
        is a multiple of 16 (float16, bfloat16), 8 (float32), 32 (8 bits) or 64 (4 bits).
    mask : array_like of bool, shape of `x`, optional
        The elements to keep; others are stored as +0. By default the non-zeros of `x`; NaN is one,
        -0 is none.
    dtype : dtype or its name, optional
        Dtype of the values, by default that of `x`. Every element kept must be the same number in
        it, NaN with the same bits: nothing is rounded.
    layout : {"rowmajor", "sm80"}
        Order of the words of metadata. "sm80" is CUTLASS's reordered metadata (PyTorch's
        ``meta_reordered``), which needs a multiple of 32 rows (16 for elements of 8 and 4 bits) and
        an even number of words in a row.
    convention : {"torch", "cutedsl", "2by4", "sm90"}
        The codes of groups with fewer than two elements kept, as PyTorch, CuTe DSL (and the library
        2by4, the same) or the compressor of CUTLASS 3 for sm90 choose them. "sm90" gives a group of
        zeros the code 0, which the instruction does not define.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    Packed24

    Raises
    ------
    TypeError
        If `x` or `mask` has another dtype, or an argument is of the wrong type.
    ValueError
        If a group has more than two elements to keep; an element kept is not on the grid of
        `dtype`; or shapes or names are none of those above.

    Notes
    -----
    Codes, words and layouts: docs/packing.md.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.float16([[1, 0, 0, 2, 0, 3, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0]])
    >>> packed = ab.pack_24(x)
    >>> packed.values
    array([[1., 2., 3., 0., 4., 5., 0., 0.]], dtype=float16)
    >>> [f"{int(packed.metadata[0, 0]) >> 4 * group & 15:04b}" for group in range(4)]
    ['1100', '1001', '1110', '1110']
    >>> bool((packed.dense() == x).all())
    True
    """
    array, kept, rule = _operands(x, mask, dtype, "x")
    layout, convention = check_layout(layout), check_convention(convention)
    check_shape("x", array.shape, rule, layout)
    return _packed(array, kept, rule, layout, convention, check_threads(threads))


def pack_24_both_ways(
    w: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike | None = None,
    *,
    layout: str = "rowmajor",
    convention: str = "torch",
    threads: SupportsIndex | None = None,
) -> tuple[Packed24, Packed24, npt.NDArray[np.uint16]]:
    """Pack a matrix and its transpose under one mask that is 2:4 along rows and along columns.

    Parameters
    ----------
    w : array_like, shape (..., rows, K)
        As for `pack_24`, of elements of 16 or 8 bits. `rows` is a multiple of what K is.
    mask : array_like of bool, shape of `w`, optional
        At most two true in each row and in each column of every tile of 4 x 4; by default the
        non-zeros of `w`.
    dtype, layout, convention, threads
        As for `pack_24`.

    Returns
    -------
    packed : Packed24
        `w` of shape (..., rows, K).
    packed_transpose : Packed24
        Its transpose, of shape (..., K, rows).
    tiles : ndarray of uint16, shape (..., rows / 4, K / 4)
        The mask of each tile: bit column + 4 * row.

    Raises
    ------
    TypeError
        If `w` or `mask` has another dtype, or an argument is of the wrong type.
    ValueError
        If the mask is not transposable: more than two kept in a row or column of a tile; or as for
        `pack_24`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = np.tile(np.float16([[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]), (4, 4))
    >>> packed, transposed, tiles = ab.pack_24_both_ways(w)
    >>> packed.values[0, :4].tolist(), transposed.values[0, :4].tolist()
    ([1.0, 2.0, 1.0, 2.0], [1.0, 3.0, 1.0, 3.0])
    >>> f"{tiles[0, 0]:016b}"
    '1100110000110011'
    """
    array, kept, rule = _operands(w, mask, dtype, "w")
    layout, convention = check_layout(layout), check_convention(convention)
    if rule.group != 4:
        raise TypeError(f"w must hold elements of 16 or 8 bits to go both ways, got {rule.dtype}")
    transposed = array.swapaxes(-1, -2) if array.ndim >= 2 else array
    for name, shape in (("w", array.shape), ("the transpose of w", transposed.shape)):
        check_shape(name, shape, rule, layout)
    tiles = _tile_masks(rule.non_zeros(array), "w") if kept is None else _tile_masks(kept, "mask")
    count = check_threads(threads)
    kept_transposed = None if kept is None else np.ascontiguousarray(kept.swapaxes(-1, -2))
    return (
        _packed(array, kept, rule, layout, convention, count),
        _packed(np.ascontiguousarray(transposed), kept_transposed, rule, layout, convention, count),
        tiles,
    )


def _operands(
    x: npt.ArrayLike, mask: npt.ArrayLike | None, dtype: npt.DTypeLike | None, name: str
) -> tuple[Array, npt.NDArray[np.bool_] | None, PackingRule]:
    """Return a contiguous array of the dtype to pack, the mask, and how to pack them."""
    array = as_array(name, x)
    source = rule_of(name, array.dtype)
    array = np.ascontiguousarray(array, dtype=source.dtype)
    rule = source if dtype is None else rule_of("dtype", dtype)
    kept: npt.NDArray[np.bool_] | None = None
    if mask is not None:
        given = as_array("mask", mask)
        if given.dtype != np.bool_:
            raise TypeError(f"mask must have dtype bool, got {given.dtype}")
        if given.shape != array.shape:
            raise ValueError(f"mask must have shape {array.shape}, got {given.shape}")
        kept = np.ascontiguousarray(given)
    if rule is not source:
        array = _on_grid(array, kept, source, rule, name)
    return array, kept, rule


def _on_grid(
    x: Array,
    kept: npt.NDArray[np.bool_] | None,
    source: PackingRule,
    rule: PackingRule,
    name: str,
) -> Array:
    """Return `x` in another dtype if that changes nothing of what is kept."""
    if kept is None:
        kept = source.non_zeros(x)
    with _core.NearestEnvironment(), np.errstate(all="ignore"):
        result = np.where(kept, x, np.zeros((), x.dtype)).astype(rule.dtype)
        back = result.astype(x.dtype)
    if x.dtype.kind == "i" or rule.dtype.kind == "i" or "int" in x.dtype.name + rule.dtype.name:
        same = np.asarray(back == x)
    else:
        bits = np.dtype(f"u{x.dtype.itemsize}")
        same = back.view(bits) == x.view(bits)
    wrong = kept & ~same
    if wrong.any():
        raise ValueError(
            f"{name}: expected kept values that {rule.dtype} holds exactly, got {x[wrong][0]!s} at "
            f"{first_index(wrong)}"
        )
    return result


def _packed(
    x: Array,
    kept: npt.NDArray[np.bool_] | None,
    rule: PackingRule,
    layout: str,
    convention: str,
    threads: int,
) -> Packed24:
    *lead, rows, columns = x.shape
    values = np.empty((*lead, rows, columns // 2), rule.dtype)
    metadata = np.empty((*lead, rows, columns // rule.word_columns), rule.word_dtype)
    if x.size and not _core.pack_24(
        flat_bytes(x),
        None if kept is None else flat_bytes(kept),
        flat_bytes(values),
        flat_bytes(metadata),
        rule.codes_of_kept(convention),
        rule.core(layout),
        rows,
        columns * rule.dtype.itemsize,
        threads,
    ):
        raise ValueError(_too_many(x, kept, rule))
    return Packed24(values=values, metadata=metadata, layout=layout, convention=convention)


def _too_many(x: Array, kept: npt.NDArray[np.bool_] | None, rule: PackingRule) -> str:
    """Return the message that names the first group with too many to keep."""
    wholes = rule.kept_wholes(rule.non_zeros(x) if kept is None else kept)
    counts = wholes.sum(axis=-1)
    wrong = counts > rule.most
    *lead, group = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    what = "non-zeros" if kept is None else "kept"
    what = {1: "", 2: "pairs with "}[rule.whole] + what
    where = ", ".join([*map(str, lead), f"{group * rule.group}:{(group + 1) * rule.group}"])
    return (
        f"{'x' if kept is None else 'mask'}: expected at most {rule.most} {what} in each group of "
        f"{rule.group} {rule.dtype}, got {int(counts[wrong][0])} in [{where}]"
    )


def _tile_masks(kept: npt.NDArray[np.bool_], name: str) -> npt.NDArray[np.uint16]:
    """Return the mask of each 4 x 4 tile, if none keeps more than two in a row or column."""
    *lead, rows, columns = kept.shape
    tiles = kept.reshape(*lead, rows // 4, 4, columns // 4, 4)
    for axis, what in ((-1, "row"), (-3, "column")):
        counts = tiles.sum(axis=axis)
        most = counts.max(axis=-2 if what == "row" else -1, initial=0)
        if (most > 2).any():
            raise ValueError(
                f"{name}: expected at most 2 kept in each row and column of a 4 x 4 tile, got "
                f"{int(most[most > 2][0])} in a {what} of tile {first_index(most > 2)}"
            )
    result = np.zeros((*lead, rows // 4, columns // 4), np.uint16)
    for row in range(4):
        for column in range(4):
            bit: Any = tiles[..., row, :, column].astype(np.uint16)
            result |= bit << np.uint16(column + 4 * row)
    return result
