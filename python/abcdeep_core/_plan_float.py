"""The fast kernel of a float product, and the condition that permits it."""

from __future__ import annotations

import dataclasses
import platform

import numpy as np

from . import _core
from ._float_format import FloatFormat
from ._gemm import saturates_at_largest
from ._quantizer import float_quantizer, stochastic_rule
from .datapath import Datapath, Quantizer
from .plan import PathError, Plan, need

_NONFINITE = 0x7F800000
_SMALLEST_SUBNORMAL = -149
_X86 = platform.machine() in ("x86_64", "AMD64")


@dataclasses.dataclass(frozen=True)
class Operands:
    """What the planner knows of the values of float operands."""

    largest: tuple[float, float]
    exponents: tuple[int, int]  # of the smallest magnitudes that are not zero
    bits: int  # significand bits of the widest product
    lowest: int  # exponent of the lowest bit that a product can have
    finite: bool

    @property
    def largest_product(self) -> float:
        return self.largest[0] * self.largest[1]


def look_at(summaries: list[tuple[int, int, int]]) -> Operands:
    """Return what two operand summaries (cpp/datapath.hpp) say."""
    largest, exponents, bits = [], [], []
    for most, least_less_one, significand in summaries:
        largest.append(float(np.uint32(min(most, _NONFINITE)).view(np.float32)))
        least = least_less_one + 1
        exponent = (least >> 23) - 127 if least >> 23 else _SMALLEST_SUBNORMAL
        exponents.append(exponent if least <= most else 0)
        trailing_zeros = (significand & -significand).bit_length() - 1 if significand else 23
        bits.append(24 - trailing_zeros)
    finite = all(most < _NONFINITE for most, _, _ in summaries)
    lowest = sum(exponents) - sum(width - 1 for width in bits)
    return Operands(
        (largest[0], largest[1]), (exponents[0], exponents[1]), sum(bits), lowest, finite
    )


def plan_float(
    datapath: Datapath,
    chunk: int,
    terms: int,
    operands: Operands,
    has_addend: bool,
    level: int = 0,
) -> tuple[Plan, _core.FloatTile | None]:
    """Return the plan of a float product, and the parameters of its fast kernel.

    `level` is that of `abcdeep_core._matmul.event_level`.
    """
    reasons = []
    for name, path in _PATHS.items():
        try:
            _check_chain(datapath, chunk)
            found = path(datapath, chunk, terms, operands, has_addend)
            found.tile.chunk = chunk
            if level:
                found.watch(level)
            return Plan(name, found.reason), found.tile
        except PathError as why:
            reasons.append(f"{name}: {why}")
    return Plan("lanes", "; ".join(reasons)), None


def _check_chain(d: Datapath, chunk: int) -> None:
    need(d.accumulator is not None, "the accumulator is exact")
    need(d.step == "chain", f"step is {d.step}")
    if chunk:
        need(d.merge == "same" or d.merge == d.accumulator, "chunks merge with another quantiser")
        need(d.merge_order == "forward", f"merge_order is {d.merge_order}")


def _underflow(q: Quantizer, form: FloatFormat) -> str:
    return "off" if q.underflow == "off" else form.resolved_underflow(q.underflow)


def overflow_value(q: Quantizer, of_infinity: bool = False) -> float:
    """Return what a positive number past the largest value, or Inf, becomes: that, Inf or NaN."""
    assert isinstance(q.format, FloatFormat)
    struct = float_quantizer(q.format, q.rounding, q.overflow, q.underflow)
    return float((struct.infinity_value if of_infinity else struct.overflow_value)[0])


class _Native:
    reason = "binary32 to nearest even is the processor's own arithmetic"

    def __init__(
        self, d: Datapath, chunk: int, terms: int, operands: Operands, has_addend: bool
    ) -> None:
        for q in (d.accumulator, d.product):
            if q is None:
                continue
            form = q.format
            assert isinstance(form, FloatFormat)
            is_binary32 = (form.exponent_bits, form.mantissa_bits, form.bias) == (8, 23, 127)
            need(is_binary32 and form.specials == "ieee", "formats are not binary32")
            need(q.rounding == "nearest_even", f"rounding is {q.rounding}")
            ieee = form.resolved_overflow(q.overflow) == "ieee" and _underflow(q, form) == "gradual"
            need(ieee, "range rules are not those of IEEE 754")
        self.tile = _core.FloatTile()
        self.tile.product_exact = d.product is None
        fused = not self.tile.product_exact or _core.has_fused_multiply_add()
        need(fused, "no fused multiply-add")

    def watch(self, level: int) -> None:
        """Prepare for events."""
        raise PathError("it counts no events")


class _Scaled:
    """What the paths have in common that round float32 or float64 results to fewer bits.

    Their operands are scaled by powers of two. Where formats flush, the smallest normal product,
    and the smallest normal sum, become the smallest normal float32 or float64 number, so that its
    own underflow is theirs.
    """

    smallest, largest = -126, 127  # exponents of float32
    roundings: tuple[str, ...] = ("nearest_even",)
    must_saturate = False
    most_bits = 21
    reason = ""

    def __init__(
        self, d: Datapath, chunk: int, terms: int, operands: Operands, has_addend: bool
    ) -> None:
        need(_core.has_fused_multiply_add(), "no fused multiply-add")
        need(operands.finite, "an operand is not finite")
        need(min(operands.exponents) >= self.smallest, "an operand holds subnormal numbers")
        assert d.accumulator is not None
        self.datapath, self.operands = d, operands
        self.accumulator, self.product = d.accumulator, d.product
        self.form = self._check(self.accumulator)
        self.bits = self.form.mantissa_bits
        need(self.bits <= self.most_bits, f"more than {self.most_bits} mantissa bits")
        tile = self.tile = _core.FloatTile()
        tile.mantissa_bits = self.bits
        tile.flush = _underflow(self.accumulator, self.form) != "gradual"
        if self.product is not None:
            form = self._check(self.product)
            need(form.mantissa_bits == self.bits, "products and sums have different mantissa bits")
            flush = _underflow(self.product, form) != "gradual"
            need(flush == tile.flush, "only one of products and sums flushes")
            if self._is_identity(self.product, form):
                self.product = None
        tile.product_exact = self.product is None
        product = self.product or self.accumulator
        assert isinstance(product.format, FloatFormat)
        self.product_form = product.format
        self.product_emin = self._emin(product, product.format)
        self.sum_emin = self._emin(self.accumulator, self.form)
        tile.product_limit, tile.sum_limit = product.format.max, self.form.max
        tile.product_overflow = overflow_value(product)
        tile.sum_overflow = overflow_value(self.accumulator)
        tile.clamp = has_addend or self._may_overflow(chunk or terms)
        self._choose(chunk, terms)
        if d.product is not None and self.product is None:
            self.reason += ", products fit their format"
        self.reason += ", limits checked" if tile.clamp else ", no sum can leave the range"

    def _choose(self, chunk: int, terms: int) -> None:
        """Check what this path needs besides, and set the scales."""
        raise NotImplementedError

    def watch(self, level: int) -> None:
        """Prepare for events."""
        raise PathError("it counts no events")

    def _check(self, q: Quantizer) -> FloatFormat:
        form = q.format
        assert isinstance(form, FloatFormat)
        need(q.rounding in self.roundings, f"rounding is {q.rounding}")
        underflow = _underflow(q, form)
        need(underflow in ("flush_before", "off", "gradual"), f"underflow is {underflow}")
        beyond = overflow_value(q)
        saturates = not self.must_saturate or beyond == form.max
        need(saturates, f"overflow gives {beyond}")
        return form

    def _emin(self, q: Quantizer, form: FloatFormat) -> int:
        return min(form.emin, -126) if _underflow(q, form) == "off" else form.emin

    def _is_identity(self, q: Quantizer, form: FloatFormat) -> bool:
        """Whether no product of these operands is rounded."""
        return (
            self.operands.bits <= form.mantissa_bits + 1
            and sum(self.operands.exponents) >= self._emin(q, form)
            and self.operands.largest_product < form.max
        )

    def _largest_sum(self, terms: int) -> float:
        """Return a bound on what `terms` terms can add up to, rounded at every step."""
        # each step grows a sum by at most an ulp
        growth = np.exp(min(terms * 2.0**-self.bits, 500.0))
        return float(self._largest_product() * terms * growth)

    def _largest_product(self) -> float:
        """Return a bound on the products and on what rounding one, and a sum, adds below 2^emin."""
        quantum = (
            0.0 if self.tile.flush else 2.0 ** (max(self.sum_emin, self.product_emin) - self.bits)
        )
        return self.operands.largest_product * (1 + 2.0**-self.bits) + 2 * quantum

    def _may_overflow(self, terms: int) -> bool:
        """Whether a product or the sum of a chunk could leave its range."""
        if self.product is not None and self._largest_product() >= self.product_form.max:
            return True
        return self._largest_sum(terms) >= self.form.max

    def _flush_with_hardware(self) -> None:
        """Choose the powers of two that bring both thresholds to the hardware's own."""
        tile, operands = self.tile, self.operands
        width = self.largest - self.smallest
        for form, emin in ((self.form, self.sum_emin), (self.product_form, self.product_emin)):
            need(form.emax - emin <= width, "the exponent range is too wide")
        lowest, highest = sorted((self.product_emin, self.sum_emin))
        need(lowest >= self.smallest, f"exponents below {self.smallest}")
        need(highest - lowest <= 8, "thresholds of products and sums are far apart")
        need(highest <= 1, "thresholds above 2")  # the way back is at most 2^largest
        need(self.form.emax <= self.largest, "sums beyond the range")
        tile.sum_scale = self.smallest - self.sum_emin
        tile.product_to_sum = self.product_emin - self.sum_emin
        total = self.smallest - self.product_emin
        # an operand may shrink as long as its smallest number stays normal
        least_a, least_b = (
            max(self.smallest - e, total, self.smallest) for e in operands.exponents
        )
        most_a = min(0, total - least_b)
        need(least_a <= most_a, "operands are too small to be scaled")
        tile.scale_a = min(max(total // 2, least_a), most_a)
        tile.scale_b = total - tile.scale_a


class _Truncate(_Scaled):
    roundings = ("toward_zero",)
    must_saturate = True
    most_bits = 23
    reason = "binary32 truncated toward zero, truncated again, is truncated once"

    def _choose(self, chunk: int, terms: int) -> None:
        tile = self.tile
        tile.nearest = self.datapath.arithmetic == "fp32_mask"
        if tile.nearest:
            quantizers = [q for q in (self.datapath.accumulator, self.datapath.product) if q]
            off = any(q.underflow == "off" for q in quantizers)
            need(tile.flush and not off, "fp32_mask without a threshold")
            # elsewhere a result is flushed by its size before rounding
            need(_X86, "the processor flushes before rounding")
        self._flush_with_hardware()

    def watch(self, level: int) -> None:
        """Say where overflow begins, and what tells whether float32 holds an exact sum."""
        tile, operands, bits = self.tile, self.operands, self.bits
        need(not tile.nearest, "no events of fp32_mask")
        tile.sum_overflow_at_largest = saturates_at_largest(self.accumulator)
        tile.product_overflow_at_largest = self.product is not None and saturates_at_largest(
            self.product
        )
        for form, emin, at_largest in (
            (self.form, self.sum_emin, tile.sum_overflow_at_largest),
            (self.product_form, self.product_emin, tile.product_overflow_at_largest),
        ):
            visible = at_largest or form.emax - emin < self.largest - self.smallest
            need(visible, "float32 saturates before an overflow is seen")
        tile.largest_term = operands.largest_product
        tile.lowest_term, tile.term_bits = operands.lowest, operands.bits - 1
        if self.product is not None:
            tile.largest_term = min(tile.largest_term, self.product_form.max)
            tile.lowest_term = max(tile.lowest_term, self.product_emin - bits)
            tile.term_bits = bits
        tile.lowest_term += tile.sum_scale
        tile.lowest_sum = self.sum_emin - bits + tile.sum_scale
        if level > 1:
            self._widen()

    def _widen(self) -> None:
        """Check that terms and sums times 2^32 are normal float32 numbers of few bits."""
        operands, most = self.operands, self.largest - 1 - 32
        need(self.bits <= 22, "more than 22 mantissa bits")
        for form, emin in (
            (self.form, self.sum_emin),
            (self.product_form, self.product_emin),
        ):
            need(form.emax - emin + self.smallest + 8 <= most, "the range is too wide")
        if self.product is None:
            need(operands.bits <= self.bits + 1, "terms have more bits than sums")
            need(sum(operands.exponents) >= self.sum_emin - 32, "terms are too small")
            scaled = (
                (operands.largest[0], self.tile.scale_a),
                (operands.largest_product, self.tile.sum_scale),
            )
            for number, scale in scaled:
                need(int(np.frexp(number)[1]) + scale <= most, "terms are too large")


class _Nearest(_Scaled):
    most_bits = 10
    reason = "a sum of two numbers of at most 11 bits may be rounded twice"

    def _choose(self, chunk: int, terms: int) -> None:
        need(self.bits > 0, "ties between powers of two")  # their codes' parity is another
        operands, tile = self.operands, self.tile
        fits = self.product is not None or operands.bits <= self.bits + 1
        need(fits, f"exact products have more than {self.bits + 1} bits")
        quantizers = filter(None, (self.accumulator, self.product))
        if not all(np.isfinite(overflow_value(q)) for q in quantizers):
            inside = not tile.clamp and self._largest_sum(terms) < self.form.max
            need(inside, "a sum could become Inf or NaN")
        # Products, sums before their limit, and both of them times 2^(23-M).
        largest_sum = 2.0 * self.form.max + operands.largest_product
        if not tile.clamp:
            largest_sum = min(largest_sum, self._largest_sum(terms))
        widening = 23 - self.bits
        if tile.flush:
            lowest = min(operands.lowest, self.product_emin - self.bits)
            exact = self.product is not None or lowest >= self.sum_emin - 23
            need(exact, "products are too small to be added exactly")
            self._flush_with_hardware()
        else:
            self._scale_gradual(largest_sum, widening)
        total = tile.scale_a + tile.scale_b
        scaled = (
            (operands.largest[0], tile.scale_a),
            (operands.largest[1], tile.scale_b),
            (operands.largest_product, total),
            (largest_sum, tile.sum_scale),
        )
        for number, scale in scaled:
            exponent = np.frexp(number)[1] + scale + widening
            need(exponent < self.largest, "numbers are too large to be widened in float32")
        tile.product_floor = self.product_emin + total + widening
        tile.sum_floor = self.sum_emin + tile.sum_scale

    def _scale_gradual(self, largest_sum: float, widening: int) -> None:
        """Choose one scale of products and sums that keeps half their quanta normal in float32."""
        tile, operands = self.tile, self.operands
        emin = min(self.sum_emin, self.product_emin)
        least = self.smallest + self.bits + 2 - emin
        largest = max(largest_sum, operands.largest_product)
        most = self.largest - widening - 1 - int(np.frexp(largest)[1])
        need(least <= most, "the range is too wide for float32 without its subnormal numbers")
        total = min(max(0, least), most)
        need(abs(total) < self.largest, "the way back to the format's scale is beyond float32")
        tile.sum_scale = total
        # operands stay normal, and far from overflow
        low_a, low_b = (self.smallest - e for e in operands.exponents)
        high_a, high_b = (
            self.largest - widening - 1 - int(np.frexp(largest)[1]) for largest in operands.largest
        )
        low, high = max(low_a, total - high_b), min(high_a, total - low_b)
        need(low <= high, "operands are too wide to be scaled")
        tile.scale_a = min(max(total // 2, low), high)
        tile.scale_b = total - tile.scale_a
        need(max(abs(tile.scale_a), abs(tile.scale_b)) < self.largest, "operands are too wide")


class _Odd(_Scaled):
    """Rounding to odd, then by any rule that treats both signs alike."""

    bits_of_type = 24
    roundings = (
        "nearest_even",
        "nearest_odd",
        "nearest_away",
        "nearest_zero",
        "toward_zero",
        "away_from_zero",
        "to_odd",
        "stochastic",
    )
    reason = "binary32 rounded to odd, rounded again, is rounded once"

    def _choose(self, chunk: int, terms: int) -> None:
        need(self.datapath.arithmetic == "exact", "results are rounded to nearest before")
        need(self.bits > 0, "the last bit of a code is that of its exponent")
        sums, products = self.accumulator, self.product
        if products is not None and np.isinf(overflow_value(products)):
            # the kernel takes Inf, as what enters a sum, for a number past the largest
            finite = overflow_value(sums)
            same = finite == overflow_value(sums, of_infinity=True)
            need(same, "infinite products propagate, but sums saturate")
        self._flush_with_hardware()
        if self.tile.flush:
            # float32 results are flushed on the way out; elsewhere operands on the way in as well
            need(self.sum_emin >= -126, "results below 2^-126")
            normal = min(self.operands.exponents) >= -126
            need(normal or _X86, "an operand holds subnormal numbers")
        self._check_random_bits()
        tile = self.tile
        tile.nearest = all(q.rounding == "nearest_even" for q in (sums, products or sums))
        tile.sum = _rounding(sums)
        tile.product = _rounding(products or sums)
        start = dataclasses.replace(sums, rounding="nearest_even") if _draws(sums) else sums
        tile.start = _rounding(start)

    def _check_random_bits(self) -> None:
        for q in (self.accumulator, self.product):
            if q is None or not _draws(q):
                continue
            rule, bits = stochastic_rule(q.bits, q.rule)
            need(bits > 1, "single random bits")
            room = self.bits_of_type - (1 if rule == "a" else 2)
            need(self.bits + bits < room, f"{bits} random bits below {self.bits} need more digits")


class _Odd64(_Odd):
    smallest, largest = -1022, 1023
    bits_of_type = 53
    most_bits = 50
    reason = "binary64 rounded to odd, rounded again, is rounded once"


def _draws(q: Quantizer) -> bool:
    return q.rounding == "stochastic"


def _rounding(q: Quantizer) -> _core.Quantizer:
    assert isinstance(q.format, FloatFormat)
    return float_quantizer(q.format, q.rounding, q.overflow, q.underflow, None, q.bits, q.rule)


_PATHS: dict[str, type[_Native | _Scaled]] = {
    "native": _Native,
    "truncate": _Truncate,
    "nearest": _Nearest,
    "odd": _Odd,
    "odd64": _Odd64,
}
