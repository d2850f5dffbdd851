"""`abcdeep bias`: what quantisers do to an array in a file, as a table of bias and error."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ._bias_report import BiasReport, Dequantizable
    from .formats import FixedFormat, FloatFormat

    Float32Array = npt.NDArray[np.float32]
    FloatArray = npt.NDArray[np.floating[Any]]
    Random = dict[str, Any]  # seed and call

_DEFAULT = ("luq", "int4", "int4:sawb", "e2m1", "mxfp4_ceil", "nvfp4", "nvfp4_up")
_ROUNDINGS = ("nearest_even", "stochastic")
_INTEGER = re.compile(r"int([2-8])(:sawb)?")


@dataclasses.dataclass(frozen=True)
class NamedQuantizer:
    """A quantiser that the command line names: bits an element, and the function."""

    name: str
    bits: float
    apply: Callable[[Float32Array, str, int, Random], FloatArray | Dequantizable]


@dataclasses.dataclass(frozen=True)
class Row:
    """A quantiser, a rounding, and the report of each draw."""

    quantizer: NamedQuantizer
    rounding: str
    reports: Sequence[BiasReport]

    def mean(self, field: str) -> float:
        """Return the mean of a field of the reports."""
        return math.fsum(getattr(report, field) for report in self.reports) / len(self.reports)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean bias, NaN for one draw."""
        count = len(self.reports)
        if count < 2:
            return math.nan
        mean = self.mean("bias")
        square = math.fsum((report.bias - mean) ** 2 for report in self.reports)
        return math.sqrt(square / (count - 1) / count)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: null where there is no number."""
        numbers = {name: self.mean(name) for name in ("bias", "relative_mse", "clipped")}
        numbers["standard_error_of_bias"] = self.standard_error
        return {
            "format": self.quantizer.name,
            "bits": self.quantizer.bits,
            "rounding": self.rounding,
            "draws": len(self.reports),
            **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        }


def add_bias(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bias",
        help="quantise an array from a file and print bias and error of each format",
        description="Quantise the array in FILE and print, for every format and rounding, the "
        "bias along the original with its standard error over the draws, the squared error "
        "relative to the original, and the share of clipped elements.",
        epilog="FORMAT: luq; int2 to int8 with the largest magnitude as range, or int4:sawb; a "
        "block format (nvfp4, mxfp4_ceil, ...); a number format (e4m3fn, ...), scaled by a power "
        "of two so that nothing is above its largest number.",
    )
    parser.usage = "abcdeep bias FILE [FORMAT ...] [options]"
    parser.add_argument("file", metavar="FILE", help="an array of floats, .npy")
    parser.add_argument(
        "formats",
        nargs="*",
        metavar="FORMAT",
        type=_quantizer,
        help=f"by default {' '.join(_DEFAULT)}",
    )
    parser.add_argument("--rounding", nargs="+", choices=_ROUNDINGS, default=list(_ROUNDINGS))
    parser.add_argument("--draws", type=int, default=8, help="of stochastic rounding, averaged (8)")
    parser.add_argument("--seed", type=int, default=0, help="of stochastic rounding")
    parser.add_argument(
        "--axis", type=int, default=-1, help="axis of the blocks of a block format (-1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=lambda args: _run(args, parser))


def _quantizer(text: str) -> NamedQuantizer:
    import abcdeep_core as ab

    if text == "luq":
        return NamedQuantizer(text, 4, _luq)
    if match := _INTEGER.fullmatch(text):
        bits, clip = int(match[1]), "sawb" if match[2] else "max_abs"
        if clip == "sawb" and bits == 6:
            raise argparse.ArgumentTypeError("no coefficients of SAWB are published for 6 bits")
        return NamedQuantizer(
            text,
            bits,
            lambda x, rounding, axis, random: ab.quantize_uniform(
                x, bits, clip=clip, rounding=rounding, **random
            ),
        )
    if text in ab.block_formats():
        blocks = ab.get_block_format(text)
        return NamedQuantizer(
            text,
            blocks.bits,
            lambda x, rounding, axis, random: ab.quantize_blocks(
                x, blocks, rounding, axis=axis, **random
            ),
        )
    try:
        form = ab.get_format(text)
    except ValueError as error:
        known = f"{error}; or luq, int2 .. int8, int4:sawb, {', '.join(ab.block_formats())}"
        raise argparse.ArgumentTypeError(known) from None
    if not form.signed or form.value_dtype.itemsize > 4:
        raise argparse.ArgumentTypeError(
            f"expected a signed format whose values float32 holds, got {text!r}"
        )
    return NamedQuantizer(
        text,
        form.bits,
        lambda x, rounding, axis, random: _scaled(x, form, rounding, random),
    )


def _scaled(
    x: Float32Array, form: FloatFormat | FixedFormat, rounding: str, random: Random
) -> FloatArray:
    """Quantise with the largest power of two as scale that clips nothing."""
    import numpy as np

    import abcdeep_core as ab

    largest = float(np.max(np.abs(x), initial=0))
    shift = math.frexp(form.max)[1] - math.frexp(largest)[1]
    if math.ldexp(largest, shift) > form.max:
        shift -= 1
    scaled = np.ldexp(x.astype(np.float64), shift)
    return np.ldexp(ab.quantize(scaled, form, rounding, **random), -shift)


def _luq(x: Float32Array, rounding: str, axis: int, random: Random) -> Float32Array:
    import abcdeep_core as ab

    if rounding == "stochastic":
        return ab.luq(x, **random)
    return ab.luq(x, underflow="nearest", log_rounding="nearest")


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    import numpy as np

    import abcdeep_core as ab
    import abcdeep_core.nn

    from ._arrays import as_float_array

    try:
        x = as_float_array("FILE", np.load(args.file, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        print(f"abcdeep bias: {args.file}: {error}", file=sys.stderr)
        return 1
    if reason := _unfit(x):
        print(f"abcdeep bias: {args.file}: {reason}", file=sys.stderr)
        return 1
    if not -x.ndim <= args.axis < x.ndim:
        parser.error(f"argument --axis: expected an axis of shape {x.shape}, got {args.axis}")
    if not 0 <= args.seed < 1 << 64:
        parser.error(f"argument --seed: expected 0 to 2^64 - 1, got {args.seed}")
    if args.draws < 1:
        parser.error(f"argument --draws: expected at least 1, got {args.draws}")
    x = x.astype(np.float32)
    quantizers = args.formats or [_quantizer(name) for name in _DEFAULT]
    found: list[Row] = []
    with ab.nn.ProgressBar(len(quantizers) * len(args.rounding), label="quantising") as bar:
        for quantizer in quantizers:
            for rounding in args.rounding:
                draws = args.draws if rounding == "stochastic" else 1
                try:
                    reports = [
                        ab.bias_report(
                            x,
                            quantizer.apply(
                                x, rounding, args.axis, {"seed": args.seed, "call": call}
                            ),
                        )
                        for call in range(draws)
                    ]
                except ValueError as error:
                    print(f"abcdeep bias: {quantizer.name}: {error}", file=sys.stderr)
                    return 1
                found.append(Row(quantizer, rounding, reports))
                bar.advance(quantizer.name)
    if args.json:
        records = [row.to_dict() for row in found]
        print(json.dumps(records, indent=2, allow_nan=False))
    else:
        from .cli import print_table

        print_table(_rows(found))
    return 0


def _unfit(x: FloatArray) -> str:
    """Return why an array cannot be quantised, or ""."""
    import numpy as np

    if x.ndim == 0:
        return "expected an array of at least one dimension"
    if not np.isfinite(x).all():
        return "expected finite numbers"
    with np.errstate(over="ignore", under="ignore"):
        narrow = x.astype(np.float32)
    if not np.isfinite(narrow).all() or ((narrow == 0) != (x == 0)).any():
        return "expected numbers within the range of float32"
    return ""


def _rows(found: Sequence[Row]) -> Iterator[Sequence[str]]:
    yield ("format", "bits", "rounding", "bias", "+-", "relative MSE", "clipped")
    for row in found:
        yield (
            row.quantizer.name,
            f"{row.quantizer.bits:g}",
            row.rounding,
            f"{100 * row.mean('bias'):+.3f} %",
            f"{100 * row.standard_error:.3f} %" if len(row.reports) > 1 else "",
            f"{100 * row.mean('relative_mse'):.3g} %",
            f"{100 * row.mean('clipped'):.3g} %",
        )
