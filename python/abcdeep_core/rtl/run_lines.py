"""The run script and the description of a bundle."""

from __future__ import annotations

from .layout import Layout
from .verilog import describe

_SCRIPT = """\
#!/bin/sh
# Runs the test bench of {name}: sh run.sh [{choices}]
# The last line is PASS or FAIL; the status is 0 only after PASS.
set -e
cd "$(dirname "$0")"
case "${{1:-icarus}}" in
icarus)
    iverilog -g2005 -Wall -o tb.vvp tb.v {name}.v
    vvp -n tb.vvp
    ;;
verilator)
    verilator --binary -j 0 --top-module tb --Mdir obj_dir tb.v {name}.v > verilator.log 2>&1 || {{
        cat verilator.log
        exit 1
    }}
    obj_dir/Vtb
    ;;
lint)
    iverilog -g2005 -Wall -t null {name}.v
    verilator --lint-only -Wall {name}.v
    ;;
{more}*)
    echo "usage: sh run.sh [{choices}]" >&2
    exit 2
    ;;
esac
"""

_GHDL = """\
ghdl)
    ghdl -a --std=08 {name}.vhd tb.vhd
    ghdl -e --std=08 tb
    ghdl -r --std=08 tb
    ;;
"""

_COCOTB = """\
cocotb)
    python3 test_{name}.py
    ;;
"""


def run_script(name: str, vhdl: bool, cocotb: bool) -> str:
    """Return run.sh: one command a simulator."""
    more, choices = "", ["icarus", "verilator", "lint"]
    for wanted, choice, lines in ((vhdl, "ghdl", _GHDL), (cocotb, "cocotb", _COCOTB)):
        if wanted:
            more += lines.format(name=name)
            choices.append(choice)
    return _SCRIPT.format(name=name, more=more, choices=" | ".join(choices))


_README = """\
# Test vectors of {name}

{dots} dot {products} of {terms} {term_word}; {what}.

Operands are in summing order, {words} memory words of {lanes} {lane_word} for each dot product;
lane 0 is in the {end} significant bits; a short group or word ends with zeros.

| file | holds |
|---|---|
| x.hex, w.hex | operands |
{c_row}| expected.hex | a word for each dot product: step, flag, result |
| manifest.json | the datapath, types, packing, and the SHA-256 of every file |
| {name}.v | the unit |
| tb.v | the bench: drives a step a cycle, compares result, flag and the cycle that raised it |
{more_rows}
Hexadecimal words are two's complement, one a line, for `$readmemh`. A word of expected.hex is, from
the left: 8 digits, the step that raises the overflow flag, counted from 0 (0 without overflow);
1 digit, the sticky flag; {digits} digits, the result of {result_bits} bits.

    sh run.sh icarus       # iverilog -g2005 -Wall -o tb.vvp tb.v {name}.v; vvp -n tb.vvp
    sh run.sh verilator    # verilator --binary --top-module tb tb.v {name}.v; obj_dir/Vtb
    sh run.sh lint
{more_lines}
`vvp -n tb.vvp +vcd` writes the waves to tb.vcd. To test another unit, give it the ports of {name}.v
and put its file in the place of {name}.v.
"""


def readme(layout: Layout, name: str, vhdl: bool, cocotb: bool) -> str:
    """Return README.md."""
    unit = layout.unit
    c_row = "| c.hex | the start value of the accumulator for each dot product |\n"
    rows = lines = ""
    if vhdl:
        rows += f"| {name}.vhd, tb.vhd | the same in VHDL-2008 |\n"
        lines += "    sh run.sh ghdl\n"
    if cocotb:
        rows += f"| test_{name}.py | a cocotb test whose scoreboard is abcdeep_core |\n"
        lines += "    sh run.sh cocotb\n"
    return _README.format(
        name=name,
        dots=layout.dots,
        products="product" if layout.dots == 1 else "products",
        terms=unit.terms,
        term_word="term" if unit.terms == 1 else "terms",
        what=describe(unit),
        words=layout.words,
        lanes=layout.lanes,
        lane_word="operand" if layout.lanes == 1 else "operands",
        end="most" if layout.msb_first else "least",
        c_row=c_row if unit.has_addend else "",
        digits=layout.result_digits,
        result_bits=unit.result.bits,
        more_rows=rows,
        more_lines=lines,
    )
