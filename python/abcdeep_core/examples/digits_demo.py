"""The demo: narrow accumulators and 4-bit training of a small network on handwritten digits."""

from __future__ import annotations

import time

import numpy as np

from abcdeep_core import nn

from .accumulator_study import Data, StepLog, run
from .study_output import PathLike, machine, publish, warn_without_report
from .study_plan import M4E3, M4E3_LOW, M7E4, Plan, Recipe, Tuning

TEST_SAMPLES = 597
REPORT = "abcdeep_report.html"


def network(seed: int) -> nn.Sequential:
    """Return an untrained network for images (N, 1, 8, 8): sums of 9, 144, 288 and 256 terms."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
        seed=seed,
    )


def load_digits(seed: int = 0) -> tuple[Data, Data]:
    """Return scikit-learn's 1797 digits as training data (1200) and test data (597).

    Parameters
    ----------
    seed : int
        Of the split.

    Returns
    -------
    data, test : pair of ndarray
        Images (N, 1, 8, 8), float32 in [0, 1], and labels (N,).

    Raises
    ------
    ImportError
        Without the extra ``[examples]``.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "the digits need scikit-learn; expected the extra [examples]:"
            " pip install 'abcdeep_core[examples]'"
        ) from error
    digits = datasets.load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = (digits.images[order, np.newaxis] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    training = len(labels) - TEST_SAMPLES
    return (images[:training], labels[:training]), (images[training:], labels[training:])


def plan(quick: bool = False) -> Plan:
    """Return what the demo runs; `quick` trains on few samples for few epochs."""
    gentle = Recipe(rates=(0.01, 0.003), epochs=(1, 1) if quick else (2, 2))
    strong = Recipe(rates=(0.02,), epochs=(1 if quick else 2,))
    samples = 100 if quick else None
    rows = (
        (M7E4, "identity", gentle),
        (M4E3, "identity", strong),
        (M4E3, "immediate_diff", strong),
        (M4E3_LOW, "identity", strong),
        (M4E3_LOW, "recursive_of", strong),
    )
    return Plan(
        network=network,
        training=Recipe(rates=(0.05,), epochs=(3 if quick else 12,)),
        tunings=tuple(
            Tuning(accumulator=accumulator, ste=ste, recipe=recipe, samples=samples)
            for accumulator, ste, recipe in rows
        ),
        from_scratch=(("4-bit LUQ", lambda seed: nn.luq_arithmetic(seed=seed)),),
        event_samples=50 if quick else None,
    )


def demo(
    *,
    seed: int = 0,
    quick: bool = False,
    report_path: PathLike = REPORT,
    json_path: PathLike | None = None,
) -> bool:
    """Run the demo: print the table and what it shows, write the report.

    Parameters
    ----------
    seed : int
        Of the split, the weights and the order of the samples.
    quick : bool
        Few samples and epochs, to see that it works.
    report_path : path-like
        The HTML file to write.
    json_path : path-like, optional
        A file for everything measured.

    Returns
    -------
    bool
        False if the report could not be written for want of the extra ``[report]``.

    Raises
    ------
    ImportError
        Without the extra ``[examples]``.
    OSError
        If a file cannot be written.
    """
    started = time.perf_counter()
    data, test = load_digits(seed)
    warn_without_report()
    chosen = plan(quick)
    results = run(chosen, data, test, seed=seed, log=StepLog(chosen.steps))
    seconds = time.perf_counter() - started
    return publish(
        results,
        title="Narrow accumulators in a small network",
        subtitle="A convolutional network for handwritten digits, trained in float32, then run and"
        " fine-tuned with emulated accumulators, and trained from scratch in 4 bits.",
        facts={
            "command": f"abcdeep demo --seed {seed}{' --quick' if quick else ''}",
            "data": f"scikit-learn's digits, 8 x 8 pixels: {len(data[0])} for training,"
            f" {len(test[0])} for the test",
            "run time": f"{seconds:.0f} s",
            **machine(),
        },
        report_path=report_path,
        json_path=json_path,
    )
