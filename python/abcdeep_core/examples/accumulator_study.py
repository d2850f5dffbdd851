"""What narrow accumulators do to a trained network: the measurements shared by the examples."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab
from abcdeep_core import nn

from ..events import Events

Data: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

FLOAT32 = "float32"
AS_TRAINED = "as trained"
FINE_TUNED = "fine-tuned"

BATCH = 256  # of evaluations: int8 operands have one scale a batch
GAIN_SAMPLES = 128


@dataclass(frozen=True, kw_only=True)
class LayerGain:
    """How the sums of one layer relate to the exact ones of the same operands.

    Attributes
    ----------
    terms : int
        Terms of one sum.
    gain : float
        Regression coefficient of the sums on the exact ones.
    error : float
        Root mean square of the difference, relative to that of the exact sums.
    """

    terms: int
    gain: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the table: a network under an accumulator.

    Attributes
    ----------
    name : str
        Of the accumulator, such as "M7E4".
    bits : int
        Its width.
    stage : str
        `FLOAT32`, `AS_TRAINED` or `FINE_TUNED`.
    method : str
        How it was fine-tuned, "" if it was not.
    loss : float
        Mean over the test samples.
    correct : ndarray of bool, shape (samples,)
        Which test samples are classified rightly.
    events : Events, optional
        What the accumulators did over the test samples; None for float32.
    limit : float
        Largest value of the accumulator, 0 for float32.
    seconds : float
        Of a forward pass over the test samples, without counting events.
    speed : float
        Seconds of the float32 network by these.
    gains : list of LayerGain
        One for each matrix product, in the order of the forward pass.
    history : History, optional
        Of the fine-tuning.
    boundary : int
        Epochs of its first stage.
    seed : int
        Of the training.
    """

    name: str
    bits: int
    stage: str
    method: str = ""
    loss: float
    correct: npt.NDArray[np.bool_]
    events: Events | None
    limit: float = 0.0
    seconds: float
    speed: float
    gains: list[LayerGain] = field(default_factory=list)
    history: nn.History | None = None
    boundary: int = 0
    seed: int = 0

    @property
    def accuracy(self) -> float:
        """Return the share of test samples classified rightly."""
        return float(np.mean(self.correct))

    @property
    def label(self) -> str:
        """Return name and method, which tell the rows of one stage apart."""
        return f"{self.name}, {self.method}" if self.method else self.name

    def rate(self, *fields: str) -> float:
        """Return the sum of these event counts in percent of all terms, NaN without events."""
        if self.events is None:
            return float("nan")
        counted = sum(int(getattr(self.events, name)) for name in fields)
        return 100 * counted / max(int(self.events.terms), 1)

    @property
    def overflow(self) -> float:
        """Return overflowed products and steps in percent of the terms."""
        return self.rate("product_overflow", "accumulator_overflow")

    @property
    def underflow(self) -> float:
        """Return flushed products and steps in percent of the terms, NaN for integers."""
        if self.is_integer:
            return float("nan")
        return self.rate("product_underflow", "accumulator_underflow")

    @property
    def swamped(self) -> float:
        """Return addends that changed nothing in percent of the terms, NaN for integers."""
        return float("nan") if self.is_integer else self.rate("swamped")

    @property
    def is_integer(self) -> bool:
        """Return whether the accumulator is an integer one."""
        return self.name.startswith("int")

    @property
    def gain(self) -> float:
        """Return the mean gain of the layers, 1 for float32."""
        return float(np.mean([layer.gain for layer in self.gains])) if self.gains else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return what is in the table as plain data, ready for JSON; null where not applicable."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else value

        return {
            "name": self.name,
            "bits": self.bits,
            "stage": self.stage,
            "method": self.method,
            "seed": self.seed,
            "accuracy": self.accuracy,
            "loss": number(self.loss),
            "overflow_percent": number(self.overflow),
            "underflow_percent": number(self.underflow),
            "swamped_percent": number(self.swamped),
            "speed_against_float32": self.speed,
            "seconds": self.seconds,
            "gain": self.gain,
            "layers": [vars(layer) for layer in self.gains],
            "events": None if self.events is None else self.events.to_dict(),
            "history": None if self.history is None else self.history.to_dict(),
            "first_stage_epochs": self.boundary,
        }


class StepLog:
    """Lines on standard error, one a step of the work: ``[ 2/14] M7E4 as trained: 98.3 %``."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        self.total = total
        self.shown = shown
        self.done = 0

    def step(self, text: str) -> None:
        """Count one more step as done and say what it found."""
        self.done += 1
        if self.shown:
            width = len(str(self.total))
            print(f"[{self.done:{width}}/{self.total}] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned.

    Parameters
    ----------
    optimizer : Optimizer
    epochs : tuple of int
        Of the first stage (underflow off) and of the second (underflow on).
    second_rate : float
        Factor of the learning rate in the second stage.
    batch_size : int
    """

    optimizer: nn.Optimizer
    epochs: tuple[int, int]
    second_rate: float = 0.3
    batch_size: int = 32


def fine_tune(
    model: nn.Sequential,
    stages: tuple[nn.Arithmetic, nn.Arithmetic],
    data: Data,
    test: Data,
    recipe: Recipe,
    *,
    seed: int,
    progress: bool | None = None,
) -> tuple[nn.Sequential, nn.History]:
    """Return a copy of the model trained on with two arithmetics in turn, and the joint history.

    The first stage has a constant learning rate, the second a cosine schedule.

    Parameters
    ----------
    model : Sequential
        Left as it is.
    stages : pair of Arithmetic
        LBA: underflow off, then on (arXiv 2401.14110).
    data, test : pair of ndarray
        The test data are evaluated after every epoch, for the curves; nothing is chosen by them.
    recipe : Recipe
    seed : int
        Of the order of the samples.
    progress : bool, optional
        As `nn.train`.

    Returns
    -------
    model : Sequential
    history : History
    """
    tuned, history = model, nn.History()
    schedules: tuple[Callable[[int, int], float], ...] = (
        lambda step, steps: 1.0,
        lambda step, steps: recipe.second_rate * nn.cosine_schedule(step, steps),
    )
    for number, (arithmetic, epochs) in enumerate(zip(stages, recipe.epochs, strict=True)):
        tuned = tuned.with_arithmetic(arithmetic)
        if not epochs:
            continue
        stage = nn.train(
            tuned,
            data,
            optimizer=recipe.optimizer,
            schedule=schedules[number],
            epochs=epochs,
            batch_size=recipe.batch_size,
            seed=1000 * (number + 1) + seed,  # another order of the samples in each stage
            validation=test,
            progress=progress,
        )
        for name, values in stage.to_dict().items():
            getattr(history, name).extend(values)
    return tuned, history


def measure(
    model: nn.Sequential,
    test: Data,
    *,
    name: str,
    bits: int,
    stage: str,
    float32_seconds: float | None = None,
    method: str = "",
    history: nn.History | None = None,
    boundary: int = 0,
    seed: int = 0,
    progress: bool | None = None,
) -> Result:
    """Return everything the table says about a network with its present arithmetic.

    Parameters
    ----------
    model : Sequential
    test : pair of ndarray
    float32_seconds : float, optional
        `Result.seconds` of the float32 network; None for that network itself.
    name, bits, stage, method, history, boundary, seed
        As `Result`.
    progress : bool, optional
        As `nn.evaluate`.
    """
    found = nn.evaluate(model, test, batch_size=BATCH, events=True, progress=progress)
    # The float32 pass is short, hence repeated more often; the best is least disturbed.
    seconds, correct = _time_forward(model, test, repeats=2 if float32_seconds else 5)
    return Result(
        name=name,
        bits=bits,
        stage=stage,
        method=method,
        loss=found.loss,
        correct=correct,
        events=found.events,
        limit=_largest_value(model),
        seconds=seconds,
        speed=1.0 if float32_seconds is None else float32_seconds / seconds,
        gains=layer_gains(model, test[0][:GAIN_SAMPLES]),
        history=history,
        boundary=boundary,
        seed=seed,
    )


def _time_forward(
    model: nn.Sequential, test: Data, repeats: int
) -> tuple[float, npt.NDArray[np.bool_]]:
    best, guesses = float("inf"), []
    for _ in range(repeats):
        started = time.perf_counter()
        guesses = [
            model.forward(test[0][start : start + BATCH]).argmax(axis=1)
            for start in range(0, len(test[0]), BATCH)
        ]
        best = min(best, time.perf_counter() - started)
    return best, np.concatenate(guesses) == test[1]


def _gemm_layers(model: nn.Sequential) -> list[nn.GemmLayer]:
    return [layer for layer in model.leaves() if isinstance(layer, nn.GemmLayer)]


def _largest_value(model: nn.Sequential) -> float:
    datapath = _gemm_layers(model)[0].arithmetic.forward.datapath
    if datapath is None or datapath.accumulator is None:
        return 0.0
    form = datapath.accumulator.format
    return float(form.max)


def layer_gains(model: nn.Sequential, x: npt.NDArray[np.float32]) -> list[LayerGain]:
    """Return gain and error of every matrix product against float32, on the same operands.

    Parameters
    ----------
    model : Sequential
        With the arithmetic to look at.
    x : ndarray of float32
        Inputs; each layer sees what the layers before it, with their arithmetic, made of them.

    Returns
    -------
    list of LayerGain
        Empty if no layer has a datapath.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> from abcdeep_core.examples.accumulator_study import layer_gains
    >>> model = ab.nn.Sequential(ab.nn.Linear(1024, 10), seed=0)
    >>> x = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    >>> (found,) = layer_gains(model.with_arithmetic(ab.nn.lba_arithmetic(7, 4)), x)
    >>> found.terms, 0.9 < found.gain < 0.97
    (1024, True)
    """
    gains = []
    for layer in model.leaves():
        y = layer.forward(x)
        if isinstance(layer, nn.GemmLayer) and layer.arithmetic.forward.datapath is not None:
            reference = layer.with_arithmetic(nn.float32_arithmetic()).forward(x)
            gains.append(_gain(layer, y, reference))
        x = y
    return gains


def _gain(
    layer: nn.GemmLayer, y: npt.NDArray[np.floating[Any]], reference: npt.NDArray[Any]
) -> LayerGain:
    offset = 0.0
    if layer.bias is not None:
        offset = layer.bias.value.reshape(-1, *(1,) * (y.ndim - 2)).astype(np.float64)
    sums, exact = y - offset, reference - offset
    power = float(np.vdot(exact, exact))
    if power == 0:
        return LayerGain(terms=layer.fan_in, gain=1.0, error=0.0)
    return LayerGain(
        terms=layer.fan_in,
        gain=float(np.vdot(exact, sums)) / power,
        error=float(np.linalg.norm(sums - exact)) / power**0.5,
    )


def lba_stages(
    mantissa_bits: int, exponent_bits: int, ste: str = "identity"
) -> tuple[nn.Arithmetic, nn.Arithmetic]:
    """Return LBA's two training arithmetics: without underflow, then with it."""
    first, second = (
        nn.lba_arithmetic(mantissa_bits, exponent_bits, ste=ste, underflow=underflow)
        for underflow in (False, True)
    )
    return first, second


def float_grid() -> dict[str, nn.Arithmetic]:
    """Return the floating-point accumulators of the table, by name."""
    pairs = ((10, 5), (7, 4), (5, 4), (4, 3))
    return {f"M{m}E{e}": nn.lba_arithmetic(m, e) for m, e in pairs}


def integer_grid() -> dict[str, nn.Arithmetic]:
    """Return the integer accumulators of the table, by name; the operands are int8."""
    return {
        f"int{bits} {overflow}": nn.integer_arithmetic(bits, overflow)
        for bits in (16, 12)
        for overflow in ("wrap", "saturate")
    }


def width(arithmetic: nn.Arithmetic) -> int:
    """Return the width of the forward accumulator in bits."""
    datapath = arithmetic.forward.datapath
    if datapath is None:
        return 32
    assert datapath.accumulator is not None
    return int(datapath.accumulator.format.bits)


def thread_count() -> int:
    """Return how many threads the emulation uses by default."""
    return int(ab._core.default_threads())


def best_float32(results: Sequence[Result]) -> Result:
    """Return the float32 row of a study."""
    return next(result for result in results if result.stage == FLOAT32)
