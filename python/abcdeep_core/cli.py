"""The command `abcdeep`: one subcommand a job, each a thin layer over the library."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import __version__

# The subcommands import what they need when they run: `abcdeep --help` answers at once.
if TYPE_CHECKING:
    from .formats import FloatFormat


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the command's name; those of the process by default.

    Returns
    -------
    int
        0 if all went well, 1 if a file or an extra is missing or the reader of the output went
        away, 130 after an interrupt (Ctrl-C).

    Raises
    ------
    SystemExit
        With status 2 and a line on standard error if an argument is wrong; with status 0 after
        ``--help`` and ``--version``.

    Examples
    --------
    >>> from abcdeep_core.cli import main
    >>> main(["formats", "e3m0"])
    name  s-E-M  bias  specials  max (code)  min normal  min subnormal  overflow         also
    e3m0  1-3-0  1     none      64 (0x7)    1           -              sat_finite: max
    0
    """
    args = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        status = run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("abcdeep: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `abcdeep formats | head`: no traceback, here or when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="abcdeep",
        description="Bit-exact emulation of low-precision arithmetic: formats, accumulators, "
        "matrix products.",
    )
    parser.add_argument("--version", action="version", version=f"abcdeep_core {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


# abcdeep formats


def _add_formats(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "formats",
        help="list the number formats, or print their code tables",
        description="List the named number formats with their widths, limits and special words.",
        epilog="e4m3fn, bfloat16, float8_e5m2, binary8p4se (IEEE P3109) are names.",
    )
    parser.add_argument(
        "formats",
        nargs="*",
        metavar="NAME",
        type=_named_format,
        help="a format, by any name the library takes; all named formats by default",
    )
    parser.add_argument(
        "--values",
        action="store_true",
        help="print the value of every word (formats of at most 16 bits; without NAME, of all "
        "named formats of at most 8 bits)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=lambda args: _run_formats(args, parser))


def _named_format(text: str) -> FloatFormat:
    from .formats import FloatFormat, get_format

    try:
        fmt = get_format(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    assert isinstance(fmt, FloatFormat)  # every name is that of a float format
    return fmt


def _run_formats(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .formats import formats

    chosen: list[FloatFormat] = args.formats or list(formats().values())
    if args.values:
        if not args.formats:
            chosen = [fmt for fmt in chosen if fmt.bits <= 8]
        for fmt in chosen:
            if reason := _no_table(fmt):
                parser.error(f"argument --values: {fmt.name} {reason}")
    if args.json:
        records = [_record(fmt, args.values) for fmt in chosen]
        print(json.dumps(records, indent=None if args.values else 2, allow_nan=False))
    elif args.values:
        for fmt in chosen:
            print(f"{fmt.name}: {fmt!r}")
            print_table(_code_rows(fmt))
    else:
        print_table(_limit_rows(chosen))
    return 0


def _no_table(fmt: FloatFormat) -> str:
    if fmt.bits > 16:
        return f"must have at most 16 bits, got {fmt.bits}"
    try:
        _ = fmt.value_dtype
    except ValueError:
        return "has values that do not fit float64"
    return ""


def _limit_rows(chosen: Sequence[FloatFormat]) -> Iterator[Sequence[str]]:
    from ._presets import ALIASES

    yield ("name", "s-E-M", "bias", "specials", "max (code)", "min normal", "min subnormal",
           "overflow", "also")  # fmt: skip
    for fmt in chosen:
        first_normal = 1 << fmt.mantissa_bits
        subnormals = fmt.code0 == "subnormal" and fmt.mantissa_bits > 0
        yield (
            fmt.name,
            f"{int(fmt.signed)}-{fmt.exponent_bits}-{fmt.mantissa_bits}",
            str(fmt.bias),
            fmt.specials,
            f"{_magnitude(fmt, fmt.max_index)} ({fmt.max_code:#x})",
            _magnitude(fmt, first_normal) if first_normal <= fmt.max_index else "-",
            _magnitude(fmt, 1) if subnormals else "-",
            _overflow(fmt),
            ", ".join(alias for alias, name in ALIASES.items() if name == fmt.name),
        )


def _magnitude(fmt: FloatFormat, index: int) -> str:
    """Return the value at `index` as a decimal if that is short, else with powers of two."""
    significand, exponent = fmt.significand_exponent(index)
    if -30 <= exponent <= 30:
        text = f"{math.ldexp(significand, exponent):.17g}"
        if len(text) <= 9:
            return text
    last = significand.bit_length() - 1
    if significand == 1 << last:
        return f"2^{exponent + last}"
    if significand == (2 << last) - 1:
        return f"(2-2^-{last})*2^{exponent + last}"
    return f"{significand}*2^{exponent}"


def _overflow(fmt: FloatFormat) -> str:
    """Return the overflow rule with what it makes of a value far above the largest."""
    rule = fmt.resolved_overflow()
    if rule == "ieee" and fmt.has_inf:
        return rule + ": Inf"
    if rule == "ieee" and fmt.specials != "p3109_finite":
        return rule + ": NaN"
    return rule + ": max"


def _code_rows(fmt: FloatFormat) -> Iterator[Sequence[str]]:
    e, m, padding = fmt.exponent_bits, fmt.mantissa_bits, fmt.padding_bits
    digits = -(-(fmt.bits + padding) // 4)
    yield ("code", "s" * fmt.signed + "e" * e + "m" * m, "value")
    for code, value in enumerate(fmt.code_values().tolist()):
        yield (
            f"0x{code << padding:0{digits}x}",
            f"{code:0{fmt.bits}b}",
            "-0" if value == 0 and math.copysign(1, value) < 0 else f"{value:.17g}",
        )


def _record(fmt: FloatFormat, with_values: bool) -> dict[str, Any]:
    """Return what is known about a format as JSON values; a float out of float64 is null."""

    def number(query: str) -> float | None:
        try:
            value: float | None = getattr(fmt, query)
        except ValueError:
            return None
        return value

    record = fmt.to_dict() | {
        "bits": fmt.bits,
        "emin": fmt.emin,
        "emax": fmt.emax,
        **{query: number(query) for query in _FLOAT_QUERIES},
        "max_code": fmt.max_code,
        "inf_code": fmt.inf_code,
        "negative_inf_code": fmt.negative_inf_code,
        "nan_code": fmt.nan_code,
        "has_negative_zero": fmt.has_negative_zero,
        "ml_dtype": None if fmt.ml_dtype is None else fmt.ml_dtype.name,
        "resolved_overflow": fmt.resolved_overflow(),
        "resolved_underflow": fmt.resolved_underflow(),
        "resolved_nan_to": fmt.resolved_nan_to(),
    }
    if with_values:  # JSON has no infinities and NaN: those are the strings "inf", "-inf", "nan"
        record["values"] = [v if math.isfinite(v) else str(v) for v in fmt.code_values().tolist()]
    return record


_FLOAT_QUERIES = ("max", "min", "smallest_normal", "smallest_subnormal", "eps")


def print_table(rows: Iterator[Sequence[str]]) -> None:
    """Print rows with their columns aligned."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


# abcdeep demo


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="run narrow accumulators in a small network and write a report",
        description="Train a small network on scikit-learn's digits, run and fine-tune it with "
        "emulated accumulators, print one table, and write an HTML report.",
        epilog="Needs scikit-learn (extra [examples]); the report needs matplotlib and jinja2 "
        "(extra [report]).",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="of the data split, weights and sample order"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few samples and epochs, to see that it works"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the report (abcdeep_report.html by default)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write everything measured as JSON")
    parser.set_defaults(run=_run_demo)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def _run_demo(args: argparse.Namespace) -> int:
    from .examples.digits_demo import REPORT, demo

    try:
        written = demo(
            seed=args.seed, quick=args.quick, report_path=args.output or REPORT, json_path=args.json
        )
    except (ImportError, OSError) as error:
        print(f"abcdeep demo: {error}", file=sys.stderr)
        return 1
    return 0 if written or args.output is None else 1


# abcdeep bias


def _add_bias(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._cli_bias import add_bias

    add_bias(commands)


# abcdeep prune


def _add_prune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._cli_prune import add_prune

    add_prune(commands)


# abcdeep width


def _add_width(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._cli_width import add_width

    add_width(commands)


# abcdeep overflow


def _add_overflow(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._cli_overflow import add_overflow

    add_overflow(commands)


# abcdeep vectors


def _add_vectors(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ._cli_vectors import add_vectors

    add_vectors(commands)


_COMMANDS = (
    _add_formats,
    _add_bias,
    _add_prune,
    _add_width,
    _add_overflow,
    _add_vectors,
    _add_demo,
)
