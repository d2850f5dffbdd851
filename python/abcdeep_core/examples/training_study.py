"""What an arithmetic does to a training from scratch: rows, jobs on a process pool, results."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from abcdeep_core import nn

from .accumulator_study import Data
from .fashion_mnist import load_fashion_mnist
from .fashion_networks import NETWORKS

# One thread a worker: as many workers as cores keep them all busy.
_ONE_THREAD = ("ABCDEEP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

ArithmeticOf = Callable[[int], nn.Arithmetic]


@dataclass(frozen=True)
class Row:
    """A row of the table: how a network is trained, and what then trains on from there.

    Parameters
    ----------
    name : str
    arithmetic : callable
        From a seed to the arithmetic of every layer.
    tunings : tuple of (str, callable)
        Name and arithmetic of further rows, each of which fine-tunes a copy of the trained network.
    """

    name: str
    arithmetic: ArithmeticOf
    tunings: tuple[tuple[str, ArithmeticOf], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all rows that this one leads to."""
        return (self.name, *(name for name, _ in self.tunings))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every row of a study is trained.

    Parameters
    ----------
    folder : str
        Of the idx files.
    samples, test_samples : int, optional
        How many images are used; None for all.
    widths : mapping of str to int
        Features or channels of a layer of each network; its own where it is not named.
    epochs, rate, batch_size
        Of the training: cosine schedule from `rate` to zero, SGD with momentum 0.9.
    tuning_epochs, tuning_rate
        Of the fine-tuning: the rate rises linearly from zero to `tuning_rate` and falls again.
    """

    folder: str
    samples: int | None = None
    test_samples: int | None = None
    widths: Mapping[str, int] = field(default_factory=dict)
    epochs: int = 5
    rate: float = 0.05
    batch_size: int = 64
    tuning_epochs: int = 1
    tuning_rate: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training left.

    Attributes
    ----------
    network, name : str
        The network and the row of the table.
    seed : int
    history : History
        Of the epochs; those of a fine-tuning only.
    correct : ndarray of bool, shape (test samples,)
        Which test samples are classified rightly in the end; all False if the training diverged.
    failure : str
        Why it did not finish, or "".
    seconds : float
        Of the training and its evaluations.
    """

    network: str
    name: str
    seed: int
    history: nn.History
    correct: npt.NDArray[np.bool_]
    failure: str = ""
    seconds: float

    @property
    def accuracy(self) -> float:
        """Return the share of test samples classified rightly, NaN if the training diverged."""
        return float("nan") if self.failure else float(np.mean(self.correct))

    @property
    def loss(self) -> float:
        """Return the mean training loss of the last epoch, NaN if the training diverged."""
        return float("nan") if self.failure else self.history.loss[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON; null where the training diverged."""
        return {
            "network": self.network,
            "name": self.name,
            "seed": self.seed,
            "accuracy": None if self.failure else self.accuracy,
            "loss": None if self.failure else self.loss,
            "failure": self.failure,
            "seconds": self.seconds,
            "history": self.history.to_dict(),
        }


def train_row(settings: Settings, network: str, row: Row, seed: int) -> list[Training]:
    """Train a network for a row and its fine-tunings.

    Parameters
    ----------
    settings : Settings
    network : str
        A name of `NETWORKS`.
    row : Row
    seed : int
        Of the weights, the order of the samples and the stochastic rounding.

    Returns
    -------
    list of Training
        One for each of `Row.names`. A training whose loss or weights are no longer finite is one
        with a failure.
    """
    data, test = _load(settings.folder, settings.samples, settings.test_samples)
    build, width = NETWORKS[network]
    model = build(seed, settings.widths.get(network, width)).with_arithmetic(row.arithmetic(seed))
    keywords: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "validation": test,
        "progress": False,
    }

    def trained(name: str, model: nn.Sequential, **options: Any) -> Training:
        started, failure, history = time.perf_counter(), "", nn.History()
        correct = np.zeros(len(test[1]), np.bool_)
        try:
            history = nn.train(model, data, **keywords, **options)
            correct = _predictions(model, test, settings.batch_size) == test[1]
        except FloatingPointError as error:
            failure = str(error)
        return Training(
            network=network,
            name=name,
            seed=seed,
            history=history,
            correct=correct,
            failure=failure,
            seconds=time.perf_counter() - started,
        )

    results = [
        trained(
            row.name,
            model,
            optimizer=nn.sgd(settings.rate),
            schedule=nn.cosine_schedule,
            epochs=settings.epochs,
            seed=seed,
        )
    ]
    for name, arithmetic in row.tunings:
        results.append(
            trained(
                name,
                model.with_arithmetic(arithmetic(seed)),
                optimizer=nn.sgd(settings.tuning_rate),
                schedule=nn.triangle_schedule,
                epochs=settings.tuning_epochs,
                seed=1000 + seed,  # the samples come in another order
            )
        )
    return results


def _predictions(model: nn.Sequential, test: Data, batch_size: int) -> npt.NDArray[np.int64]:
    starts = range(0, len(test[0]), batch_size)
    logits = [model.forward(test[0][start : start + batch_size]) for start in starts]
    predictions: npt.NDArray[np.int64] = np.concatenate(logits).argmax(axis=1)
    return predictions


@functools.cache
def _load(folder: str, samples: int | None, test_samples: int | None) -> tuple[Data, Data]:
    """Return the data of a study; a worker process reads them once."""
    data, test = load_fashion_mnist(folder)
    return (
        (data[0][:samples], data[1][:samples]),
        (test[0][:test_samples], test[1][:test_samples]),
    )


def train_all(
    settings: Settings,
    networks: Sequence[str],
    rows: Sequence[Row],
    seeds: Sequence[int],
    *,
    workers: int | None = None,
) -> Iterator[list[Training]]:
    """Train every row of every network for every seed, and yield what each job left as it ends.

    Parameters
    ----------
    settings : Settings
    networks : sequence of str
        Names of `NETWORKS`.
    rows : sequence of Row
        Their arithmetics are functions that `pickle` finds by name.
    seeds : sequence of int
    workers : int, optional
        Processes; None for one a core. The results do not depend on it: each computes with one
        thread.

    Yields
    ------
    list of Training
        As `train_row`; the order is that in which jobs end.
    """
    pool = ProcessPoolExecutor(workers or _cores(), multiprocessing.get_context("spawn"))
    with _one_thread():
        jobs = [
            pool.submit(train_row, settings, network, row, seed)
            for seed in seeds
            for network in networks
            for row in rows
        ]
    try:
        for job in as_completed(jobs):
            yield job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that start here compute with one thread: libraries read it when they load."""
    kept = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
