"""matmul against published values: golden vectors, facts about binary32, behaviour on noise."""

from __future__ import annotations

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import check

X = np.float32([[
    -35, 62, 37, -30, -35, -63, 54, 49, -5, 41, 27, 54, 50, -53, 13, 17,
    -57, -21, -41, -35, -33, 33, 27, 23, -28, 0, 60, 55, 11, 51, 17, 43,
    -30, -11, 51, 8, -59, 44, -59, -5, 19, -52, 16, -26, 24, -59, 10, 12,
]]) / 16  # fmt: skip
W = np.float32([[
    -42, -52, -2, -23, 18, -18, -6, -41, -57, 17, -1, 59, -64, -32, -61, -58,
    60, -27, -21, -2, -43, 1, -59, 50, 57, 57, 5, -19, 52, -4, 54, -27,
    44, 61, 38, 1, -18, 13, -56, 47, 26, -32, 50, 32, 22, 5, 15, 34,
]]).T / 64  # fmt: skip
M7E4, M4E3 = ab.lba_accumulator(), ab.lba_accumulator(4, 3, 4, 6)
OFF = {"underflow": False}
MASK = {"arithmetic": "fp32_mask"}

# setting: datapath, chunk sums, result
G1 = {
    "exact": (ab.exact_accumulator(), None, 2.2822265625),
    "m7e4": (M7E4, (-2.046875, -3, 7.25), 2.21875),
    "m7e4, underflow off": (ab.lba_accumulator(**OFF), (-2.046875, -3, 7.25), 2.21875),
    "m7e4, fp32_mask": (ab.lba_accumulator(**MASK), (-2.046875, -3, 7.25), 2.21875),
    "m7e4, off, fp32_mask": (ab.lba_accumulator(**OFF, **MASK), (-2.046875, -3, 7.25), 2.21875),
    "m7e4, back": (M7E4.replace(merge_order="first_then_back"), None, 2.1875),
    "m7e4, nearest": (
        ab.lba_accumulator(rounding="nearest_even"), (-2.0625, -3.03125, 7.40625), 2.3125
    ),
    "m4e3": (M4E3, (-2, -2.5, 6), 1.5),
    "m4e3, off": (ab.lba_accumulator(4, 3, 4, 6, **OFF), (-2, -2.5, 6), 1.5),
}  # fmt: skip


def test_golden_operands_are_numpy_s():
    rng = np.random.RandomState(12345)
    assert np.array_equal(X[0], rng.randint(-64, 65, 48) / 16)
    assert np.array_equal(W[:, 0], rng.randint(-64, 65, 48) / 64)


@pytest.mark.parametrize("name", G1)
def test_golden_vector(isa, name):
    datapath, chunk_sums, result = G1[name]
    got, seen = ab.matmul(X, W, datapath, events=True)
    assert got.tolist() == [[result]]
    assert seen.terms == 48
    assert ab.matmul(X, W, datapath).tolist() == [[result]]
    assert check(X, W, datapath) == 1
    for j, chunk_sum in enumerate(chunk_sums or ()):
        part = slice(16 * j, 16 * (j + 1))
        assert ab.matmul(X[:, part], W[part], datapath).tolist() == [[chunk_sum]]


def test_first_chunk_of_the_golden_vector(isa):
    products = (1.4296875, -3.140625, -0.072265625, 0.671875, -0.61328125, 1.1015625,
                -0.31640625, -1.9609375, 0.27734375, 0.6796875, -0.0263671875, 3.109375,
                -3.125, 1.65625, -0.7734375, -0.9609375)  # fmt: skip
    sums = (1.4296875, -1.7109375, -1.78125, -1.109375, -1.71875, -0.6171875, -0.93359375,
            -2.890625, -2.609375, -1.9296875, -1.953125, 1.15625, -1.96875, -0.3125, -1.0859375,
            -2.046875)  # fmt: skip
    exact = X[0, :16] * W[:16, 0]
    rounded = ab.quantize(exact, M7E4.product.format, "toward_zero")
    assert rounded.tolist() == list(products)
    running = [float(ab.matmul(X[:, :k], W[:k], M7E4)[0, 0]) for k in range(1, 17)]
    assert running == list(sums)


def test_smallest_case_where_mask_and_exact_differ(isa):
    x, w = np.float32([[1, 2**-13]]), np.float32([[1], [-(2**-13)]])
    for options, result in (
        (OFF, 0.99609375), (OFF | MASK, 1.0), ({}, 1.0), (MASK, 1.0),
    ):  # fmt: skip
        assert ab.matmul(x, w, ab.lba_accumulator(**options)).tolist() == [[result]], options


def pairs(m: int, rows: int, seed: int) -> np.ndarray:
    """Return two numbers of m + 1 bits a row, far apart and close, of either sign."""
    rng = np.random.default_rng([m, seed])
    significands = rng.integers(1 << m, 2 << m, (rows, 2)).astype(np.float64)
    if seed % 2:  # powers of two, where the exponent of the result changes
        significands[:, 0] = 1 << m
    exponents = np.stack([np.zeros(rows), -rng.integers(0, 40, rows)], axis=1)
    return significands * 2.0**exponents * rng.choice((-1.0, 1.0), (rows, 2))


@pytest.mark.parametrize("m", range(1, 12))
def test_when_binary32_to_nearest_and_a_mask_is_not_truncation(isa, m):
    # It fails iff the smaller addend p has the other sign and 0 < |p| <= 2^(e - 24), e the exponent
    # of the exact result (docs/exactness.md).
    a = pairs(m, 4000, m).astype(np.float32)
    ones = np.ones((2, 1), np.float32)
    options = {"underflow": False, "chunk": 0}
    exact, mask = (
        ab.matmul(a, ones, ab.lba_accumulator(m, 7, 63, 63, **options, arithmetic=name))[:, 0]
        for name in ("exact", "fp32_mask")
    )
    total = a.astype(np.float64).sum(axis=1)
    _, exponent = np.frexp(total)
    smaller = np.take_along_axis(a, np.abs(a).argmin(axis=1)[:, None], axis=1)[:, 0]
    opposite = np.sign(smaller) != np.sign(total)
    fails = opposite & (np.abs(smaller) <= 2.0 ** (exponent - 1 - 24)) & (total != 0)
    assert np.array_equal(exact != mask, fails)
    assert fails.any()


@pytest.mark.parametrize(
    ("m", "e", "bias", "product_bias"),
    [(7, 4, 10, 12), (5, 4, 10, 12), (4, 3, 4, 6), (11, 4, 9, 15)],
)
def test_with_underflow_mask_and_exact_agree(isa, m, e, bias, product_bias):
    # 2^E - b_acc + b_prod, 2^E - b_prod + b_acc and 2^E are below 25
    assert max(2**e - bias + product_bias, 2**e - product_bias + bias, 2**e) < 25
    rng = np.random.default_rng(m)
    scale = 2.0 ** rng.integers(-14, 6, (40, 300))
    a = ab.quantize(rng.standard_normal((40, 300)) * scale, "bf16").astype(np.float32)
    b = ab.quantize(rng.standard_normal((300, 50)), "bf16").astype(np.float32)
    exact, mask = (
        ab.matmul(a, b, ab.lba_accumulator(m, e, bias, product_bias, arithmetic=name))
        for name in ("exact", "fp32_mask")
    )
    assert np.array_equal(exact, mask)


def test_what_truncation_absorbs(isa):
    # With s = 1 a positive addend 2^-k is absorbed for k > M; a negative one never is, or from
    # k = 25 on if binary32 rounds to nearest first.
    one = np.float32([[1.0]])
    for arithmetic in ("exact", "fp32_mask"):
        d = ab.lba_accumulator(7, 6, 40, 40, chunk=0, arithmetic=arithmetic)
        for k in range(1, 36):
            got = ab.matmul(one, np.float32([[2.0**-k]]), d, c=1.0)
            assert got[0, 0] == 1 + (2.0**-k if k <= 7 else 0)
            got = ab.matmul(one, np.float32([[-(2.0**-k)]]), d, c=1.0)
            absorbed = arithmetic == "fp32_mask" and k >= 25
            assert (got[0, 0] == 1) == absorbed


# setting, K, chunk -> relative RMSE and regression gain
BEHAVIOUR = [
    (M7E4, 1024, 16, 0.107, 0.903),
    (ab.lba_accumulator(**OFF), 1024, 16, 0.108, 0.902),
    (ab.lba_accumulator(rounding="nearest_even"), 1024, 16, 0.0114, 1.0),
    (M7E4, 1024, 32, 0.084, 0.922),
    (M7E4, 1024, 64, 0.106, 0.904),
    (M7E4, 1024, 0, 0.707, 0.343),
    (ab.lba_accumulator(10, 5, 16, 16), 1024, 16, 0.0144, 0.987),
    (ab.lba_accumulator(10, 5, 16, 16, rounding="rne"), 1024, 16, 0.0014, 1.0),
    (M4E3, 1024, 16, 0.667, 0.451),
    (M7E4, 256, 16, 0.044, None),
    (M7E4, 4096, 64, 0.157, None),
]


def behaviour(datapath: ab.Datapath, k: int) -> tuple[float, float]:
    """Return relative RMSE and gain on independent dot products of N(0, 1) and N(0, 1/K)."""
    rng = np.random.default_rng(k)
    x = rng.standard_normal((200, k)).astype(np.float32)
    w = (rng.standard_normal((k, 200)) / np.sqrt(k)).astype(np.float32)
    got, exact = ab.matmul(x, w, datapath), x.astype(np.float64) @ w.astype(np.float64)
    error = np.sqrt(np.mean((got - exact) ** 2) / np.mean(exact**2))
    return error, np.sum(got * exact) / np.sum(exact**2)


@pytest.mark.parametrize("case", range(len(BEHAVIOUR)))
def test_behaviour_on_noise(case):
    # Bounds for any seed: 5 % of the RMSE and 0.02 of the gain (here 40,000 dot products).
    datapath, k, chunk, error, gain = BEHAVIOUR[case]
    got_error, got_gain = behaviour(datapath.replace(chunk=chunk), k)
    assert abs(got_error / error - 1) < 0.05, got_error
    assert gain is None or abs(got_gain - gain) < 0.02, got_gain


def test_the_best_chunk_is_about_the_square_root():
    for k, best in ((256, 16), (1024, 32), (4096, 64)):
        errors = {n: behaviour(M7E4.replace(chunk=n), k)[0] for n in (best // 2, best, 2 * best)}
        assert min(errors, key=errors.__getitem__) == best, errors
