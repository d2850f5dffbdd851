"""The command of a study of trainings from scratch: arguments, run, what it prints and writes."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abcdeep_core import report

from .accumulator_study import StepLog
from .arguments import positive_integer, positive_number, seed_word
from .fashion_mnist import DEBIAN_FOLDER, load_fashion_mnist
from .fashion_networks import NETWORKS
from .study_output import machine
from .study_text import Claim
from .training_figure import FORMATS, draw
from .training_study import Row, Settings, Training, train_all
from .training_text import Expectation, Trained, claims, grouped, table


def _no_facts(widths: Mapping[str, int]) -> dict[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A study of trainings on Fashion-MNIST as a command.

    Parameters
    ----------
    name : str
        Of the module that is run.
    description : str
        For ``--help``.
    rows : sequence of Row
        Of the table, float32 first.
    expectations : sequence of Expectation
    near : sequence of str
        Rows that are claimed to train to within 1 % of float32.
    widths : mapping of str to int
        Features or channels of a layer of each network, unless the command line says otherwise.
    samples, epochs : int
        Defaults of the training images and of the epochs.
    facts : callable
        From the widths of the networks to further facts, printed at the end.
    """

    name: str
    description: str
    rows: Sequence[Row]
    expectations: Sequence[Expectation]
    near: Sequence[str]
    widths: Mapping[str, int]
    samples: int
    epochs: int
    facts: Callable[[Mapping[str, int]], Mapping[str, str]] = _no_facts

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all rows."""
        return tuple(name for row in self.rows for name in row.names)


def run(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a study and return an exit status.

    Parameters
    ----------
    command : Command
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
    parser = _parser(command)
    args = parser.parse_args(argv)
    if args.output and Path(args.output).suffix not in FORMATS:
        parser.error(f"--output: expected a file name in {', '.join(FORMATS)}, got {args.output}")
    started = time.perf_counter()
    try:
        load_fashion_mnist(args.data)
    except (OSError, ValueError) as error:
        print(f"{command.name}: {error}", file=sys.stderr)
        return 1
    if args.output and (missing := report.missing_extra()):
        print(
            f"{command.name}: no plot: {missing} not installed; pip install 'abcdeep_core[report]'",
            file=sys.stderr,
        )
        return 1
    widths = {network: args.width or command.widths[network] for network in args.networks}
    trainings = _train(command, args, widths)
    studies = {
        network: grouped([t for t in trainings if t.network == network], command.names)
        for network in args.networks
    }
    found = {
        network: claims(rows, command.expectations, near=command.near)
        for network, rows in studies.items()
    }
    facts = {
        "command": f"{parser.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}".rstrip(),
        **command.facts(widths),
        "run time": f"{time.perf_counter() - started:.0f} s",
        **machine(),
    }
    _print(studies, found, facts)
    try:
        _write(args, trainings, studies, found, facts)
    except OSError as error:
        print(f"{command.name}: {error}", file=sys.stderr)
        return 1
    return 0


def _train(command: Command, args: argparse.Namespace, widths: Mapping[str, int]) -> list[Training]:
    settings = Settings(
        folder=args.data,
        samples=args.samples,
        test_samples=args.test_samples,
        widths=widths,
        epochs=args.epochs,
        rate=args.rate,
        tuning_epochs=args.tuning_epochs,
        tuning_rate=args.tuning_rate,
    )
    log = StepLog(len(command.names) * len(args.networks) * len(args.seeds))
    trainings = []
    jobs = train_all(settings, args.networks, command.rows, args.seeds, workers=args.workers)
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


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m abcdeep_core.examples.{command.name}",
        description=command.description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    widths = ", ".join(f"{network} {width}" for network, width in command.widths.items())
    add = parser.add_argument
    add("--data", metavar="DIR", default=DEBIAN_FOLDER, help="folder of the four idx files")
    add("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS),
        help="fully connected, convolutional")  # fmt: skip
    add("--width", type=positive_integer,
        help=f"features or channels of a layer ({widths})")  # fmt: skip
    add("--seeds", type=seed_word, nargs="+", default=[0, 1, 2], help="one whole study each")
    add("--samples", type=positive_integer, default=command.samples, help="training images")
    add("--test-samples", type=positive_integer, help="test images (all)")
    add("--epochs", type=positive_integer, default=command.epochs, help="of the training")
    add("--rate", type=positive_number, default=0.05, help="its learning rate, at the start")
    if any(row.tunings for row in command.rows):
        add("--tuning-epochs", type=positive_integer, default=1, help="of what trains on")
        add("--tuning-rate", type=positive_number, default=0.01,
            help="its learning rate, at the peak")  # fmt: skip
    else:
        parser.set_defaults(tuning_epochs=1, tuning_rate=0.01)
    add("--workers", type=positive_integer, help="processes (one a core)")
    add("-o", "--output", metavar="FILE", help=f"write a plot ({', '.join(FORMATS)})")
    add("--json", metavar="FILE", help="write everything measured as JSON")
    return parser
