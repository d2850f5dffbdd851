"""Block formats and arrays as values, and the errors of the functions that take them."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

import abcdeep_core as ab


def test_errors():
    x = np.ones((4, 20), np.float32)
    with pytest.raises(TypeError, match="float64; convert"):
        ab.quantize_blocks(x.astype(np.float64), "mxfp4")
    with pytest.raises(TypeError, match="must hold floats"):
        ab.quantize_blocks(x.astype(int), "mxfp4")
    with pytest.raises(ValueError, match="nearest: 'mxfp4'"):
        ab.quantize_blocks(x, "MXFP4")
    with pytest.raises(ValueError, match="at least one dimension"):
        ab.quantize_blocks(np.float32(1), "mxfp4")
    with pytest.raises(ValueError, match="axis must be one of 2"):
        ab.quantize_blocks(x, "mxfp4", axis=2)
    with pytest.raises(TypeError, match="axis must be an integer"):
        ab.quantize_blocks(x, "mxfp4", axis="rows")
    with pytest.raises(ValueError, match="needs seed= or random_bits="):
        ab.quantize_blocks(x, "mxfp4", "stochastic")
    with pytest.raises(ValueError, match="short along axis 1"):
        ab.quantize_blocks(x, "mxfp4", remainder="error")
    with pytest.raises(ValueError, match="remainder must be"):
        ab.quantize_blocks(x, "mxfp4", remainder="drop")
    with pytest.raises(ValueError, match="max_abs must be None"):
        ab.quantize_blocks(x, "mxfp4", max_abs=2.0)
    with pytest.raises(ValueError, match="scale_rounding must be"):
        ab.quantize_blocks(x, "mxfp4", scale_rounding="toward_zero")
    with pytest.raises(TypeError, match="random_bits must have dtype uint32"):
        ab.quantize_blocks(x, "mxfp4", "stochastic", random_bits=x)
    with pytest.raises(ValueError, match="random_bits must have shape"):
        ab.quantize_blocks(x, "mxfp4", "stochastic", random_bits=np.zeros(3, np.uint32))
    with pytest.raises(ValueError, match="another before it"):
        ab.quantize_blocks(x, "nvfp4_2d", axis=0)
    with pytest.raises(ValueError, match="size must be"):
        ab.decode_blocks(np.zeros(2, np.uint8), np.zeros(1, np.uint8), "mxfp4", size=2)
    with pytest.raises(ValueError, match="words of 6 bits"):
        ab.decode_blocks(np.full(2, 64, np.uint8), np.zeros(1, np.uint8), "mxfp6_e2m3")
    with pytest.raises(ValueError, match="scales must have shape"):
        ab.decode_blocks(np.zeros(2, np.uint8), np.zeros(2, np.uint8), "mxfp4")
    with pytest.raises(TypeError, match="codes must have dtype"):
        ab.decode_blocks(np.zeros(2, np.int8), np.zeros(1, np.uint8), "mxfp4")
    out = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="out must have shape"):
        ab.decode_blocks(np.zeros(2, np.uint8), np.zeros(1, np.uint8), "mxfp4", out=out)


@pytest.mark.parametrize("fmt", ab.block_formats().values(), ids=ab.block_formats())
def test_block_formats_are_values(fmt):
    assert ab.get_block_format(fmt.name) is fmt
    assert ab.BlockFormat.from_dict(fmt.to_dict()) == fmt
    assert pickle.loads(pickle.dumps(fmt)) == fmt
    assert eval(repr(fmt), {**vars(ab)}) == fmt
    assert hash(fmt.replace(name="mine")) == hash(fmt)
    assert fmt.replace(block=8) != fmt


def test_impossible_block_formats_raise():
    nvfp4, mxfp4 = ab.get_block_format("nvfp4"), ab.get_block_format("mxfp4")
    for fmt, changes, text in (
        (mxfp4, {"scale_rule": "max"}, "scale_rule"),
        (nvfp4, {"scale_rule": "floor"}, "scale_rule"),
        (mxfp4, {"tensor_scale": "tensor"}, "tensor_scale"),
        (mxfp4, {"headroom": 17 / 16}, "at most 1"),
        (nvfp4, {"headroom": 0.0}, "headroom"),
        (nvfp4, {"headroom": float("nan")}, "headroom"),
        (nvfp4, {"maximum": 449}, "maximum"),
        (mxfp4, {"maximum": 256}, "maximum"),
        (mxfp4, {"four_over_six": "mse"}, "four_over_six"),
        (nvfp4, {"four_over_six": "mse", "headroom": 17 / 16}, "four_over_six"),
        (nvfp4, {"four_over_six": "max"}, "four_over_six"),
        (nvfp4, {"block": 0}, "block"),
        (nvfp4, {"block": (1, 2, 3)}, "block"),
        (nvfp4, {"block": (2, 8), "tensor_scale": "row"}, "row"),
        (nvfp4, {"element": "e8m0"}, "element"),
        (nvfp4, {"element": "bf16"}, "element"),
        (nvfp4, {"scale": "bf16"}, "scale"),
        (nvfp4, {"scale": "binary32"}, "tensor_scale"),
        (nvfp4, {"scale_rounding": "up"}, "scale_rounding"),
    ):
        with pytest.raises(ValueError, match=text):
            fmt.replace(**changes)
    for changes in ({"headroom": "1"}, {"block": "32"}, {"element": 4}, {"scale_rounding": 1}):
        with pytest.raises(TypeError):
            nvfp4.replace(**changes)


def test_block_arrays_check_their_fields():
    q = ab.quantize_blocks(np.ones((3, 40), np.float32), "mxfp4")
    for changes, error in (
        ({"codes": q.codes.astype(np.int8)}, TypeError),
        ({"codes": [1, 2]}, TypeError),
        ({"scales": q.scales[:, :1]}, ValueError),
        ({"axis": 2}, ValueError),
        ({"tensor_scale": np.ones((3, 2), np.float32)}, ValueError),
        ({"tensor_scale": np.ones((3, 1))}, TypeError),
    ):
        with pytest.raises(error):
            dataclasses.replace(q, **changes)
    assert q.nbytes == 3 * 20 + 6 + 4
    assert "mxfp4" in repr(q) or "e2m1" in repr(q)
