"""`channel_permutation`: the order of channels under which n:m masks keep the most magnitude."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import Array
from ._format_base import integer
from ._names import canonical
from ._nm_groups import as_scores, check_pattern, refuse_nonfinite
from ._threads import check_threads
from .random import check_address, random_bits

Permutation: TypeAlias = npt.NDArray[np.int64]
_Magnitudes: TypeAlias = npt.NDArray[np.float64]
_Report: TypeAlias = Callable[[float], None]

_METHODS: Mapping[str, str] = MappingProxyType({"swap": "swap", "stripe": "stripe"})
_STRIPE_MOST_GROUP = 6  # 462 ways to split 12 channels in two groups
_CHUNK = 256  # places or pairs of groups of one call of the kernel
_ESCAPE_SWAPS = 4
_QUIET_SECONDS = 2.0


def channel_permutation(
    w: npt.ArrayLike,
    n: SupportsIndex = 2,
    m: SupportsIndex = 4,
    *,
    method: str = "swap",
    escapes: SupportsIndex = 0,
    seed: SupportsIndex | None = None,
    stream: SupportsIndex = 0,
    call: SupportsIndex = 0,
    threads: SupportsIndex | None = None,
) -> tuple[Permutation, float]:
    """Search for the order of channels under which n:m masks keep the most magnitude.

    Permuting the input channels of a layer, and the output channels of the one before it alike,
    changes nothing of a network, but decides which weights share a group of m.

    Parameters
    ----------
    w : array_like of float, shape (..., channels)
        Finite weights; the groups lie along the last axis, whose length `m` divides.
    n, m : int
        n of every m channels are kept, 1 <= n <= m <= 32.
    method : {"swap", "stripe"}
        "swap" exchanges two channels of two groups, "stripe" splits the channels of two groups anew
        in the best of all ways (m <= 6). Both apply the best moves of groups that do not meet, and
        end where no move gains anything.
    escapes : int
        Number of restarts from the best order found, after four random exchanges.
    seed, stream, call : int
        Address of the random words of escapes; escape e takes ``call + e``.
    threads : int, optional
        Threads to use; the result does not depend on it.

    Returns
    -------
    permutation : ndarray of int64, shape (channels,)
        ``w[..., permutation]`` is the array to mask. Ascending within a group, and groups by their
        first channel.
    kept : float
        Sum of the magnitudes that n:m masks keep of it, never less than that of `w` as it is.

    Raises
    ------
    TypeError
        If `w` holds no floats or an argument is of the wrong type.
    ValueError
        If `w` holds NaN or an infinity, `m` does not divide the channels, a number is out of range,
        or there are escapes without a seed.

    Notes
    -----
    Pool and Yu, "Channel Permutations for N:M Sparsity", NeurIPS 2021. Magnitudes count as
    multiples of a power of two, about 2^-52 * (size of `w`) of the largest one, so that float64
    holds every sum exactly: the result does not depend on threads or the instruction set. Ties: the
    lowest channel or pair of groups. "swap" needs some arrays of channels^2 float64 numbers. A
    search of over two seconds writes its progress to a terminal.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = np.float32([[9, 8, 7, 6, 1, 2, 3, 4]])
    >>> permutation, kept = ab.channel_permutation(w)
    >>> kept, float(np.sort(np.abs(w)).reshape(2, 4)[:, 2:].sum())
    (30.0, 24.0)
    >>> w[:, permutation]
    array([[9., 8., 3., 4., 7., 6., 1., 2.]], dtype=float32)
    """
    array = as_scores("w", w)
    most, group = check_pattern(n, m)
    search = canonical("method", method, _METHODS)
    if search == "stripe" and group > _STRIPE_MOST_GROUP:
        raise ValueError(
            f"m: method 'stripe' expects m <= {_STRIPE_MOST_GROUP}, got {group}; use 'swap'"
        )
    restarts = integer("escapes", escapes, 0, 1 << 20)
    address = check_address(seed, stream, call)
    if restarts and seed is None:
        raise ValueError("seed: expected a seed for escapes, got None")
    if array.ndim == 0 or array.shape[-1] % group:
        raise ValueError(
            f"w: expected a multiple of m={group} channels along the last axis, "
            f"got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        refuse_nonfinite("w", array)
    count = check_threads(threads)
    channels = array.shape[-1]
    same = np.arange(channels, dtype=np.int64)
    if not array.size:
        return same, 0.0
    with _core.NearestEnvironment():
        magnitudes = np.abs(array.reshape(-1, channels)).astype(np.float64)
    if most == group or channels == group:
        return same, _kept_sum(magnitudes, same, most, group)
    state = _Search(_whole_numbers(magnitudes), most, group, count)
    descend = state.swap if search == "swap" else state.split
    report = _progress(state.kept(same))
    best = descend(same, report)
    for escape in range(restarts):
        words = random_bits(
            2 * _ESCAPE_SWAPS,
            seed=address[0],
            stream=address[1],
            call=(address[2] + escape) % 2**32,
        )
        other = best.copy()
        picks = (words.astype(np.uint64) * np.uint64(channels) >> np.uint64(32)).astype(np.int64)
        for a, b in picks.reshape(-1, 2):
            other[[a, b]] = other[[b, a]]
        other = descend(other, report)
        if state.kept(other) > state.kept(best):
            best = other
    report(math.nan)
    best = _canonical_order(best, group)
    kept, kept_before = (_kept_sum(magnitudes, order, most, group) for order in (best, same))
    return (best, kept) if kept > kept_before else (same, kept_before)


class _Search:
    """Moves from one order of the channels to a better one; magnitudes are whole numbers."""

    def __init__(self, magnitudes: _Magnitudes, n: int, m: int, threads: int) -> None:
        self.rows = magnitudes
        self.columns = np.ascontiguousarray(magnitudes.T)
        self.n, self.m, self.threads = n, m, threads
        self.groups = magnitudes.shape[1] // m

    def kept(self, order: Permutation) -> float:
        return _kept_sum(self.rows, order, self.n, self.m)

    def swap(self, order: Permutation, report: _Report) -> Permutation:
        """Exchange channels of different groups until no exchange gains anything."""
        order = order.copy()
        channels = order.size
        group_of = np.empty(channels, np.int64)
        replaced = np.empty((channels, channels))  # [c, j]: kept by c's group with j in c's place
        dirty = np.arange(self.groups)
        while dirty.size:
            for some in np.array_split(dirty, -(-dirty.size * self.m // _CHUNK)):
                members = order.reshape(-1, self.m)[some]
                group_of[members] = some[:, None]
                replaced[members.reshape(-1)] = self._replacements(members)
            own = replaced[np.arange(channels), np.arange(channels)]
            gains = replaced + replaced.T - own[:, None] - own
            gains[group_of[:, None] == group_of] = 0
            partner = gains.argmax(axis=1)
            best = gains[np.arange(channels), partner]
            place = np.argsort(order)
            touched = np.zeros(self.groups, bool)
            for a in np.argsort(-best, kind="stable"):
                b = int(partner[a])
                if best[a] <= 0:
                    break
                if touched[group_of[a]] or touched[group_of[b]]:
                    continue
                touched[[group_of[a], group_of[b]]] = True
                order[[place[a], place[b]]] = order[[place[b], place[a]]]
            dirty = np.flatnonzero(touched)
            report(self.kept(order))
        return order

    def _replacements(self, members: Permutation) -> _Magnitudes:
        """Return what the group of each member keeps with channel j in the member's place."""
        x = self.columns[members]  # groups, members, rows
        ranked = -np.sort(-x, axis=1)
        top = ranked[:, : self.n].sum(axis=1, keepdims=True)
        last, following = ranked[:, self.n - 1, None], ranked[:, self.n, None]
        # Without a member that is among the n largest, the next one is.
        among = x >= last
        floors = np.where(among, following, last).reshape(-1, x.shape[2])
        rest = np.where(among, top + following - x, top).reshape(floors.shape)
        sums = np.empty((floors.shape[0], self.rows.shape[1]))
        _core.replacement_sums(self.rows, np.ascontiguousarray(floors), sums, self.threads)
        return np.asarray(sums + (rest - floors).sum(axis=1, keepdims=True))

    def split(self, order: Permutation, report: _Report) -> Permutation:
        """Split pairs of groups anew until no split gains anything."""
        order = order.copy()
        chosen = _splits(self.m)
        first, second = np.triu_indices(self.groups, 1)
        gain, choice = np.zeros(first.size), np.zeros(first.size, np.int64)
        dirty = np.ones(self.groups, bool)
        while dirty.any():
            # Pairs of groups as they were have been tried.
            pairs = np.flatnonzero(dirty[first] | dirty[second])
            for some in np.array_split(pairs, -(-pairs.size // _CHUNK)):
                members = self._members(order, first[some], second[some])
                sums = np.empty((some.size, len(chosen)))
                _core.split_sums(self.columns, members, chosen, self.n, sums, self.threads)
                choice[some] = sums.argmax(axis=1)
                gain[some] = sums.max(axis=1) - sums[:, 0]
                report(math.inf)
            dirty[:] = False
            groups = order.reshape(-1, self.m)
            for pair in np.argsort(-gain, kind="stable"):
                a, b = int(first[pair]), int(second[pair])
                if gain[pair] <= 0:
                    break
                if dirty[a] or dirty[b]:
                    continue
                dirty[[a, b]] = True
                members = np.concatenate([groups[a], groups[b]])[chosen[choice[pair]]]
                groups[a], groups[b] = members[: self.m], members[self.m :]
            report(self.kept(order))
        return order

    def _members(
        self, order: Permutation, first: Permutation, second: Permutation
    ) -> npt.NDArray[np.int64]:
        groups = order.reshape(-1, self.m)
        return np.ascontiguousarray(np.concatenate([groups[first], groups[second]], axis=1))


def _splits(m: int) -> npt.NDArray[np.uint8]:
    """Return the ways to split 2m channels in two groups, the one they are in first."""
    every = range(2 * m)
    firsts = [(0, *others) for others in itertools.combinations(every[1:], m - 1)]
    return np.array([[*a, *(i for i in every if i not in a)] for a in firsts], np.uint8)


def _whole_numbers(magnitudes: _Magnitudes) -> _Magnitudes:
    """Return magnitudes as whole numbers, the sum of all of which is at most 2^52."""
    exponent = int(np.frexp(magnitudes.max())[1])
    bits = 52 - math.ceil(math.log2(magnitudes.size))
    with _core.NearestEnvironment():
        # In two steps: the power of two that scales subnormal numbers is no float64.
        half = (bits - exponent) // 2
        return np.rint(np.ldexp(np.ldexp(magnitudes, half), bits - exponent - half))


def _kept_sum(magnitudes: Array, order: Permutation, n: int, m: int) -> float:
    with _core.NearestEnvironment():
        groups = np.sort(magnitudes[:, order].reshape(-1, m), axis=1)
        return float(groups[:, m - n :].sum())


def _canonical_order(order: Permutation, m: int) -> Permutation:
    groups = np.sort(order.reshape(-1, m), axis=1)
    return np.asarray(groups[np.argsort(groups[:, 0])].reshape(-1))


def _progress(start: float) -> _Report:
    """Return a function that writes a line about the sum kept to a terminal, once it takes long.

    It takes the sum, infinity where there is no new one, and NaN at the end.
    """
    began = time.monotonic()
    kept, drawn = start, 0.0

    def report(now_kept: float) -> None:
        nonlocal kept, drawn
        if math.isfinite(now_kept):
            kept = now_kept
        now = time.monotonic()
        if not sys.stderr.isatty() or now - began < _QUIET_SECONDS:
            return
        if math.isnan(now_kept) or now - drawn > 0.1:
            gain = 100 * (kept / start - 1) if start else 0.0
            end = "\n" if math.isnan(now_kept) else ""
            sys.stderr.write(f"\rchannel permutation: {now - began:.0f} s, kept {gain:+.2f} %{end}")
            sys.stderr.flush()
            drawn = now

    return report
