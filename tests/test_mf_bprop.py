"""MF-BPROP: every product of INT4 and FP4, without a multiplier and through the datapath."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab

# (e_i, m_i) of INT4 magnitudes 1 to 8, from the paper.
TABLE = {1: (0, 0), 2: (1, 0), 3: (1, 2), 4: (2, 0), 5: (2, 1), 6: (2, 2), 7: (2, 3), 8: (3, 0)}
INTEGERS = np.arange(-8, 8)


def fp4_words(levels: int) -> np.ndarray:
    """Return every word: signs and magnitudes, without that of -0."""
    sign_bit = 8 if levels == 7 else 16
    positive = list(range(levels + 1))
    return np.array(positive + [sign_bit + c for c in positive[1:]])


def fp4_value(word: int, levels: int) -> int:
    sign_bit = 8 if levels == 7 else 16
    magnitude = word % sign_bit
    return (-1 if word >= sign_bit else 1) * (2 ** (magnitude - 1) if magnitude else 0)


@pytest.mark.parametrize("levels", [7, 8])
def test_every_product(levels):
    codes = fp4_words(levels)
    assert codes.size == 2 * levels + 1
    got = ab.mf_bprop_product(INTEGERS[:, None], codes, levels=levels)
    assert got.dtype == np.uint8
    sign_bit = 8 if levels == 7 else 16
    largest = 0
    for i, row in zip(INTEGERS.tolist(), got.tolist(), strict=True):
        for code, word in zip(codes.tolist(), row, strict=True):
            c = code % sign_bit
            expected = 0
            if i and c:
                e, m = TABLE[abs(i)]
                expected = ((i < 0) ^ (code >= sign_bit)) << 6 | (e + c) << 2 | m
                largest = max(largest, e + c)
            assert word == expected
    assert largest == levels + 3
    products = [[i * fp4_value(code, levels) for code in codes.tolist()] for i in INTEGERS.tolist()]
    assert ab.decode(got, "fp7_142").tolist() == products
    assert got.tolist() == ab.encode(np.array(products, np.float32), "fp7_142").tolist()


@pytest.mark.parametrize("levels", [7, 8])
def test_the_datapath_multiplies_alike(isa, levels):
    codes = fp4_words(levels)
    values = np.array([[fp4_value(code, levels) for code in codes.tolist()]], np.float32)
    integers = INTEGERS.astype(np.float32)[:, None]
    expected = ab.decode(ab.mf_bprop_product(INTEGERS[:, None], codes, levels=levels), "fp7_142")
    datapath = ab.mf_bprop_accumulator()
    for a, b, result in ((integers, values, expected), (values.T, integers.T, expected.T)):
        got, events = ab.matmul(a, b, datapath, events=True)
        assert np.array_equal(got, result)
        assert events.product_overflow == events.product_underflow == events.rounded == 0


def test_sums_are_those_of_exact_products(isa):
    rng = np.random.default_rng(1)
    a = rng.integers(-8, 8, (9, 100)).astype(np.float32)
    g = ab.decode(rng.choice(fp4_words(7), (100, 7)).astype(np.uint8), "e3m0")
    exact = (a.astype(int) @ g.astype(int)).astype(np.float32)
    assert np.array_equal(ab.matmul(a, g, ab.mf_bprop_accumulator()), exact)
    for options in ({}, {"chunk": 16}, {"rounding": "toward_zero"}):
        got = ab.matmul(a, g, ab.mf_bprop_accumulator("fp16", **options))
        assert np.array_equal(got, ab.matmul(a, g, ab.float_accumulator("fp16", **options)))


def test_the_fields_of_the_datapath():
    datapath = ab.mf_bprop_accumulator("bf16", rounding="toward_zero", chunk=32, merge="exact")
    assert datapath.product == ab.Quantizer(format="fp7_142")
    assert datapath.accumulator == ab.Quantizer(format="bf16", rounding="toward_zero")
    assert (datapath.chunk, datapath.merge, datapath.name) == (32, "exact", "mf_bprop")


def test_encoded_operands_and_arrays():
    x = np.float32([[1, -64, 0], [8, 2, -4]])
    codes = ab.encode(x, "e3m0")
    w = np.array([3, -8, 7], ml_dtypes.int4)
    got = ab.mf_bprop_product(w, codes)
    assert np.array_equal(ab.decode(got, "fp7_142"), x * np.float32([3, -8, 7]))
    out = np.zeros((3, 2), np.uint8).T
    assert ab.mf_bprop_product(w, codes, out=out, threads=2) is out
    assert np.array_equal(out, got)
    assert int(ab.mf_bprop_product(1, 1)) == 4
    assert ab.mf_bprop_product(np.zeros((0, 3), int), codes[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "int4", {"int4": [1.0]}),
        (TypeError, "fp4_codes", {"fp4_codes": [1.0]}),
        (TypeError, "threads", {"threads": 1.0}),
        (TypeError, "out", {"out": np.zeros(1, np.int8)}),
        (ValueError, "int4: expected -8 to 7, got 8", {"int4": [8]}),
        (ValueError, "int4", {"int4": [-9]}),
        (ValueError, "int4", {"int4": np.array([1 << 63], np.uint64)}),
        (ValueError, r"fp4_codes.* got 8 at \[1\]", {"fp4_codes": [1, 8]}),
        (ValueError, "fp4_codes", {"fp4_codes": [-1]}),
        (ValueError, "fp4_codes", {"fp4_codes": [16]}),
        (ValueError, "fp4_codes", {"fp4_codes": [9], "levels": 8}),
        (ValueError, "fp4_codes", {"fp4_codes": [25], "levels": 8}),
        (ValueError, "levels", {"levels": 5}),
        (ValueError, "broadcast", {"int4": [1, 2, 3], "fp4_codes": [1, 2]}),
        (ValueError, "out", {"out": np.zeros(2, np.uint8)}),
    ],
)
def test_errors(error, message, arguments: dict[str, Any]):
    call = {"int4": [1], "fp4_codes": [1], **arguments}
    with pytest.raises(error, match=message):
        ab.mf_bprop_product(call.pop("int4"), call.pop("fp4_codes"), **call)


def test_errors_of_the_datapath():
    with pytest.raises(ValueError, match="nearest"):
        ab.mf_bprop_accumulator("binary33")
    with pytest.raises(ValueError, match="rounding"):
        ab.mf_bprop_accumulator(rounding="up")
