"""Random multiply-accumulate units with operands, for the tests of test vectors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import abcdeep_core as ab

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Arguments of `write_bundle`."""

    x: Array
    w: Array
    datapath: ab.Datapath
    options: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """The options that change results."""
        return {key: self.options[key] for key in ("c", "x_type", "w_type")}


def limits(kind: str) -> tuple[int, int]:
    """Return the smallest and largest operand of a type."""
    bits = int(kind[1:])
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind[0] == "s" else (0, (1 << bits) - 1)


def random_case(seed: int) -> Case:
    """Draw a unit of any width, rule, group, chunk, merge and order, and operands for it."""
    rng = np.random.default_rng(seed)
    kinds = [f"{rng.choice(['s', 'u'])}{rng.integers(2, 17)}" for _ in range(2)]
    products = sum(int(kind[1:]) for kind in kinds)
    terms = int(rng.choice([1, 2, 3, 5, 8, 17, 40]))
    group = int(rng.choice([1, 1, 2, 3, 4, 8]))
    near = int(np.clip(products + rng.integers(-3, 3), 2, 63))  # widths at which sums overflow
    bits = near if rng.random() < 0.7 else int(rng.integers(2, 64))
    chunk = int(rng.choice([0, 0, 1, 3, 7, 16, terms]))
    merge: Any = rng.choice(["same", "exact", "other"])
    if merge == "exact" and bits > 56:
        merge = "same"
    if merge == "other":
        wider = min(63, bits + int(rng.integers(0, 6)))
        merge = ab.integer_accumulator(**_rule(rng, wider if rng.random() < 0.8 else near))
    datapath = ab.integer_accumulator(**_rule(rng, bits), group=group, chunk=chunk, merge=merge)
    datapath = datapath.replace(order=str(rng.choice(["natural", "reverse", "pair4"])))
    dots = int(rng.choice([1, 7, 20]))
    start = 1 << min(bits, 62)
    actual_group = min(group, chunk if 0 < chunk < terms else terms)
    return Case(
        *(_operands(rng, kind, (dots, terms)) for kind in kinds),
        datapath,
        {
            "c": rng.integers(-start, start, dots) if rng.random() < 0.4 else None,
            "x_type": kinds[0],
            "w_type": kinds[1],
            "lanes": actual_group * int(rng.choice([1, 1, 2, 3])),
            "msb_first": bool(rng.random() < 0.5),
        },
    )


def _rule(rng: np.random.Generator, bits: int) -> dict[str, Any]:
    signed = bool(rng.random() < 0.7)
    modes = ["wrap", "saturate", "saturate_zero", "saturate_symmetric"]
    mode = str(rng.choice([*modes, "wrap_sign_magnitude"] if signed else modes))
    wrap_bits = int(rng.choice([0, 0, 1, 2, bits - 1, bits])) if mode.startswith("wrap") else 0
    return {"bits": bits, "overflow": mode, "signed": signed, "wrap_bits": min(wrap_bits, bits)}


def _operands(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> Array:
    lowest, highest = limits(kind)
    drawn = rng.integers(lowest, highest, shape, endpoint=True)
    which = rng.random(shape)
    return np.where(which < 0.1, lowest, np.where(which > 0.9, highest, drawn))
