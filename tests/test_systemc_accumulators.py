"""Integer datapaths against SystemC: registers of sc_fix and sc_ufix in a multiply-add loop."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import each_isa

# A job is the number of terms, the group, tree or not, chunk; registers of product, accumulator,
# node, merge and output; the start value and the terms. A register is "0", or 1 and its parameters.
SYSTEMC = r"""
#define SC_INCLUDE_FX
#include <systemc>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

using Number = sc_dt::sc_fxval;

int read() {
    int x = 0;
    if (std::scanf("%d", &x) != 1) std::exit(0);
    return x;
}

struct Register {
    int there = 0, is_signed = 1, bits = 8, shift = 0, q = 0, o = 0, n = 0;

    void get() {
        there = read();
        if (there)
            for (int* field : {&is_signed, &bits, &shift, &q, &o, &n}) *field = read();
    }
    Number operator()(const Number& v) const {
        if (!there) return v;
        const auto rounding = sc_dt::sc_q_mode(q);
        const auto overflow = sc_dt::sc_o_mode(o);
        if (is_signed) {
            sc_dt::sc_fix r(bits, bits + shift, rounding, overflow, n);
            r = v;
            return Number(r);
        }
        sc_dt::sc_ufix r(bits, bits + shift, rounding, overflow, n);
        r = v;
        return Number(r);
    }
};

Register product, accumulator, node, merge_, output;
std::vector<int> x, w;

Number tree(int begin, int end) {
    if (end - begin == 1) return node(product(Number(x[begin]) * Number(w[begin])));
    const int middle = begin + (end - begin + 1) / 2;
    return node(tree(begin, middle) + tree(middle, end));
}

Number group_sum(int begin, int end) {
    Number sum(0);
    for (int k = begin; k < end; ++k) sum = sum + product(Number(x[k]) * Number(w[k]));
    return node(sum);
}

int sc_main(int, char**) {
    for (;;) {
        const int terms = read(), group = read(), is_tree = read(), chunk = read();
        for (Register* r : {&product, &accumulator, &node, &merge_, &output}) r->get();
        const int start = read();
        x.assign(terms, 0), w.assign(terms, 0);
        for (int& v : x) v = read();
        for (int& v : w) v = read();
        for (int used = 1; used <= terms; ++used) {
            Number total(0);
            for (int first = 0; first < used; first += chunk) {
                Number s = first ? Number(0) : accumulator(Number(start));
                const int end = std::min(used, first + chunk);
                for (int k = first; k < end; k += group) {
                    const int stop = std::min(end, k + group);
                    s = accumulator(s + (is_tree ? tree(k, stop) : group_sum(k, stop)));
                }
                total = used <= chunk ? s : merge_(total + s);
            }
            std::printf("=%.0f ", output(total).to_double());
        }
        std::printf("\n");
    }
}
"""
# The order of SystemC's enums sc_q_mode and sc_o_mode.
Q_MODES = ["RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO"]
O_MODES = ["SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM"]
TERMS = 12


@pytest.fixture(scope="module")
def systemc(tmp_path_factory):
    """Return run(jobs): the results of the compiled loop; skip where SystemC is not installed."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler for SystemC; the exact oracle tests the same datapaths")
    folder = tmp_path_factory.mktemp("systemc")
    (folder / "main.cpp").write_text(SYSTEMC)
    command = [compiler, "-std=c++17", "-O1", "main.cpp", "-o", "main", "-lsystemc"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    missing = ("systemc: No such file", "cannot find -lsystemc")
    if any(text in built.stderr for text in missing):
        pytest.skip("libsystemc-dev is not installed; the exact oracle tests the same datapaths")
    assert built.returncode == 0, built.stderr

    def run(jobs):
        lines = "\n".join(" ".join(map(str, job)) for job in jobs)
        done = subprocess.run(
            [folder / "main"], input=lines, capture_output=True, text=True, check=True
        )
        rows = [
            [int(v[1:]) for v in line.split()]
            for line in done.stdout.splitlines()
            if line.startswith("=")
        ]
        assert len(rows) == len(jobs)
        return rows

    return run


def register(q):
    """Return the numbers that describe a quantiser to the loop, for a mode by its SystemC name."""
    if q is None:
        return [0]
    bits, shift, signed, rounding, overflow, wrap_bits = q
    return [1, int(signed), bits, shift, Q_MODES.index(rounding), O_MODES.index(overflow),
            wrap_bits]  # fmt: skip


def quantizer(q):
    if q is None:
        return None
    bits, shift, signed, rounding, overflow, wrap_bits = q
    form = ab.FixedFormat(
        bits=bits, fraction_bits=-shift, signed=signed, overflow=overflow, wrap_bits=wrap_bits
    )
    return ab.Quantizer(format=form, rounding=rounding)


def compare(systemc, cases):
    """Compare the running results of cases (registers, fields, start, x, w) bit for bit."""
    jobs = []
    for registers, fields, start, x, w in cases:
        described = itertools.chain.from_iterable(map(register, registers))
        chunk = fields.get("chunk") or len(x)
        jobs.append([
            len(x), fields.get("group", 1), int(fields.get("step") == "tree"), chunk,
            *described, start, *x.tolist(), *w.tolist(),
        ])  # fmt: skip
    for (registers, fields, start, x, w), expected in zip(cases, systemc(jobs), strict=True):
        product, accumulator, node, merge, output = map(quantizer, registers)
        datapath = ab.Datapath(
            product=product, accumulator=accumulator, group_quantizer=node,
            merge=merge or "exact", output=output, **fields,
        )  # fmt: skip
        for isa in each_isa():
            got = [int(ab.matmul(x[:k], w[:k], datapath, c=start)) for k in range(1, len(x) + 1)]
            assert got == expected, (isa, datapath, start, x, w)


def saturated_bits(overflow, bits):
    return (0, 1, bits // 2, bits) if overflow.startswith("WRAP") else (0,)


@pytest.mark.parametrize("rounding", Q_MODES)
@pytest.mark.parametrize("overflow", O_MODES)
def test_multiply_add_loop_with_a_shift(systemc, rounding, overflow):
    rng = np.random.default_rng([Q_MODES.index(rounding), O_MODES.index(overflow)])
    cases = []
    for signed, bits, shift in itertools.product((True, False), (4, 9), (0, 1, 3, 8)):
        for wrap_bits in saturated_bits(overflow, bits):
            if overflow == "WRAP_SM" and not signed:
                continue
            reach = 2 ** ((bits + shift) // 2)
            for low in (-reach, 0):
                x, w = np.clip(rng.integers(low, reach + 1, (2, TERMS)), -127, 127).astype(np.int8)
                start = int(rng.integers(-reach, reach)) if rng.integers(2) else 0
                q = (bits, shift, signed, rounding, overflow, wrap_bits)
                cases.append(((None, q, None, None, None), {}, start, x, w))
    compare(systemc, cases)


def random_register(rng, bits):
    """Return a random quantiser of about this many bits, shift included, or None."""
    if rng.random() < 0.3:
        return None
    shift = int(rng.integers(0, 5))
    signed = bool(rng.random() < 0.8)
    overflow = O_MODES[rng.integers(5 if signed else 4)]
    bits = int(max(2, bits - shift + rng.integers(-2, 3)))
    wrap_bits = int(rng.choice(saturated_bits(overflow, bits)))
    return bits, shift, signed, Q_MODES[rng.integers(7)], overflow, wrap_bits


@pytest.mark.parametrize("step", ["chain", "exact_group", "tree"])
@pytest.mark.parametrize("shard", range(2))
def test_registers_everywhere(systemc, step, shard):
    rng = np.random.default_rng([len(step), shard])
    cases = []
    while len(cases) < 150:
        bits = int(rng.integers(4, 18))
        registers = [random_register(rng, bits + extra) for extra in (0, 1, 0, 2, 0)]
        if step == "chain":
            registers[2] = None
        if not any(registers):
            continue
        fields = {"step": step, "chunk": int(rng.choice([0, 1, 4, 5]))}
        fields["group"] = 1 if step == "chain" else int(rng.integers(1, 6))
        dtype = (np.int8, np.uint8, np.int16)[rng.integers(3)]
        info = np.iinfo(dtype)
        low, high = max(info.min, -(2 ** (bits // 2))), min(info.max, 2 ** (bits // 2))
        x, w = rng.integers(low, high + 1, (2, TERMS)).astype(dtype)
        cases.append((tuple(registers), fields, int(rng.integers(-99, 99)), x, w))
    compare(systemc, cases)
