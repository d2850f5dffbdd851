"""`TransposableCertificate`: the proof by duality that a transposable mask is the best one."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array, as_array

WEIGHT_BITS = 40
# What flooring the eight weights of a 2:4 pattern may cost, in units.
SEARCH_GAP = 8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TransposableCertificate:
    """Dual variables of every block, and the bound on any mask's kept weight that follows.

    All weights are integers in units of 2^(exponent - 40) of their block: W = floor(abs(w) / unit).
    For any integers u and v, every mask with n in each row i and column j keeps at most

        bound = n (sum u_i + sum v_j) + sum max(0, W_ij - u_i - v_j),

    because it keeps sum W - u - v plus n times each u_i and v_j. A mask that keeps as much is the
    best one.

    Attributes
    ----------
    n, m : int
        Elements kept in each row and column of a block, and its size.
    exponents : ndarray of int64, shape (..., R / m, C / m)
        Exponent of the power of two at or below the largest magnitude of each block; 0 for a block
        of zeros.
    u, v : ndarray of int64, shape (..., R / m, C / m, m)
        Dual variables of the rows and of the columns of each block.
    kept, bound : ndarray of int64, shape (..., R / m, C / m)
        Weight that the mask keeps, and the bound.

    Notes
    -----
    Where weights have more bits than a unit resolves, the certificate is about floored weights. The
    gap is 0 but for 2:4: there the mask is the best one by sums in float64, which may leave a gap
    of up to 8 units in a block whose weights are floored, and none in others.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = np.float32([[4, 1], [2, 3]])
    >>> mask, certificate = ab.transposable_mask(w, 1, 2, return_certificate=True)
    >>> unit = 2.0 ** (certificate.exponents - 40)
    >>> (certificate.kept * unit).tolist(), (certificate.bound * unit).tolist()
    ([[7.0]], [[7.0]])
    >>> certificate.check(w, mask)
    >>> certificate.check(w, ~mask)
    Traceback (most recent call last):
    ...
    ValueError: mask: expected to keep 1924145348608 units in block [0, 0], got 824633720832
    """

    n: int
    m: int
    exponents: Array
    u: Array
    v: Array
    kept: Array
    bound: Array

    @property
    def gap(self) -> Array:
        """Return how much more than `kept` a mask could keep at most, in units of each block."""
        return np.asarray(self.bound - self.kept)

    def check(self, w: npt.ArrayLike, mask: npt.ArrayLike) -> None:
        """Prove anew, in NumPy's 64-bit integers, that `mask` is the best one for `w`.

        Parameters
        ----------
        w, mask : array_like
            What `transposable_mask` was given and returned.

        Raises
        ------
        ValueError
            If `mask` does not keep n in each row and column of a block, the weights or the bound
            are not those of the certificate, or there is a gap: for 2:4 one above 8 units.
        """
        weights, keep = as_array("w", w), as_array("mask", mask)
        blocks = self.exponents.shape
        shape = (*blocks[:-2], blocks[-2] * self.m, blocks[-1] * self.m)
        for name, array in (("w", weights), ("mask", keep)):
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
        if keep.dtype != np.bool_:
            raise TypeError(f"mask must have dtype bool, got {keep.dtype}")
        tiles = in_blocks(keep, self.m)
        for axis, line in ((-1, "row"), (-2, "column")):
            counts = tiles.sum(axis=axis).reshape(-1, self.m)
            if (wrong := (counts != self.n).any(axis=1)).any():
                where = _block_index(wrong.reshape(blocks))
                raise ValueError(f"mask: expected {self.n} kept in every {line} of block {where}")
        again = certify(weights, keep, self.n, self.u, self.v)
        _same("w", "exponent", self.exponents, again.exponents)
        _same("mask", "to keep", self.kept, again.kept, " units")
        _same("certificate", "a bound of", self.bound, again.bound, " units")
        most = SEARCH_GAP if (self.n, self.m) == (2, 4) else 0
        if (wide := self.gap > most).any():
            raise ValueError(
                f"certificate: expected a gap of at most {most} units in block "
                f"{_block_index(wide)}, got {self.gap[wide][0]}"
            )


def _same(name: str, what: str, expected: Array, got: Array, units: str = "") -> None:
    if (wrong := expected != got).any():
        raise ValueError(
            f"{name}: expected {what} {expected[wrong][0]}{units} in block {_block_index(wrong)}, "
            f"got {got[wrong][0]}"
        )


def _block_index(wrong: Array) -> str:
    return str([int(i) for i in np.argwhere(wrong)[0]])


def in_blocks(x: Array, m: int) -> Array:
    """Return x of shape (..., R, C) as blocks, of shape (..., R / m, C / m, m, m)."""
    *batch, rows, columns = x.shape
    return x.reshape(*batch, rows // m, m, columns // m, m).swapaxes(-3, -2)


def certify(w: Array, mask: Array, n: int, u: Array, v: Array) -> TransposableCertificate:
    """Return the certificate of a mask by the dual variables of its blocks."""
    m = u.shape[-1]
    with _core.NearestEnvironment():
        magnitudes = np.abs(in_blocks(w, m).astype(np.float64))
        largest = magnitudes.max(axis=(-2, -1), initial=0.0)
        exponents = np.where(largest > 0, np.frexp(largest)[1] - 1, 0)
        shifts = (WEIGHT_BITS - exponents)[..., None, None]
        weights = np.floor(np.ldexp(magnitudes, shifts.astype(np.int32))).astype(np.int64)
    kept = np.where(in_blocks(mask, m), weights, 0).sum(axis=(-2, -1))
    above = np.maximum(weights - u[..., :, None] - v[..., None, :], 0).sum(axis=(-2, -1))
    bound = n * (u.sum(axis=-1) + v.sum(axis=-1)) + above
    return TransposableCertificate(
        n=n, m=m, exponents=exponents.astype(np.int64), u=u, v=v, kept=kept, bound=bound
    )
