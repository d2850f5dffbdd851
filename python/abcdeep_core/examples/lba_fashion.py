"""Narrow accumulators on Fashion-MNIST: ``python -m abcdeep_core.examples.lba_fashion``."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial

from .accumulator_study import Data, StepLog, run
from .arguments import positive_integer, positive_number, seed_word
from .fashion_mnist import DEBIAN_FOLDER, load_fashion_mnist
from .fashion_networks import NETWORKS
from .study_output import machine, publish, warn_without_report
from .study_plan import M4E3, M4E3_LOW, M7E4, METHODS, Plan, Recipe, Tuning
from .study_result import Result
from .study_text import claims

ESTIMATORS = tuple(METHODS)[1:]


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
    started = time.perf_counter()
    try:
        data, test = load_fashion_mnist(args.data)
    except (OSError, ValueError) as error:
        print(f"lba_fashion: {error}", file=sys.stderr)
        return 1
    if args.output:
        warn_without_report()
    data = (data[0][: args.samples], data[1][: args.samples])
    test = (test[0][: args.test_samples], test[1][: args.test_samples])
    results = study(_plan(args), data, test, args.seeds)
    try:
        written = publish(
            results,
            title="Narrow accumulators on Fashion-MNIST",
            subtitle=f"A {'fully connected' if args.network == 'mlp' else 'convolutional'} network,"
            " trained in float32, then run and fine-tuned with emulated accumulators.",
            facts={
                "command": f"{parser.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}",
                "data": f"Fashion-MNIST, {len(data[0])} images for training, {len(test[0])} for"
                " the test",
                "seeds": ", ".join(map(str, args.seeds)),
                "run time": f"{time.perf_counter() - started:.0f} s",
                **machine(),
            },
            report_path=args.output,
            json_path=args.json,
        )
    except OSError as error:
        print(f"lba_fashion: {error}", file=sys.stderr)
        return 1
    print()
    for claim in claims(results):
        print(f"{'shows' if claim.shown else 'DOES NOT SHOW'}: {claim.text}: {claim.measured}")
    return 0 if written else 1


def study(plan: Plan, data: Data, test: Data, seeds: Sequence[int]) -> list[Result]:
    """Return the rows of every seed."""
    log = StepLog(plan.steps * len(seeds))
    return [result for seed in seeds for result in run(plan, data, test, seed=seed, log=log)]


def _plan(args: argparse.Namespace) -> Plan:
    build, width = NETWORKS[args.network]
    gentle = Recipe(
        rates=(0.005, 0.005), epochs=(args.tuning_epochs, args.tuning_epochs), batch_size=64
    )
    strong = Recipe(rates=(args.rate,), epochs=(args.narrow_epochs,), batch_size=64)
    tunings = [Tuning(accumulator=chosen, recipe=gentle) for chosen in (None, M7E4)]
    tunings += [
        Tuning(accumulator=chosen, ste=ste, recipe=strong, samples=args.narrow_samples)
        for chosen in (M4E3, M4E3_LOW)
        for ste in ("identity", *args.estimators)
    ]
    return Plan(
        network=partial(build, width=args.width or width),
        training=Recipe(rates=(0.05,), epochs=(args.epochs,), batch_size=64),
        tunings=tuple(tunings),
        event_samples=args.event_samples,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m abcdeep_core.examples.lba_fashion",
        description="Train a network on Fashion-MNIST in float32, run and fine-tune it with"
        " emulated accumulators, print one table and the claims it tests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", metavar="DIR", default=DEBIAN_FOLDER, help="folder of the four idx files")
    add(
        "--network", choices=tuple(NETWORKS), default="mlp", help="fully connected or convolutional"
    )
    add("--width", type=positive_integer, help="features or channels of a layer (mlp 512, cnn 64)")
    add("--seeds", type=seed_word, nargs="+", default=[0], help="one whole study each")
    add("--epochs", type=positive_integer, default=5, help="of the training in float32")
    add(
        "--tuning-epochs",
        type=positive_integer,
        default=1,
        help="of each of the two stages for M7E4",
    )
    add("--narrow-epochs", type=positive_integer, default=2, help="of the fine-tuning for M4E3")
    add(
        "--rate",
        type=positive_number,
        default=0.02,
        help="learning rate of the fine-tuning for M4E3",
    )
    add("--estimators", nargs="*", choices=ESTIMATORS, default=["immediate_diff", "recursive_of"],
        help="straight-through estimators to compare with the identity for M4E3")  # fmt: skip
    add("--samples", type=positive_integer, help="training images (all)")
    add("--narrow-samples", type=positive_integer, default=2000,
        help="training images of the fine-tuning for M4E3")  # fmt: skip
    add("--test-samples", type=positive_integer, help="test images (all)")
    add(
        "--event-samples",
        type=positive_integer,
        default=500,
        help="test images whose events are counted",
    )
    add("-o", "--output", metavar="FILE", help="write an HTML report")
    add("--json", metavar="FILE", help="write everything measured as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
