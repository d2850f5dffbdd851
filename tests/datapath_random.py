"""Random datapaths over the grid of the acceptance tests, and operands that trigger everything."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

import abcdeep_core as ab
from oracle import ROUNDINGS

Array = npt.NDArray[Any]
Rng = np.random.Generator

TERMS = (1, 2, 15, 16, 17, 64, 1000)
CHUNKS = (1, 3, 16, 17, 0)
GROUPS = (1, 2, 3, 4, 16)
ORDERS = ("natural", "reverse", "even_then_odd", "pair4")
MERGE_ORDERS = ("forward", "first_then_back", "pairwise")
OVERFLOWS = ("sat_finite", "sat_propagate", "ieee", "to_nan", "to_inf")
UNDERFLOWS = ("gradual", "flush_before", "flush_after", "cell", "off")


def pick(rng: Rng, options: Any, weights: Any = None) -> Any:
    """Return one of the options."""
    if weights is not None:
        weights = np.array(weights) / np.sum(weights)
    return options[int(rng.choice(len(options), p=weights))]


def random_lba_format(rng: Rng, m: int, e: int, emin: int | None = None) -> ab.FloatFormat:
    """Return Q_{M,E,b} whose values are normal float32 numbers, if E leaves room for them."""
    low, high = -126, 128 - 2**e
    if high < low:  # E = 8 needs float64
        low, high = -300, 100
    if emin is None:
        emin = int(rng.integers(low, high + 1)) if rng.random() < 0.3 else int(rng.integers(-20, 3))
    return ab.lba_format(m, e, -min(max(emin, low), high))


def rules(rng: Rng, form: ab.FloatFormat, rounding: str) -> dict[str, Any]:
    """Return random rules of a quantiser to this format."""
    found: dict[str, Any] = {"format": form, "rounding": rounding}
    if rng.random() < 0.3:
        allowed = [name for name in OVERFLOWS if _has_rule(form, overflow=name)]
        found["overflow"] = pick(rng, allowed)
    if rng.random() < 0.3:
        allowed = [name for name in UNDERFLOWS if _has_rule(form, underflow=name)]
        found["underflow"] = pick(rng, allowed)
    if rounding == "stochastic":
        widest = 50 - form.mantissa_bits  # bits beyond the mantissa that float64 lanes keep
        if widest < 33 or rng.random() < 0.6:
            found["bits"] = min(int(pick(rng, (1, 2, 5, 8, 11, 16, 23, 32))), widest)
            found["rule"] = pick(rng, ("a", "b", "c", "odd"))
    return found


def _has_rule(form: ab.FloatFormat, **rule: str) -> bool:
    try:
        ab.Quantizer(format=form, **rule)
    except ValueError:
        return False
    return True


def random_rounding(rng: Rng) -> str:
    return pick(rng, ROUNDINGS, [6 if name == "nearest_even" else 1 for name in ROUNDINGS])


def random_lba(rng: Rng) -> ab.Datapath:
    """Return a datapath of LBA, or one near it."""
    m, e = int(rng.integers(1, 23)), int(rng.integers(2, 9))
    if rng.random() < 0.3:
        m, e = pick(rng, ((7, 4), (10, 5), (4, 3)))
    acc = random_lba_format(rng, m, e)
    product = random_lba_format(rng, m, e, acc.emin - int(rng.integers(0, 4)))
    mask = rng.random() < 0.3
    fields: dict[str, Any] = {"chunk": pick(rng, CHUNKS)}
    if rng.random() < 0.25:
        fields["merge_order"] = pick(rng, MERGE_ORDERS)
    if rng.random() < 0.25:
        fields["order"] = pick(rng, ORDERS)
    if mask:
        fields["arithmetic"] = "fp32_mask"
    roll = rng.random()
    if mask or roll < 0.5:
        rounding = "toward_zero"
    else:
        rounding = random_rounding(rng)
    flush = None if rng.random() < 0.6 else "off"
    if rounding == "stochastic":
        sums = rules(rng, acc, rounding)
        products = rules(rng, product, pick(rng, (rounding, "toward_zero")))
    else:
        sums = {"format": acc, "rounding": rounding, "underflow": flush}
        products = {"format": product, "rounding": rounding, "underflow": flush}
    return ab.Datapath(product=ab.Quantizer(**products), accumulator=ab.Quantizer(**sums), **fields)


def random_format(rng: Rng) -> ab.FloatFormat:
    """Return a format of any class, with values that are float32 or normal float64 numbers."""
    if rng.random() < 0.2:
        name = pick(rng, ("e4m3fn", "e5m2", "fp16", "bf16", "e4m3fnuz", "e2m3", "binary8p4se"))
        return ab.get_format(name)
    m, e = int(rng.integers(1, 23)) if rng.random() < 0.95 else 0, int(rng.integers(2, 9))
    specials = pick(rng, ("ieee", "fn", "fnuz", "none", "p3109", "p3109_finite"))
    code0 = "subnormal" if specials.startswith("p3109") else pick(rng, ("subnormal", "ordinary"))
    if specials == "none" and rng.random() < 0.2:
        code0 = "zero"
    bias = None if rng.random() < 0.5 else int(rng.integers(-3, 130))
    return ab.FloatFormat(
        exponent_bits=e, mantissa_bits=m, bias=bias, specials=specials, code0=code0
    )


def random_float(rng: Rng) -> ab.Datapath:
    """Return a float datapath: any format, rounding, group, chunk, merge and order."""
    acc = random_format(rng)
    fields: dict[str, Any] = {
        "accumulator": ab.Quantizer(**rules(rng, acc, random_rounding(rng))),
        "group": pick(rng, GROUPS, (6, 1, 1, 1, 1)),
        "chunk": pick(rng, CHUNKS),
        "merge_order": pick(rng, MERGE_ORDERS, (3, 1, 1)),
        "order": pick(rng, ORDERS, (4, 1, 1, 1)),
    }
    fields["step"] = "chain" if fields["group"] == 1 else "exact_group"
    if rng.random() < 0.5:
        form = acc if rng.random() < 0.4 else random_format(rng)
        fields["product"] = ab.Quantizer(**rules(rng, form, random_rounding(rng)))
    roll = rng.random()
    if roll < 0.2:
        fields["merge"] = "exact"
    elif roll < 0.5:
        other = ab.get_format("binary32") if roll < 0.3 else random_format(rng)
        rounding = random_rounding(rng)
        fields["merge"] = ab.Quantizer(**rules(rng, other, rounding))
    if rng.random() < 0.1:
        fields["output"] = random_output(rng)
    return ab.Datapath(**fields)


def random_output(rng: Rng) -> ab.Quantizer:
    rounding = "stochastic"
    while rounding == "stochastic":
        rounding = random_rounding(rng)
    return ab.Quantizer(**rules(rng, random_format(rng), rounding))


def random_exact(rng: Rng) -> ab.Datapath:
    """Return a datapath with an exact accumulator: rounded at the merges, or once at the end."""
    fields: dict[str, Any] = {"order": pick(rng, ORDERS), "chunk": pick(rng, CHUNKS)}
    if rng.random() < 0.5:
        fields["product"] = ab.Quantizer(**rules(rng, random_format(rng), random_rounding(rng)))
    if rng.random() < 0.6:
        fields["merge"] = ab.Quantizer(**rules(rng, random_format(rng), random_rounding(rng)))
    elif rng.random() < 0.5:
        fields["merge"] = "exact"
    if rng.random() < 0.6:
        fields["output"] = random_output(rng)
    return ab.Datapath(**fields)


def random_plain(rng: Rng) -> ab.Datapath:
    """Return a datapath that fast kernels may run: one width, one rounding, chunks in order."""
    form = random_format(rng)
    if rng.random() < 0.4:
        name = pick(rng, ("binary32", "binary32", "fp16", "bf16", "tf32", "e5m2", "fp22"))
        form = ab.get_format(name)
    rounding = pick(rng, ("nearest_even", "toward_zero"))
    fields: dict[str, Any] = {"chunk": pick(rng, CHUNKS), "order": pick(rng, ORDERS, (4, 1, 1, 1))}
    sums = rules(rng, form, rounding) if rng.random() < 0.4 else {}
    fields["accumulator"] = ab.Quantizer(**{"format": form, "rounding": rounding, **sums})
    if rng.random() < 0.6:
        shift = int(rng.integers(-2, 4)) if rng.random() < 0.5 else 0
        product = form.replace(bias=form.bias + shift)
        if rng.random() < 0.3:
            sums = rules(rng, product, rounding)
        fields["product"] = ab.Quantizer(**{**sums, "format": product, "rounding": rounding})
        if rounding == "toward_zero" and rng.random() < 0.2:
            fields["arithmetic"] = "fp32_mask"
    return ab.Datapath(**fields)


RANDOM = {"lba": random_lba, "float": random_float, "plain": random_plain, "exact": random_exact}


def random_datapath(rng: Rng, kind: str) -> ab.Datapath:
    """Return a random datapath of a kind of `RANDOM`.

    A format that is too wide, or has no NaN where one may come up, is drawn again.
    """
    ones = np.ones((1, 40), np.float32)
    while True:
        try:
            datapath = RANDOM[kind](rng)
            ab.matmul(ones, ones.T, datapath, seed=0)
        except ValueError:
            continue
        return datapath


def random_operands(
    rng: Rng, datapath: ab.Datapath, m: int, k: int, n: int
) -> tuple[Array, Array, Array | None]:
    """Return float32 operands whose sums meet every rule of the datapath, and start values.

    Wide or narrow exponents around the formats' limits, short significands (ties), cancellations,
    numbers within an ulp of the thresholds, powers of two, zeros of both signs.
    """
    quantizers = (datapath.product, datapath.accumulator, datapath.merge, datapath.output)
    forms = [q.format for q in quantizers if isinstance(q, ab.Quantizer)]
    forms = forms or [ab.get_format("binary32")]
    m_bits = pick(rng, forms).mantissa_bits
    low, high = min(f.emin for f in forms), max(f.emax for f in forms)
    style = rng.random()
    if style < 0.4:  # a window of a few binades
        width = int(rng.integers(1, 12))
        low = int(rng.integers(low - 3, max(high - width, low) + 1))
        high = low + width
    elif style < 0.6:
        low = high - m_bits - 3
    elif style < 0.8:
        high = low + m_bits + 3
    else:
        low, high = low - m_bits - 2, high + 2
    exponents = rng.integers(low, high + 1, (m, k))
    shift = rng.integers(-20, 21, k) if rng.random() < 0.7 else np.zeros(k, np.int64)
    shift = np.clip(shift, -120 - low, 120 - high) if high - low < 240 else shift - shift
    shift += np.clip(0, -120 - low, 120 - high) if high < -120 or low > 120 else 0
    widths = [int(pick(rng, (0, 1, 2, m_bits, 11, 23))) for _ in range(2)]
    a = significands(rng, (m, k), widths[0]) * 2.0 ** np.clip(exponents + shift, -149, 127)
    near = rng.integers(-1, 2, (k, n)) if rng.random() < 0.5 else 0
    b = significands(rng, (k, n), widths[1]) * 2.0 ** np.clip(near - shift[:, None], -149, 127)
    if rng.random() < 0.5:
        put_thresholds(rng, a, b, forms)
    for p in np.nonzero(rng.random(k) < 0.3)[0]:  # a term and, almost, its opposite
        q = int(rng.integers(k))
        a[:, p], b[p, :] = -a[:, q], b[q, :]
        if rng.random() < 0.5:
            a[:, p] *= 1 + 2.0**-23
    for x in (a, b):
        x[rng.random(x.shape) < 0.04] = 0.0
        x[rng.random(x.shape) < 0.02] = -0.0
    with np.errstate(over="ignore", under="ignore"):
        a32, b32 = np.float32(a), np.float32(b)
    for x in (a32, b32):
        np.nan_to_num(x, copy=False)
    if all(f.has_nan for f in forms) and rng.random() < 0.2:
        for x in (a32, b32):
            x[rng.random(x.shape) < 0.2 / k] = pick(rng, (np.inf, -np.inf, np.nan))
    c = None
    if rng.random() < 0.4:
        c = significands(rng, (m, n), int(rng.integers(0, 40)))
        c *= 2.0 ** rng.integers(max(low, -1000), min(high, 1000) + 1, (m, n))
    return a32, b32, c


def significands(rng: Rng, shape: tuple[int, ...], bits: int) -> Array:
    """Return numbers of both signs in [1, 2) with this many stored bits."""
    sign = rng.choice((-1.0, 1.0), shape)
    if rng.random() < 0.2:
        sign[:] = 1.0
    return sign * (1 + rng.integers(0, 1 << bits, shape) / (1 << bits))


def put_thresholds(rng: Rng, a: Array, b: Array, forms: list[ab.FloatFormat]) -> None:
    """Make some terms a factor of +-1, 2 or 1/2 times a threshold, give or take an ulp."""
    m, k = a.shape
    for column in np.nonzero(rng.random(k) < 0.25)[0]:
        form = pick(rng, forms)
        tiny, huge = 2.0**form.emin, form.max
        near = [
            tiny,
            huge,
            tiny / 2,
            huge / 2,
            tiny * form.eps,
            huge * (1 - form.eps),
        ]
        ulp = pick(rng, (2.0**-23, form.eps, form.eps / 2))
        values = rng.choice(near, m) * (1 + rng.integers(-1, 2, m) * ulp)
        a[:, column] = values * rng.choice((-1, 1), m)
        b[column, :] = rng.choice((1.0, 1.0, 1.0, -1.0, 2.0, 0.5), b.shape[1])


INTEGERS = ("int8", "uint8", "int16", "uint16", "int4", "uint4")
INTEGER_OVERFLOWS = (
    "wrap",
    "saturate",
    "saturate_zero",
    "saturate_symmetric",
    "wrap_sign_magnitude",
)
# All deterministic modes but "jam", which changes numbers that are exact.
INTEGER_ROUNDINGS = (
    "RND",
    "RND_ZERO",
    "RND_MIN_INF",
    "RND_INF",
    "RND_CONV",
    "TRN",
    "TRN_ZERO",
    "toward_positive",
    "away_from_zero",
    "nearest_odd",
    "to_odd",
)


def random_integer_quantizer(rng: Rng, bits: int, shift: int = 0) -> ab.Quantizer:
    """Return an integer type of about this many bits, and what happens beyond its range.

    A `shift` is the most that it may drop of the lowest bits.
    """
    bits = min(max(bits + int(rng.integers(-3, 4)), 2), 62 - shift)
    signed = bool(rng.random() < 0.8)
    modes = INTEGER_OVERFLOWS if signed else INTEGER_OVERFLOWS[:4]
    overflow = pick(rng, modes, (4, 4, 1, 1, 1)[: len(modes)])
    saturated = 0
    if overflow.startswith("wrap") and rng.random() < 0.2:
        saturated = int(rng.integers(0, bits + 1))
    form = ab.FixedFormat(
        bits=bits,
        fraction_bits=-int(rng.integers(0, shift + 1)),
        signed=signed,
        overflow=overflow,
        wrap_bits=saturated,
    )
    return ab.Quantizer(format=form, rounding=pick(rng, INTEGER_ROUNDINGS))


def random_integer(rng: Rng) -> ab.Datapath:
    """Return an integer datapath: any width and overflow rule, group, chunk, merge and order."""
    bits = int(rng.integers(2, 40))
    group = pick(rng, GROUPS, (4, 1, 1, 1, 1))
    fields: dict[str, Any] = {
        "accumulator": random_integer_quantizer(rng, bits),
        "group": group,
        "step": "chain" if group == 1 else "exact_group",
        "chunk": pick(rng, CHUNKS, (1, 1, 1, 1, 3)),
        "merge_order": pick(rng, MERGE_ORDERS, (3, 1, 1)),
        "order": pick(rng, ORDERS, (4, 1, 1, 1)),
    }
    if rng.random() < 0.3:
        fields["product"] = random_integer_quantizer(rng, bits)
    roll = rng.random()
    if roll < 0.2:
        fields["merge"] = "exact"
    elif roll < 0.4:
        fields["merge"] = random_integer_quantizer(rng, bits + 2)
    return ab.Datapath(**fields)


def random_integer_options(rng: Rng) -> ab.Datapath:
    """Return an integer datapath with any of its quantisers, each dropping some of the low bits."""
    bits, shift = int(rng.integers(2, 26)), int(pick(rng, (0, 1, 3, 9, 20)))
    step = pick(rng, ("chain", "exact_group", "tree"))
    group = 1 if step == "chain" else int(pick(rng, (1, 2, 3, 4, 7, 8, 20)))

    def maybe(chance: float) -> ab.Quantizer | None:
        return random_integer_quantizer(rng, bits, shift) if rng.random() < chance else None

    fields: dict[str, Any] = {
        "product": maybe(0.4),
        "accumulator": maybe(0.7),
        "merge": maybe(0.4) or pick(rng, ("same", "exact")),
        "output": maybe(0.4),
        "group_quantizer": None if step == "chain" else maybe(0.6),
    }
    if all(not isinstance(q, ab.Quantizer) for q in fields.values()):
        fields["output"] = random_integer_quantizer(rng, bits, shift)
    return ab.Datapath(
        step=step,
        group=group,
        chunk=int(pick(rng, (0, 0, 1, 4, 5, 16, 100))),
        merge_order=pick(rng, MERGE_ORDERS, (2, 1, 1)),
        order=pick(rng, ORDERS),
        **fields,
    )


def random_integers(rng: Rng, dtype: str, shape: tuple[int, ...]) -> Array:
    """Return integers of a dtype: all of it, its extremes, or small ones."""
    bits = int(dtype.lstrip("uint"))
    low, high = (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    style = rng.random()
    if style < 0.3:
        low, high = max(low, -3), min(high, 3)
    x = rng.integers(low, high + 1, shape)
    if style > 0.8:
        x = rng.choice((low, high, 0, 1), shape)
    return x.astype(np.dtype(dtype) if bits > 4 else getattr(ml_dtypes, dtype))
