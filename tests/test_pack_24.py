"""2:4 packing: bit for bit against packing one group at a time, and PyTorch's converters."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
import oracle_pack_24 as oracle
from abcdeep_core import _core
from packing_cases import bits_of, check, same, sparse, without_negative_zeros

NAMES = list(oracle.FORMATS)
CONVENTIONS = oracle.CONVENTIONS
LEGAL = {0b0100, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110}
PATTERNS = [p for p in itertools.product((False, True), repeat=4) if sum(p) <= 2]


@pytest.mark.parametrize("layout", ["rowmajor", "sm80"])
@pytest.mark.parametrize("name", NAMES)
def test_random_matrices(isa, name, layout):
    columns = oracle.columns_per_word(name)
    shapes = [(r, c) for r in (1, 3, 5) for c in (1, 2, 3, 5)] + [(2, 37), (1, 131), (0, 2), (3, 0)]
    if layout == "sm80":
        step = 32 if oracle.FORMATS[name][2] == 2 else 16
        shapes = [(step, 2), (3 * step, 4), (2 * step, 10), (step, 70), (0, 2), (step, 0)]
    for rows, words in shapes:
        x, kept = sparse(name, (rows, columns * words), rows + words)
        for convention in CONVENTIONS:
            check(name, x, layout=layout, convention=convention)
            check(name, x, kept, layout=layout, convention=convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_in_every_place(isa, name, convention):
    """The 11 patterns of a group (3 of a pair), in each place of a word."""
    _, group, _ = oracle.FORMATS[name]
    wholes = 2 if name == "float32" else 4
    patterns = [p for p in itertools.product((0, 1), repeat=wholes) if sum(p) <= wholes // 2]
    assert len(patterns) == (3 if wholes == 2 else 11)
    places = oracle.columns_per_word(name) // group
    kept = np.zeros((len(patterns) * places, places, wholes), bool)
    for row, (pattern, place) in enumerate(itertools.product(patterns, range(places))):
        kept[row, place] = pattern
    kept = np.repeat(kept, group // wholes, axis=2).reshape(len(kept), -1)
    x = np.where(kept, 1, 0).astype(oracle.FORMATS[name][0])
    packed = check(name, x, convention=convention)
    codes = np.stack([bits_of(packed.metadata) >> s & 15 for s in range(0, 4 * places, 4)])
    allowed = {0b0100, 0b1110} if name == "float32" else LEGAL
    if convention == "sm90" and name != "float32":
        allowed = allowed | {0}
    assert {int(c) for c in codes.flat} <= allowed
    check(name, x, kept, convention=convention)


# Group, and its code for torch, for cutedsl and 2by4, and for sm90; 9 stands for a stored zero.
TABLE = [
    ([0, 0, 0, 0], "1110", "1110", "0000"),
    ([1, 0, 0, 0], "1000", "1100", "1100"),
    ([0, 1, 0, 0], "1001", "1101", "1101"),
    ([0, 0, 1, 0], "1110", "1110", "1110"),
    ([0, 0, 0, 1], "1110", "1110", "1100"),
    ([1, 2, 0, 0], "0100", "0100", "0100"),
    ([1, 0, 2, 0], "1000", "1000", "1000"),
    ([1, 0, 0, 2], "1100", "1100", "1100"),
    ([0, 1, 2, 0], "1001", "1001", "1001"),
    ([0, 1, 0, 2], "1101", "1101", "1101"),
    ([0, 0, 1, 2], "1110", "1110", "1110"),
]


@pytest.mark.parametrize(("group", "torch", "cutedsl", "sm90"), TABLE)
def test_the_table_of_conventions(group, torch, cutedsl, sm90):
    x = np.int8([group * 8])
    for convention, code in (
        ("torch", torch), ("cutedsl", cutedsl), ("2by4", cutedsl), ("sm90", sm90)
    ):  # fmt: skip
        packed = ab.pack_24(x, convention=convention)
        assert int(packed.metadata[0, 0]) == int(code * 8, 2)
        first, second = int(code[2:], 2), int(code[:2], 2)
        assert list(packed.values[0, :2]) == [group[first], group[second]]
    assert ab.pack_24(x, convention="2by4").convention == "cutedsl"


@pytest.mark.parametrize("name", NAMES)
def test_every_group_with_too_many_is_named(isa, name):
    dtype, group, _ = oracle.FORMATS[name]
    wholes = 2 if name == "float32" else 4
    columns = 3 * oracle.columns_per_word(name)
    wrong = [p for p in itertools.product((0, 1), repeat=wholes) if sum(p) > wholes // 2]
    assert len(wrong) == (1 if wholes == 2 else 5)
    for pattern, place in itertools.product(wrong, range(0, columns // group, 3)):
        x = np.zeros((2, 3, columns), dtype)
        x[1, 2, place * group : (place + 1) * group] = np.repeat(pattern, group // wholes)
        where = rf"\[1, 2, {place * group}:{(place + 1) * group}\]"
        with pytest.raises(
            ValueError, match=rf"x: expected at most .* got {sum(pattern)} in {where}"
        ):
            ab.pack_24(x)
        with pytest.raises(ValueError, match=rf"mask: expected at most .* in {where}"):
            ab.pack_24(np.zeros_like(x), np.asarray(x != 0))


def test_every_bit_pattern_of_narrow_elements_survives(isa):
    for name in NAMES:
        dtype, group, _ = oracle.FORMATS[name]
        if name == "float32":
            continue
        size = np.dtype(dtype).itemsize
        every = np.arange(1 << (8 * size), dtype=f"u{size}")
        if name in ("int4", "float4_e2m1fn"):
            every = np.arange(256, dtype=np.uint8) & 15
        x = np.zeros((every.size, group), every.dtype)
        x[:, 0], x[:, group // 2 + 1] = every, every[::-1]
        x = x.reshape(-1, oracle.columns_per_word(name)).view(dtype)
        same(ab.pack_24(x, bits_of(x) != 0).dense(), x)
        x = without_negative_zeros(name, x)
        same(ab.pack_24(x).dense(), x)


def test_every_kind_of_float32_survives(isa):
    """Every sign and exponent with mantissas at the ends: NaN of both kinds, subnormals."""
    mantissas = [0, 1, 2, 0x257D85, 0x3FFFFF, 0x400000, 0x400001, 0x7F7F7F, 0x7FFFFE, 0x7FFFFF]
    exponents = np.arange(512, dtype=np.uint32)[:, None] << 23
    words = (exponents | np.uint32(mantissas)).reshape(-1)
    words = np.concatenate([words, np.uint32([0x3FA57D85, 0x7FA57D85, 0xFFA57F85, 0x7F800001])])
    pairs = np.zeros((words.size, 2), np.uint32)
    pairs[:, 0] = words
    for rows in (pairs, pairs[:, ::-1]):
        x = np.ascontiguousarray(rows).reshape(-1, 8).view(np.float32)
        same(ab.pack_24(x, bits_of(x) != 0).dense(), x)
        x = without_negative_zeros("float32", x)
        same(ab.pack_24(x).dense(), x)
    assert (bits_of(ab.pack_24(np.float32([[0, 0] * 4])).values) == 0).all()


def test_negative_zeros_count_as_zeros_and_keep_their_bits_where_stored(isa):
    x = np.float16([[-0.0, -0.0, -0.0, 1.0] * 4])
    packed = ab.pack_24(x)  # code 1110: positions 2 and 3
    assert np.signbit(packed.values[0, 0])
    same(packed.dense(), np.float16([[0.0, 0.0, -0.0, 1.0] * 4]))
    masked = ab.pack_24(x, np.tile([True, False, False, False], 4)[None])
    same(masked.dense(), np.float16([[-0.0, 0.0, 0.0, 0.0] * 4]))


@pytest.mark.parametrize("layout", ["rowmajor", "sm80"])
def test_large_arrays_batches_strides_and_threads(isa, layout):
    for name in ("float16", "float32", "int8", "int4"):
        columns = 70 * oracle.columns_per_word(name)
        rows = 112 if name.startswith("int") else 96  # tiles of 32 rows need not fill a matrix
        x, kept = sparse(name, (3, rows, columns), 5)
        x = without_negative_zeros(name, x)
        one = [ab.pack_24(part, layout=layout, threads=1) for part in x]
        check(name, x[1, :32], layout=layout)
        for threads in (1, 2, 7):
            packed = ab.pack_24(x, layout=layout, threads=threads)
            same(packed.values, np.stack([p.values for p in one]))
            same(packed.metadata, np.stack([p.metadata for p in one]))
            same(ab.unpack_24(packed, threads=threads), x)
            same(ab.pack_24(x, kept, layout=layout, threads=threads).dense(), x)
        spread = np.zeros((3, rows, 2 * columns), x.dtype)
        spread[..., ::2] = x
        same(ab.pack_24(spread[..., ::2], layout=layout).values, packed.values)
        out = np.asfortranarray(np.zeros_like(x))
        assert ab.unpack_24(packed, out=out) is out
        same(out.copy(order="C"), x)
        out = np.empty_like(x)
        assert ab.unpack_24(packed, out=out) is out
        same(out, x)
        loose = ab.Packed24(
            values=np.asfortranarray(packed.values),
            metadata=np.asfortranarray(packed.metadata),
            layout=layout,
        )
        same(loose.dense(), x)


# Rows, row, word column, and the index of the word in its own size, of CUTLASS's formula.
CHECKED = [(64, 0, 0, 0), (64, 8, 0, 1), (64, 1, 1, 10), (64, 17, 0, 12), (64, 33, 3, 202)]


@pytest.mark.parametrize(("rows", "row", "column", "expected"), CHECKED)
def test_positions_of_reordered_words(rows, row, column, expected):
    assert oracle.word_position(rows, row, column, 2) == expected
    x = np.zeros((rows, 64), np.float16)
    x[row, 16 * column] = 1
    changed = ab.pack_24(x, layout="sm80").metadata.reshape(-1) != 0xEEEE
    assert list(np.flatnonzero(changed)) == [expected]


@pytest.mark.parametrize(("word_bytes", "step"), [(2, 32), (4, 16)])
def test_reordering_is_a_permutation(word_bytes, step):
    for rows, words in ((step, 2), (3 * step, 6), (5 * step, 4)):
        places = {
            oracle.word_position(rows, r, c, word_bytes) for r in range(rows) for c in range(words)
        }
        assert places == set(range(rows * words))


def test_masks_need_not_be_the_non_zeros(isa):
    x = np.float16([[1, 2, 3, 4, 5, 6, 7, 8, np.nan, np.inf, 0, 0, 1, 0, 0, 1]])
    kept = np.array([[1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0]], bool)
    packed = check("float16", x, kept)
    assert packed.values.tolist() == [[1, 4, 0, 0, np.inf, 0, 0, 0]]
    odd = np.where(kept, np.uint8(2), np.uint8(0)).view(bool)  # true, but not the byte 1
    same(ab.pack_24(x, odd).values, packed.values)
    y, wanted = sparse("float4_e2m1fn", (3, 64), 9)
    half = wanted & (np.arange(64) % 2 == 0)  # one element of a pair
    check("float4_e2m1fn", y, half)


X = np.zeros((32, 64), np.float16)
ERRORS = [
    (TypeError, "x must be one of", {"x": X.astype(np.float64)}),
    (TypeError, "x must be one of", {"x": X.astype(np.int64)}),
    (TypeError, "mask", {"mask": X}),
    (TypeError, "dtype must be one of", {"dtype": np.float64}),
    (TypeError, "layout", {"layout": 80}),
    (TypeError, "threads", {"threads": 1.5}),
    (ValueError, "unknown dtype 'bfloat61'; nearest: 'bfloat16'", {"dtype": "bfloat61"}),
    (ValueError, "unknown layout 'sm90'; ", {"layout": "sm90"}),
    (ValueError, "unknown convention 'Torch'; nearest: 'torch'", {"convention": "Torch"}),
    (ValueError, "mask must have shape", {"mask": np.zeros((32, 32), bool)}),
    (ValueError, "two dimensions", {"x": X[0]}),
    (ValueError, "multiple of 16 columns", {"x": X[:, :24]}),
    (ValueError, "multiple of 32 rows", {"x": X[:16], "layout": "sm80"}),
    (ValueError, "multiple of 32 columns", {"x": X[:, :48], "layout": "sm80"}),
    (ValueError, "multiple of 16 rows", {"x": X[:8].astype(np.int8), "layout": "sm80"}),
    (ValueError, "threads", {"threads": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "change"), ERRORS)
def test_errors(error, message, change):
    arguments: dict[str, Any] = {"x": X, **change}
    with pytest.raises(error, match=message):
        ab.pack_24(arguments.pop("x"), **arguments)


def test_results_written_over_their_own_source(isa):
    x, _ = sparse("float16", (4, 32), 2)
    packed = ab.pack_24(x)
    shared = np.zeros((4, 32), np.float16)
    shared[:, 16:].reshape(-1)  # the values lie within `out`
    shared.reshape(-1)[:64] = packed.values.reshape(-1)
    inside = ab.Packed24(values=shared.reshape(-1)[:64].reshape(4, 16), metadata=packed.metadata)
    ab.unpack_24(inside, out=shared)
    same(shared, x)


TORCH_NAMES = {"float16": "half", "bfloat16": "bfloat16", "float32": "float", "int8": "int8"}
INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80}


def one_nan(name: str, bits: np.ndarray) -> np.ndarray:
    """Return bit patterns with one NaN only: torch moves elements of 16 bits as floats."""
    if name not in INFINITY:
        return bits
    return np.where(bits & 0x7FFF > INFINITY[name], 0x7FFF, bits)


@pytest.mark.parametrize("name", TORCH_NAMES)
def test_torch_converts_alike(isa, name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch's converters")
    convert = pytest.importorskip("torch.sparse._semi_structured_conversions")
    columns, step = oracle.columns_per_word(name), 16 if name == "int8" else 32
    for rows, words in ((1, 2), (1, 4), (2, 2), (3, 4), (4, 8), (5, 6), (8, 6)):
        x, _ = sparse(name, (rows * step, columns * words), rows * words)
        signed = f"i{x.dtype.itemsize}"

        def bits(tensor: Any, signed: str = signed) -> np.ndarray:
            integers = {"i1": torch.int8, "i2": torch.int16, "i4": torch.int32}[signed]
            return one_nan(name, bits_of(tensor.contiguous().view(integers).numpy()))

        dense = torch.from_numpy(bits_of(x).view(signed)).view(getattr(torch, TORCH_NAMES[name]))
        values, reordered = convert.sparse_semi_structured_from_dense_cutlass(dense)
        packed = ab.pack_24(x, layout="sm80")
        assert np.array_equal(bits(values), one_nan(name, bits_of(packed.values)))
        assert np.array_equal(bits_of(reordered.numpy()), packed.metadata)
        if name != "float32":  # it converts float32 by halves, which are not moved bit by bit
            back = convert.sparse_semi_structured_to_dense_cutlass(values, reordered)
            assert np.array_equal(bits(back), one_nan(name, bits_of(packed.dense())))


def test_the_core_checks_sizes_of_choices():
    with pytest.raises(ValueError, match="too many"):
        _core.split_sums(
            np.zeros((18, 1)), np.zeros((1, 18), np.int64), np.zeros((1, 18), np.uint8), 1,
            np.zeros((1, 1)), 1,
        )  # fmt: skip
