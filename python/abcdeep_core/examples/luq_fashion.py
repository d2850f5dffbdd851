"""4-bit training from scratch on Fashion-MNIST: ``python -m abcdeep_core.examples.luq_fashion``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from abcdeep_core import report

from .accumulator_study import StepLog
from .arguments import positive_integer, positive_number, seed_word
from .fashion_mnist import DEBIAN_FOLDER, load_fashion_mnist
from .fashion_networks import NETWORKS
from .luq_rows import EXPECTATIONS, LUQ, NAMES, ROWS
from .study_output import machine
from .study_text import Claim
from .training_figure import FORMATS, draw
from .training_study import Settings, Training, train_all
from .training_text import Trained, claims, grouped, table

WIDTHS = {"mlp": 256, "cnn": 32}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return an exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 if all went well, 1 if data, an extra or a file is missing.

    Raises
    ------
    SystemExit
        With status 2 if an argument is wrong.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.output and Path(args.output).suffix not in FORMATS:
        parser.error(f"--output: expected a file name in {', '.join(FORMATS)}, got {args.output}")
    started = time.perf_counter()
    try:
        load_fashion_mnist(args.data)
    except (OSError, ValueError) as error:
        print(f"luq_fashion: {error}", file=sys.stderr)
        return 1
    if args.output and (missing := report.missing_extra()):
        print(
            f"luq_fashion: no plot: {missing} not installed; pip install 'abcdeep_core[report]'",
            file=sys.stderr,
        )
        return 1
    trainings = _train(args)
    studies = {
        network: grouped([t for t in trainings if t.network == network], NAMES)
        for network in args.networks
    }
    found = {network: claims(rows, EXPECTATIONS, near=LUQ) for network, rows in studies.items()}
    facts = {
        "command": f"{parser.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}".rstrip(),
        "run time": f"{time.perf_counter() - started:.0f} s",
        **machine(),
    }
    _print(studies, found, facts)
    try:
        _write(args, trainings, studies, found, facts)
    except OSError as error:
        print(f"luq_fashion: {error}", file=sys.stderr)
        return 1
    return 0


def _train(args: argparse.Namespace) -> list[Training]:
    settings = Settings(
        folder=args.data,
        samples=args.samples,
        test_samples=args.test_samples,
        widths={network: args.width or WIDTHS[network] for network in args.networks},
        epochs=args.epochs,
        rate=args.rate,
        tuning_epochs=args.tuning_epochs,
        tuning_rate=args.tuning_rate,
    )
    log = StepLog(len(NAMES) * len(args.networks) * len(args.seeds))
    trainings = []
    jobs = train_all(settings, args.networks, ROWS, args.seeds, workers=args.workers)
    for training in (training for job in jobs for training in job):
        what = training.failure or f"{100 * training.accuracy:.2f} %, loss {training.loss:.4f}"
        log.step(
            f"{training.network} seed {training.seed} {training.name}: {what}"
            f" ({training.seconds:.0f} s)"
        )
        trainings.append(training)
    return trainings


def _print(
    studies: Mapping[str, Sequence[Trained]],
    found: Mapping[str, Sequence[Claim]],
    facts: Mapping[str, str],
) -> None:
    for network, rows in studies.items():
        print(f"{network}:\n\n{table(rows)}\n")
        for claim in found[network]:
            print(f"{'shows' if claim.shown else 'DOES NOT SHOW'}: {claim.text}: {claim.measured}")
        print()
    print("\n".join(f"{name}: {text}" for name, text in facts.items()))


def _write(
    args: argparse.Namespace,
    trainings: Sequence[Training],
    studies: Mapping[str, Sequence[Trained]],
    found: Mapping[str, Sequence[Claim]],
    facts: Mapping[str, str],
) -> None:
    if args.json:
        record: dict[str, Any] = {
            "facts": dict(facts),
            "claims": [
                {
                    "network": network,
                    "claim": claim.text,
                    "measured": claim.measured,
                    "shown": claim.shown,
                }
                for network, some in found.items()
                for claim in some
            ],
            "trainings": [training.to_dict() for training in trainings],
        }
        Path(args.json).write_text(json.dumps(record, indent=1) + "\n")
        print(f"wrote {args.json}", file=sys.stderr)
    if args.output:
        draw(studies, args.output)
        print(f"wrote {args.output}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m abcdeep_core.examples.luq_fashion",
        description="Train networks on Fashion-MNIST from scratch with 4-bit matrix products"
        " (LUQ), their biased twins and NVFP4; print one table a network and the claims it tests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", metavar="DIR", default=DEBIAN_FOLDER, help="folder of the four idx files")
    add("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS),
        help="fully connected, convolutional")  # fmt: skip
    add("--width", type=positive_integer,
        help="features or channels of a layer (mlp 256, cnn 32)")  # fmt: skip
    add("--seeds", type=seed_word, nargs="+", default=[0, 1, 2], help="one whole study each")
    add("--samples", type=positive_integer, default=20000, help="training images")
    add("--test-samples", type=positive_integer, help="test images (all)")
    add("--epochs", type=positive_integer, default=8, help="of the training")
    add("--rate", type=positive_number, default=0.05, help="its learning rate, at the start")
    add("--tuning-epochs", type=positive_integer, default=1, help="of what trains on")
    add("--tuning-rate", type=positive_number, default=0.01, help="its learning rate, at the peak")
    add("--workers", type=positive_integer, help="processes (one a core)")
    add("-o", "--output", metavar="FILE", help=f"write a plot ({', '.join(FORMATS)})")
    add("--json", metavar="FILE", help="write everything measured as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
