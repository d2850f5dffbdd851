"""Packed24 as an array: what it checks, other dtypes, and a weight packed both ways."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import abcdeep_core as ab
import oracle_pack_24 as oracle
from packing_cases import same, sparse

NAMES = list(oracle.FORMATS)
CONVENTIONS = oracle.CONVENTIONS
LEGAL = {0b0100, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110}
X = np.zeros((32, 64), np.float16)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_codes_that_are_not_legal_are_refused(isa, name, convention):
    dtype, _, word_bytes = oracle.FORMATS[name]
    shape = (2, oracle.columns_per_word(name))
    legal = {0b0100, 0b1110} if name == "float32" else set(LEGAL)
    if convention == "sm90" and name != "float32":
        legal.add(0)
    word = np.dtype(f"u{word_bytes}")
    for code, place in itertools.product(range(16), range(2 * word_bytes)):
        filled = sum(0b1110 << shift for shift in range(0, 8 * word_bytes, 4))
        filled = filled & ~(15 << 4 * place) | code << 4 * place
        metadata = np.array([[filled], [filled]], word)
        fields: dict[str, Any] = {"values": np.zeros((2, shape[1] // 2), dtype)}
        fields["convention"] = convention
        if code in legal:
            assert not ab.Packed24(metadata=metadata, **fields).dense().astype(float).any()
            continue
        with pytest.raises(ValueError, match=r"metadata must hold legal codes .* at \[0, 0\]"):
            ab.Packed24(metadata=metadata, **fields)
        good = ab.Packed24(
            metadata=np.full((2, 1), 0xEEEEEEEE & (1 << 8 * word_bytes) - 1, word), **fields
        )
        good.metadata[1] = filled
        out = np.ones(shape, dtype)
        with pytest.raises(ValueError, match=r"metadata must hold legal codes .* at \[1, 0\]"):
            ab.unpack_24(good, out=out)
        assert (out == 1).all()


@pytest.mark.parametrize("layout", ["rowmajor", "sm80"])
def test_an_empty_code_of_sm90_stands_for_zeros(layout):
    x = np.zeros((32, 32), np.float16)
    x[5, 3] = 1
    packed = ab.pack_24(x, convention="sm90", layout=layout)
    values = packed.values.copy()
    values[7, 4] = 1  # of a group of code 0
    with pytest.raises(ValueError, match=r"values must be 0 .* group \[7, 2\]"):
        ab.Packed24(values=values, metadata=packed.metadata, convention="sm90", layout=layout)


def test_another_dtype_must_hold_what_is_kept():
    x = np.float32([[1, 0, 0.1, 0] * 4])
    with pytest.raises(
        ValueError, match=r"x: expected kept values that float16 .* got 0.1 at \[0, 2\]"
    ):
        ab.pack_24(x, dtype="float16")
    mask = np.array([[1, 1, 0, 0] * 4], bool)
    same(ab.pack_24(x, mask, "float16").dense(), np.float16([[1, 0, 0, 0] * 4]))
    for name in NAMES:
        y, _ = sparse("int4", (2, 64), 3, 1)
        pairs = np.where(np.arange(64) % 2, 0, y.astype(np.float32)).clip(-4, 4)
        packed = ab.pack_24(pairs.astype(np.float32), dtype=name)
        assert packed.dtype == oracle.FORMATS[name][0]
        assert np.array_equal(packed.dense().astype(np.float32), pairs)
        assert ab.pack_24(pairs.astype(np.int8), dtype=packed.dtype).dtype == packed.dtype
    for number, name in (
        (np.inf, "int8"), (np.nan, "int8"), (128, "int8"), (0.5, "int4"), (8, "int4"),
        (65536, "float16"), (1e-8, "float16"), (500, "float8_e4m3fn"), (np.inf, "float8_e4m3fn"),
        (np.nan, "float4_e2m1fn"), (257, "bfloat16"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} holds exactly, got {float(number)}"):
            ab.pack_24(np.float32([[0] * 63 + [number]]), dtype=name)
    quiet, signalling = (
        np.array([[nan, 0, 0, 0] * 4], np.uint32).view(np.float32)
        for nan in (0x7FC00000, 0x7F800001)
    )
    assert np.isnan(ab.pack_24(quiet, dtype="float16").values[0, 0])
    with pytest.raises(ValueError, match="float16 holds exactly, got nan"):
        ab.pack_24(signalling, dtype="float16")


def test_both_ways(isa):
    rng = np.random.default_rng(4)
    rows = [p for p in itertools.product((False, True), repeat=4) if sum(p) == 2]
    tiles = [t for t in itertools.product(rows, repeat=4) if (np.sum(t, axis=0) <= 2).all()]
    assert len(tiles) == 90
    for name in ("float16", "bfloat16", "int8", "float8_e5m2"):
        picked = np.array(tiles)[rng.integers(0, 90, (2, 16, 24))]
        kept = picked.transpose(0, 1, 3, 2, 4).reshape(2, 64, 96)
        w = np.where(kept, rng.integers(1, 4, kept.shape), 0).astype(oracle.FORMATS[name][0])
        for mask in (None, kept):
            packed, transposed, masks = ab.pack_24_both_ways(w, mask)
            same(packed.dense(), w)
            same(transposed.dense(), np.ascontiguousarray(w.swapaxes(1, 2)))
            assert masks.dtype == np.uint16
            bit = 1 << (np.arange(4) + 4 * np.arange(4)[:, None])
            assert np.array_equal(masks, (picked * bit).sum(axis=(3, 4)))
        bad = kept.copy()
        bad[1, 4:8, 8:12] = False
        bad[1, 4:7, 8] = True
        with pytest.raises(ValueError, match=r"got 3 in a column of tile \[1, 1, 2\]"):
            ab.pack_24_both_ways(w, bad)
        bad[1, 4:8, 8:12] = False
        bad[1, 4, 8:11] = True
        with pytest.raises(ValueError, match=r"got 3 in a row of tile \[1, 1, 2\]"):
            ab.pack_24_both_ways(w, bad)


def test_a_packed_array_is_an_array():
    x, _ = sparse("float16", (4, 32), 1, 1)
    x = np.nan_to_num(x, posinf=1, neginf=1)
    packed = ab.pack_24(x)
    assert packed.ndim == 2
    assert packed.size == x.size
    same(np.asarray(packed), x)
    assert np.array_equal(np.multiply(packed, 2), x * 2)
    assert np.asarray(packed, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(packed, copy=False)
    same(
        ab.quantize(packed, "e4m3fn", overflow="sat_finite"),
        ab.quantize(x, "e4m3fn", overflow="sat_finite"),
    )
    back = pickle.loads(pickle.dumps(packed))
    same(back.dense(), x)
    assert packed.nbytes == 4 * 32 + 4 * 2 * 2


def test_bytes_of_values():
    x = np.zeros((1, 64), ml_dtypes.int4)
    x[0, :4] = [1, -2, 3, 7]
    packed = ab.pack_24(x)
    assert packed.value_bytes()[0, :2].tolist() == [0xE1, 0x73]
    assert packed.value_bytes().shape == (1, 16)
    assert packed.nbytes == 16 + 4
    y, _ = sparse("float16", (2, 16))
    assert np.array_equal(ab.pack_24(y).value_bytes(), ab.pack_24(y).values.view(np.uint8))


VALUES, METADATA = np.zeros((32, 32), np.float16), np.full((32, 4), 0xEEEE, np.uint16)
FIELDS = [
    (TypeError, "values must be a NumPy array", {"values": VALUES.tolist()}),
    (TypeError, "values must be one of", {"values": VALUES.astype(float)}),
    (TypeError, "metadata must be a NumPy array", {"metadata": 1}),
    (TypeError, "metadata must have dtype uint16", {"metadata": METADATA.astype(np.uint32)}),
    (ValueError, "values must have shape", {"values": VALUES[0]}),
    (ValueError, "metadata must have shape", {"metadata": METADATA[:, :3]}),
    (ValueError, "multiple of 16 columns", {"values": VALUES[:, :7]}),
    (ValueError, "multiple of 32 rows", {"values": VALUES[:31], "layout": "sm80"}),
    (ValueError, "unknown layout", {"layout": "sm70"}),
    (ValueError, "unknown convention", {"convention": "sm80"}),
]


@pytest.mark.parametrize(("error", "message", "change"), FIELDS)
def test_fields_are_checked(error, message, change):
    fields: dict[str, Any] = {"values": VALUES, "metadata": METADATA, **change}
    with pytest.raises(error, match=message):
        ab.Packed24(**fields)


def test_errors_of_unpacking_and_of_both_ways():
    packed = ab.pack_24(X)
    with pytest.raises(TypeError, match="packed must be a Packed24"):
        ab.unpack_24(X)
    with pytest.raises(TypeError, match="out must have dtype float16"):
        ab.unpack_24(packed, out=X.astype(np.float32))
    with pytest.raises(ValueError, match="out must have shape"):
        ab.unpack_24(packed, out=X[:1])
    with pytest.raises(TypeError, match="16 or 8 bits"):
        ab.pack_24_both_ways(X.astype(np.float32))
    with pytest.raises(ValueError, match="the transpose of w: expected a multiple of 16 columns"):
        ab.pack_24_both_ways(X[:8])
    with pytest.raises(ValueError, match="two dimensions"):
        ab.pack_24_both_ways(X[0])


def test_arrays_that_are_changed_in_place_are_refused():
    x = np.zeros((64, 256), np.float16)
    x[:, ::4] = 1
    packed = ab.pack_24(x)
    packed.metadata.resize((64, 0), refcheck=False)
    with pytest.raises(ValueError, match=r"metadata must have shape \(64, 16\), got \(64, 0\)"):
        packed.dense()
    packed = ab.pack_24(x)
    packed.values.dtype = np.int8
    with pytest.raises(TypeError, match="metadata must have dtype uint32, got uint16"):
        ab.unpack_24(packed)
