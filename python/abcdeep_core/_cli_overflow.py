"""`abcdeep overflow`: which accumulators the layers of a model need."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ._cli_vectors_report import printable

if TYPE_CHECKING:
    from .overflow import OverflowReport, Source

DEMO_REPORT = "abcdeep_report_overflow.html"
_WIDTHS = re.compile(r"(\d+):(\d+)")
_SILENT_SECONDS = 2.0
_ORDERS = {"given": "natural", "best": "greedy"}


def add_overflow(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "overflow",
        help="report the accumulator widths a model needs, and what narrower ones do",
        description="Run the data through a model and report, for every layer and output channel, "
        "safe accumulator widths, how often each width overflows, the first overflow, and the "
        "errors of the accumulators asked for. Without MODEL: a network trained on scikit-learn's "
        "digits (extra [examples]).",
        epilog="MODEL is an .npz file of weights (docs/overflow_models.md) or an .onnx file (extra "
        "[onnx]); DATA a .npy or .npz file, samples first. The HTML page needs the extra [report]. "
        "Columns: K terms of an output, N output channels; safe: bits proved for any input from "
        "the signs of the weights; any/given: bits that the data need in any order of the terms, "
        "and in the given one; over: share of outputs with a sum or partial sum out of range; "
        "wrong: share of results that differ from the exact sum; first overflow: sample (output) "
        "and step k, from 0 (-1: the bias). Exit status 1: a file is wrong, or --fail-over was "
        "exceeded.",
    )
    parser.usage = "abcdeep overflow [MODEL --data DATA] [-o REPORT.html] [options]"
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="weights (.npz) or a graph (.onnx)")
    add("--data", metavar="DATA", help="inputs (.npy, .npz)")
    add(
        "--acc",
        nargs="+",
        metavar="ACC",
        help="emulated bit by bit: int16:wrap int16:saturate by default; m7e4, ...",
    )
    add("--widths", type=_widths, default=(8, 32), metavar="A:B", help="of the curves (8:32)")
    add("--group", type=_at_least(1), default=1, metavar="G", help="products per step (SIMD lanes)")
    add("--tile", type=_at_least(0), default=0, metavar="T", help="terms per partial sum (all)")
    add("--tile-merge", choices=("same", "exact"), default="same", help="sum of tiles: in the same "
        "accumulator (default) or in a wider one")  # fmt: skip
    add("--order", default="given", choices=("given", "best", "reverse", "even_then_odd", "pair4"),
        help="of the terms; best: of each dot product, so that its sums stay small")  # fmt: skip
    add("--unsigned", action="store_true", help="accumulators of the curves are unsigned, "
        "and those of --acc by default")  # fmt: skip
    add("--quantise", metavar="TYPE", help="make integers of float layers: int8, w4a8, ...")
    add("--per-tensor", action="store_true", help="one scale for a weight, not one a channel")
    add("--affine", action="store_true", help="unsigned inputs with a zero point")
    add("--zero-point", choices=("subtract", "fold"), default="subtract", help="subtracted from "
        "the inputs, or folded into the bias")  # fmt: skip
    add("-o", "--output", metavar="FILE", help="write the report as one HTML page")
    add("--json", metavar="FILE", help="write the report as JSON")
    add("--title", default="", help="of the report")
    add("--fail-over", type=float, metavar="RATE", help="exit with status 1 if more than this "
        "share of a layer's outputs overflows the narrowest accumulator of --acc")  # fmt: skip
    add("--checkpoint", metavar="FILE", help="keep what is done, and go on from it")
    add("--threads", type=_at_least(1), metavar="N", help="of the kernels (all processors)")
    add("--quiet", action="store_true", help="no progress, and no word on what takes long")
    parser.set_defaults(run=lambda args: _run(args, parser))


def _widths(text: str) -> tuple[int, int]:
    match = _WIDTHS.fullmatch(text)
    if not match or not 2 <= int(match[1]) <= int(match[2]) <= 64:
        raise argparse.ArgumentTypeError(f"expected A:B with 2 <= A <= B <= 64, got {text!r}")
    return int(match[1]), int(match[2])


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected an integer from {least}, got {text!r}")
        return int(text)

    return parse


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Stop with status 2 where an argument is wrong, before anything is run."""
    from .overflow.quantization import Quantization
    from .overflow.settings import Settings

    if (args.model is None) != (args.data is None):
        parser.error("expected both MODEL and --data, or neither")
    if args.fail_over is not None and not 0 <= args.fail_over <= 1:
        parser.error(f"argument --fail-over: expected a rate from 0 to 1, got {args.fail_over}")
    if args.order == "best" and (args.group > 1 or args.tile):
        parser.error("argument --order: expected no --group and no --tile with best")
    try:
        Settings.of(args.acc, args.widths, signed=not args.unsigned)
    except (TypeError, ValueError, NotImplementedError) as error:
        parser.error(f"argument --acc: {error}")
    if args.quantise is not None:
        try:
            Quantization.from_name(args.quantise)
        except ValueError as error:
            parser.error(f"argument --quantise: {error}")
    files = [
        ("MODEL", args.model),
        ("--data", args.data),
        ("the manifest of MODEL", _manifest(args)),
    ]
    files += [("--checkpoint", args.checkpoint)]
    files += [("--output", args.output), ("--json", args.json)]
    used: dict[str, str] = {}
    for option, file in files:
        if file is not None:
            other = used.setdefault(os.path.realpath(file), option)
            if other != option and option.startswith("--") and option != "--data":
                parser.error(f"argument {option}: expected another file than {other}, got {file}")


def _manifest(args: argparse.Namespace) -> str | None:
    """Return where the manifest of an .npz file may lie."""
    model = args.model or ""
    return str(Path(model).with_suffix(".json")) if model.lower().endswith(".npz") else None


def _check_places(args: argparse.Namespace) -> None:
    """Raise where a file cannot be written: now, not after a long run."""
    for file in (args.output, args.json, args.checkpoint):
        if file is None:
            continue
        if Path(file).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
        if not Path(file).absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", file)


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    _check(args, parser)
    name = args.model or "digits"
    try:
        _check_places(args)
        report = _report(args)
        print(report.table())
        status = _write(report, args)
    except (ImportError, OSError, ValueError, TypeError, NotImplementedError) as error:
        print(f"abcdeep overflow: {_one_line(error, name)}", file=sys.stderr)
        return 1
    if args.fail_over is not None and (rate := report.rate()) > args.fail_over:
        width = report.narrowest()
        worst = max(report.layers, key=lambda one: one.rate(width))
        print(
            f"abcdeep overflow: {name}: {printable(worst.layer.name)}: {rate:.3g} of a "
            f"layer's outputs overflow, more than {args.fail_over:g} ({width} bits)",
            file=sys.stderr,
        )
        return 1
    return status


def _one_line(error: Exception, name: str) -> str:
    """Return an error as a line that begins with the file it is about."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    text = printable(" ".join(str(error).split()))
    text = text.replace("quantise='int8'", "--quantise int8")
    return text if text.startswith(name) else f"{name}: {text}"


def _report(args: argparse.Namespace) -> OverflowReport:
    from .overflow import overflow_report

    begins = "training the digits network" if args.model is None else f"reading {args.model}"
    with _told(begins, not args.quiet):
        source = _source(args)
    samples, layers = source.samples, len(source.layers)
    runs = f"running {_count(samples, 'sample')} through {_count(layers, 'layer')}"
    with _told(runs, not args.quiet and not sys.stderr.isatty()):
        return overflow_report(
            source,
            accumulators=args.acc,
            widths=args.widths,
            group=args.group,
            tile=args.tile,
            tile_merge=args.tile_merge,
            order=_ORDERS.get(args.order, args.order),
            signed=not args.unsigned,
            title=args.title,
            checkpoint=args.checkpoint,
            progress=False if args.quiet else None,
            threads=args.threads,
        )


@contextlib.contextmanager
def _told(what: str, wanted: bool) -> Iterator[None]:
    """Say on stderr what is being done where it takes more than two seconds."""

    def tell() -> None:
        print(f"abcdeep overflow: {printable(what)}", file=sys.stderr, flush=True)

    timer = threading.Timer(_SILENT_SECONDS, tell)
    timer.daemon = True
    if wanted:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _source(args: argparse.Namespace) -> Source:
    options = {
        "per_channel": not args.per_tensor,
        "affine": args.affine,
        "zero_point": args.zero_point,
    }
    if args.model is None:
        from .examples.digits_overflow import digits_source

        return digits_source(quantise=args.quantise or "int8", **options)
    from .overflow import load_model

    return load_model(args.model, args.data, quantise=args.quantise, **options)


def _write(report: OverflowReport, args: argparse.Namespace) -> int:
    """Write what was asked for; without the extra for HTML, JSON in its place."""
    page = args.output or (DEMO_REPORT if args.model is None and args.json is None else None)
    status = 0
    if page is not None:
        try:
            report.to_html(page)
            print(f"wrote {page}")
        except ImportError as error:
            print(f"abcdeep overflow: {error}", file=sys.stderr)
            place = str(Path(page).with_suffix(".json"))
            args.json = args.json or (f"{page}.json" if place == _manifest(args) else place)
            status = 0 if args.output is None else 1
    if args.json is not None:
        report.to_json(args.json)
        print(f"wrote {args.json}")
    return status
