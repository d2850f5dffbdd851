"""Block formats as values: elements of a narrow format under one scale a block, and their names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias

from . import _names
from ._fixed_format import FixedFormat
from ._float_format import FloatFormat
from ._format_base import integer, string
from .formats import format_from_dict, formats, get_format

ScaleRule: TypeAlias = Literal["floor", "ceil", "max"]
TensorScale: TypeAlias = Literal["tensor", "row"]
FourOverSix: TypeAlias = Literal["mse", "mae"]

_MOST_BLOCK = 4096  # rows and columns of a block
_MOST_BITS = 8
_MOST_EXPONENT = 63  # of an element's or a scale's values, so that products of them are float32


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class BlockFormat:
    """Elements of a narrow format that share a scale a block, and how the scales are found.

    Parameters
    ----------
    element : FloatFormat, FixedFormat or name
        Signed, at most 8 bits.
    scale : FloatFormat or name
        "e8m0" (powers of two: the MX formats), a format of at most 8 bits such as "e4m3fn" (NVFP4),
        or "binary32".
    block : int or (int, int)
        Elements a block along the axis, or rows and columns over the last two axes.
    scale_rule : {"floor", "ceil", "max"}, optional
        For e8m0: "floor" (default), 2^floor(log2 of the block's largest magnitude) by the power of
        two of the largest element; "ceil", the smallest power of two with which nothing is above
        the largest element. For the others "max", the largest magnitude by the largest element,
        rounded.
    scale_rounding : str
        How a scale of rule "max" is rounded to `scale`: any mode of `quantize`.
    headroom : float
        For e8m0, at most 1: elements are multiplied by it before rounding, and the result by its
        reciprocal (3/4 with "floor": nothing is clipped). For the others, every scale is larger by
        it (17/16: nothing is clipped although scales are rounded to nearest, in blocks whose scale
        is a normal e4m3fn number).
    tensor_scale : {"tensor", "row"}, optional
        One float32 scale for the whole array or for each line along the axis, as in NVFP4.
    maximum : float, optional
        Scale that the largest block of a tensor gets, with `tensor_scale`. Default: the largest of
        `scale`.
    four_over_six : {"mse", "mae"}, optional
        Try a scale 1.5 times as large too, with which the largest element becomes 4 instead of 6,
        and keep the one with the smaller squared or absolute error. For e2m1 under e4m3fn scales
        and a tensor scale.
    name : str
        A label; it takes no part in equality and hashing.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong type, is out of range or contradicts another.

    Notes
    -----
    The definition is in docs/blocks.md. Sources: OCP Microscaling Formats (MX) v1.0; NVFP4: arXiv
    2509.25149; headroom 3/4: Tseng et al., AISTATS 2025; headroom 17/16: arXiv 2510.27527; scales
    rounded up to powers of two: TetraJet, arXiv 2502.20853; four over six: as used by Quartet II,
    arXiv 2601.22813.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.get_block_format("mxfp4")
    BlockFormat(element='e2m1', scale='e8m0', block=(1, 32), scale_rule='floor', name='mxfp4')
    >>> ab.get_block_format("nvfp4").replace(block=32).bits
    4.25
    """

    element: FloatFormat | FixedFormat
    scale: FloatFormat
    block: tuple[int, int]
    scale_rule: ScaleRule = None  # type: ignore[assignment]  # None is resolved on construction
    scale_rounding: str = "nearest_even"
    headroom: float = 1.0
    tensor_scale: TensorScale | None = None
    maximum: float | None = None
    four_over_six: FourOverSix | None = None
    name: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        scale = scale_of("scale", self.scale)
        rule = self.scale_rule
        if rule is None:
            rule = "floor" if scale.specials == "e8m0" else "max"
        for field, value in (
            ("element", element_of(self.element)),
            ("scale", scale),
            ("block", block_shape(self.block)),
            ("scale_rule", _one_of("scale_rule", rule, ("floor", "ceil", "max"))),
            (
                "scale_rounding",
                _names.canonical("scale_rounding", self.scale_rounding, _names.ROUNDING),
            ),
            ("headroom", _positive("headroom", self.headroom)),
            ("name", string("name", self.name)),
        ):
            object.__setattr__(self, field, value)
        for field, known in (
            ("tensor_scale", ("tensor", "row")),
            ("four_over_six", ("mse", "mae")),
        ):
            if getattr(self, field) is not None:
                _one_of(field, getattr(self, field), known)
        if self.maximum is not None:
            object.__setattr__(self, "maximum", _positive("maximum", self.maximum))
        self._check_variants()

    def _check_variants(self) -> None:
        narrow = self.scale.bits <= _MOST_BITS and self.scale_rule == "max"
        label = self.scale.name or repr(self.scale)
        by_power = self.scale.specials == "e8m0"
        if by_power != (self.scale_rule in ("floor", "ceil")):
            expected = "'floor' or 'ceil'" if by_power else "'max'"
            raise ValueError(f"scale_rule must be {expected} for {label}, got {self.scale_rule!r}")
        if not narrow and self.scale_rounding != "nearest_even":
            raise ValueError(
                f"scale_rounding must be 'nearest_even' for {label} scales (see scale_rule), "
                f"got {self.scale_rounding!r}"
            )
        if not narrow and self.tensor_scale is not None:
            raise ValueError(f"tensor_scale must be None for {label} scales")
        if self.scale_rule != "max" and (self.headroom > 1 or self.headroom * 2**20 % 1):
            raise ValueError(
                f"headroom must be a multiple of 2^-20, at most 1, for {label} scales, "
                f"got {self.headroom}"
            )
        if self.tensor_scale == "row" and self.block[0] != 1:
            raise ValueError(f"tensor_scale='row' needs blocks of one row, got block={self.block}")
        if self.maximum is not None:
            if self.tensor_scale is None:
                raise ValueError("maximum must be None without tensor_scale")
            if self.maximum > self.scale.max:
                raise ValueError(
                    f"maximum must be at most {self.scale.max} for {label} scales, "
                    f"got {self.maximum}"
                )
        if self.four_over_six is not None and not (
            self.element == get_format("e2m1")
            and self.tensor_scale == "tensor"
            and self.headroom == 1
            and self.scale_rounding == "nearest_even"
        ):
            raise ValueError(
                "four_over_six needs element='e2m1', tensor_scale='tensor', headroom=1 and "
                "scale_rounding='nearest_even'"
            )

    @property
    def element_max(self) -> float:
        """Largest magnitude of an element; a two's complement format's most negative is not used.

        Examples
        --------
        >>> import abcdeep_core as ab
        >>> ab.get_block_format("mxint8").element_max
        1.984375
        """
        return self.element.max

    @property
    def bits(self) -> float:
        """Bits an element, its share of the block's scale included."""
        rows, columns = self.block
        return self.element.bits + self.scale.bits / (rows * columns)

    @property
    def scale_by_power(self) -> bool:
        """Whether scales are powers of two (e8m0)."""
        return self.scale_rule != "max"

    def __repr__(self) -> str:
        """Return the constructor call that gives this format, without fields at their default."""
        required = ("element", "scale", "block", "scale_rule")
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("element", "scale") and formats().get(value.name) == value:
                value = value.name
            if field.name in required or value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values (JSON holds it)."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data.update(element=self.element.to_dict(), scale=self.scale.to_dict())
        return {"kind": "block", **data, "block": list(self.block)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the format that `to_dict` described.

        Raises
        ------
        TypeError
            If a required field is missing.
        ValueError
            If there is an unknown field, or ``"kind"`` is not "block".
        """
        fields = dict(data)
        if (kind := fields.pop("kind", "block")) != "block":
            raise ValueError(f"data['kind'] must be 'block', got {kind!r}")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise ValueError(f"unknown field {name!r}; {_names.nearest(name, known)}")
        for name in ("element", "scale"):
            if isinstance(fields.get(name), Mapping):
                fields[name] = format_from_dict(fields[name])
        return cls(**fields)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; it has no name unless `name` is given.

        `scale_rule` becomes the default one if only `scale` is changed.
        """
        if changes:
            changes.setdefault("name", "")
        if "scale" in changes:
            changes.setdefault("scale_rule", None)
        return dataclasses.replace(self, **changes)


def _one_of(field: str, value: object, known: Sequence[str]) -> str:
    return _names.canonical(field, value, {name: name for name in known})


def _fits(form: FloatFormat) -> bool:
    return form.emin - form.mantissa_bits >= -_MOST_EXPONENT and form.emax <= _MOST_EXPONENT


def _positive(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise TypeError(f"{field} must be a number, got {value!r} ({type(value).__name__})")
    number = float(value)
    if not (math.isfinite(number) and 2.0**-20 <= number <= 2.0**20):
        raise ValueError(f"{field} must be a positive number within 2^-20..2^20, got {value!r}")
    return number


def element_of(form: object) -> FloatFormat | FixedFormat:
    """Return the format that `form` is or names, if elements can have it."""
    element = get_format(form)  # type: ignore[arg-type]  # refused there
    if not element.signed or not 2 <= element.bits <= _MOST_BITS:
        raise ValueError(f"element must be signed, of 2 to {_MOST_BITS} bits, got {element!r}")
    if isinstance(element, FixedFormat):
        fits = abs(element.fraction_bits) <= _MOST_EXPONENT
    else:
        if element.code0 != "subnormal" or element.padding_bits:
            raise ValueError(f"element must have code0='subnormal', unpadded, got {element!r}")
        fits = _fits(element)
    if not fits:
        raise ValueError(
            f"element must have values within 2^-{_MOST_EXPONENT}..2^{_MOST_EXPONENT}, "
            f"got {element!r}"
        )
    return element


def scale_of(field: str, form: object) -> FloatFormat:
    """Return the format that `form` is or names, if scales can have it."""
    scale = get_format(form)  # type: ignore[arg-type]  # refused there
    if not isinstance(scale, FloatFormat):
        raise TypeError(f"{field} must be a floating-point format, got {scale!r}")
    narrow = scale.bits <= _MOST_BITS and scale.code0 == "subnormal" and not scale.padding_bits
    if not (narrow and _fits(scale)) and scale not in (get_format("e8m0"), get_format("binary32")):
        raise ValueError(
            f"{field} must be e8m0, binary32 or an unpadded format with subnormals of at most "
            f"{_MOST_BITS} bits within 2^-{_MOST_EXPONENT}..2^{_MOST_EXPONENT}, got {scale!r}"
        )
    return scale


def block_shape(block: object) -> tuple[int, int]:
    """Return the rows and columns of a block, each checked."""
    sizes = tuple(block) if isinstance(block, Sequence) and not isinstance(block, str) else (block,)
    if len(sizes) not in (1, 2):
        raise ValueError(f"block must be one or two sizes, got {block!r}")
    rows, columns = (1, *sizes) if len(sizes) == 1 else sizes
    return integer("block", rows, 1, _MOST_BLOCK), integer("block", columns, 1, _MOST_BLOCK)


def _presets() -> dict[str, BlockFormat]:
    e8m0, e4m3fn, e2m1 = (get_format(name) for name in ("e8m0", "e4m3fn", "e2m1"))
    assert isinstance(e8m0, FloatFormat)
    assert isinstance(e4m3fn, FloatFormat)
    int8 = FixedFormat(bits=8, fraction_bits=6, rounding="RND_CONV", overflow="saturate_symmetric")
    elements = {
        "mxfp8_e4m3": e4m3fn,
        "mxfp8_e5m2": get_format("e5m2"),
        "mxfp6_e3m2": get_format("e3m2"),
        "mxfp6_e2m3": get_format("e2m3"),
        "mxfp4": e2m1,
        "mxint8": int8,
    }
    mx = {name: BlockFormat(element=e, scale=e8m0, block=(1, 32)) for name, e in elements.items()}
    nvfp4 = BlockFormat(element=e2m1, scale=e4m3fn, block=(1, 16), tensor_scale="tensor")
    rows = {
        **mx,
        "mxfp4_ceil": mx["mxfp4"].replace(scale_rule="ceil"),
        "mxfp4_headroom": mx["mxfp4"].replace(headroom=3 / 4),
        "nvfp4": nvfp4,
        "nvfp4_2d": nvfp4.replace(block=(16, 16)),
        "nvfp4_row": nvfp4.replace(tensor_scale="row"),
        "nvfp4_up": nvfp4.replace(scale_rounding="away_from_zero"),
        "nvfp4_headroom": nvfp4.replace(headroom=17 / 16),
        "nvfp4_4over6": nvfp4.replace(four_over_six="mse", maximum=256),
        "nvfp4_pow2": BlockFormat(element=e2m1, scale=e8m0, block=(1, 16), scale_rule="ceil"),
    }
    return {name: row.replace(name=name) for name, row in rows.items()}


_FORMATS: Mapping[str, BlockFormat] = MappingProxyType(_presets())


def block_formats() -> Mapping[str, BlockFormat]:
    """Return the named block formats, as a read-only mapping from name to format.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> list(ab.block_formats())[:6]
    ['mxfp8_e4m3', 'mxfp8_e5m2', 'mxfp6_e3m2', 'mxfp6_e2m3', 'mxfp4', 'mxint8']
    """
    return _FORMATS


def get_block_format(fmt: str | BlockFormat) -> BlockFormat:
    """Return the block format that `fmt` names or is.

    Parameters
    ----------
    fmt : str or BlockFormat
        A key of `block_formats`, or a format, which is returned as it is.

    Returns
    -------
    BlockFormat

    Raises
    ------
    TypeError
        If `fmt` is neither.
    ValueError
        If the name is unknown; the text gives the nearest names.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.get_block_format("nvfp4").scale.max
    448.0
    """
    if isinstance(fmt, BlockFormat):
        return fmt
    if not isinstance(fmt, str):
        raise TypeError(f"fmt must be a name or a BlockFormat, got {fmt!r} ({type(fmt).__name__})")
    if fmt not in _FORMATS:
        raise ValueError(f"unknown block format {fmt!r}; {_names.nearest(fmt, _FORMATS)}")
    return _FORMATS[fmt]
