"""Small layers and inputs for the tests of the overflow report."""

from __future__ import annotations

from typing import Any

import numpy as np

import abcdeep_core as ab

SAMPLES = 23


def linear(name: str = "fc", *, terms: int = 48, seed: int = 0, **fields: Any) -> ab.OverflowLayer:
    rng = np.random.default_rng([seed, terms])
    w = rng.integers(-128, 128, (terms, 7)).astype(np.int8)
    return ab.OverflowLayer(name=name, weight=w, input_range="u8", **fields)


def convolution(name: str = "conv", **fields: Any) -> ab.OverflowLayer:
    rng = np.random.default_rng(5)
    w = rng.integers(-8, 8, (6, 2, 3, 2)).astype(np.int8)
    return ab.OverflowLayer(
        name=name, kind="conv2d", weight=w, weight_range="s4", groups=2, stride=(2, 1),
        padding=(1, 0), input_range="s8", **fields,
    )  # fmt: skip


def inputs(seed: int = 1, samples: int = SAMPLES, terms: int = 48) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "fc": rng.integers(0, 256, (samples, terms)).astype(np.uint8),
        "conv": rng.integers(-128, 128, (samples, 4, 5, 4)).astype(np.int8),
    }


def model(**fields: Any) -> list[ab.OverflowLayer]:
    bias = np.arange(7) * 900 - 2000
    return [linear(bias=bias, **fields), convolution()]


def operands(layer: ab.OverflowLayer, x: np.ndarray) -> dict[tuple[int, ...], tuple[Any, Any]]:
    """Return (sample, *coordinate) -> (inputs, weights) of every output, by plain loops."""
    found = {}
    if layer.kind == "linear":
        for s, row in enumerate(x.tolist()):
            for n in range(layer.channels):
                found[s, n] = row, layer.weight[:, n].tolist()
        return found
    o, i, kh, kw = layer.weight.shape
    (sh, sw), (ph, pw) = layer.stride, layer.padding
    per_group = o // layer.groups
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=layer.padding_value)
    for s in range(len(x)):
        for n in range(o):
            channels = range(n // per_group * i, n // per_group * i + i)
            for y in range((padded.shape[2] - kh) // sh + 1):
                for z in range((padded.shape[3] - kw) // sw + 1):
                    taps = [
                        int(padded[s, c, y * sh + a, z * sw + b])
                        for c in channels
                        for a in range(kh)
                        for b in range(kw)
                    ]
                    found[s, n, y, z] = taps, layer.weight[n].reshape(-1).tolist()
    return found
