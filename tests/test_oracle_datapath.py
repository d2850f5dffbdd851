"""The oracle's dot products against golden vectors, float32 arithmetic and exact fractions."""

import random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from oracle import INF, NAN, NEG_ZERO, identical, raw, round_value
from oracle_datapath import dot, ste_gradients
from oracle_fixed import wrap_integer


def fmt(e, m, bias=None, specials="ieee", code0="subnormal", **fields):
    return SimpleNamespace(
        exponent_bits=e, mantissa_bits=m, bias=bias, specials=specials, code0=code0, **fields
    )


def lba_format(m, e, bias):
    return fmt(e, m, bias, "none", "ordinary")


def quantizer(form, rounding="nearest_even", **fields):
    return SimpleNamespace(format=form, rounding=rounding, **fields)


def lba(m=7, e=4, bias=10, product_bias=12, chunk=16, rounding="toward_zero", **fields):
    underflow = fields.pop("underflow", None)
    return SimpleNamespace(
        product=quantizer(lba_format(m, e, product_bias), rounding, underflow=underflow),
        accumulator=quantizer(lba_format(m, e, bias), rounding, underflow=underflow),
        chunk=chunk,
        **fields,
    )


def integer(bits, overflow="wrap", **fields):
    form = SimpleNamespace(bits=bits, fraction_bits=0, overflow=overflow)
    return SimpleNamespace(accumulator=quantizer(form), **fields)


BINARY32, FP16 = fmt(8, 23), fmt(5, 10)
FLOAT32 = SimpleNamespace(product=quantizer(BINARY32), accumulator=quantizer(BINARY32))

X16 = """-35 62 37 -30 -35 -63 54 49 -5 41 27 54 50 -53 13 17 -57 -21 -41 -35 -33 33 27 23 -28 0 60
    55 11 51 17 43 -30 -11 51 8 -59 44 -59 -5 19 -52 16 -26 24 -59 10 12"""
W64 = """-42 -52 -2 -23 18 -18 -6 -41 -57 17 -1 59 -64 -32 -61 -58 60 -27 -21 -2 -43 1 -59 50 57 57
    5 -19 52 -4 54 -27 44 61 38 1 -18 13 -56 47 26 -32 50 32 22 5 15 34"""
X = [int(text) / 16 for text in X16.split()]
W = [int(text) / 64 for text in W64.split()]


def test_g1_operands():
    state = np.random.RandomState(12345)
    assert (state.randint(-64, 65, 48) / 16).tolist() == X
    assert (state.randint(-64, 65, 48) / 64).tolist() == W


def test_g1_results():
    assert dot(X, W, SimpleNamespace()).value == 2.2822265625
    for arithmetic in ("exact", "fp32_mask"):
        for underflow in (None, "off"):
            options = {"arithmetic": arithmetic, "underflow": underflow}
            assert dot(X, W, lba(**options)).value == 2.21875
            back = lba(merge_order="first_then_back", **options)
            assert dot(X, W, back).value == 2.1875
            assert dot(X, W, lba(4, 3, 4, 6, **options)).value == 1.5
    assert dot(X, W, lba(rounding="nearest_even")).value == 2.3125
    for options, sums in (
        ({}, (-2.046875, -3, 7.25)),
        ({"rounding": "nearest_even"}, (-2.0625, -3.03125, 7.40625)),
        ({"m": 4, "e": 3, "bias": 4, "product_bias": 6}, (-2, -2.5, 6)),
    ):
        got = [dot(X[i : i + 16], W[i : i + 16], lba(**options)).value for i in (0, 16, 32)]
        assert got == list(sums)


def test_g1_first_chunk():
    products = """1.4296875 -3.140625 -0.072265625 0.671875 -0.61328125 1.1015625 -0.31640625
        -1.9609375 0.27734375 0.6796875 -0.0263671875 3.109375 -3.125 1.65625 -0.7734375
        -0.9609375"""
    sums = """1.4296875 -1.7109375 -1.78125 -1.109375 -1.71875 -0.6171875 -0.93359375 -2.890625
        -2.609375 -1.9296875 -1.953125 1.15625 -1.96875 -0.3125 -1.0859375 -2.046875"""
    q = lba_format(7, 4, 12)
    got = [round_value(x * w, q, "toward_zero") for x, w in zip(X[:16], W[:16], strict=True)]
    assert got == [float(text) for text in products.split()]
    got = [dot(X[:n], W[:n], lba()).value for n in range(1, 17)]
    assert got == [float(text) for text in sums.split()]


def test_g2_mask_is_not_truncation():
    x, w = [1, 2**-13], [1, -(2**-13)]
    for underflow, arithmetic, expected in (
        ("off", "exact", 0.99609375), ("off", "fp32_mask", 1),
        (None, "exact", 1), (None, "fp32_mask", 1),
    ):  # fmt: skip
        got = dot(x, w, lba(chunk=0, underflow=underflow, arithmetic=arithmetic)).value
        assert got == expected


def test_g3_straight_through():
    x, w = [7.5] * 6 + [2**-4, -7.5, 1.5], [2] * 6 + [2**-5, 2, 2]
    one_chunk = lba(chunk=0)
    sums = [dot(x[:n], w[:n], one_chunk).value for n in range(1, 10)]
    assert sums == [15, 30, 45, 60, 63.75, 63.75, 63.75, 48.75, 51.75]
    of, diff = [1, 1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 0, 0, 1, 1]
    bits = dot(x, w, one_chunk).bits
    assert (bits.of, bits.diff) == (of, diff)
    assert ste_gradients(x, w, one_chunk, "identity") == [1] * 9
    assert ste_gradients(x, w, one_chunk, "recursive_of") == [0] * 7 + [1, 1]
    assert ste_gradients(x, w, one_chunk, "immediate_of") == of
    assert ste_gradients(x, w, one_chunk, "immediate_diff") == diff
    with pytest.raises(ValueError, match="variant"):
        ste_gradients(x, w, one_chunk, "recursive_diff")


def test_straight_through_merges():
    # Chunks of 1 with the sums 40, 40, -8, 1: the second merge overflows.
    x, w = [4, 4, -4, 1], [10, 10, 2, 1]
    datapath = lba(7, 4, 10, 10, 1)
    bits = dot(x, w, datapath).bits
    assert bits.merge_of == [1, 0, 1, 1]
    assert bits.paths == [[0, 1, 2, 3], [1, 2, 3], [2, 3], [3]]
    assert ste_gradients(x, w, datapath, "immediate_of") == [1, 0, 1, 1]
    assert ste_gradients(x, w, datapath, "recursive_of") == [0, 0, 1, 1]
    assert ste_gradients(x, w, datapath, "immediate_diff") == [1, 0, 1, 1]
    back = SimpleNamespace(**vars(datapath) | {"merge_order": "first_then_back"})
    assert dot(x, w, back).bits.paths == [[0, 1, 2, 3], [3], [2, 3], [1, 2, 3]]
    pairs = SimpleNamespace(**vars(datapath) | {"merge_order": "pairwise"})
    assert dot(x, w, pairs).bits.paths == [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert dot(x, w, pairs).value == 56.75
    assert ste_gradients(x, w, pairs, "recursive_of") == [0, 0, 1, 1]
    # A product out of range stops its own gradient, and recursively that of all terms before it.
    big = lba(chunk=0)
    assert ste_gradients([1, 5, -1], [1, 5, 1], big, "recursive_of") == [0, 0, 1]
    assert ste_gradients([1, 5, -1], [1, 5, 1], big, "immediate_of") == [1, 0, 1]


def test_integer_golden_vector():
    x, w = [125, 100, -120, 30, 90, -70, 100, -90], [12, 10, 10, 10, 10, 10, 20, 20]
    for datapath, intermediate in (
        (integer(12), [1500, -1596, 1300, 1600, -1596, 1800, -296, 2000]),
        (integer(12, "saturate"), [1500, 2047, 847, 1147, 2047, 1347, 2047, 247]),
    ):
        assert [dot(x[:n], w[:n], datapath).value for n in range(1, 9)] == intermediate
    for group, intermediate in ((2, [2047, 1147, 1347, 1547]), (4, [1600, 2000])):
        datapath = integer(12, "saturate", step="exact_group", group=group)
        got = [dot(x[: n + group], w[: n + group], datapath).value for n in range(0, 8, group)]
        assert got == intermediate
    end = SimpleNamespace(output=integer(12, "saturate").accumulator)
    assert dot(x, w, end).value == 2000
    product = quantizer(SimpleNamespace(bits=11, fraction_bits=0, overflow="saturate"))
    narrow = integer(12, "saturate", product=product)
    got = [dot(x[:n], w[:n], narrow).value for n in range(1, 9)]
    assert got == [1023, 2023, 999, 1299, 2047, 1347, 2047, 1023]
    assert dot(x, w, narrow).events["product_overflow"] == 4
    # greedy: positive terms while the running sum is <= 0, else negative ones
    order = [0, 2, 5, 1, 7, 3, 4, 6]
    greedy = [1500, 300, -400, 600, -1200, -900, 0, 2000]
    assert np.cumsum([x[k] * w[k] for k in order]).tolist() == greedy
    saturating = integer(12, "saturate", order=order)
    assert dot(x, w, saturating).value == 2000
    assert dot(x, w, saturating).events["min_partial"] == -1200


def test_integer_events():
    x, w = [125, 100, -120, 30, 90, -70, 100, -90], [12, 10, 10, 10, 10, 10, 20, 20]
    events = dot(x, w, integer(12)).events
    assert (events["transient"], events["persistent"]) == (1, 0)
    assert (events["terms"], events["steps"], events["outputs"]) == (8, 8, 1)
    events = dot([100] * 3, [10] * 3, integer(12, "saturate")).events
    assert (events["transient"], events["persistent"]) == (0, 1)
    assert events["accumulator_overflow"] == 1
    assert (events["min_partial"], events["max_partial"]) == (1000, 3000)
    # the exact sum starts from the exact c
    assert dot([1], [1], integer(12), c=5000).events["persistent"] == 1
    assert dot([1], [1], integer(12), c=5000).value == wrap_integer(5001, 12, True, "wrap")


def test_wrap_does_not_depend_on_order():
    generator = np.random.default_rng(1)
    a, b = generator.integers(-128, 128, (2, 50, 40))
    for x, w in zip(a, b, strict=True):
        order = tuple(generator.permutation(40).tolist())
        total = int((x * w).sum())
        for datapath in (
            integer(12, order=order),
            integer(12, chunk=7),
            integer(12, order="pair4"),
        ):
            assert dot(x, w, datapath).value == wrap_integer(total, 12, True, "wrap")


def test_float32_chain_is_that_of_numpy():
    generator = np.random.default_rng(2)
    scale = np.exp2(generator.integers(-40, 40, (2, 100, 30))).astype(np.float32)
    a, b = generator.standard_normal((2, 100, 30)).astype(np.float32) * scale
    for x, w in zip(a, b, strict=True):
        s = np.float32(0)
        for p in x * w:
            s = s + p
        assert dot(x, w, FLOAT32).value == float(s)


def mask(v, bits):
    keep = np.uint32(0xFFFFFFFF << (23 - bits) & 0xFFFFFFFF)
    return (np.float32(v).view(np.uint32) & keep).view(np.float32)


def masked_step(t, m, e, bias):
    t = mask(t, m)
    r_of = np.float32(2.0 ** (2**e - bias - 1) * (2 - 2.0**-m))
    if abs(t) >= r_of:
        return np.copysign(r_of, t)
    return t if abs(t) >= 2.0**-bias else np.float32(0)


def test_fp32_mask_is_float32_then_mask():
    generator = np.random.default_rng(3)
    for _ in range(300):
        m, e = int(generator.integers(1, 23)), int(generator.integers(2, 7))
        bias, product_bias = generator.integers(0, 2**e, 2).tolist()
        x, w = (
            generator.standard_normal(12) * np.exp2(generator.uniform(-e, e, 12)) for _ in range(2)
        )
        x, w = x.astype(np.float32), w.astype(np.float32)
        s = np.float32(0)
        with np.errstate(over="ignore"):
            for p in x * w:
                s = masked_step(masked_step(p, m, e, product_bias) + s, m, e, bias)
        datapath = lba(m, e, bias, product_bias, 0, arithmetic="fp32_mask")
        assert dot(x, w, datapath).value == float(s)


def test_mask_equals_truncation_with_underflow():
    generator = np.random.default_rng(4)
    for x, w in generator.standard_normal((200, 2, 64)).astype(np.float32):
        w = w / np.float32(8)
        assert dot(x, w, lba()).value == dot(x, w, lba(arithmetic="fp32_mask")).value


def chain_of_fractions(x, w, product, accumulator, chunk, c, words):
    """Compute a chain term by term with fractions and `round_value`; return its events too."""

    def rounded(v, q, word):
        r = {} if q.rounding != "stochastic" else {"random": word >> (32 - q.bits), "bits": q.bits,
                                                   "rule": q.rule}  # fmt: skip
        return Fraction(round_value(v, q.format, q.rounding, **r))

    count = dict.fromkeys(("swamped", "rounded", "absorbed", "accumulator_underflow"), 0)
    partials = []

    def step(p, s, word):
        new = rounded(p + s, accumulator, word)
        count["swamped"] += p != 0 and new == s
        count["rounded"] += new != p + s
        count["absorbed"] += s != 0 and p != 0 and new == p
        count["accumulator_underflow"] += p + s != 0 and new == 0
        partials.append(p + s)
        return new

    nearest = quantizer(accumulator.format) if accumulator.rounding == "stochastic" else accumulator
    sums = []
    for begin in range(0, len(x), chunk):
        s = rounded(Fraction(c), nearest, 0) if begin == 0 else Fraction(0)
        for k in range(begin, min(begin + chunk, len(x))):
            p = Fraction(x[k]) * Fraction(w[k])
            if product is not None:
                p = rounded(p, product, words("product", k))
            s = step(p, s, words("step", k))
        sums.append(s)
    if len(sums) > 1:
        s = Fraction(0)
        for j, r in enumerate(sums):
            s = step(r, s, words("merge", j))
    count.update(min_partial=float(min(partials)), max_partial=float(max(partials)))
    return s, count


def test_random_chains_against_fractions():
    generator = random.Random(5)
    roundings = [
        "nearest_even", "nearest_away", "nearest_zero", "nearest_up", "nearest_down", "nearest_odd",
        "toward_zero", "toward_positive", "toward_negative", "away_from_zero", "to_odd",
        "stochastic",
    ]  # fmt: skip
    for _ in range(400):

        def some_quantizer():
            m, e = generator.randint(1, 22), generator.randint(2, 8)
            form = lba_format(m, e, generator.randint(1, 2**e - 1))
            if generator.random() < 0.5:
                form = fmt(e, m, None, overflow="sat_finite")
            return quantizer(form, generator.choice(roundings), bits=generator.randint(1, 32),
                             rule=generator.choice(["a", "b", "c", "odd"]))  # fmt: skip

        product = some_quantizer() if generator.random() < 0.7 else None
        accumulator = some_quantizer()
        terms, chunk = generator.randint(1, 40), generator.choice([1, 3, 16, 17, 100])
        x, w = ([generator.gauss(0, 1) * 2.0 ** generator.randint(-6, 3) for _ in range(terms)]
                for _ in range(2))  # fmt: skip
        c = generator.gauss(0, 1)
        seed = generator.random()

        def words(kind, k, seed=seed):
            return random.Random(f"{seed} {kind} {k}").getrandbits(32)

        datapath = SimpleNamespace(product=product, accumulator=accumulator, chunk=chunk)
        got = dot(x, w, datapath, c, words)
        value, events = chain_of_fractions(x, w, product, accumulator, chunk, c, words)
        assert got.value == value
        assert {name: got.events[name] for name in events} == events
        assert dot(x, w, datapath, c, words, events=False).value == value


def test_order_chunks_and_c():
    # exact partial sums show who is added to whom: the format has room for 12 bits
    form = fmt(8, 11)
    x = [1, 2, 4, 8, 16, 32, 64]
    ones = [1] * 7
    for order in ("natural", "reverse", "even_then_odd", "pair4", (6, 0, 5, 1, 4, 2, 3)):
        datapath = SimpleNamespace(accumulator=quantizer(form), order=order, chunk=3)
        assert dot(x, ones, datapath).value == 127
    absorbing = SimpleNamespace(accumulator=quantizer(fmt(8, 1), "toward_zero"))
    assert dot([4, 1, 1], [1] * 3, absorbing).value == 4
    for order, value in (("reverse", 6), ("even_then_odd", 4), ((1, 2, 0), 6)):
        datapath = SimpleNamespace(**vars(absorbing), order=order)
        assert dot([4, 1, 1], [1] * 3, datapath).value == value
    assert dot([1, 1], [1, 1], absorbing, c=4).value == 4
    assert dot([1, 1], [1, 1], SimpleNamespace(**vars(absorbing), c_join="end"), c=4).value == 6
    assert dot([], [], absorbing, c=5).value == 4
    assert dot([], [], absorbing).value == 0
    exact_merge = SimpleNamespace(**vars(absorbing), chunk=1, merge="exact")
    assert dot([4, 1, 1], [1] * 3, exact_merge).value == 6
    assert dot([4, 1, 1], [1] * 3, exact_merge).events["steps"] == 3
    wide_merge = SimpleNamespace(**vars(absorbing), chunk=1, merge=quantizer(BINARY32))
    assert dot([4, 1, 1], [1] * 3, wide_merge).events["steps"] == 6
    with pytest.raises(ValueError, match="permutation"):
        dot([1, 2], [1, 2], SimpleNamespace(order=(0, 0)))


def test_groups_and_trees():
    q = quantizer(fmt(8, 1))
    group = SimpleNamespace(step="exact_group", group=2, accumulator=q)
    assert dot([4, 1, 1], [1] * 3, group).value == 4  # 4 + 1 -> 4 (tie to even), 4 + 1 -> 4
    assert dot([4, 1, 1], [1] * 3, SimpleNamespace(**vars(group) | {"group": 3})).value == 6
    rounded = SimpleNamespace(**vars(group) | {"group": 3}, group_quantizer=quantizer(fmt(8, 0)))
    assert dot([4, 1, 1], [1] * 3, rounded).value == 8  # 6 is a tie; 8 has the even code
    tree = SimpleNamespace(step="tree", group=4, accumulator=quantizer(BINARY32), group_quantizer=q)
    assert dot([4, 1, 1, 1], [1] * 4, tree).value == 6  # (4 + 1 -> 4) + (1 + 1)
    assert dot([4, 1, 1], [1] * 3, tree).value == 4  # (4 + 1 -> 4) + 1 -> 4


def test_inf_and_nan():
    fp16 = SimpleNamespace(accumulator=quantizer(FP16))
    for x, value in (([INF, 1], INF), ([INF, -INF], NAN), ([NAN, 1], NAN), ([60000, 60000], INF)):
        assert identical(dot(x, [1, 1], fp16).value, value)
    assert identical(dot([INF], [0], fp16).value, NAN)
    assert identical(dot([1], [1], fp16, c=-INF).value, -INF)
    events = dot([60000, 60000, 1], [1, 1, 1], fp16).events
    assert (events["accumulator_overflow"], events["nonfinite"], events["steps"]) == (1, 1, 3)
    assert events["max_partial"] == 120000
    for datapath in (lba(), integer(16)):
        with pytest.raises(ValueError, match="inf or nan"):
            dot([NAN], [1], datapath)


def test_lba_events_count_the_limit_itself():
    # |p + s| >= R_OF is an overflow of an LBA accumulator, even though 63.75 keeps its value
    events = dot([7.5, 7.5, 7.5, 7.5, 3.75], [2, 2, 2, 2, 1], lba(chunk=0)).events
    assert (events["accumulator_overflow"], events["rounded"]) == (1, 0)
    events = dot([2.0**-11], [1], lba(chunk=0)).events
    assert (events["product_underflow"], events["accumulator_underflow"]) == (0, 1)
    assert dot([2.0**-13], [1], lba(chunk=0)).events["product_underflow"] == 1
    # other formats overflow when the rounded sum is out of range: 65519 rounds to the maximum
    fp16 = SimpleNamespace(accumulator=quantizer(FP16))
    assert dot([65504, 15], [1, 1], fp16).events["accumulator_overflow"] == 0
    assert dot([65504, 16], [1, 1], fp16).events["accumulator_overflow"] == 1


def test_signs_of_zero():
    assert identical(dot([1, -1], [1, 1], FLOAT32).value, 0)
    assert identical(dot([-1], [0.0], FLOAT32).value, 0)
    assert identical(dot([-(2.0**-100)], [2.0**-100], FLOAT32).value, 0)
    unit = SimpleNamespace(
        step="fused_trunc", group=4, alignment_bits=23, operand_a=BINARY32, operand_b=BINARY32,
        accumulator=quantizer(BINARY32, "toward_zero", overflow="to_inf"),
    )  # fmt: skip
    assert identical(dot([-(2.0**-100)], [2.0**-100], unit).value, NEG_ZERO)
    assert raw(BINARY32).emin == -126
