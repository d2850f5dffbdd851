"""`abcdeep width`: how wide an accumulator has to be, by operand types, weights or formats."""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ._array_files import SINGLE, read_arrays

if TYPE_CHECKING:
    import numpy.typing as npt

    from .bounds import AccumulatorBounds

_RANGE = re.compile(r"(-?\d+)(?::|\.\.)(-?\d+)")
_WORST = 3  # channels that a line names
_ANY_ORDER = "every order of any operands of these types"
_SOUND = (
    "sound for every order of the terms and every input of the input type: data type for all "
    "weights of\nthe weight type, l1 for all weights whose channels have the same l1 norms, "
    "sign split for these weights only"
)


class _Row(NamedTuple):
    """One bound: what it is called, how it is computed, its bits, and what it is sound for."""

    bound: str
    formula: str
    bits: int
    sound_for: str


class _Layer(NamedTuple):
    """An array of the file: the bounds of its columns, or the reason why there are none."""

    name: str
    bounds: AccumulatorBounds | None
    reason: str = ""


def add_width(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "width",
        help="print how many bits an accumulator needs",
        description="Print the accumulator widths that operand types prove to be safe, those that "
        "given integer weights prove, or the width that sums products of two formats exactly.",
        epilog="TYPE: u8, s4, int16, ..., or LOWEST:HIGHEST where a zero point was subtracted "
        "(--x=-3:252). Arrays in FILE hold integers: (K, N), a column an output channel, or "
        "convolution kernels (O, I, kH, kW).",
    )
    parser.usage = (
        "abcdeep width --k K --x TYPE --w TYPE [options]\n"
        "       abcdeep width --weights FILE --x TYPE [--w TYPE] [options]\n"
        "       abcdeep width --k K --format NAME [NAME] [--json]"
    )
    add = parser.add_argument
    add("--k", type=_positive, metavar="K", help="products in a sum")
    add("--x", type=_type, metavar="TYPE", help="of the inputs")
    add("--w", type=_type, metavar="TYPE", help="of the weights")
    add("--bias", type=_positive, metavar="BITS", help="the sum starts from a signed bias")
    add("--weights", metavar="FILE", help="integer weights: one array (.npy), or several (.npz)")
    add("--accumulator", type=_accumulator, metavar="P", help="also print the caps on l1 norms")
    add("--format", nargs="+", metavar="NAME", help="of float operands: one for both, or two")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=lambda args: _run(args, parser))


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 62:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 to 2^62, got {text!r}")
    return int(text)


def _accumulator(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"expected an integer from 2 to 1024, got {text!r}")
    return int(text)


def _type(text: str) -> tuple[int, int]:
    from ._operand_types import operand_range

    match = _RANGE.fullmatch(text)
    try:
        return operand_range("TYPE", (int(match[1]), int(match[2])) if match else text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    kinds = {"format": ("k",), "weights": ("x",), "types": ("k", "x", "w")}
    allowed = {
        "format": ("k",),
        "weights": ("x", "w", "accumulator"),
        "types": ("k", "x", "w", "bias", "accumulator"),
    }
    kind = "format" if args.format else "weights" if args.weights else "types"
    if args.format and args.weights:
        parser.error("argument --weights: not allowed with argument --format")
    for name in ("k", "x", "w", "bias", "accumulator"):
        given = getattr(args, name) is not None
        if name in kinds[kind] and not given:
            parser.error(f"the following arguments are required: --{name}")
        if given and name not in allowed[kind]:
            parser.error(f"argument --{name}: not allowed with argument --{kind}")
    if kind == "format":
        return _run_format(args, parser)
    if kind == "weights":
        return _run_weights(args)
    return _run_types(args)


def _run_format(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    import abcdeep_core as ab

    if len(args.format) > 2:
        parser.error(f"argument --format: expected one or two names, got {len(args.format)}")
    try:
        bits = ab.kulisch_width(args.format[0], args.format[-1], args.k)
    except ValueError as error:
        parser.error(f"argument --format: {error}")
    formula = "1 + bit_length(K (Ma/La) (Mb/Lb)), M largest, L smallest subnormal"
    row = _Row("Kulisch", formula, bits, f"the exact sum of any {args.k} products of finite words")
    return _print(args.json, {"terms": args.k, "formats": [args.format[0], args.format[-1]]}, [row])


def _run_types(args: argparse.Namespace) -> int:
    import abcdeep_core as ab

    from ._operand_types import type_name, type_range

    bias = type_range(args.bias, signed=True) if args.bias else (0, 0)
    bits = ab.data_type_width(args.k, args.x, args.w, bias=bias)
    fits = ab.dsp_fits(args.x, args.w, bits)
    facts = {
        "terms": args.k,
        "x": type_name(args.x),
        "w": type_name(args.w),
        "bias_bits": args.bias,
        "fits": fits,
    }
    rows = [*_type_rows(args, bias, bits), *_cap_rows(args)]
    return _print(args.json, facts, rows, "fits: " + (", ".join(_true(fits)) or "nothing known"))


def _type_rows(args: argparse.Namespace, bias: tuple[int, int], bits: int) -> Iterator[_Row]:
    import abcdeep_core as ab

    from ._operand_types import type_of_range

    plus = " + bias" if args.bias else ""
    yield _Row("data type", f"K times the extreme products{plus}", bits, _ANY_ORDER)
    lowest = bias[0] + args.k * min(0, *(a * b for a in args.x for b in args.w))
    if lowest >= 0:
        yield _Row("data type, unsigned", "the same without a sign", bits - 1, _ANY_ORDER)
    closed = ab.data_type_width(args.k, args.x, args.w, bias=bias, closed_form=True)
    yield _Row(
        "data type, closed form", f"1 + ceil(log2(K 2^(N+W-1-s){plus} + 1))", closed,
        "the same; may be 1 bit too wide",
    )  # fmt: skip
    (x_bits, x_signed), (w_bits, w_signed) = type_of_range(args.x), type_of_range(args.w)
    growth = (args.k - 1).bit_length() + (args.bias is not None)
    without_bias = x_bits + w_bits + growth - 1
    if args.bias is None or (args.bias <= without_bias and (x_signed or w_signed)):
        kind = "signed" if x_signed or w_signed else "unsigned"
        yield _Row(
            "fixed point (hls4ml)", f"N + W + ceil(log2 K){' + 1' if args.bias else ''}, {kind}",
            x_bits + w_bits + growth, "the same; may be too wide",
        )  # fmt: skip


def _cap_rows(args: argparse.Namespace) -> Iterator[_Row]:
    if args.accumulator is None:
        return
    import abcdeep_core as ab

    p, x = args.accumulator, args.x
    cap = ab.l1_cap(p, x)
    yield _Row(
        f"l1 cap at {p} bits: {_decimal(cap)}", "(2^(P-1) - 1) 2^(s-N)", p,
        "every channel whose weights' magnitudes sum to at most this",
    )  # fmt: skip
    if x[0] <= 0 <= x[1] and x[0] < x[1]:
        yield _Row(
            f"l1 cap at {p} bits: {_decimal(ab.l1_cap(p, x, zero_sum=True))}",
            "(2^P - 2) / (x_max - x_min)", p, "the same, only where the weights sum to 0",
        )  # fmt: skip


def _decimal(value: Any) -> str:
    """Return a fraction rounded down to two places, in integers."""
    hundredths = value.numerator * 100 // value.denominator
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def _run_weights(args: argparse.Namespace) -> int:
    try:
        layers = [_layer(name, w, args) for name, w in read_arrays(args.weights).items()]
        if not any(layer.bounds for layer in layers):
            reasons = "; ".join(f"{layer.name} {layer.reason}".strip() for layer in layers)
            raise ValueError(f"expected a matrix of integers, got none ({reasons or 'empty file'})")
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        print(f"abcdeep width: {args.weights}: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"layers": [_record(layer, args) for layer in layers]}, indent=2))
        return 0
    from .cli import print_table

    print_table(_layer_rows(layers, args))
    for row in _cap_rows(args):
        print(f"{row.bound}, {row.sound_for}")
    print(_SOUND)
    return 0


def _layer(name: str, w: npt.NDArray[Any], args: argparse.Namespace) -> _Layer:
    import abcdeep_core as ab

    label = name if name != SINGLE else "-"
    if w.ndim == 4:
        w = w.reshape(len(w), -1).T
    if w.ndim != 2 or w.dtype.kind not in "iu":
        return _Layer(label, None, f"shape {w.shape}, dtype {w.dtype}")
    try:
        return _Layer(label, ab.accumulator_bounds(w, args.x, w_range=args.w))
    except ValueError as error:
        raise ValueError(f"array {label}: {error}") from None


def _layer_rows(layers: Sequence[_Layer], args: argparse.Namespace) -> Iterator[Sequence[str]]:
    yield ("array", "K", "N", "data type", "l1", "sign split", "unsigned", "fits",
           "channels by sign split", "widest channels")  # fmt: skip
    for name, bounds, reason in layers:
        if bounds is None:
            yield (name, "", "", "", "", "", "", "", f"left out: {reason}", "")
            continue
        widths = bounds.widths
        unsigned = bounds.unsigned_widths["sign_split"]
        counts = Counter(bounds.channel_widths["sign_split"])
        yield (
            name, str(bounds.terms), str(bounds.channels), str(widths["data_type"]),
            str(widths["l1"]), str(widths["sign_split"]), str(unsigned or "-"),
            " ".join(_true(_fits(bounds))),
            ", ".join(f"{bits}: {counts[bits]}" for bits in sorted(counts, reverse=True)),
            " ".join(map(str, _widest(bounds)[:_WORST])),
        )  # fmt: skip


def _widest(bounds: AccumulatorBounds) -> list[int]:
    """Return the channels, the one with the largest sum first."""
    sums = bounds.sign_split
    pairs = zip(sums.lo.tolist(), sums.hi.tolist(), strict=True)
    largest = [max(-lo - 1, hi) for lo, hi in pairs]
    return sorted(range(len(largest)), key=lambda n: (-largest[n], n))


def _fits(bounds: AccumulatorBounds) -> dict[str, bool]:
    import abcdeep_core as ab

    return ab.dsp_fits(bounds.x_range, bounds.w_range, bounds.width("sign_split"))


def _record(layer: _Layer, args: argparse.Namespace) -> dict[str, Any]:
    if layer.bounds is None:
        return {"name": layer.name, "left_out": layer.reason}
    return {
        "name": layer.name,
        **layer.bounds.to_dict(),
        "widest_channels": _widest(layer.bounds)[:_WORST],
        "fits": _fits(layer.bounds),
    }


def _true(flags: dict[str, bool]) -> list[str]:
    return [name for name, flag in flags.items() if flag]


def _print(as_json: bool, facts: dict[str, Any], rows: Sequence[_Row], last: str = "") -> int:
    if as_json:
        print(json.dumps(facts | {"bounds": [row._asdict() for row in rows]}, indent=2))
        return 0
    from .cli import print_table

    table = [(row.bound, str(row.bits), row.formula, row.sound_for) for row in rows]
    print_table(iter([("bound", "bits", "formula", "sound for"), *table]))
    if last:
        print(last)
    return 0
