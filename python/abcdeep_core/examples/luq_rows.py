"""The rows of the LUQ study: 4-bit arithmetics, their biased twins, what is expected of them."""

from __future__ import annotations

from abcdeep_core import nn

from .training_study import Row
from .training_text import Expectation

FLOAT32, LUQ, SMP = "float32", "LUQ", "LUQ + SMP(2)"
FLOAT32_ON, LUQ_ON, FNT = "float32, trained on", "LUQ, trained on", "LUQ + FNT"
NEAREST, NO_UNDERFLOW, INT4 = "nearest log FP4", "LUQ, small to zero", "INT4 SR gradients"
NVFP4, NVFP4_NEAREST = "NVFP4 split SR", "NVFP4 nearest"


def float32(seed: int) -> nn.Arithmetic:
    """Return the reference."""
    return nn.float32_arithmetic()


def luq(seed: int) -> nn.Arithmetic:
    """Return LUQ: INT4 forward, one unbiased FP4 output gradient for both gradient products."""
    return nn.luq_arithmetic(seed=seed)


def smp(seed: int) -> nn.Arithmetic:
    """Return LUQ with the weight gradient averaged over two samples."""
    return nn.luq_arithmetic(2, seed=seed)


def fnt(seed: int) -> nn.Arithmetic:
    """Return the fine-tuning at the end: only the weights are INT4."""
    return nn.fnt_arithmetic()


def nearest(seed: int) -> nn.Arithmetic:
    """Return FP4 gradients rounded to the nearest power of two: biased."""
    return nn.luq_arithmetic(log_rounding="nearest", underflow="nearest", seed=seed)


def no_underflow(seed: int) -> nn.Arithmetic:
    """Return LUQ that sets everything below its smallest level to zero: biased."""
    return nn.luq_arithmetic(underflow="zero", seed=seed)


def int4(seed: int) -> nn.Arithmetic:
    """Return evenly spaced gradients with stochastic rounding: unbiased, but with more noise."""
    return nn.luq_arithmetic(gradient="int4", seed=seed)


def nvfp4(seed: int) -> nn.Arithmetic:
    """Return NVFP4, nearest forward and stochastic in the gradients."""
    return nn.nvfp4_arithmetic(seed=seed)


def nvfp4_nearest(seed: int) -> nn.Arithmetic:
    """Return NVFP4, nearest everywhere: biased."""
    return nn.nvfp4_arithmetic(rounding="nearest_even", seed=seed)


ROWS = (
    Row(FLOAT32, float32, ((FLOAT32_ON, float32),)),
    Row(LUQ, luq, ((LUQ_ON, luq), (FNT, fnt))),
    Row(SMP, smp),
    Row(NEAREST, nearest),
    Row(NO_UNDERFLOW, no_underflow),
    Row(INT4, int4),
    Row(NVFP4, nvfp4),
    Row(NVFP4_NEAREST, nvfp4_nearest),
)

EXPECTATIONS = (
    Expectation("rounding to the nearest power of two is worse than LUQ", NEAREST, LUQ, False),
    Expectation("without stochastic underflow LUQ is worse", NO_UNDERFLOW, LUQ, False),
    Expectation("linear 4-bit gradients are worse than LUQ", INT4, LUQ, False),
    Expectation("NVFP4 rounded to nearest is worse than with SR", NVFP4_NEAREST, NVFP4, False),
    Expectation("two samples (SMP) close part of LUQ's gap", SMP, LUQ, True),
    Expectation("fine-tuning (FNT) closes part of LUQ's gap", FNT, LUQ, True),
    Expectation("FNT does more than LUQ trained on for as long", FNT, LUQ_ON, True),
)
