"""Random words by logical index, against a Philox written out in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab

SEED = 0x0123456789ABCDEF
LANES = {32: np.uint32, 16: np.uint16, 8: np.uint8, 1: np.uint8}

# Counter, key and output words of Philox4x32-10 (Random123's known-answer file).
KNOWN_ANSWERS = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def reference_philox(counter: list[int], key: list[int], rounds: int = 10) -> list[int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + 0x9E3779B9) % (1 << 32)
        k1 = (k1 + 0xBB67AE85) % (1 << 32)
    return [c0, c1, c2, c3]


def reference_draw(index: int, bits: int = 32, seed: int = SEED, stream: int = 0, call: int = 0):
    """Return draw number `index` of `bits` bits: a part of one word, low end first."""
    lanes = 32 // bits
    block, word = divmod(index // lanes, 4)
    counter = [block % (1 << 32), block >> 32, stream, call]
    words = reference_philox(counter, [seed % (1 << 32), seed >> 32])
    return words[word] >> (bits * (index % lanes)) & ((1 << bits) - 1)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(isa, counter, key, words):
    assert ab.philox4x32(counter, key).tolist() == words
    assert reference_philox(counter, key) == words


def test_philox_is_the_generator_of_the_cpp_standard(isa):
    # [rand.predef]: the 10,000th output of a default-constructed std::philox4x32 (seed 20111115).
    assert ab.philox4x32([2499, 0, 0, 0], [20111115, 0])[3] == 1955073260
    assert ab.random_bits(10000, seed=20111115)[-1] == 1955073260


@pytest.mark.parametrize("rounds", [10, 7, 5])
def test_philox_broadcasts_and_equals_the_reference(isa, rounds):
    rng = np.random.default_rng(1)
    counters = rng.integers(0, 1 << 32, (7, 1, 4), np.uint32)
    keys = rng.integers(0, 1 << 32, (3, 2), np.uint32)
    words = ab.philox4x32(counters, keys, rounds=rounds)
    assert words.shape == (7, 3, 4)
    assert words.dtype == np.uint32
    for i in range(7):
        for j in range(3):
            expected = reference_philox(counters[i, 0].tolist(), keys[j].tolist(), rounds)
            assert words[i, j].tolist() == expected


def test_philox_of_nothing():
    assert ab.philox4x32(np.empty((0, 4), np.uint32), [1, 2]).shape == (0, 4)


def test_philox_takes_strided_and_wider_integers():
    counters = np.arange(48, dtype=np.int64).reshape(6, 8)[::2, ::2]
    packed = ab.philox4x32(counters.astype(np.uint32), [1, 2])
    assert np.array_equal(ab.philox4x32(counters, [1, 2]), packed)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_philox_does_not_depend_on_threads(isa, threads):
    counters = np.arange(4 * 70_001, dtype=np.uint32).reshape(-1, 4)
    expected = ab.philox4x32(counters, [1, 2], threads=1)
    out = np.zeros_like(expected)
    assert ab.philox4x32(counters, [1, 2], out=out, threads=threads) is out
    assert np.array_equal(out, expected)


def test_check_values(isa):
    first = [0xB850222E, 0xC58CB04B, 0x14A7A020, 0x7A84FFF9]
    second = [0xADCA1466, 0x523E0D85, 0x65401425, 0xB299DA3F]
    assert ab.random_bits(8, seed=SEED).tolist() == first + second
    assert ab.random_bits(1, seed=SEED, start=2**34 + 1)[0] == 0x59DD3F68
    assert ab.random_bits(1, seed=SEED, stream=1)[0] == 0xFA9DFF5E
    assert ab.random_bits(1, seed=SEED, call=1)[0] == 0xD0E1FE69


@pytest.mark.parametrize("bits", LANES)
@pytest.mark.parametrize("start", [0, 1, 3, 5, 63, 64, 1021, 2**34 - 5, 2**40 + 7])
def test_draws_equal_the_reference(isa, bits, start):
    # 2**34 words are 2**32 blocks: the counter's second word starts to count there.
    first = start * (32 // bits) + (start % 3 if bits < 32 else 0)
    drawn = ab.random_bits(333, seed=SEED, stream=5, call=9, bits=bits, start=first)
    assert drawn.dtype == LANES[bits]
    expected = [reference_draw(first + i, bits, stream=5, call=9) for i in range(333)]
    assert drawn.tolist() == expected


@pytest.mark.parametrize("bits", LANES)
def test_every_start_and_count_cuts_the_same_sequence(isa, bits):
    whole = ab.random_bits(1300, seed=3, bits=bits)
    for start in (*range(70), 127, 128, 129, 255, 256, 257, 511, 513):
        for count in (0, 1, 2, 15, 16, 17, 63, 64, 65, 200, 257, 600):
            part = ab.random_bits(count, seed=3, bits=bits, start=start)
            assert np.array_equal(part, whole[start : start + count])


@pytest.mark.parametrize("bits", LANES)
def test_narrow_draws_are_the_words_read_low_end_first(isa, bits):
    words = ab.random_bits(1000, seed=9)
    drawn = ab.random_bits(1000 * (32 // bits), seed=9, bits=bits)
    if bits == 1:
        drawn = np.packbits(drawn, bitorder="little")
    assert np.array_equal(drawn.view("<u4"), words)


@pytest.mark.parametrize("bits", LANES)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_draws_do_not_depend_on_threads_or_isa(isa, bits, threads):
    # Large enough for several pieces, not a multiple of anything.
    drawn = ab.random_bits(400_003, seed=11, bits=bits, start=5, threads=threads)
    ends = ab.random_bits(400_003, seed=11, bits=bits, start=5, threads=1)
    assert np.array_equal(drawn, ends)
    picked = [0, 1, 65_535, 65_536, 131_071, 262_145, 400_002]
    expected = [reference_draw(5 + i, bits, seed=11) for i in picked]
    assert drawn[picked].tolist() == expected


def test_largest_arguments(isa):
    last = {"seed": 2**64 - 1, "stream": 2**32 - 1, "call": 2**32 - 1}
    drawn = ab.random_bits(8, start=2**64 - 8, **last)
    assert drawn.tolist() == [reference_draw(2**64 - 8 + i, **last) for i in range(8)]


def test_the_last_index_is_the_last_draw():
    with pytest.raises(ValueError, match=r"start: .*2\*\*64"):
        ab.random_bits(9, seed=0, start=2**64 - 8)


def test_logical_index_runs_in_c_order_of_the_shape():
    flat = ab.random_bits(24, seed=2)
    assert np.array_equal(ab.random_bits((2, 3, 4), seed=2), flat.reshape(2, 3, 4))
    assert ab.random_bits((), seed=2).shape == ()
    assert ab.random_bits((), seed=2)[()] == flat[0]
    assert ab.random_bits((3, 0), seed=2).shape == (3, 0)
    assert np.array_equal(ab.random_bits(np.int64(24), seed=np.uint64(2)), flat)


def test_out_is_written_and_returned():
    out = np.zeros((5, 7), np.uint16)
    assert ab.random_bits((5, 7), seed=4, bits=16, out=out) is out
    assert np.array_equal(out, ab.random_bits((5, 7), seed=4, bits=16))


def test_words_look_uniform():
    # 2**20 words: each bit's count of ones within 6 standard deviations of a half.
    words = ab.random_bits(1 << 20, seed=123)
    ones = (words[:, None] >> np.arange(32, dtype=np.uint32) & 1).sum(axis=0, dtype=np.int64)
    assert np.abs(ones - 2**19).max() < 6 * 2**9


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": 4, "seed": 1.5}, TypeError, "seed: expected an integer, got float"),
        ({"shape": 4, "seed": -1}, ValueError, r"seed: expected 0 <= seed < 2\*\*64, got -1"),
        ({"shape": 4, "seed": 2**64}, ValueError, "seed: "),
        (
            {"shape": 4, "seed": 0, "stream": 2**32},
            ValueError,
            r"stream: .* 2\*\*32, got 4294967296",
        ),
        ({"shape": 4, "seed": 0, "call": -1}, ValueError, "call: "),
        ({"shape": 4, "seed": 0, "call": "1"}, TypeError, "call: expected an integer, got str"),
        ({"shape": 4, "seed": 0, "start": 2**64}, ValueError, "start: "),
        ({"shape": 4, "seed": 0, "bits": 4}, ValueError, "bits: expected 32, 16, 8 or 1, got 4"),
        ({"shape": 4, "seed": 0, "bits": [8]}, TypeError, "bits: expected an integer, got list"),
        ({"shape": -4, "seed": 0}, ValueError, "shape: expected sizes >= 0"),
        ({"shape": 4.0, "seed": 0}, TypeError, "shape: expected an integer or a sequence"),
        ({"shape": (4, 2.0), "seed": 0}, TypeError, "shape: "),
        ({"shape": 4, "seed": 0, "threads": 0}, ValueError, "threads: expected 1 to 1024, got 0"),
        (
            {"shape": 4, "seed": 0, "threads": 1.0},
            TypeError,
            "threads: expected an integer or None",
        ),
        (
            {"shape": 4, "seed": 0, "out": [0] * 4},
            TypeError,
            "out must be a NumPy array of uint32, got list",
        ),
        (
            {"shape": 4, "seed": 0, "out": np.zeros(4, np.int32)},
            TypeError,
            "out must have dtype uint32, got int32",
        ),
        (
            {"shape": 4, "seed": 0, "out": np.zeros(5, np.uint32)},
            ValueError,
            r"out must have shape \(4,\), got \(5,\)",
        ),
        (
            {"shape": 4, "seed": 0, "out": np.zeros(8, np.uint32)[::2]},
            ValueError,
            "out must be C-contiguous",
        ),
    ],
)
def test_random_bits_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        ab.random_bits(arguments.pop("shape"), **arguments)


def test_random_bits_needs_a_seed():
    with pytest.raises(TypeError, match="seed"):
        ab.random_bits(4)


def test_read_only_out_is_refused():
    out = np.zeros(4, np.uint32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        ab.random_bits(4, seed=0, out=out)
    assert not out.any()


@pytest.mark.parametrize(
    ("counter", "key", "options", "error", "message"),
    [
        ([0.0] * 4, [0, 0], {}, TypeError, "counter: expected integers, got float64"),
        ([0] * 4, [True, False], {}, TypeError, "key: expected integers, got bool"),
        ([0] * 3, [0, 0], {}, ValueError, r"counter: expected shape \(\.\.\., 4\), got \(3,\)"),
        ([0] * 4, 0, {}, ValueError, "key: expected shape"),
        ([2**32, 0, 0, 0], [0, 0], {}, ValueError, "counter: expected 32-bit words"),
        ([0] * 4, [-1, 0], {}, ValueError, "key: expected 32-bit words"),
        ([0] * 4, [0, 0], {"rounds": 6}, ValueError, "rounds: expected 10, 7 or 5, got 6"),
        ([0] * 4, [0, 0], {"threads": 0}, ValueError, "threads: "),
        ([[0] * 4] * 3, [[0, 0]] * 2, {}, ValueError, r"key: .*broadcast"),
        ([0] * 4, [0, 0], {"out": np.zeros(4, np.int64)}, TypeError, "out must have dtype"),
        ([0] * 4, [0, 0], {"out": np.zeros(5, np.uint32)}, ValueError, "out must have shape"),
    ],
)
def test_philox_errors(counter, key, options, error, message):
    with pytest.raises(error, match=message):
        ab.philox4x32(counter, key, **options)


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 9, 13, 16, 17, 23, 32])
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_draw_the_same_bits(isa, bits, threads):
    # What stochastic rounding draws inside its kernel, against the same draws given explicitly.
    lane = next(width for width in (1, 8, 16, 32) if width >= bits)
    x = np.random.default_rng(bits).standard_normal(200_003).astype(np.float32)
    address = {"seed": 77, "stream": 3, "call": 4}
    draws = ab.random_bits(x.shape, bits=lane, **address).astype(np.uint32) << (32 - lane)
    rounded = ab.quantize(x, "e4m3fn", "stochastic", bits=bits, threads=threads, **address)
    explicit = ab.quantize(x, "e4m3fn", "stochastic", bits=bits, random_bits=draws)
    assert np.array_equal(rounded, explicit)
