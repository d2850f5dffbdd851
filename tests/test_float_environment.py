"""Results and the caller's floating-point state: neither depends on the other."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="unknown layout of C's fenv_t"
)

X86 = platform.machine() == "x86_64"
LIBM = ctypes.CDLL(ctypes.util.find_library("m"))

# Offset of the control word in fenv_t (MXCSR, FPCR), its bits that flush, where its rounding is.
OFFSET, FLUSH, ROUNDING_SHIFT = (28, 0x8040, 13) if X86 else (0, 1 << 24, 22)
# nearest, down, up, toward zero on x86; nearest, up, down, toward zero on arm64.
STATES = [(flush, rounding) for flush in (False, True) for rounding in range(4)]


def environment() -> ctypes.Array[ctypes.c_char]:
    buffer = ctypes.create_string_buffer(64)
    assert LIBM.fegetenv(buffer) == 0
    return buffer


def control_word() -> int:
    return int(struct.unpack_from("=I", environment(), OFFSET)[0])


@contextmanager
def float_state(flush: bool, rounding: int) -> Iterator[None]:
    """Change the calling thread's rounding mode and flush-to-zero bits."""
    before, changed = environment(), environment()
    word = control_word() & ~(FLUSH | 3 << ROUNDING_SHIFT)
    word |= (FLUSH if flush else 0) | rounding << ROUNDING_SHIFT
    struct.pack_into("=I", changed, OFFSET, word)
    assert LIBM.fesetenv(changed) == 0
    try:
        yield
    finally:
        LIBM.fesetenv(before)


def operands(dtype: Any, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Return numbers of both signs over a wide range, subnormals and ties among them."""
    rng = np.random.default_rng(seed)
    exponents = rng.integers(-10, 3, shape)
    values = np.ldexp(rng.integers(-(2**12), 2**12, shape).astype(np.float64), exponents)
    tiny = rng.random(shape) < 0.1
    values[tiny] *= float(np.finfo(dtype).smallest_subnormal) * 4
    return values.astype(dtype)


A32, B32 = operands(np.float32, (130, 48), 1), operands(np.float32, (48, 33), 2)
A64, B64 = operands(np.float64, (130, 48), 3), operands(np.float64, (48, 33), 4)
SMALL_A, SMALL_B = (np.clip(x / 2**10, -1, 1).astype(np.float32) for x in (A32, B32))
TINY = A32 * np.float32(2.0**-135)
INT_A = np.clip(A32, -128, 127).astype(np.int8)
INT_B = np.clip(B32, -128, 127).astype(np.int8)


def reference_product(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    getattr(_core, name)(a, b, out, 16)
    return out


def hindsight_max() -> list[float]:
    maximum = ab.HindsightMax(0.3)
    return [float(maximum.update(x)) for x in (TINY[:3], TINY, A32[:7], A32)]


CASES: dict[str, Callable[[], Any]] = {
    "random_bits": lambda: ab.random_bits(1000, seed=1),
    "reference_float64": lambda: reference_product("matmul_float64", A64, B64),
    "reference_float32": lambda: reference_product("matmul_float32", A32, B32),
    "quantize_e5m2": lambda: ab.quantize(A32, "e5m2"),
    "quantize_fp16": lambda: ab.quantize(A64, "fp16", "toward_zero"),
    "quantize_subnormals": lambda: ab.quantize(TINY, "bf16"),
    "quantize_stochastic": lambda: ab.quantize(A32, "e4m3fn", "stochastic", seed=1, bits=8),
    "quantize_fixed": lambda: ab.quantize(A32, ab.FixedFormat(bits=8, fraction_bits=3)),
    "encode": lambda: ab.encode(A32, "e4m3fn"),
    "decode": lambda: ab.decode(np.arange(1 << 16, dtype=np.uint16), "bf16"),
    "quantize_uniform": lambda: ab.quantize_uniform(A32),
    "quantize_uniform_tiny": lambda: ab.quantize_uniform(TINY, clip="max_abs"),
    "encode_uniform": lambda: ab.encode_uniform(TINY, 8, axis=1),
    "sawb_clip": lambda: ab.sawb_clip(A32, axis=0),
    "bias_report": lambda: ab.bias_report(A64, ab.quantize(A64, "e5m2")),
    "luq": lambda: ab.luq(TINY, seed=1, samples=3),
    "hindsight_max": hindsight_max,
    "mxfp4": lambda: ab.quantize_blocks(TINY, "mxfp4").dequantize(),
    "nvfp4": lambda: ab.quantize_blocks(A32, "nvfp4", "stochastic", seed=1).dequantize(),
    "random_hadamard": lambda: ab.random_hadamard(TINY, seed=1),
    "lba": lambda: ab.matmul(A32, B32, ab.lba_accumulator(7, 4), threads=16),
    "lba_mask": lambda: ab.matmul(A32, B32, ab.lba_accumulator(7, 4, arithmetic="fp32_mask")),
    "lba_no_underflow": lambda: ab.matmul(A32, B32, ab.lba_accumulator(7, 4, underflow=False)),
    "lba_wide_events": lambda: ab.matmul(
        SMALL_A, SMALL_B, ab.lba_accumulator(10, 5, 16, 18), events=True
    ),
    "nearest": lambda: ab.matmul(A32, B32, ab.float_accumulator("fp16", product="fp16")),
    "nearest_exact_products": lambda: ab.matmul(A32, B32, ab.float_accumulator("bf16")),
    "toward_negative": lambda: ab.matmul(
        A32, B32, ab.float_accumulator("fp16", rounding="toward_negative", group=4)
    ),
    "binary32": lambda: ab.matmul(A32, B32, ab.float_accumulator("binary32", chunk=16)),
    "stochastic": lambda: ab.matmul(
        A32, B32, ab.float_accumulator("fp16", rounding="stochastic"), seed=3
    ),
    "exact": lambda: ab.matmul(A32, B32, ab.exact_accumulator()),
    "integer": lambda: ab.matmul(INT_A, INT_B, ab.integer_accumulator(16, "saturate"), events=True),
    "backward": lambda: ab.matmul_backward(
        A32[:, :33], A32, B32, ab.lba_accumulator(7, 4), ste="recursive_of"
    ),
}


def as_bytes(result: Any) -> bytes:
    if isinstance(result, tuple):
        return b"".join(as_bytes(part) for part in result)
    return result.tobytes() if isinstance(result, np.ndarray) else repr(result).encode()


@pytest.mark.parametrize("case", CASES)
def test_results_do_not_depend_on_the_callers_state(isa, case):
    expected = as_bytes(CASES[case]())
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            state = control_word()
            result = CASES[case]()
            state_after = control_word()
        # MXCSR also holds the exception flags: a call raises none.
        assert state_after == state
        assert as_bytes(result) == expected, (flush, rounding)


def test_the_state_is_what_it_is_called():
    # The fixture itself: otherwise the test above would pass for the wrong reason.
    tiny, one, most = np.float32(2.0**-149), np.float32(1), np.float32(0.75 * 2.0**-23)
    results = set()
    for flush, rounding in STATES:
        with float_state(flush, rounding):
            results.add((bool(tiny + tiny == 0), float(one + most), float(-one - most)))
    assert len(results) == 8
    assert tiny + tiny > 0
    assert one + most == np.float32(1 + 2.0**-23)


def test_workers_made_in_another_state_do_not_keep_it():
    # A thread starts with its creator's state: these have to be new ones.
    a, b = np.full((4096, 4), 2.0**-74, np.float32), np.full((4, 4), 2.0**-75, np.float32)
    out = np.empty((4096, 4), np.float32)
    with float_state(True, 3):
        _core.matmul_float32(a, b, out, 24)
    assert (out == np.float32(2.0**-147)).all()
