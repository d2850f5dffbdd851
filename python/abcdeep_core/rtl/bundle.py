"""Bundles of test vectors: operands, expected outputs, a unit, benches, and how to run them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._format_base import boolean, integer, string
from ..datapath import Datapath
from .cocotb_example import cocotb_test
from .hex_files import read_hex, write_words
from .layout import Layout
from .mac_unit import OperandType, OverflowRule
from .run_lines import readme, run_script
from .scoreboard import Expected, IntArray, Operands
from .verilog import mac_module
from .verilog_bench import bench_module
from .vhdl import bench_entity, mac_entity

MANIFEST = "manifest.json"
# Names of ports and files, and the words of the languages that an engineer might think of.
_RESERVED = re.compile(
    "tb|run|[xwc]|expected|clk|enable|first|last|result|overflow|unit|module|entity|begin|end|wire|"
    "reg|input|output|inout|signal|process|buffer|block|signed|unsigned|logic|bit"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """What `write_bundle` wrote.

    Attributes
    ----------
    folder : Path
        Where the files are.
    files : tuple of str
        Their names.
    expected : Expected
        Result, sticky flag and first step of each dot product.
    manifest : dict
        What manifest.json holds.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> rows = np.full((1, 4), 100, np.int8)
    >>> with TemporaryDirectory() as folder:
    ...     bundle = ab.rtl.write_bundle(folder, rows, rows, ab.integer_accumulator(16))
    >>> bundle.manifest["overflowed"], bundle.manifest["first_overflow"]
    (1, {'dot': 0, 'step': 3})
    """

    folder: Path
    files: tuple[str, ...]
    expected: Expected
    manifest: dict[str, Any]


def check_name(name: str) -> str:
    """Return the name of a module if files and languages leave it free.

    Parameters
    ----------
    name : str

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        Otherwise.

    Examples
    --------
    >>> from abcdeep_core.rtl.bundle import check_name
    >>> check_name("dot4")
    'dot4'
    """
    string("name", name)
    if not re.fullmatch(r"[a-z]\w*", name) or _RESERVED.fullmatch(name):
        raise ValueError(f"name must be a free Verilog identifier in lower case, got {name!r}")
    return name


def write_bundle(
    folder: str | os.PathLike[str],
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    datapath: Datapath,
    *,
    c: npt.ArrayLike | None = None,
    x_type: str | None = None,
    w_type: str | None = None,
    lanes: int | None = None,
    msb_first: bool = False,
    vhdl: bool = False,
    cocotb: bool = True,
    name: str = "mac",
    origin: dict[str, Any] | None = None,
) -> Bundle:
    """Write dot products as a test of a multiply-accumulate unit in Verilog.

    Parameters
    ----------
    folder : path
        Where the files go; made if it is not there.
    x, w : array_like of int, shape (D, K)
        Operands: row d of both is one dot product of K terms. `dot_products` takes them from a
        matrix product.
    datapath : Datapath
        As `integer_accumulator` makes it: any width, overflow mode, group, chunk and merge, any
        order of the terms.
    c : array_like of int, optional
        Start value of each dot product; broadcasts to (D,).
    x_type, w_type : str, optional
        Types of the operands, ``"s2"`` to ``"s16"`` or ``"u2"`` to ``"u16"``; by default those of
        the arrays' dtypes.
    lanes : int, optional
        Operands in a memory word: a multiple of the datapath's group, and the group by default.
    msb_first : bool
        Lane 0 is in the most significant bits of a memory word; by default in the least.
    vhdl : bool
        Also write the unit and its bench in VHDL-2008.
    cocotb : bool
        Also write a test for cocotb, whose scoreboard is this library.
    name : str
        Name of the module and of its file.
    origin : dict, optional
        Where the operands come from, plain data kept in the manifest.

    Returns
    -------
    Bundle

    Raises
    ------
    TypeError, ValueError
        If the operands are no integers of their types, or an option is wrong.
    NotImplementedError
        If the unit does not cover a field of the datapath; the message names it.
    OSError
        If a file cannot be written.

    Notes
    -----
    docs/rtl.md describes the files. The results are those of `matmul`; the step of the first
    overflow is found by following the steps in Python's integers, and nothing is written unless the
    two agree.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> x = np.int8([[100, 100, 100, 100], [1, 2, 3, 4]])
    >>> datapath = ab.integer_accumulator(16, "saturate")
    >>> with TemporaryDirectory() as folder:
    ...     bundle = ab.rtl.write_bundle(folder, x, x, datapath, cocotb=False)
    ...     print((bundle.folder / "expected.hex").read_text(), end="")
    0000000317fff
    000000000001e
    >>> bundle.files
    ('x.hex', 'w.hex', 'expected.hex', 'mac.v', 'tb.v', 'run.sh', 'README.md', 'manifest.json')
    """
    from .. import __version__

    check_name(name)
    boolean("vhdl", vhdl)
    boolean("cocotb", cocotb)
    operands = Operands.of(x, w, datapath, c, x_type, w_type)
    unit = operands.unit
    width = unit.group if lanes is None else integer("lanes", lanes, 1)
    layout = Layout(unit, len(operands.x), width, boolean("msb_first", msb_first))
    expected = operands.expected()

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = _write_memories(target, operands, layout, expected)
    texts = {
        f"{name}.v": mac_module(unit, name, __version__),
        "tb.v": bench_module(layout, name, __version__),
        "run.sh": run_script(name, vhdl, cocotb),
        "README.md": readme(layout, name, vhdl, cocotb),
    }
    if vhdl:
        texts[f"{name}.vhd"] = mac_entity(unit, name, __version__)
        texts["tb.vhd"] = bench_entity(layout, name, __version__)
    if cocotb:
        texts[f"test_{name}.py"] = cocotb_test(layout, name, __version__)
    for file, text in texts.items():
        (target / file).write_text(text, encoding="ascii")
    written += list(texts)
    manifest = _manifest(operands, layout, expected, datapath, name)
    manifest["origin"] = origin
    manifest["sha256"] = {file: _sha256(target / file) for file in written}
    (target / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return Bundle(target, (*written, MANIFEST), expected, manifest)


def _write_memories(
    target: Path, operands: Operands, layout: Layout, expected: Expected
) -> list[str]:
    sides = (("x.hex", operands.x, operands.x_type), ("w.hex", operands.w, operands.w_type))
    for file, rows, kind in sides:
        words = layout.operand_words(rows.tolist(), kind.bits)
        write_words(target / file, words, kind.bits * layout.lanes)
    written = ["x.hex", "w.hex"]
    if operands.c is not None:
        bits = operands.unit.accumulator.bits
        mask = (1 << bits) - 1
        write_words(target / "c.hex", [start & mask for start in operands.starts()], bits)
        written.append("c.hex")
    words = layout.expected_words(
        expected.result.tolist(), expected.overflow.tolist(), expected.first_step.tolist()
    )
    write_words(target / "expected.hex", words, layout.expected_bits)
    return [*written, "expected.hex"]


def _manifest(
    operands: Operands, layout: Layout, expected: Expected, datapath: Datapath, name: str
) -> dict[str, Any]:
    from .. import __version__

    unit = operands.unit
    rule = unit.accumulator
    raised = np.flatnonzero(expected.overflow)
    first = None
    if raised.size:
        first = {"dot": int(raised[0]), "step": int(expected.first_step[raised[0]])}
    return {
        "version": 1,
        "package": f"abcdeep_core {__version__}",
        "name": name,
        "datapath": datapath.to_dict(),
        "saturates_at": datapath.saturates_at,
        "x": _type(operands.x_type),
        "w": _type(operands.w_type),
        "c": _range(rule) if unit.has_addend else None,
        "dots": layout.dots,
        "terms": unit.terms,
        "group": unit.group,
        "chunk": unit.chunk,
        "steps": unit.steps,
        "lanes": layout.lanes,
        "msb_first": layout.msb_first,
        "words_per_dot": layout.words,
        "order": "dot product major, terms in summing order",
        "expected": {
            "result_bits": unit.result.bits,
            "result_signed": unit.result.signed,
            "flag_bit": layout.flag_bit,
            "first_step_bit": layout.index_bit,
            "word_bits": layout.expected_bits,
        },
        "overflowed": int(raised.size),
        "first_overflow": first,
    }


def _type(kind: OperandType) -> dict[str, Any]:
    return {"type": str(kind), **_range(kind)}


def _range(kind: OperandType | OverflowRule) -> dict[str, Any]:
    fields = ("bits", "signed", "lowest", "highest")
    return {field: getattr(kind, field) for field in fields}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_operands(
    folder: str | os.PathLike[str],
) -> tuple[IntArray, IntArray, IntArray | None]:
    """Return the operands of a bundle from its memory files.

    Parameters
    ----------
    folder : path
        What `write_bundle` wrote.

    Returns
    -------
    x, w : ndarray of int64, shape (D, K)
        In the order in which the terms are summed.
    c : ndarray of int64, shape (D,), or None
        Start values, in the accumulator's range.

    Raises
    ------
    OSError, ValueError
        If a file is missing, or its words are not those that the manifest describes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import abcdeep_core as ab
    >>> datapath = ab.integer_accumulator(16, group=2).replace(order="reverse")
    >>> with TemporaryDirectory() as folder:
    ...     types = {"x_type": "s8", "w_type": "s4"}
    ...     _ = ab.rtl.write_bundle(folder, [[1, 2, 3]], [[4, 5, 6]], datapath, c=9, **types)
    ...     x, w, c = ab.rtl.read_operands(folder)
    >>> x.tolist(), w.tolist(), c.tolist()
    ([[3, 2, 1]], [[6, 5, 4]], [9])
    """
    target = Path(folder)
    manifest = read_manifest(target)
    lanes, first = manifest["lanes"], manifest["msb_first"]
    places = _places(manifest["terms"], manifest["chunk"], manifest["group"])
    sides = []
    for side in ("x", "w"):
        kind = manifest[side]
        values = read_hex(target / f"{side}.hex", kind["bits"], lanes, first, signed=kind["signed"])
        size = manifest["dots"] * manifest["words_per_dot"] * lanes
        if len(values) != size:
            raise ValueError(f"{side}.hex must hold {size} operands, got {len(values)}")
        sides.append(values.reshape(manifest["dots"], -1)[:, places])
    start = manifest["c"]
    if start is None:
        return sides[0], sides[1], None
    c = read_hex(target / "c.hex", start["bits"], signed=start["signed"])
    if len(c) != manifest["dots"]:
        raise ValueError(f"c.hex must hold {manifest['dots']} values, got {len(c)}")
    return sides[0], sides[1], c


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle; ValueError if it is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{MANIFEST} must be JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("version") != 1:
        raise ValueError(f"{MANIFEST} must be the manifest of a bundle, version 1")
    return manifest


def _places(terms: int, chunk: int, group: int) -> Sequence[int]:
    """Return where the terms are among the padded groups."""
    length = chunk or terms
    padded = -(-length // group) * group
    return [k // length * padded + k % length for k in range(terms)]
