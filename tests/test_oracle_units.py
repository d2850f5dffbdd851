"""The oracle's matrix units against directed values and against results of real GPUs."""

import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from oracle import INF, NAN, all_values, encode_value, identical
from oracle_datapath import dot


def fmt(e, m, bias=None, specials="ieee", **fields):
    return SimpleNamespace(exponent_bits=e, mantissa_bits=m, bias=bias, specials=specials, **fields)


BINARY32, FP22, FP16, BF16, TF32 = fmt(8, 23), fmt(8, 13), fmt(5, 10), fmt(8, 7), fmt(8, 10)
E4M3, E5M2, E2M1 = fmt(4, 3, 7, "fn"), fmt(5, 2), fmt(2, 1, 1, "none")
E5M2FNUZ = fmt(5, 2, 16, "fnuz")
E8M0 = fmt(8, 0, 127, "e8m0", code0="ordinary", signed=False)
UE4M3 = fmt(4, 3, 7, "fn", signed=False)


def unit(operand, output, bits, group, step="fused_trunc", **fields):
    """Return a matrix unit for operands of one format; fp16 results are rounded, others cut."""
    rounding = "nearest_even" if output is FP16 or step == "two_level" else "toward_zero"
    return SimpleNamespace(
        step=step, group=group, alignment_bits=bits, operand_a=operand, operand_b=operand,
        addend=FP16 if output is FP16 else BINARY32,
        accumulator=SimpleNamespace(format=output, rounding=rounding, overflow="to_inf"),
        **fields,
    )  # fmt: skip


def word(x, w, datapath, output=BINARY32, **arguments):
    return encode_value(dot(x, w, datapath, **arguments).value, output)


@pytest.mark.parametrize(
    ("bits", "group", "expected"),
    [
        (23, 4, (0x3F7FFFFE, 0x3F800000, 0x3F800000, 0x3F800000)),  # Volta
        (24, 8, (0x3F7FFFFE, 0x3F7FFFFF, 0x3F800000, 0x3F800000)),  # Ampere, Ada
        (25, 16, (0x3F7FFFFE, 0x3F7FFFFF, 0x3F7FFFFF, 0x3F800000)),  # Hopper, Blackwell
    ],
)
def test_directed_values(bits, group, expected):
    zeros = [0] * (group - 2)
    for k, code in zip((23, 24, 25, 26), expected, strict=True):
        x, w = [1, -(2.0**-12), *zeros], [1, 2.0 ** (12 - k), *zeros]
        assert word(x, w, unit(FP16, BINARY32, bits, group)) == code


def test_directed_fp8_values():
    for k, bits, code in ((13, 13, 0x3F800400), (14, 13, 0x3F800000), (14, 25, 0x3F800200)):
        output = FP22 if bits == 13 else BINARY32
        x, w = [1, 2.0**-7], [1, 2.0 ** (7 - k)]
        assert word(x, w, unit(E4M3, output, bits, 32)) == code
    # an addend alone loses what lies 13 bits below its leading one
    addend = 1 + 2**-13 + 2**-14
    assert dot([0], [0], unit(E4M3, FP22, 13, 32), addend).value == 1 + 2**-13


def test_rules_for_zero_and_for_small_exponents():
    x, w = [1, -1, 0], [1, 2.0**-25, 2.0**127]
    assert word(x, w, unit(BF16, BINARY32, 25, 16)) == 0x3F7FFFFF
    other = unit(BF16, BINARY32, 25, 16, zero_rule="subnormal_exponent")
    assert word(x, w, other) == 0x3F800000
    x, w = [2.0**-76] * 16, [2.0**-76] * 16
    assert word(x, w, unit(BF16, BINARY32, 25, 16, exponent_floor=-133)) == 2
    x, w = [1, -(2.0**-12), 0], [1, 2.0**-13, 65504]
    for rule, code in (
        ("ignore", 0x3F7FFFFF),
        ("subnormal_exponent", 0x3F7FFFFF),
        ("emin", 0x3F800000),
    ):
        assert word(x, w, unit(FP16, BINARY32, 25, 16, zero_rule=rule)) == code
    x, w = [2.0**-12, 2.0**-24], [2.0**-13, 2.0**-24]
    assert word(x, w, unit(FP16, FP16, 25, 16, exponent_floor=-21)) == 0
    assert dot(x, w, unit(FP16, FP16, 25, 16)).value == 2.0**-24


def test_products_are_not_normalised():
    # 1.5 * 1.5 = 2.25 is aligned by exponent 0, so its partner keeps a bit more
    x, w = [1.5, 2.0**-12], [1.5, 2.0**-11]
    assert dot(x, w, unit(FP16, BINARY32, 23, 4)).value == 2.25
    fine = unit(FP16, fmt(8, 40), 23, 4)
    assert dot(x, w, fine).value == 2.25 + 2.0**-23
    # a subnormal keeps the exponent of its format
    x, w = [2.0**-24, 2.0**-14], [1, -(2.0**-13)]
    assert dot(x, w, unit(FP16, fmt(8, 40), 13, 4)).value == 2.0**-24 - 2.0**-27


def test_specials_of_a_fused_step():
    a = unit(FP16, BINARY32, 25, 16)
    for x, w, c, value in (
        ([INF, 1], [1, 1], 0, INF), ([INF, -INF], [1, 1], 0, NAN), ([INF], [0], 0, NAN),
        ([1], [1], -INF, -INF), ([NAN], [1], 0, NAN), ([INF], [1], -INF, NAN),
    ):  # fmt: skip
        assert identical(dot(x, w, a, c).value, value)
    assert dot([65504] * 16, [65504] * 16, unit(FP16, FP16, 25, 16)).value == INF
    largest = [2.0**127 * (2 - 2**-7)]
    assert dot(largest, [2], unit(BF16, BINARY32, 25, 16)).value == INF  # although it truncates
    assert dot([2.0**-130], [1], unit(BF16, BINARY32, 25, 16, flush_inputs=True)).value == 0


def test_block_scales():
    x, w = [1] * 16 + [-1] + [0] * 47, [1] * 16 + [1] + [0] * 47
    block = unit(E2M1, BINARY32, 35, 64, step="scaled_groups")
    ones = [1, 1, 1, 1]
    assert dot(x, w, block, scales=([1, 1, 1, 1], ones, E8M0)).value == 15
    small = 2.0**-17
    assert dot(x, w, block, scales=([1 / 16, small, 1, 1], [1, small, 1, 1], E8M0)).value < 1
    # one bit below F: the group of -0.25 * 2^-34 vanishes beside 1
    quarter = [0.5] * 64
    below = dot(
        [1] + [0] * 15 + [-0.5] + [0] * 47, [1, *quarter[1:]], block,
        scales=([1, small, 1, 1], [1, small, 1, 1], E8M0),
    )  # fmt: skip
    assert below.value == 1
    # ue4m3 scales: 1.5 * 1.75 multiplies, the sign is ignored, and c joins
    scaled = dot([3] * 16, [2] * 16, block, c=0.5, scales=([1.5], [-1.75], UE4M3))
    assert scaled.value == 96 * 1.5 * 1.75 + 0.5
    assert identical(dot([3] * 16, [2] * 16, block, scales=([NAN], [1], E8M0)).value, NAN)
    f8 = unit(E4M3, BINARY32, 25, 32)
    assert dot([3] * 32, [2] * 32, f8, scales=([2, 4], [1, 0.5], E8M0)).value == 96 * 4


def test_two_levels_of_cdna3():
    def value(x, w, c, operand=BF16):
        model = unit(operand, BINARY32, 24, 16, "two_level", zero_rule="subnormal_exponent")
        return dot(x, w, model, c).value

    less = 1 - Fraction(1, 2**24)
    assert value([1, -(2.0**-25)], [1, 1], 0) == 1  # products are cut 24 bits below their largest
    assert value([1, -(2.0**-24)], [1, 1], 0) == less
    assert value([1], [1], -(2.0**-30)) == less  # c is floored at 24 bits
    assert value([1], [1], 2.0**-30) == 1
    assert value([-(2.0**-40)], [1], 1) == 1  # the sum is floored at 31 bits, then rounded
    assert value([-(2.0**-25), -(2.0**-40)], [1, 1], 1) == less
    assert value([2.0**100], [2.0**28], 0) == INF
    assert identical(value([2.0**100, -(2.0**100)], [2.0**28, 2.0**28], 0), NAN)
    # FP8: even and odd products apart, their sums floored; a distant c counts as zero
    eight = E5M2FNUZ
    assert value([1, -(2.0**-15)], [1, 2.0**-15], 0, eight) == less
    assert value([1, 0, -(2.0**-15)], [1, 0, 2.0**-15], 0, eight) == 1
    assert value([1], [1], -(2.0**-26), eight) == 1
    assert value([1], [1], -(2.0**-25), eight) == less


FORMATS = {"fp16": FP16, "bf16": BF16, "tf32": TF32, "E4M3": E4M3, "E5M2": E5M2}
FUSED = {"V100": (23, 4), "A100": (24, 8), "H100": (25, 16)}  # F and L of fp16 and bf16
RESULTS = [
    "V100_fp16_d32", "V100_fp16_d16", "A100_fp16_d32", "A100_fp16_d16", "A100_bf16_d32",
    "A100_tf32_d32", "H100_fp16_d32", "H100_fp16_d16", "H100_bf16_d32", "H100_tf32_d32",
    "H100_E4M3_d32", "H100_E4M3_d16", "H100_E5M2_d32", "H100_E5M2_d16",
]  # fmt: skip


@pytest.fixture(scope="module")
def vectors():
    folder = os.environ.get("ABCDEEP_VECTORS")
    if not folder:
        pytest.skip(
            "NOT TESTED against real GPUs: ABCDEEP_VECTORS, the folder of vectors, is unset"
        )
    return np.load(Path(folder) / "gpu_dot_vectors_dev.npz")


def decoded(codes, name):
    if name == "tf32":
        return codes.view(np.float32)
    return np.array([float(v) for v in all_values(FORMATS[name])])[codes]


def gpu_unit(gpu, name, result):
    """Return the unit that computed a result, and whether c takes part."""
    output = BINARY32 if result == "d32" else FP16
    if name in ("E4M3", "E5M2"):
        if result == "d32":  # wgmma
            return unit(FORMATS[name], FP22, 13, 32), False
        # mma.sync: two fp16 steps, then c is added to nearest even
        return unit(FP16, FP16, 25, 16, order="pair4", c_join="end"), True
    bits, group = FUSED[gpu]
    return unit(FORMATS[name], output, bits, 4 if name == "tf32" else group), True


@pytest.mark.parametrize("key", RESULTS)
def test_real_gpus(vectors, key):
    gpu, name, result = key.split("_")
    datapath, with_c = gpu_unit(gpu, name, result)
    a, b = (decoded(vectors[f"{gpu}_{name}_{operand}"], name) for operand in "ab")
    c = vectors[f"{gpu}_{name}_c"].view(np.float32).tolist()
    expected = vectors[key].tolist()
    output = BINARY32 if result == "d32" else FP16
    assert len(expected) == 1500
    sign = 1 << (31 if result == "d32" else 15)
    wrong = []
    for row, code in enumerate(expected):
        got = dot(a[row], b[row], datapath, c[row] if with_c else None, events=False).value
        if encode_value(got, output) != code and (got != 0 or code % sign != 0):
            wrong.append(row)
    assert not wrong


def test_vectors_pin_the_parameters(vectors):
    a, b = (decoded(vectors[f"A100_fp16_{operand}"], "fp16") for operand in "ab")
    c = vectors["A100_fp16_c"].view(np.float32).tolist()
    for bits, group in ((23, 8), (25, 8), (24, 4)):
        datapath = unit(FP16, BINARY32, bits, group)
        right = [
            word(a[row], b[row], datapath, c=c[row]) == code
            for row, code in enumerate(vectors["A100_fp16_d32"][:300].tolist())
        ]
        assert right.count(False) > 20
