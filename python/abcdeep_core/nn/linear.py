"""Layers whose work is a matrix product: their common part, and the fully connected layer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import abcdeep_core as ab

from .arithmetic import Arithmetic, EventsChoice, float32_arithmetic
from .layers import Layer, Parameter, check_dtype, check_input
from .operand import FloatArray, OperandContext, RandomAddress, ScaledArray

if TYPE_CHECKING:
    from ..events import Events

# Evaluation draws its random words far from those of any training step. matmul makes three calls
# of each of ours and a call has 32 bits, hence not 2^31.
_EVALUATION_CALL = 2**30

# What has streams of its own in a layer: the three products, and the output gradient.
FORWARD, INPUT, WEIGHT, OUTPUT = range(4)


class GemmLayer(Layer):
    """A layer whose work is a matrix product of input and weight, plus a bias.

    Parameters
    ----------
    weight_shape : tuple of int
        The weight is drawn from N(0, 2 / fan_in) (He et al., arXiv 1502.01852).
    fan_in : int
        Number of terms of one output.
    bias_size : int, optional
        None for no bias. It starts at zero, and is added in float32 after the accumulation.
    arithmetic : Arithmetic, optional
        Of the three matrix products; default `float32_arithmetic()`.
    seed : int, optional
        Draws the weight now; None leaves that to ``Sequential(..., seed=...)``.
    dtype : float32 or float64
        Of the parameters; float64 is for checking gradients.

    Attributes
    ----------
    events : Events or None
        What the accumulators did in the latest `evaluate(..., events=True)`.
    quantizer_states : dict
        What quantisers remember from step to step, for each (product, operand); see
        `OperandContext`.
    """

    def __init__(
        self,
        weight_shape: tuple[int, ...],
        fan_in: int,
        bias_size: int | None,
        arithmetic: Arithmetic | None,
        seed: int | None,
        dtype: npt.DTypeLike,
    ) -> None:
        if any(size < 1 for size in weight_shape):
            raise ValueError(f"weight: expected sizes of at least 1, got {weight_shape}")
        self.dtype = check_dtype(dtype)
        self.weight = Parameter(np.zeros(weight_shape, self.dtype))
        self.bias: Parameter | None = None
        if bias_size is not None:
            self.bias = Parameter(np.zeros(bias_size, self.dtype), decay=False)
        self.arithmetic = float32_arithmetic() if arithmetic is None else arithmetic
        self.fan_in = fan_in
        self.initialized = False
        self.training_calls = 0
        self.evaluation_calls = 0
        self.count_events: EventsChoice = False
        self.events: Events | None = None
        self.quantizer_states: dict[tuple[int, int], dict[str, Any]] = {}
        if seed is not None:
            self.initialize(np.random.default_rng(seed))

    def parameters(self) -> list[Parameter]:
        """Return the weight and, if there is one, the bias."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw the weight, unless it has been drawn."""
        if not self.initialized:
            normal = rng.standard_normal(self.weight.value.shape)
            self.weight.value[...] = normal * np.sqrt(2 / self.fan_in)
            self.initialized = True

    def set_arithmetic(self, arithmetic: Arithmetic) -> None:
        """Use `arithmetic` from now on; its quantisers begin without a state."""
        self.arithmetic = arithmetic
        self.quantizer_states = {}

    def _begin(self, training: bool) -> int:
        """Count a forward pass and return the call number of its random words."""
        if not self.initialized:
            raise RuntimeError(
                f"{type(self).__name__}: the weights have not been drawn; expected a seed here or"
                " in the Sequential around it"
            )
        if training:
            self.training_calls += 1
            return self.training_calls - 1
        self.evaluation_calls += 1
        return _EVALUATION_CALL + self.evaluation_calls - 1

    def _random(self, product: int, call: int) -> RandomAddress:
        """Return the address of a product's words."""
        return RandomAddress(self.arithmetic.seed, 16 * self.index + 4 * product, call)

    def _context(self, product: int, role: int, axis: int, training: bool = True) -> OperandContext:
        """Return what the quantiser of operand a (role 0) or b (role 1) may know."""
        state = self.quantizer_states.setdefault((product, role), {})
        return OperandContext(axis, training, state if training else copy.deepcopy(state))

    def _quantize_output_gradient(
        self, g: FloatArray, axis: int, call: int
    ) -> tuple[ScaledArray, ScaledArray]:
        context, random = self._context(OUTPUT, 0, axis), self._random(OUTPUT, call)
        return self.arithmetic.quantize_output_gradient(g, random, context)

    def _quantize_operands(
        self,
        product: int,
        operands: tuple[FloatArray | ScaledArray, FloatArray | ScaledArray],
        axes: tuple[int, int],
        call: int,
        training: bool = True,
    ) -> tuple[ScaledArray, ScaledArray]:
        """Apply the quantisers of a product; `axes` are the reduction axes of its operands."""
        products = (
            self.arithmetic.forward,
            self.arithmetic.input_gradient,
            self.arithmetic.weight_gradient,
        )
        contexts = (
            self._context(product, 0, axes[0], training),
            self._context(product, 1, axes[1], training),
        )
        return products[product].quantize(*operands, self._random(product, call), contexts)

    def _wanted_events(self, training: bool) -> EventsChoice:
        return False if training else self.count_events

    def _add_events(self, events: Events | None) -> None:
        if events is not None:
            self.events = events if self.events is None else self.events + events


class Linear(GemmLayer):
    """y = x @ weight + bias.

    Parameters
    ----------
    in_features, out_features : int
        `weight` is (in_features, out_features), `bias` (out_features,).
    bias : bool
        Whether there is one.
    arithmetic, seed, dtype
        As `GemmLayer`.

    Raises
    ------
    TypeError, ValueError
        A dtype other than float32 and float64, sizes below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> layer = ab.nn.Linear(64, 10, seed=0)
    >>> layer.forward(np.ones((5, 64), np.float32)).shape
    (5, 10)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        arithmetic: Arithmetic | None = None,
        seed: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        shape, bias_size = (in_features, out_features), out_features if bias else None
        super().__init__(shape, in_features, bias_size, arithmetic, seed, dtype)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """Return (..., out_features) for x of shape (..., in_features)."""
        in_features, out_features = self.weight.value.shape
        check_input(self, x, ("...", in_features), self.dtype)
        call = self._begin(training)
        operands = x.reshape(-1, in_features), self.weight.value
        rows, weight = self._quantize_operands(FORWARD, operands, (-1, 0), call, training)
        y, events = self.arithmetic.forward.matmul(
            rows, weight, self._random(FORWARD, call), self._wanted_events(training)
        )
        self._add_events(events)
        if self.bias is not None:
            y = y + self.bias.value
        y = y.reshape(*x.shape[:-1], out_features)
        if training:
            if self.arithmetic.gradient_operands == "forward":
                operands = rows.dequantize(), weight.dequantize()
            self._save(y, *operands, x.shape, call)
        return y

    def backward(self, g: FloatArray) -> FloatArray:
        """Return the gradient of the input; sets those of weight and bias."""
        rows, weight, x_shape, call = self._take_saved(g)
        g = g.reshape(-1, weight.shape[1])
        if self.bias is not None:
            self.bias.gradient = g.sum(axis=0)
        grad_rows: FloatArray
        if self.arithmetic.ste == "identity":
            for_input, for_weight = self._quantize_output_gradient(g, -1, call)
            grad_rows = self._input_gradient(for_input, weight, call)
            self.weight.gradient = self._weight_gradient(rows, for_weight, call)
        else:
            assert self.arithmetic.forward.datapath is not None  # Arithmetic has seen to it
            grad_rows, self.weight.gradient = ab.matmul_backward(
                g,
                rows,
                weight,
                self.arithmetic.forward.datapath,
                ste=self.arithmetic.ste,
                **self._random(FORWARD, call).keywords(role=2),  # the words of the forward pass
            )
        return grad_rows.reshape(x_shape)

    def _input_gradient(self, g: ScaledArray, weight: FloatArray, call: int) -> FloatArray:
        a, b = self._quantize_operands(INPUT, (g, weight), (-1, 1), call)
        transposed = ScaledArray(b.values.T, b.scale)
        return self.arithmetic.input_gradient.matmul(a, transposed, self._random(INPUT, call))[0]

    def _weight_gradient(self, rows: FloatArray, g: ScaledArray, call: int) -> FloatArray:
        a, b = self._quantize_operands(WEIGHT, (rows, g), (0, 0), call)
        transposed = ScaledArray(a.values.T, a.scale)
        return self.arithmetic.weight_gradient.matmul(transposed, b, self._random(WEIGHT, call))[0]


def gemm_layers(model: Layer) -> list[GemmLayer]:
    """Return the layers of a model that have matrix products, in their order."""
    return [layer for layer in model.leaves() if isinstance(layer, GemmLayer)]
