"""One row of an accumulator study: what a network did under an accumulator."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from abcdeep_core import nn

from ..events import Events

FLOAT32 = "float32"
AS_TRAINED = "as trained"
FINE_TUNED = "fine-tuned"
FROM_SCRATCH = "trained from scratch"


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
        Of the accumulator, such as "M7E4", or of the arithmetic of a training from scratch.
    bits : int
        Its width.
    stage : str
        `FLOAT32`, `AS_TRAINED`, `FINE_TUNED` or `FROM_SCRATCH`.
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
        Of the fine-tuning, or of the training from scratch.
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
            "layers": [asdict(layer) for layer in self.gains],
            "events": None if self.events is None else self.events.to_dict(),
            "history": None if self.history is None else self.history.to_dict(),
            "first_stage_epochs": self.boundary,
        }
