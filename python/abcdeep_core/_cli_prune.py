"""`abcdeep prune`: N:M sparsity of the weights in a file, written to another file."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._array_files import SINGLE, SUFFIXES, read_arrays

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_PATTERN = re.compile(r"(\d+):(\d+)")


@dataclasses.dataclass(frozen=True)
class _Pruned:
    """One array, and what was kept of it; no mask: it was left as it is."""

    name: str
    x: Array
    mask: Array | None
    values: Array
    reason: str = ""


def add_prune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "prune",
        help="make the weights in a file N:M sparse",
        description="Keep N elements in every M of the weights in FILE and write them, zeros "
        "included, to another file; print how much of each array was kept.",
        epilog="Of an .npz file every float array of two or more dimensions is pruned and the "
        "others are copied; one whose axis is no multiple of M is copied too, and the table says "
        "so. Arrays of four dimensions are convolution weights (O, I, kH, kW): groups lie along I, "
        "transposable blocks over O and I at each position of the kernel.",
    )
    parser.usage = "abcdeep prune FILE --pattern N:M -o OUT [options]"
    add = parser.add_argument
    add("file", metavar="FILE", help="an array (.npy), or several (.npz)")
    add("--pattern", metavar="N:M", type=_pattern, default=(2, 4), help="by default 2:4")
    add("--axis", type=int, help="of the groups (the last; 1 for convolution weights)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--transposable",
        nargs="?",
        const="exact",
        choices=("exact", "heavy_first", "light_first"),
        help="keep N of M in the rows and the columns of every M x M block",
    )
    kinds.add_argument(
        "--unbiased",
        action="store_true",
        help="at random, scaled so that the mean is the array (for gradients)",
    )
    add("--seed", type=int, default=0, help="of --unbiased; each array has its own random words")
    add("--arrays", nargs="+", metavar="NAME", help="of an .npz file: only these")
    add("--mask", action="store_true", help="write the masks, arrays of bool, instead")
    add("-o", "--output", metavar="OUT", required=True, help="written as .npy or .npz, as FILE is")
    parser.set_defaults(run=lambda args: _run(args, parser))


def _pattern(text: str) -> tuple[int, int]:
    match = _PATTERN.fullmatch(text)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= 32:
        raise argparse.ArgumentTypeError(f"expected N:M with 1 <= N <= M <= 32, got {text!r}")
    return int(match[1]), int(match[2])


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    suffix = Path(args.file).suffix
    if suffix not in SUFFIXES or Path(args.output).suffix != suffix:
        parser.error(
            f"expected FILE and OUT to be both .npy or both .npz, got {args.file}, {args.output}"
        )
    if not 0 <= args.seed < 1 << 64:
        parser.error(f"argument --seed: expected 0 to 2^64 - 1, got {args.seed}")
    if args.transposable and args.axis is not None:
        parser.error("argument --axis: not allowed with argument --transposable")
    try:
        arrays = read_arrays(args.file)
        chosen = _chosen(arrays, args.arrays)
        pruned = [
            _prune(name, x, name in chosen, args, stream)
            for stream, (name, x) in enumerate(arrays.items())
        ]
        _write(args.output, pruned, args.mask)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        print(f"abcdeep prune: {args.file}: {error}", file=sys.stderr)
        return 1
    from .cli import print_table

    print_table(_rows(pruned))
    return 0


def _chosen(arrays: Mapping[str, Array], names: Sequence[str] | None) -> set[str]:
    if names is None:
        return {name for name, x in arrays.items() if name == SINGLE or _is_weight(x)}
    if unknown := [name for name in names if name not in arrays]:
        raise ValueError(f"--arrays: expected some of {', '.join(arrays)}, got {unknown[0]}")
    return set(names)


def _is_weight(x: Array) -> bool:
    return x.dtype.kind == "f" and x.ndim >= 2


def _prune(name: str, x: Array, chosen: bool, args: argparse.Namespace, stream: int) -> _Pruned:
    import numpy as np

    import abcdeep_core as ab

    if not chosen:
        return _Pruned(name, x, None, x, "not asked for" if args.arrays else "no weights")
    n, m = args.pattern
    axis = args.axis if args.axis is not None else 1 if x.ndim == 4 else -1
    blocks = (0, 1) if x.ndim == 4 else (-2, -1)
    along = blocks if args.transposable else (axis,)
    named = f"array {name}: " if name else ""
    if x.ndim < len(along) or not all(-x.ndim <= k < x.ndim for k in along):
        raise ValueError(f"{named}expected axes {along}, got shape {x.shape}")
    if bad := [x.shape[k] for k in along if x.shape[k] % m]:
        reason = f"axis of {bad[0]} is no multiple of {m}"
        if name in (args.arrays or [SINGLE]):
            raise ValueError(named + reason)
        return _Pruned(name, x, None, x, reason)
    try:
        if args.unbiased:
            values, mask = ab.nm_unbiased(
                x, n, m, axis, seed=args.seed, stream=stream, return_mask=True
            )
            with np.errstate(over="ignore"):
                narrow = values.astype(x.dtype)
            if not np.isfinite(narrow).all():
                raise ValueError(f"x: expected results within {x.dtype}, got one beyond it")
            return _Pruned(name, x, mask, narrow)
        if args.transposable:
            moved = np.moveaxis(x, blocks, (-2, -1))
            mask = ab.transposable_mask(moved, n, m, method=args.transposable)
            mask = np.ascontiguousarray(np.moveaxis(mask, (-2, -1), blocks))
        else:
            mask = ab.nm_mask(x, n, m, axis)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{named}{error}") from None
    return _Pruned(name, x, mask, np.where(mask, x, np.zeros((), x.dtype)))


def _write(path: str, pruned: Sequence[_Pruned], masks: bool) -> None:
    import numpy as np

    arrays: dict[str, Array] = {}
    for one in pruned:
        if not masks:
            arrays[one.name] = one.values
        elif one.mask is not None:
            arrays[one.name] = one.mask
    if SINGLE in arrays:
        np.save(path, arrays[SINGLE])
        return
    # As np.savez writes it, whose own arguments some names would be.
    with zipfile.ZipFile(path, "w") as archive:
        for name, x in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, x, allow_pickle=False)


def _rows(pruned: Sequence[_Pruned]) -> Iterator[Sequence[str]]:
    import numpy as np

    yield ("array", "shape", "dtype", "kept", "of the magnitude", "")
    for one in pruned:
        shape = "x".join(map(str, one.x.shape))
        cells = [one.name or "-", shape, str(one.x.dtype)]
        if one.mask is None:
            yield (*cells, "all", "", one.reason)
            continue
        if not one.mask.any():
            yield (*cells, "none", "", "empty")
            continue
        magnitude = np.abs(one.x.astype(np.float64))
        magnitude /= magnitude.max() or 1
        share = magnitude[one.mask].sum() / (magnitude.sum() or 1)
        yield (*cells, f"{100 * one.mask.mean():.2f} %", f"{100 * share:.2f} %", "")
