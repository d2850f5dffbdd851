"""What an accumulator study runs, as data: accumulators, training recipes, rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from abcdeep_core import nn

from .study_result import FLOAT32


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    rates : tuple of float
        Learning rate of each stage: constant, but a cosine down to zero in the last one.
    epochs : tuple of int
        Of each stage.
    batch_size : int
    """

    rates: tuple[float, ...]
    epochs: tuple[int, ...]
    batch_size: int = 32


@dataclass(frozen=True)
class Accumulator:
    """A truncating floating-point accumulator, with chunks of 16 terms.

    Parameters
    ----------
    mantissa_bits, exponent_bits : int
    bias : int, optional
        Exponent bias, that of the products being 2 more; None for the default ones. A larger bias
        moves the range down: less underflow, more overflow.
    """

    mantissa_bits: int
    exponent_bits: int
    bias: int | None = None

    @property
    def name(self) -> str:
        """Return a short name, such as "M7E4", or "M4E3 b6" with bias 6."""
        bias = "" if self.bias is None else f" b{self.bias}"
        return f"M{self.mantissa_bits}E{self.exponent_bits}{bias}"

    def arithmetic(self, *, ste: str = "identity", underflow: bool = True) -> nn.Arithmetic:
        """Return the arithmetic of layers that sum in it."""
        return nn.lba_arithmetic(
            self.mantissa_bits, self.exponent_bits, self.bias, ste=ste, underflow=underflow
        )


M10E5, M7E4, M5E4, M4E3 = (Accumulator(m, e) for m, e in ((10, 5), (7, 4), (5, 4), (4, 3)))
# Its largest value is a quarter of that of the default bias: fine-tuning has to cope with overflow.
M4E3_LOW = Accumulator(4, 3, bias=6)

METHODS = {
    "identity": "identity",
    "recursive_of": "recursive/OF",
    "immediate_of": "immediate/OF",
    "immediate_diff": "immediate/DIFF",
}


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """One fine-tuned row: an accumulator, how its gradient is estimated, and the recipe.

    Parameters
    ----------
    accumulator : Accumulator, optional
        None trains on in float32, as a control.
    recipe : Recipe
        With two stages, the first has underflow switched off (arXiv 2401.14110).
    ste : str
        Straight-through estimator, see `nn.Arithmetic`.
    samples : int, optional
        How many of the training samples are used; None for all.
    """

    accumulator: Accumulator | None
    recipe: Recipe
    ste: str = "identity"
    samples: int | None = None

    @property
    def name(self) -> str:
        """Return the accumulator's name."""
        return FLOAT32 if self.accumulator is None else self.accumulator.name

    @property
    def method(self) -> str:
        """Return what tells this row from others of the same accumulator."""
        if self.accumulator is None:
            return "trained on"
        if len(self.recipe.epochs) == 1:
            return METHODS[self.ste]
        return "two stages" if self.ste == "identity" else f"{METHODS[self.ste]}, two stages"

    def stages(self) -> list[nn.Arithmetic]:
        """Return the arithmetic of each stage."""
        count = len(self.recipe.epochs)
        if self.accumulator is None:
            return [nn.float32_arithmetic()] * count
        return [
            self.accumulator.arithmetic(ste=self.ste, underflow=stage == count - 1)
            for stage in range(count)
        ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study runs.

    Parameters
    ----------
    network : callable
        From a seed to an untrained network.
    training : Recipe
        Of the float32 network.
    tunings : tuple of Tuning
        The fine-tuned rows.
    accumulators : tuple of Accumulator
        The floating-point accumulators that the network is evaluated with as it is.
    from_scratch : tuple of (str, callable)
        Name, and from a seed the arithmetic, of rows that are trained as the float32 network is.
    event_samples : int, optional
        How many of the test samples the events are counted over; None for all.
    """

    network: Callable[[int], nn.Sequential]
    training: Recipe
    tunings: tuple[Tuning, ...]
    accumulators: tuple[Accumulator, ...] = (M10E5, M7E4, M5E4, M4E3, M4E3_LOW)
    from_scratch: tuple[tuple[str, Callable[[int], nn.Arithmetic]], ...] = ()
    event_samples: int | None = None

    @property
    def as_trained(self) -> dict[str, nn.Arithmetic]:
        """Return the arithmetics of the rows without fine-tuning; integers have int8 operands."""
        floats = {accumulator.name: accumulator.arithmetic() for accumulator in self.accumulators}
        integers = {
            f"int{bits} {overflow}": nn.integer_arithmetic(bits, overflow)
            for bits in (16, 12)
            for overflow in ("wrap", "saturate")
        }
        return floats | integers

    @property
    def steps(self) -> int:
        """Return how many rows a run has."""
        return 1 + len(self.as_trained) + len(self.tunings) + len(self.from_scratch)
