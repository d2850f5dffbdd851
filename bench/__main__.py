"""Runs the benches: one table, optionally JSON and a comparison with an earlier JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from abcdeep_core import _core

from . import (
    bench_blocks,
    bench_hadamard,
    bench_luq,
    bench_matmul,
    bench_nm,
    bench_overflow,
    bench_pack_24,
    bench_quantize,
    bench_random,
    bench_transposable,
    bench_uniform,
)
from .measure import Case, Row, Settings, describe_machine, measure, with_relative_targets

BENCHES = {
    "matmul": bench_matmul.cases,
    "quantize": bench_quantize.cases,
    "random": bench_random.cases,
    "luq": bench_luq.cases,
    "uniform": bench_uniform.cases,
    "blocks": bench_blocks.cases,
    "hadamard": bench_hadamard.cases,
    "nm": bench_nm.cases,
    "transposable": bench_transposable.cases,
    "pack_24": bench_pack_24.cases,
    "overflow": bench_overflow.cases,
}
SIGNIFICANT = 0.1  # a change of the ratio by less than this share is noise
HEADER = ("case", "shape", "isa", "thr", "G/s", "ratio", "target", "ceil", "here", "Eigen", "path")
WIDTHS = (55, 14, 10, 3, 8, 6, 6, 6, 6, 6, 9)
LEFT = (0, 1, 2, 10)  # columns of words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches named on the command line and return the exit status."""
    options = parser().parse_args(arguments)
    supported = _core.supported_isas()
    isas = options.isa or supported[:0:-1] or supported
    if unknown := [bench for bench in options.benches if bench not in BENCHES]:
        parser().error(f"bench: expected some of {', '.join(BENCHES)}, got {', '.join(unknown)}")
    if unknown := [isa for isa in isas if isa not in supported]:
        parser().error(f"--isa: expected some of {', '.join(supported)}, got {', '.join(unknown)}")
    previous = {} if options.compare is None else read(options.compare)

    machine = describe_machine()
    print(f"{machine['cpu']}; {' '.join(machine['flags'])}")
    print(f"NumPy {machine['numpy']}, BLAS: {machine['numpy_blas']}")
    print("ratio: against the baseline named at the right, same threads, same run. Eigen: against")
    print("the in-process float32 GEMM of the same instruction set. ceil: the ratio of the row's")
    print("steps alone, in registers. here: the target, lowered as much as ceil is below that of a")
    print("processor with four 512-bit pipes, for which targets are stated.")
    print(line(HEADER) + "  against" + ("" if not previous else "; then -> now"))
    cases: dict[str, Case] = {}
    rows: list[Row] = []
    for threads in options.threads:
        for isa, case in every_case(options, isas, threads):
            row = measure(
                case,
                isa,
                threads,
                repeats=2 if options.quick else options.repeats,
                sample=0.0 if options.quick else 0.02,
            )
            cases[row.name] = case
            rows.append(row)
            rows = with_relative_targets(rows, cases)
            print(text(rows[-1]) + change(rows[-1], previous), flush=True)
    if options.markdown is not None:
        options.markdown.write_text(markdown(machine, rows, options.benches))
    if options.json is not None:
        report = {"machine": machine, "rows": [dataclasses.asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    result.add_argument("benches", nargs="*", metavar="bench", help=", ".join(BENCHES))
    result.add_argument("--filter", default="", help="only cases whose name contains this text")
    result.add_argument("--isa", nargs="+", help="instruction sets; by default all but base")
    result.add_argument("--threads", nargs="+", type=positive, default=[1])
    result.add_argument("--size", type=positive, default=1024, help="side of the matrices")
    result.add_argument("--repeats", type=positive, default=5)
    result.add_argument("--json", type=Path, help="write the rows to this file")
    result.add_argument("--markdown", type=Path, help="write the table to this file as a page")
    result.add_argument("--compare", type=Path, help="an earlier --json file")
    result.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    return result


def positive(argument: str) -> int:
    value = int(argument)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {value}")
    return value


def every_case(
    options: argparse.Namespace, isas: Sequence[str], threads: int
) -> Iterator[tuple[str, Case]]:
    """Yield each case with its instruction set and number of threads in force."""
    settings = Settings(size=options.size, threads=threads)
    if options.quick:
        settings = Settings(size=48, elements=5000, threads=threads)
    before = _core.selected_isa()
    try:
        for bench in options.benches or BENCHES:
            for isa in isas:
                _core.set_isa(isa)
                with threadpool_limits(threads, user_api="blas"):
                    for case in BENCHES[bench](settings):
                        if options.filter in case.name:
                            yield isa, case
    finally:
        _core.set_isa(before)


def read(path: Path) -> dict[tuple[str, str, int], Row]:
    rows = [Row(**fields) for fields in json.loads(path.read_text())["rows"]]
    return {row.key: row for row in rows}


def line(cells: Sequence[str]) -> str:
    first, *rest = (
        cell.ljust(width) if i in LEFT else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    )
    return "  ".join([first, *rest])


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def text(row: Row) -> str:
    mark = " <" if row.is_missed else ""
    cells = (
        row.name,
        row.shape,
        row.isa,
        str(row.threads),
        f"{row.speed / 1e9:.3f}",
        number(row.ratio),
        number(row.target),
        number(row.ceiling_ratio),
        number(row.target_here),
        number(row.yardstick_ratio),
        row.path,
    )
    return f"{line(cells)}  {row.baseline}{mark}"


def markdown(machine: dict[str, Any], rows: Sequence[Row], benches: Sequence[str]) -> str:
    """Return the rows as a page of the documentation."""
    command = " ".join(["python -m bench", *benches, "--markdown"])
    lines = [
        "# One run of the bench" + (f": {', '.join(benches)}" if benches else ""),
        "",
        f"{machine['cpu']} ({' '.join(machine['flags'])}), {machine['numpy_blas']}; written by",
        f"`{command} FILE`. [Performance](performance.md) says what the columns mean.",
        "",
        "| case | set | threads | G/s | ratio | target | ceil | here | path | against |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            f"{row.name}, {row.shape}",
            row.isa,
            str(row.threads),
            f"{row.speed / 1e9:.3g}",
            f"**{number(row.ratio)}**" if row.is_missed else number(row.ratio),
            number(row.target),
            number(row.ceiling_ratio),
            number(row.target_here),
            row.path,
            row.baseline,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Bold: below the target for this processor.", ""])


def change(row: Row, previous: dict[tuple[str, str, int], Row]) -> str:
    then = previous.get(row.key)
    if then is None:
        return "; new" if previous else ""
    factor = row.ratio / then.ratio
    word = "slower" if factor < 1 - SIGNIFICANT else "faster" if factor > 1 + SIGNIFICANT else ""
    return f"; {then.ratio:.2f} -> {row.ratio:.2f} {word}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
