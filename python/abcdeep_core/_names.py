"""The accepted names of rounding, overflow, underflow and NaN rules, and their aliases."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

# Every table maps an accepted spelling to the canonical one; canonical names map to themselves.
# The names are case-sensitive: the capitals are those of ap_fixed and SystemC.


def _with_aliases(names: Iterable[str], aliases: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({**{name: name for name in names}, **aliases})


ROUNDING: Mapping[str, str] = _with_aliases(
    (
        "nearest_even",
        "nearest_away",
        "nearest_zero",
        "nearest_up",
        "nearest_down",
        "nearest_odd",
        "toward_zero",
        "toward_positive",
        "toward_negative",
        "away_from_zero",
        "to_odd",
        "jam",
        "stochastic",
    ),
    {
        "rne": "nearest_even",
        "rna": "nearest_away",
        "rtz": "toward_zero",
        "rup": "toward_positive",
        "rdn": "toward_negative",
        "rto": "to_odd",
        "RND": "nearest_up",
        "RND_ZERO": "nearest_zero",
        "RND_MIN_INF": "nearest_down",
        "RND_INF": "nearest_away",
        "RND_CONV": "nearest_even",
        "TRN": "toward_negative",
        "TRN_ZERO": "toward_zero",
    },
)

FLOAT_OVERFLOW: Mapping[str, str] = _with_aliases(
    ("sat_finite", "sat_propagate", "ieee", "to_nan", "to_inf"),
    {"ovf_inf": "ieee"},
)

FIXED_OVERFLOW: Mapping[str, str] = _with_aliases(
    ("wrap", "saturate", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude"),
    {
        "WRAP": "wrap",
        "SAT": "saturate",
        "SAT_ZERO": "saturate_zero",
        "SAT_SYM": "saturate_symmetric",
        "WRAP_SM": "wrap_sign_magnitude",
    },
)

UNDERFLOW: Mapping[str, str] = _with_aliases(("gradual", "flush_before", "flush_after", "cell"), {})

NAN_TO: Mapping[str, str] = _with_aliases(("raise", "zero", "max_pos"), {})

CODE0: Mapping[str, str] = _with_aliases(("subnormal", "ordinary", "zero"), {})

SPECIALS: Mapping[str, str] = _with_aliases(
    ("ieee", "fn", "fnuz", "none", "e8m0", "p3109", "p3109_finite"), {}
)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known names most like `name`, or all of them, as text for an error message."""
    # Compared without case, so that "RNE" finds "rne" and "E4M3FN" finds "e4m3fn".
    by_lower: dict[str, list[str]] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), []).append(candidate)
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if close:
        return "nearest: " + ", ".join(repr(text) for key in close for text in by_lower[key])
    return "expected one of " + ", ".join(text for group in by_lower.values() for text in group)


def canonical(argument: str, name: object, known: Mapping[str, str]) -> str:
    """Return the canonical spelling of `name`, or raise an error that names the argument.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If `name` is unknown; the text gives the nearest names.
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a string, got {name!r} ({type(name).__name__})")
    try:
        return known[name]
    except KeyError:
        raise ValueError(f"unknown {argument} {name!r}; {nearest(name, known)}") from None
