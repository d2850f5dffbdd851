"""The cocotb test of a bundle: the unit against the library, bit for bit."""

from __future__ import annotations

from .layout import Layout

_TEST = '''\
"""cocotb test of {name}.v with abcdeep_core as the scoreboard: python test_{name}.py.

Written by abcdeep_core {version}. Needs cocotb 2, abcdeep_core and Icarus Verilog. The first test
replays the bundle's files; the second draws operands of its own.
"""

import json
from pathlib import Path

import cocotb
import numpy as np
from cocotb.triggers import Timer
from cocotb_tools.runner import get_runner

import abcdeep_core as ab

FOLDER = Path(__file__).resolve().parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
# The files hold the operands in the order in which they are summed.
DATAPATH = ab.Datapath.from_dict(MANIFEST["datapath"]).replace(order="natural")
GROUP, TERMS, STEPS = MANIFEST["group"], MANIFEST["terms"], MANIFEST["steps"]
X, W, C = MANIFEST["x"], MANIFEST["w"], MANIFEST["c"]
CHUNK = MANIFEST["chunk"] or TERMS


def groups(row):
    """Cut the operands of a dot product into steps; a short group ends with zeros."""
    for begin in range(0, TERMS, CHUNK):
        chunk = [int(value) for value in row[begin : min(begin + CHUNK, TERMS)]]
        chunk += [0] * (-len(chunk) % GROUP)
        for k in range(0, len(chunk), GROUP):
            yield chunk[k : k + GROUP], k + GROUP >= len(chunk)


def word(values, bits):
    """Return operands side by side, lane 0 in the least significant bits."""
    mask = (1 << bits) - 1
    return sum((value & mask) << (lane * bits) for lane, value in enumerate(values))


async def drive(dut, x, w, c):
    """Run one dot product; return the result's bits, the flag, and the step that raised it."""
    raised = -1
    steps = zip(groups(x), groups(w), strict=True)
    for step, ((x_group, last), (w_group, _)) in enumerate(steps):
        dut.enable.value = 1
        dut.first.value = int(step == 0)
        if MANIFEST["chunk"]:
            dut.last.value = int(last)
        if C:
            dut.c.value = int(c) & ((1 << C["bits"]) - 1)
        dut.x.value = word(x_group, X["bits"])
        dut.w.value = word(w_group, W["bits"])
        await Timer(5, "ns")
        dut.clk.value = 1
        await Timer(5, "ns")
        dut.clk.value = 0
        if raised < 0 and int(dut.overflow.value):
            raised = step
    return int(dut.result.value.to_unsigned()), bool(int(dut.overflow.value)), raised


async def compare(dut, x, w, c):
    """Compare the unit with the library: results, sticky flags, first steps."""
    expected = ab.rtl.expected_results(
        x, w, DATAPATH, c=c, x_type=X["type"], w_type=W["type"]
    )
    mask = (1 << MANIFEST["expected"]["result_bits"]) - 1
    dut.clk.value = 0
    for dot in range(len(x)):
        found = await drive(dut, x[dot], w[dot], 0 if c is None else c[dot])
        wanted = (
            int(expected.result[dot]) & mask,
            bool(expected.overflow[dot]),
            int(expected.first_step[dot]),
        )
        assert found == wanted, f"dot product {{dot}}: {{found}}, expected {{wanted}}"


@cocotb.test()
async def replays_the_bundle(dut):
    """The operands of x.hex and w.hex."""
    x, w, c = ab.rtl.read_operands(FOLDER)
    await compare(dut, x, w, c)


@cocotb.test()
async def draws_operands(dut):
    """Fresh operands, uniform in their types."""
    random = np.random.default_rng(0)
    size = 100, TERMS
    x, w = (random.integers(t["lowest"], t["highest"] + 1, (100, TERMS)) for t in (X, W))
    c = random.integers(C["lowest"], C["highest"], 100, endpoint=True) if C else None
    await compare(dut, x, w, c)


def main():
    """Build with Icarus Verilog and run the tests."""
    runner = get_runner("icarus")
    runner.build(
        sources=[FOLDER / "{name}.v"], hdl_toplevel="{name}", build_dir=FOLDER / "sim_build",
        build_args=["-g2005"],
    )
    results = runner.test(
        hdl_toplevel="{name}", test_module="test_{name}", build_dir=FOLDER / "sim_build",
        test_dir=FOLDER, results_xml=str(FOLDER / "sim_build" / "results.xml"),
    )
    from cocotb_tools.runner import get_results

    tests, failed = get_results(results)
    print(f"{{tests}} tests, {{failed}} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
'''


def cocotb_test(layout: Layout, name: str, version: str) -> str:
    """Return the source of the test."""
    return _TEST.format(name=name, version=version)
