"""`abcdeep overflow`: which accumulators the layers of a model need."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .overflow import OverflowReport, Source

DEMO_REPORT = "abcdeep_report_overflow.html"
_WIDTHS = re.compile(r"(\d+):(\d+)")
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
        "Exit status 1: a file is wrong, or --fail-over was exceeded.",
    )
    parser.usage = "abcdeep overflow [MODEL --data DATA] [-o REPORT.html] [options]"
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="weights (.npz) or a graph (.onnx)")
    add("--data", metavar="DATA", help="inputs (.npy, .npz)")
    add("--acc", nargs="+", metavar="ACC", help="int16:wrap int16:saturate by default; m7e4, ...")
    add("--widths", type=_widths, default=(8, 32), metavar="A:B", help="of the curves (8:32)")
    add("--group", type=int, default=1, metavar="G", help="products per step (SIMD lanes)")
    add("--tile", type=int, default=0, metavar="T", help="terms per partial sum (all)")
    add("--tile-merge", choices=("same", "exact"), default="same", help="sum of tiles: in the same "
        "accumulator (default) or in a wider one")  # fmt: skip
    add("--order", default="given", choices=("given", "best", "reverse", "even_then_odd", "pair4"),
        help="of the terms; best: of each dot product, so that its sums stay small")  # fmt: skip
    add("--unsigned", action="store_true", help="accumulators of the curves are unsigned")
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
    add("--threads", type=int, metavar="N")
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=lambda args: _run(args, parser))


def _widths(text: str) -> tuple[int, int]:
    match = _WIDTHS.fullmatch(text)
    if not match or not 2 <= int(match[1]) <= int(match[2]) <= 64:
        raise argparse.ArgumentTypeError(f"expected A:B with 2 <= A <= B <= 64, got {text!r}")
    return int(match[1]), int(match[2])


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if (args.model is None) != (args.data is None):
        parser.error("expected both MODEL and --data, or neither")
    if args.fail_over is not None and not 0 <= args.fail_over <= 1:
        parser.error(f"argument --fail-over: expected a rate from 0 to 1, got {args.fail_over}")
    for file in filter(None, (args.output, args.json, args.checkpoint)):
        if not Path(file).parent.is_dir():
            print(f"abcdeep overflow: {file}: its folder does not exist", file=sys.stderr)
            return 1
    name = args.model or "digits"
    try:
        report = _report(args)
        print(report.table())
        status = _write(report, args)
    except (ImportError, OSError, ValueError, TypeError, NotImplementedError) as error:
        # messages about a file begin with it
        where = "" if str(error).startswith(name) else f"{name}: "
        print(f"abcdeep overflow: {where}{error}", file=sys.stderr)
        return 1
    if args.fail_over is not None and report.rate() > args.fail_over:
        print(
            f"abcdeep overflow: {name}: {report.rate():.3g} of a layer's outputs overflow, more "
            f"than {args.fail_over:g}",
            file=sys.stderr,
        )
        return 1
    return status


def _report(args: argparse.Namespace) -> OverflowReport:
    from .overflow import overflow_report
    from .overflow.settings import DEFAULT_ACCUMULATORS, Settings

    accumulators = args.acc or DEFAULT_ACCUMULATORS
    steps = {
        "group": args.group,
        "tile": args.tile,
        "tile_merge": args.tile_merge,
        "order": _ORDERS.get(args.order, args.order),
        "signed": not args.unsigned,
    }
    Settings.of(accumulators, args.widths, **steps)  # what is wrong with them is said at once
    return overflow_report(
        _source(args),
        accumulators=accumulators,
        widths=args.widths,
        **steps,
        title=args.title,
        checkpoint=args.checkpoint,
        progress=False if args.quiet else None,
        threads=args.threads,
    )


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
            args.json = args.json or str(Path(page).with_suffix(".json"))
            status = 0 if args.output is None else 1
    if args.json is not None:
        report.to_json(args.json)
        print(f"wrote {args.json}")
    return status
