"""`abcdeep vectors`: dot products as test vectors for a multiply-accumulate unit."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy.typing as npt

    from .datapath import Datapath
    from .rtl import Bundle

    Array = npt.NDArray[Any]

_SIMULATORS = ("icarus", "verilator", "ghdl")
_DEFAULT_ACCUMULATOR = "int16:saturate"


class _FileError(Exception):
    """What is wrong with a file, in one line that names it."""

    def __init__(self, file: str, reason: object) -> None:
        super().__init__(f"{file}: {reason}")


class _Dots(NamedTuple):
    """Operands of dot products, and where they come from."""

    x: Array
    w: Array
    c: Array | None
    x_type: str | None
    w_type: str | None
    datapath: Datapath
    origin: dict[str, Any]
    step: int | None = None  # of the first overflow, where a report says it


def add_vectors(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "vectors",
        help="write dot products as test vectors for RTL: memory files, a Verilog unit, a bench",
        description="Write dot products with their exact results as memory files, a Verilog unit "
        "that computes them, and a bench that compares every bit. The operands come from two .npy "
        "files (--x, --w), from a row of an overflow report (--report, --row), or at random.",
        epilog="TYPE is s2 to s16 or u2 to u16. docs/rtl.md describes the files.",
    )
    parser.usage = "abcdeep vectors -o DIR [--x FILE --w FILE | --report FILE --row ROW] [options]"
    add = parser.add_argument
    add("-o", "--output", metavar="DIR", required=True, help="folder, made if it is not there")
    add(
        "--acc",
        type=_accumulator,
        help=f"integer accumulator ({_DEFAULT_ACCUMULATOR}; of a row: its width and the report's "
        "settings)",
    )
    add("--group", type=_positive, help="products a step (1)")
    add("--chunk", type=_positive, help="terms of a partial sum (all)")
    add("--x", metavar="FILE", help=".npy of integers, (dots, terms): the input operands")
    add("--w", metavar="FILE", help=".npy of integers, (dots, terms): the weights")
    add("--c", metavar="FILE", help=".npy of integers, (dots,): start values of the accumulator")
    add(
        "--matmul",
        nargs="*",
        metavar="M,N",
        type=_place,
        help="--x and --w are (M, K) and (K, N), operands of a matrix product: take these outputs "
        "(all)",
    )
    add("--x-type", metavar="TYPE", type=_operand_type, help="of --x (its dtype; s8 at random)")
    add("--w-type", metavar="TYPE", type=_operand_type, help="of --w (its dtype; s8 at random)")
    add("--random", metavar="DOTS", type=_positive, help="random operands (2000 dot products)")
    add("--k", metavar="TERMS", type=_positive, default=64, help="of random dot products (64)")
    add("--seed", type=int, default=0, help="of random operands")
    add("--report", metavar="FILE", help="JSON that abcdeep overflow --json wrote")
    add(
        "--row",
        metavar="LAYER[:WIDTH]",
        help="of the report: the dot product of this layer that first overflows at this width "
        "(the widest that overflows)",
    )
    add("--lanes", type=_positive, help="operands in a memory word, a multiple of the group")
    add("--msb-first", action="store_true", help="lane 0 in the most significant bits of a word")
    add("--vhdl", action="store_true", help="also write the unit and its bench in VHDL-2008")
    add("--no-cocotb", action="store_true", help="without the test for cocotb")
    add("--name", default="mac", help="of the module (mac)")
    add(
        "--run",
        dest="simulator",
        metavar="SIMULATOR",
        nargs="?",
        const="any",
        choices=("any", *_SIMULATORS),
        help="run the bench: icarus, verilator, ghdl, or any, the first of the two Verilog "
        "simulators that is installed; status 1 unless it passes",
    )
    parser.set_defaults(run=lambda args: _run(args, parser))


def _accumulator(text: str) -> Datapath:
    from .accumulators import get_accumulator

    try:
        datapath = get_accumulator(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not datapath.is_integer:
        raise argparse.ArgumentTypeError(f"expected an integer accumulator, got {text!r}")
    return datapath


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _place(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+),(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected M,N, got {text!r}")
    return int(match[1]), int(match[2])


def _operand_type(text: str) -> str:
    from .rtl.mac_unit import OperandType

    try:
        return str(OperandType.named("type", text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    _check(args, parser)
    try:
        dots = _dots(args)
        bundle = _write(args, dots)
        _print(bundle, dots)
        return 0 if args.simulator is None else _simulate(args.simulator, bundle)
    except _FileError as error:
        reason = " ".join(str(error).split())
    except (OSError, TypeError, ValueError, NotImplementedError) as error:
        reason = f"{args.output}: {' '.join(str(error).split())}"
    print(f"abcdeep vectors: {reason}", file=sys.stderr)
    return 1


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    for first, second in (("x", "w"), ("report", "row")):
        if (getattr(args, first) is None) != (getattr(args, second) is None):
            parser.error(f"arguments --{first} and --{second}: expected both or none")
    sources = [name for name in ("x", "report", "random") if getattr(args, name) is not None]
    if len(sources) > 1:
        parser.error(f"argument --{sources[1]}: not allowed with argument --{sources[0]}")
    if "x" not in sources:
        for name in ("c", "matmul"):
            if getattr(args, name) is not None:
                parser.error(f"argument --{name}: expected --x and --w too")
    if not 0 <= args.seed < 1 << 64:
        parser.error(f"argument --seed: expected 0 to 2^64 - 1, got {args.seed}")
    if args.simulator == "ghdl" and not args.vhdl:
        parser.error("argument --run: expected --vhdl too for ghdl")


def _dots(args: argparse.Namespace) -> _Dots:
    if args.x is not None:
        return _from_files(args)
    if args.report is not None:
        return _from_report(args)
    return _at_random(args)


def _from_files(args: argparse.Namespace) -> _Dots:
    from .rtl import dot_products

    x, w = _read_array(args.x), _read_array(args.w)
    if args.matmul is not None:
        try:
            x, w = dot_products(x, w, args.matmul or None)
        except (TypeError, ValueError) as error:
            raise _FileError(args.x, error) from None
    c = None if args.c is None else _read_array(args.c)
    origin = {"x": args.x, "w": args.w, "matmul": args.matmul is not None}
    datapath = _with_options(args, args.acc or _accumulator(_DEFAULT_ACCUMULATOR))
    return _Dots(x, w, c, args.x_type, args.w_type, datapath, origin)


def _at_random(args: argparse.Namespace) -> _Dots:
    import numpy as np

    from .rtl.mac_unit import OperandType

    random = np.random.default_rng(args.seed)
    size = args.random or 2000, args.k
    names = args.x_type or "s8", args.w_type or "s8"
    kinds = [OperandType.named("type", name) for name in names]
    x, w = (random.integers(kind.lowest, kind.highest, size, endpoint=True) for kind in kinds)
    datapath = _with_options(args, args.acc or _accumulator(_DEFAULT_ACCUMULATOR))
    return _Dots(x, w, None, *names, datapath, {"random": True, "seed": args.seed})


def _read_array(path: str) -> Array:
    import numpy as np

    try:
        with open(path, "rb") as file:  # np.load leaves a file open that it cannot read
            loaded = np.load(file, allow_pickle=False)
    except OSError as error:
        raise _FileError(path, error.strerror or error) from None
    except (ValueError, EOFError) as error:
        raise _FileError(path, error) from None
    if not isinstance(loaded, np.ndarray):
        raise _FileError(path, "expected one array, .npy")
    return loaded


def _with_options(args: argparse.Namespace, datapath: Datapath) -> Datapath:
    group = args.group or datapath.group
    return datapath.replace(
        group=group,
        step="chain" if group == 1 else "exact_group",
        chunk=args.chunk or datapath.chunk,
    )


def _from_report(args: argparse.Namespace) -> _Dots:
    import numpy as np

    from .rtl.mac_unit import OperandType

    layer, entries, width, report = _row(args.report, args.row, args.acc)
    entry = _member(args.report, entries, str(width), Mapping)
    rows = []
    for side in ("inputs", "weights"):
        values = _member(args.report, entry, side, list)
        if not values or not all(isinstance(v, int) and abs(v) < 1 << 31 for v in values):
            raise _FileError(args.report, f"{side} of {layer!r} must be integers")
        rows.append(np.array([values], np.int64))
    if rows[0].shape != rows[1].shape:
        raise _FileError(args.report, f"inputs and weights of {layer!r} differ in number")
    operands = _member(args.report, _layers(args.report, report)[layer], "operands", Mapping)
    types = [args.x_type, args.w_type]
    for place, side in enumerate(("input_range", "weight_range")):
        limits = operands.get(side)
        if types[place] is None:
            if not isinstance(limits, list) or len(limits) != 2:
                raise _FileError(args.report, f"{side} of {layer!r} must be two numbers")
            try:
                types[place] = str(OperandType.holding(side, *limits))
            except (TypeError, ValueError) as error:
                raise _FileError(args.report, error) from None
    bias = entry.get("bias") or 0
    if not isinstance(bias, int) or abs(bias) >= 1 << 63:
        raise _FileError(args.report, f"bias of {layer!r} must be an integer")
    origin = {
        "report": args.report,
        "layer": layer,
        "width": width,
        **{key: entry.get(key) for key in ("sample", "coordinate", "channel", "k")},
    }
    return _Dots(
        rows[0],
        rows[1],
        np.array([bias]) if bias else None,
        types[0],
        types[1],
        _with_options(args, args.acc or _accumulator_of(args.report, report, width)),
        origin,
        entry.get("k"),
    )


def _row(
    path: str, row: str, acc: Datapath | None
) -> tuple[str, Mapping[str, Any], int, Mapping[str, Any]]:
    """Return the layer that a row names, its overflows by width, the width, and the report."""
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    except OSError as error:
        raise _FileError(path, error.strerror or error) from None
    except (ValueError, RecursionError) as error:
        raise _FileError(path, f"expected JSON: {error}") from None
    layers = _layers(path, report)
    name, _, digits = row.rpartition(":")
    wanted = int(digits) if row not in layers and name and digits.isdecimal() else None
    layer = row if wanted is None else name
    if layer not in layers:
        known = ", ".join(layers) or "none"
        raise _FileError(path, f"there is no layer {layer!r}; its layers are {known}")
    entries = _member(path, layers[layer], "first_overflow", Mapping)
    if not all(width.isdecimal() for width in entries):
        raise _FileError(path, f"first_overflow of {layer!r} must be by width")
    width_of_acc = None if acc is None else _width(acc)
    if wanted is not None and width_of_acc not in (None, wanted):
        raise _FileError(path, f"row {row!r} and an accumulator of {width_of_acc} bits disagree")
    widths = sorted(map(int, entries))
    width = wanted or width_of_acc or (widths[-1] if widths else None)
    if width is None or str(width) not in entries:
        at = "" if width is None else f" at {width} bits"
        found = f"; it does at {', '.join(map(str, widths))}" if widths else ""
        raise _FileError(path, f"layer {layer!r} does not overflow{at}{found}")
    return layer, entries, width, report


def _layers(path: str, report: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(report, Mapping):
        raise _FileError(path, "expected the JSON of an overflow report, got no object")
    layers = _member(path, report, "layers", list)
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in layers):
        raise _FileError(path, "layers must be objects with names")
    return {layer["name"]: layer for layer in layers}


def _member(path: str, parent: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = parent.get(key)
    if not isinstance(value, kind):
        expected = "an object" if kind is Mapping else "a list"
        raise _FileError(path, f"{key} must be {expected}, got {type(value).__name__}")
    return value


def _width(datapath: Datapath) -> int:
    from .formats import FixedFormat

    assert datapath.accumulator is not None
    assert isinstance(datapath.accumulator.format, FixedFormat)
    return datapath.accumulator.format.bits


def _accumulator_of(path: str, report: Mapping[str, Any], width: int) -> Datapath:
    """Return the report's accumulator of this width, else one that wraps."""
    from .accumulators import get_accumulator

    settings = _member(path, report, "settings", Mapping)
    kind = "int" if settings.get("signed", True) else "uint"
    named = [
        text
        for text in settings.get("accumulators") or []
        if isinstance(text, str) and re.fullmatch(rf"{kind}{width}(:.*)?", text)
    ]
    try:
        datapath = get_accumulator(named[0] if named else f"{kind}{width}:wrap")
        group, tile = settings.get("group") or 1, settings.get("tile") or 0
        return datapath.replace(
            group=group, step="chain" if group == 1 else "exact_group", chunk=tile
        )
    except (TypeError, ValueError) as error:
        raise _FileError(path, error) from None


def _write(args: argparse.Namespace, dots: _Dots) -> Bundle:
    from .rtl import write_bundle

    try:
        bundle = write_bundle(
            args.output,
            dots.x,
            dots.w,
            dots.datapath,
            c=dots.c,
            x_type=dots.x_type,
            w_type=dots.w_type,
            lanes=args.lanes,
            msb_first=args.msb_first,
            vhdl=args.vhdl,
            cocotb=not args.no_cocotb,
            name=args.name,
            origin=dots.origin,
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        source = args.report or args.x
        if source is None:
            raise
        raise _FileError(source, error) from None
    if args.report is not None and not bundle.expected.overflow[0]:
        raise _FileError(args.report, f"the dot product of row {args.row!r} does not overflow")
    return bundle


def _print(bundle: Bundle, dots: _Dots) -> None:
    manifest = bundle.manifest
    print(
        f"{bundle.folder}: {manifest['dots']} dot products of {manifest['terms']} terms, "
        f"{len(bundle.files)} files"
    )
    print(f"accumulator: {_describe(bundle)}")
    first = manifest["first_overflow"]
    if first is None:
        print("overflow: none")
        return
    report = "" if dots.step is None else f" (the report says {dots.step})"
    print(
        f"overflow: {manifest['overflowed']} dot products, the first is {first['dot']} at step "
        f"{first['step']}{report}"
    )


def _describe(bundle: Bundle) -> str:
    head = (bundle.folder / f"{bundle.manifest['name']}.v").read_text().splitlines()[0]
    return head.partition(": ")[2].removesuffix(".")


def _simulate(simulator: str, bundle: Bundle) -> int:
    from .rtl import simulate, simulators

    if simulator == "any":
        found = [name for name in simulators() if name != "ghdl"]
        if not found:
            raise ValueError("--run needs iverilog or verilator, and neither is installed")
        simulator = found[0]
    simulation = simulate(bundle.folder, simulator)
    print(f"{simulator}: {simulation.last_line}")
    if not simulation.passed:
        sys.stdout.flush()
        print(simulation.output, end="", file=sys.stderr)
    return 0 if simulation.passed else 1
