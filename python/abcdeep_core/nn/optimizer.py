"""One optimiser update, of which SGD with momentum and AdamW are cases; two schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .layers import Parameter
from .operand import FloatArray


@dataclass
class OptimizerState:
    """What an optimiser remembers: the number of updates and the moments of each parameter."""

    step: int
    first: list[FloatArray]
    second: list[FloatArray] | None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A first-order update rule; the numbers that make it SGD or AdamW.

    With parameter w, gradient g and update number t = 1, 2, ...::

        g = g + weight_decay * w                              if not decoupled
        m = momentum * m + (1 - momentum if average else 1) * g
        v = square_momentum * v + (1 - square_momentum) * g * g
        d = m / (1 - momentum^t)                              if average, else m
        d = d / (sqrt(v / (1 - square_momentum^t)) + epsilon) if square_momentum is given
        d = d + weight_decay * w                              if decoupled
        w = w - learning_rate * factor * d

    computed in the dtype of w. `factor` comes from a schedule. Parameters whose `decay` is False
    skip the weight decay.

    Parameters
    ----------
    learning_rate : float
        Step size.
    momentum : float
        Decay of the first moment, in [0, 1).
    square_momentum : float, optional
        Decay of the second moment, in [0, 1); None has no second moment.
    epsilon : float
        Added to the root of the second moment.
    weight_decay : float
        Strength of the decay.
    decoupled : bool
        Decay the weights themselves (AdamW), not by way of the gradient.
    average : bool
        First moment as an exponential average with bias correction (Adam), not as a sum.

    Raises
    ------
    ValueError
        A number out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> w = ab.nn.Parameter(np.float32([1.0]))
    >>> w.gradient[...] = 0.5
    >>> optimizer = ab.nn.sgd(learning_rate=0.5, momentum=0.0)
    >>> optimizer.update([w], optimizer.initial_state([w]))
    >>> w.value
    array([0.75], dtype=float32)
    """

    learning_rate: float
    momentum: float = 0.0
    square_momentum: float | None = None
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    average: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, got {value}")
        for name in ("momentum", "square_momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}: expected a number in [0, 1), got {value}")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon: expected a positive number, got {self.epsilon}")

    def initial_state(self, parameters: Sequence[Parameter]) -> OptimizerState:
        """Return moments of zero for these parameters."""
        first = [np.zeros_like(parameter.value) for parameter in parameters]
        second = None if self.square_momentum is None else [np.zeros_like(m) for m in first]
        return OptimizerState(0, first, second)

    def update(
        self, parameters: Sequence[Parameter], state: OptimizerState, factor: float = 1.0
    ) -> None:
        """Move every parameter along its gradient, once; parameters and state change in place."""
        if len(parameters) != len(state.first):
            raise ValueError(
                f"state: expected the initial_state of these {len(parameters)} parameters, got one"
                f" of {len(state.first)}"
            )
        state.step += 1
        rate = self.learning_rate * factor
        for i, (parameter, m) in enumerate(zip(parameters, state.first, strict=True)):
            w, g = parameter.value, parameter.gradient
            decay = self.weight_decay if parameter.decay else 0.0
            if decay and not self.decoupled:
                g = g + decay * w
            m *= self.momentum
            m += (1 - self.momentum) * g if self.average else g
            direction = m / (1 - self.momentum**state.step) if self.average else m
            if state.second is not None and self.square_momentum is not None:
                v = state.second[i]
                v *= self.square_momentum
                v += (1 - self.square_momentum) * g * g
                corrected = v / (1 - self.square_momentum**state.step)
                direction = direction / (np.sqrt(corrected) + self.epsilon)
            if decay and self.decoupled:
                direction = direction + decay * w
            w -= rate * direction


def sgd(learning_rate: float, *, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Return stochastic gradient descent: m = momentum * m + g, w = w - learning_rate * m.

    Parameters
    ----------
    learning_rate, momentum, weight_decay : float
        As `Optimizer`; the decay is added to the gradient.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.sgd(0.1).momentum
    0.9
    """
    return Optimizer(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)


def adamw(
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """Return Adam with decoupled weight decay.

    Parameters
    ----------
    learning_rate, epsilon, weight_decay : float
        As `Optimizer`; the decay is decoupled.
    betas : pair of float
        `momentum` and `square_momentum`.

    Notes
    -----
    Loshchilov and Hutter, "Decoupled weight decay regularization", arXiv 1711.05101, algorithm 2;
    the decay is multiplied by the learning rate.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.nn.adamw(1e-3).square_momentum
    0.999
    """
    return Optimizer(
        learning_rate=learning_rate,
        momentum=betas[0],
        square_momentum=betas[1],
        epsilon=epsilon,
        weight_decay=weight_decay,
        decoupled=True,
        average=True,
    )


def cosine_schedule(step: int, steps: int, *, warmup: int = 0, final: float = 0.0) -> float:
    """Return the factor of the learning rate: a linear rise, then half a cosine down.

    Parameters
    ----------
    step : int
        Counts from 0.
    steps : int
        Of the whole training.
    warmup : int
        Steps of the rise, from 1 / warmup at step 0 to 1 at step warmup - 1.
    final : float
        Where the cosine would arrive at step = steps, in [0, 1].

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        Numbers out of order or range.

    Notes
    -----
    Loshchilov and Hutter, "SGDR", arXiv 1608.03983, equation 5, without restarts.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> [round(ab.nn.cosine_schedule(step, 6, warmup=2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup: expected 0 <= warmup < steps = {steps}, got {warmup}")
    if not 0 <= step <= steps:
        raise ValueError(f"step: expected 0 <= step <= steps = {steps}, got {step}")
    if not 0 <= final <= 1:
        raise ValueError(f"final: expected a number in [0, 1], got {final}")
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def triangle_schedule(step: int, steps: int, *, start: float = 0.0) -> float:
    """Return the factor of the learning rate: linearly up for half of the steps, then down.

    Parameters
    ----------
    step : int
        Counts from 0.
    steps : int
        Of the whole training.
    start : float
        The factor at both ends, in [0, 1]: the learning rate that the training before ended with,
        by the learning rate of the optimiser, which is the peak.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        Numbers out of range.

    Notes
    -----
    The schedule of the fine-tuning at the end of arXiv 2112.10769, made continuous
    (as printed, the second half does not begin where the first one ends).

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> [ab.nn.triangle_schedule(step, 4, start=0.5) for step in range(5)]
    [0.5, 0.75, 1.0, 0.75, 0.5]
    """
    if not 0 <= step <= steps or steps < 1:
        raise ValueError(f"step: expected 0 <= step <= steps = {steps}, got {step}")
    if not 0 <= start <= 1:
        raise ValueError(f"start: expected a number in [0, 1], got {start}")
    return start + (1 - start) * (1 - abs(2 * step / steps - 1))
