"""The training loop, evaluation, and the history that they leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .arithmetic import EventsChoice
from .layers import Layer
from .linear import gemm_layers
from .loss import softmax_cross_entropy
from .operand import FloatArray
from .optimizer import Optimizer
from .progress import ProgressBar

if TYPE_CHECKING:
    from ..events import Events

Data: TypeAlias = tuple[FloatArray, npt.NDArray[np.integer[Any]]]
Schedule: TypeAlias = Callable[[int, int], float]


@dataclass
class History:
    """Loss and accuracy (0 to 1) of every epoch.

    Attributes
    ----------
    loss, accuracy : list of float
        Of the training data: means over the epoch's batches, each before its own update.
    validation_loss, validation_accuracy : list of float
        After the epoch; empty without validation data.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, list[float]]:
        """Return the lists by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    loss, accuracy : float
        Means over the data; the accuracy is in [0, 1].
    events : Events or None
        Summed over the layers. None if not asked for, or if no layer computes with a datapath.
    """

    loss: float
    accuracy: float
    events: Events | None = None


def train(
    model: Layer,
    data: Data,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    seed: int,
    schedule: Schedule | None = None,
    before_update: Callable[[Layer], object] | None = None,
    validation: Data | None = None,
    progress: bool | None = None,
) -> History:
    """Train a classifier in place with softmax cross entropy.

    The order of the samples in an epoch is a function of (seed, epoch); with the model's own seed
    it decides every bit of the result.

    Parameters
    ----------
    model : Layer
        From inputs (N, ...) to logits (N, classes).
    data : pair of ndarray
        Inputs (N, ...) in the model's dtype, and labels (N,), integers.
    optimizer : Optimizer
        `sgd`, `adamw`, or any other.
    epochs : int
        Passes over the data.
    batch_size : int
        The last batch of an epoch may be smaller.
    seed : int
        Of the order of the samples.
    schedule : callable, optional
        (step, steps) to the factor of the learning rate, such as `cosine_schedule`; None is 1.
    before_update : callable, optional
        Called with the model after each backward pass, before the optimiser: it may change
        gradients, as `MaskedDecay` does.
    validation : pair of ndarray, optional
        Evaluated after each epoch.
    progress : bool, optional
        Whether a progress bar is shown on stderr; None shows it if stderr is a terminal.

    Returns
    -------
    History

    Raises
    ------
    FloatingPointError
        The loss, a parameter or what a quantiser was given became NaN or Inf; the text names the
        step.
    TypeError, ValueError
        Data that are not a pair of one length, sizes below 1, what the layers refuse.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)
    >>> labels = (x[:, 0] > x[:, 1]).astype(int)
    >>> model = ab.nn.Sequential(ab.nn.Linear(2, 2), seed=0)
    >>> history = ab.nn.train(
    ...     model, (x, labels), optimizer=ab.nn.sgd(0.5), epochs=20, batch_size=16, seed=0
    ... )
    >>> history.accuracy[-1] > 0.9
    True
    """
    inputs, labels = _check_data(data, "data")
    if validation is not None:
        _check_data(validation, "validation")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    parameters = model.parameters()
    state = optimizer.initial_state(parameters)
    history = History()
    batches = math.ceil(len(inputs) / batch_size)
    steps = epochs * batches
    with ProgressBar(steps, label="training", shown=progress) as bar:
        for epoch in range(epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(inputs))
            loss_sum, correct = 0.0, 0
            for batch in range(batches):
                chosen = order[batch * batch_size : (batch + 1) * batch_size]
                here = f"at step {state.step} of {steps} (epoch {epoch}, batch {batch})"
                try:
                    with np.errstate(over="ignore", invalid="ignore"):  # the checks tell more
                        logits = model.forward(inputs[chosen], training=True)
                        loss, g = softmax_cross_entropy(logits, labels[chosen])
                        if not math.isfinite(loss):
                            raise FloatingPointError(f"loss: expected a finite number, got {loss}")
                        model.backward(g)
                        if before_update is not None:
                            before_update(model)
                        factor = 1.0 if schedule is None else schedule(state.step, steps)
                        optimizer.update(parameters, state, factor)
                    if not all(np.isfinite(parameter.value).all() for parameter in parameters):
                        raise FloatingPointError("parameters: expected finite numbers")
                except FloatingPointError as error:
                    raise FloatingPointError(f"{error} {here}") from error
                loss_sum += loss * len(chosen)
                correct += int(np.sum(logits.argmax(axis=1) == labels[chosen]))
                bar.advance(f"loss {loss:.4f}")
            history.loss.append(loss_sum / len(inputs))
            history.accuracy.append(correct / len(inputs))
            if validation is not None:
                result = evaluate(model, validation, batch_size=batch_size)
                history.validation_loss.append(result.loss)
                history.validation_accuracy.append(result.accuracy)
    return history


def evaluate(
    model: Layer,
    data: Data,
    *,
    batch_size: int = 256,
    events: EventsChoice = False,
    progress: bool | None = False,
) -> Evaluation:
    """Return loss, accuracy and, if asked, accumulator events of a classifier on data.

    Repeated evaluations give the same bits, with stochastic rounding too. Quantisers that scale per
    tensor make the result depend on `batch_size`.

    Parameters
    ----------
    model, data
        As `train`.
    batch_size : int
        Samples at a time.
    events : bool or "overflow"
        Which events to count, as `ab.matmul`. Each layer's own are in its attribute `events`
        afterwards.
    progress : bool, optional
        As `train`, but off by default.

    Returns
    -------
    Evaluation

    Raises
    ------
    TypeError, ValueError
        As `train`; another value of `events`.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> model = ab.nn.Sequential(ab.nn.Linear(2, 2), seed=0)
    >>> ab.nn.evaluate(model, (np.zeros((5, 2), np.float32), np.zeros(5, int))).accuracy
    1.0
    """
    inputs, labels = _check_data(data, "data")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if events not in (True, False, "overflow"):
        raise ValueError(f'events: expected True, False or "overflow", got {events!r}')
    layers = gemm_layers(model)
    for layer in layers:
        layer.evaluation_calls, layer.events, layer.count_events = 0, None, events
    loss_sum, correct = 0.0, 0
    starts = range(0, len(inputs), batch_size)
    try:
        with ProgressBar(len(starts), label="evaluation", shown=progress) as bar:
            for start in starts:
                expected = labels[start : start + batch_size]
                logits = model.forward(inputs[start : start + batch_size])
                loss_sum += softmax_cross_entropy(logits, expected)[0] * len(expected)
                correct += int(np.sum(logits.argmax(axis=1) == expected))
                bar.advance()
    finally:
        for layer in layers:
            layer.count_events = False
    total: Events | None = None
    for layer in layers:
        if layer.events is not None:
            total = layer.events if total is None else total + layer.events
    return Evaluation(loss_sum / len(inputs), correct / len(inputs), total)


def _check_data(data: Data, name: str) -> Data:
    """Return inputs and labels as arrays of one length; the layers check the rest."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise TypeError(f"{name}: expected a pair (inputs, labels), got {type(data).__name__}")
    inputs, labels = np.asarray(data[0]), np.asarray(data[1])
    if inputs.ndim < 1 or labels.ndim != 1 or len(inputs) != len(labels) or len(inputs) == 0:
        raise ValueError(
            f"{name}: expected inputs (N, ...) and labels (N,), not empty, got"
            f" {inputs.shape} and {labels.shape}"
        )
    return inputs, labels
