"""The self-checking Verilog-2005 test bench of a bundle."""

from __future__ import annotations

from .layout import Layout, only_if
from .verilog import signed_vector, vector

_BENCH = """\
// The module tb runs {name} on the operands of x.hex and w.hex and compares with expected.hex.
// Written by abcdeep_core {version}. It prints PASS or FAIL in its last line.
`timescale 1ns / 1ns

module tb;
    localparam DOTS = {dots};
    localparam STEPS = {steps};  // cycles of a dot product
    localparam WORDS = {words};  // memory words of a dot product
    localparam SLOTS = {slots};  // steps of a word

    reg {x_word} x_memory [0:DOTS*WORDS-1];
    reg {w_word} w_memory [0:DOTS*WORDS-1];
{c_memory}    reg {expected_word} expected_memory [0:DOTS-1];
    reg {expected_word} expected;
    reg {x_word} x_word;
    reg {w_word} w_word;

    reg clk, enable, first{last_name};
    reg {x_range} x;
    reg {w_range} w;
{c_reg}    wire {result_range} result;
    wire overflow;

    {name} unit (
        .clk(clk), .enable(enable), .first(first),{last_connection}
        .x(x), .w(w),{c_connection}
        .result(result), .overflow(overflow)
    );

    integer dot, step, slot, mismatches, overflowed, first_dot, first_step;
    reg [31:0] raised_at;
    reg raised;

    initial begin
`ifndef VERILATOR
        if ($test$plusargs("vcd")) begin
            $dumpfile("tb.vcd");
            $dumpvars(0, tb);
        end
`endif
        for (dot = 0; dot < DOTS; dot = dot + 1)
            expected_memory[dot] = {all_ones}; // no word of the file: a file that is short fails
        $readmemh("x.hex", x_memory);
        $readmemh("w.hex", w_memory);
{c_read}        $readmemh("expected.hex", expected_memory);
        mismatches = 0;
        overflowed = 0;
        first_dot = 0;
        first_step = 0;
        clk = 0;
        enable = 1;
        for (dot = 0; dot < DOTS; dot = dot + 1) begin
            raised = 0;
            raised_at = 0;
            expected = expected_memory[dot];
{c_drive}            for (step = 0; step < STEPS; step = step + 1) begin
                x_word = x_memory[dot * WORDS + step / SLOTS];
                w_word = w_memory[dot * WORDS + step / SLOTS];
                slot = {slot};
                x = x_word[slot * {x_bits} +: {x_bits}];
                w = w_word[slot * {w_bits} +: {w_bits}];
                first = step == 0;
{last_drive}                #5 clk = 1;
                #1 if (overflow !== 0 && !raised) begin
                    raised = 1;
                    raised_at = step;
                end
                #4 clk = 0;
            end
            if (raised) begin
                if (overflowed == 0) begin
                    first_dot = dot;
                    first_step = raised_at;
                end
                overflowed = overflowed + 1;
            end
            if (^result === 1'bx || result !== expected[{result_top}:0]
                || overflow !== expected[{flag_bit}] || raised_at !== expected[{index_range}]) begin
                mismatches = mismatches + 1;
                if (mismatches <= 10)
                    $display("MISMATCH dot product %0d: result %h flag %b step %0d, %s %h %b %0d",
                        dot, result, overflow, raised_at, "expected",
                        expected[{result_top}:0], expected[{flag_bit}], expected[{index_range}]);
            end
        end
        if (overflowed == 0)
            $display("overflow: none");
        else
            $display("overflow: %0d dot products, the first is %0d at step %0d",
                overflowed, first_dot, first_step);
        if (mismatches == 0) begin
            $display("PASS %0d dot products, 0 mismatches", DOTS);
            $finish;
        end else begin
            $display("FAIL %0d dot products, %0d mismatches", DOTS, mismatches);
`ifdef __ICARUS__
            $finish_and_return(1);
`else
`ifdef VERILATOR
            $stop; // the only end with a status that is not 0
`else
            $finish;
`endif
`endif
        end
    end
endmodule
"""


_LAST_DRIVE = """\
                last = step == STEPS - 1 || (step + 1) % {chunk_steps} == 0;
"""


def bench_module(layout: Layout, name: str, version: str) -> str:
    """Return the source of the bench."""
    unit = layout.unit
    addend, chunks = unit.has_addend, bool(unit.chunk)
    acc = vector(unit.accumulator.bits)
    return _BENCH.format(
        name=name,
        version=version,
        dots=layout.dots,
        steps=unit.steps,
        words=layout.words,
        slots=layout.slots,
        x_word=vector(layout.lanes * unit.x.bits),
        w_word=vector(layout.lanes * unit.w.bits),
        x_range=vector(unit.group * unit.x.bits),
        w_range=vector(unit.group * unit.w.bits),
        x_bits=unit.group * unit.x.bits,
        w_bits=unit.group * unit.w.bits,
        expected_word=vector(layout.expected_bits),
        all_ones=f"{{{layout.expected_bits}{{1'b1}}}}",
        result_range=signed_vector(unit.result),
        result_top=unit.result.bits - 1,
        flag_bit=layout.flag_bit,
        index_range=f"{layout.index_bit} +: 32",
        slot="SLOTS - 1 - step % SLOTS" if layout.msb_first else "step % SLOTS",
        last_name=only_if(chunks, ", last"),
        last_connection=only_if(chunks, " .last(last),"),
        last_drive=only_if(chunks, _LAST_DRIVE.format(chunk_steps=unit.chunk_steps)),
        c_memory=only_if(addend, f"    reg {acc} c_memory [0:DOTS-1];\n"),
        c_reg=only_if(addend, f"    reg {acc} c;\n"),
        c_connection=only_if(addend, " .c(c),"),
        c_read=only_if(addend, '        $readmemh("c.hex", c_memory);\n'),
        c_drive=only_if(addend, "            c = c_memory[dot];\n"),
    )
