"""`abcdeep vectors`: dot products as test vectors for a multiply-accumulate unit."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from ._cli_vectors_report import Dots, FileError, from_report, printable, with_options

if TYPE_CHECKING:
    import numpy.typing as npt

    from .datapath import Datapath
    from .rtl import Bundle

    Array = npt.NDArray[Any]

_SIMULATORS = ("icarus", "verilator", "ghdl")
_DEFAULT_ACCUMULATOR = "int16:saturate"


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
    add("--name", type=_module_name, default="mac", help="of the module (mac)")
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


def _module_name(text: str) -> str:
    from .rtl.bundle import check_name

    try:
        return check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
        if args.lanes is not None and args.lanes % dots.datapath.group:
            parser.error(
                f"argument --lanes: expected a multiple of the group, {dots.datapath.group}, "
                f"got {args.lanes}"
            )
        bundle = _write(args, dots)
        _print(bundle, dots)
        return 0 if args.simulator is None else _simulate(args.simulator, bundle)
    except FileError as error:
        reason = " ".join(str(error).split())
    except (OSError, TypeError, ValueError, NotImplementedError) as error:
        reason = f"{args.output}: {' '.join(str(error).split())}"
    print(f"abcdeep vectors: {printable(reason)}", file=sys.stderr)
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


def _dots(args: argparse.Namespace) -> Dots:
    if args.x is not None:
        return _from_files(args)
    if args.report is not None:
        return from_report(args)
    return _at_random(args)


def _from_files(args: argparse.Namespace) -> Dots:
    from .rtl import dot_products

    x, w = _read_array(args.x), _read_array(args.w)
    if args.matmul is not None:
        try:
            x, w = dot_products(x, w, args.matmul or None)
        except (TypeError, ValueError) as error:
            raise FileError(args.x, error) from None
    c = None if args.c is None else _read_array(args.c)
    origin = {"x": args.x, "w": args.w, "matmul": args.matmul is not None}
    datapath = with_options(args, args.acc or _accumulator(_DEFAULT_ACCUMULATOR))
    return Dots(x, w, c, args.x_type, args.w_type, datapath, origin)


def _at_random(args: argparse.Namespace) -> Dots:
    import numpy as np

    from .rtl.mac_unit import OperandType

    random = np.random.default_rng(args.seed)
    size = args.random or 2000, args.k
    names = args.x_type or "s8", args.w_type or "s8"
    kinds = [OperandType.named("type", name) for name in names]
    x, w = (random.integers(kind.lowest, kind.highest, size, endpoint=True) for kind in kinds)
    datapath = with_options(args, args.acc or _accumulator(_DEFAULT_ACCUMULATOR))
    return Dots(x, w, None, *names, datapath, {"random": True, "seed": args.seed})


def _read_array(path: str) -> Array:
    import numpy as np

    from ._array_files import load

    try:
        with open(path, "rb") as file:  # np.load leaves a file open that it cannot read
            loaded = load(file)
    except OSError as error:
        raise FileError(path, error.strerror or error) from None
    except (ValueError, EOFError) as error:
        raise FileError(path, error) from None
    if not isinstance(loaded, np.ndarray):
        raise FileError(path, "expected one array, .npy")
    return loaded


def _write(args: argparse.Namespace, dots: Dots) -> Bundle:
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
        raise FileError(source, error) from None
    if args.report is not None and not bundle.expected.overflow[0]:
        raise FileError(args.report, f"the dot product of row {args.row!r} does not overflow")
    return bundle


def _print(bundle: Bundle, dots: Dots) -> None:
    manifest = bundle.manifest
    print(
        f"{bundle.folder}: {_dot_products(manifest['dots'])} of {manifest['terms']} "
        f"{'term' if manifest['terms'] == 1 else 'terms'}, {len(bundle.files)} files"
    )
    print(f"accumulator: {_describe(bundle)}")
    first = manifest["first_overflow"]
    if first is None:
        print("overflow: none")
        return
    step = _cycle(manifest, dots.step)
    report = "" if step is None else f" (the report says {step})"
    if step is not None and step < 0:
        report = " (the report says: the bias, before the first step)"
    print(
        f"overflow: {_dot_products(manifest['overflowed'])}, the first is {first['dot']} at step "
        f"{first['step']}{report}"
    )


def _dot_products(count: int) -> str:
    return f"{count} dot product{'' if count == 1 else 's'}"


def _cycle(manifest: dict[str, Any], step: int | None) -> int | None:
    """Return the cycle of a report's step; a report counts merges as steps of their own."""
    chunk, group = manifest["chunk"], manifest["group"]
    if step is None or step < 0 or not chunk or manifest["datapath"]["merge"] == "exact":
        return step
    length = -(-chunk // group)
    tile, place = divmod(step, length + 1)
    cycle: int = min(tile * length + min(place, length - 1), manifest["steps"] - 1)
    return cycle


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
