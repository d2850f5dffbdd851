"""What narrow accumulators do to a network: train, evaluate as it is, fine-tune, evaluate again."""

from __future__ import annotations

import sys
import time
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from abcdeep_core import nn

from .study_plan import Plan, Recipe
from .study_result import AS_TRAINED, FINE_TUNED, FLOAT32, FROM_SCRATCH, LayerGain, Result

Data: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

BATCH = 256  # of evaluations: int8 operands have one scale a batch
GAIN_SAMPLES = 128


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


def run(
    plan: Plan,
    data: Data,
    test: Data,
    *,
    seed: int,
    log: StepLog | None = None,
    progress: bool | None = None,
) -> list[Result]:
    """Run a study and return its rows: float32, as trained, fine-tuned, trained from scratch.

    Parameters
    ----------
    plan : Plan
    data, test : pair of ndarray
        Inputs (N, ...) float32 and labels (N,). The test data are also evaluated after each epoch
        of fine-tuning, for the curves; nothing is chosen by them.
    seed : int
        Of the weights and of the order of the samples.
    log : StepLog, optional
        Told about every row.
    progress : bool, optional
        Progress bars on standard error; None shows them if it is a terminal.

    Returns
    -------
    list of Result
    """
    log = StepLog(plan.steps, shown=False) if log is None else log

    def measured(model: nn.Sequential, started: float, **keywords: Any) -> Result:
        result = measure(
            model,
            test,
            event_samples=plan.event_samples,
            seed=seed,
            progress=progress,
            **keywords,
        )
        seconds = time.perf_counter() - started
        row = result.label if result.stage == FLOAT32 else f"{result.label}, {result.stage}"
        log.step(f"{row}: {100 * result.accuracy:.2f} % ({seconds:.1f} s)")
        return result

    def trained(arithmetic: nn.Arithmetic) -> tuple[nn.Sequential, nn.History]:
        stages = [arithmetic] * len(plan.training.epochs)
        return train_stages(
            plan.network(seed), stages, data, None, plan.training, seed=seed, progress=progress
        )

    started = time.perf_counter()
    model, _ = trained(nn.float32_arithmetic())
    results = [measured(model, started, name=FLOAT32, stage=FLOAT32)]
    common = {"float32_seconds": results[0].seconds}
    for name, arithmetic in plan.as_trained.items():
        started = time.perf_counter()
        narrow = model.with_arithmetic(arithmetic)
        results.append(measured(narrow, started, name=name, stage=AS_TRAINED, **common))
    for tuning in plan.tunings:
        started = time.perf_counter()
        chosen = (data[0][: tuning.samples], data[1][: tuning.samples])
        tuned, history = train_stages(
            model, tuning.stages(), chosen, test, tuning.recipe, seed=seed, progress=progress
        )
        results.append(
            measured(
                tuned,
                started,
                name=tuning.name,
                stage=FINE_TUNED,
                method=tuning.method,
                history=history,
                boundary=tuning.recipe.epochs[0] if len(tuning.recipe.epochs) > 1 else 0,
                **common,
            )
        )
    for name, arithmetic_of in plan.from_scratch:
        started = time.perf_counter()
        tuned, history = trained(arithmetic_of(seed))
        results.append(
            measured(tuned, started, name=name, stage=FROM_SCRATCH, history=history, **common)
        )
    return results


def train_stages(
    model: nn.Sequential,
    stages: list[nn.Arithmetic],
    data: Data,
    test: Data | None,
    recipe: Recipe,
    *,
    seed: int,
    progress: bool | None = None,
) -> tuple[nn.Sequential, nn.History]:
    """Return a copy of the model trained with each arithmetic in turn, and the joint history.

    Parameters
    ----------
    model : Sequential
        Left as it is.
    stages : list of Arithmetic
        One a stage of the recipe.
    data, test, seed, progress
        As `run`.
    recipe : Recipe
    """
    history = nn.History()
    last = len(recipe.epochs) - 1
    for stage, arithmetic in enumerate(stages):
        model = model.with_arithmetic(arithmetic)
        found = nn.train(
            model,
            data,
            optimizer=nn.sgd(recipe.rates[stage]),
            schedule=nn.cosine_schedule if stage == last else None,
            epochs=recipe.epochs[stage],
            batch_size=recipe.batch_size,
            seed=1000 * stage + seed,  # every stage orders the samples anew
            validation=test,
            progress=progress,
        )
        for name, values in found.to_dict().items():
            getattr(history, name).extend(values)
    return model, history


def measure(
    model: nn.Sequential,
    test: Data,
    *,
    float32_seconds: float | None = None,
    event_samples: int | None = None,
    progress: bool | None = None,
    **fields: Any,
) -> Result:
    """Return everything the table says about a network with its present arithmetic.

    Parameters
    ----------
    model : Sequential
    test : pair of ndarray
    float32_seconds : float, optional
        `Result.seconds` of the float32 network; None for that network itself.
    event_samples : int, optional
        As `Plan`.
    progress : bool, optional
        As `nn.evaluate`.
    **fields
        Those of `Result` that are not measured.
    """
    some = (test[0][:event_samples], test[1][:event_samples])
    counted = nn.evaluate(model, some, batch_size=BATCH, events=True, progress=progress)
    # A float32 pass is short, hence repeated more often; the best is the least disturbed.
    seconds, loss, correct = _time_forward(model, test, repeats=2 if float32_seconds else 5)
    datapath = _gemm_layers(model)[0].arithmetic.forward.datapath
    accumulator = None if datapath is None else datapath.accumulator
    return Result(
        bits=32 if accumulator is None else int(accumulator.format.bits),
        limit=0.0 if accumulator is None else float(accumulator.format.max),
        loss=loss,
        correct=correct,
        events=counted.events,
        seconds=seconds,
        speed=1.0 if float32_seconds is None else float32_seconds / seconds,
        gains=layer_gains(model, test[0][:GAIN_SAMPLES]),
        **fields,
    )


def _gemm_layers(model: nn.Sequential) -> list[nn.GemmLayer]:
    return [layer for layer in model.leaves() if isinstance(layer, nn.GemmLayer)]


def _time_forward(
    model: nn.Sequential, test: Data, repeats: int
) -> tuple[float, float, npt.NDArray[np.bool_]]:
    """Return the seconds of the best forward pass, the loss, and which samples are right."""
    best, outputs = float("inf"), []
    for _ in range(repeats):
        started = time.perf_counter()
        outputs = [
            model.forward(test[0][start : start + BATCH]) for start in range(0, len(test[0]), BATCH)
        ]
        best = min(best, time.perf_counter() - started)
    logits = np.concatenate(outputs)
    loss, _ = nn.softmax_cross_entropy(logits, test[1])
    return best, loss, logits.argmax(axis=1) == test[1]


def layer_gains(model: nn.Sequential, x: npt.NDArray[np.float32]) -> list[LayerGain]:
    """Return gain and error of every matrix product against float32, on the same input.

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
    >>> from abcdeep_core import nn
    >>> from abcdeep_core.examples.accumulator_study import layer_gains
    >>> model = nn.Sequential(nn.Linear(1024, 10), seed=0)
    >>> x = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    >>> (found,) = layer_gains(model.with_arithmetic(nn.lba_arithmetic(7, 4)), x)
    >>> found.terms, 0.85 < found.gain < 0.97
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
    layer: nn.GemmLayer, y: npt.NDArray[np.floating[Any]], reference: npt.NDArray[np.floating[Any]]
) -> LayerGain:
    offset = np.zeros(1)
    if layer.bias is not None:  # added after the accumulation, to axis 1
        offset = layer.bias.value.astype(np.float64).reshape(-1, *(1,) * (y.ndim - 2))
    sums, exact = (y - offset).ravel(), (reference - offset).ravel()
    power = float(exact @ exact)
    if power == 0:
        return LayerGain(terms=layer.fan_in, gain=1.0, error=0.0)
    error = float(np.linalg.norm(sums - exact)) / power**0.5
    return LayerGain(terms=layer.fan_in, gain=float(exact @ sums) / power, error=error)
