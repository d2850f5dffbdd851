"""The multiply-accumulate unit as a Verilog-2005 module."""

from __future__ import annotations

from .layout import only_if
from .mac_unit import MacUnit, OperandType, OverflowRule

_MODULE = """\
// The module {name}: {what}.
// Written by abcdeep_core {version}. A step a cycle: drive the inputs, raise clk.
`timescale 1ns / 1ns

module {name} (
    input  wire {empty} clk,
    input  wire {empty} enable,    // a step is on the inputs
    input  wire {empty} first,     // the step begins a dot product
{last_port}    input  wire {x_range} x,         // operands of the step, side by side
    input  wire {w_range} w,
{c_port}    output reg  {result_range} result,    // {result_note}
    output reg  {empty} overflow   // sticky: a step since first left the range
);
{partial}    // Widened operands: the sum of a step is exact in {sum_bits} bits.
    function signed [{sum_top}:0] wide_x(input [{x_top}:0] value);
        wide_x = {{{{{x_fill}{{{x_sign}}}}}, value}};
    endfunction

    function signed [{sum_top}:0] wide_w(input [{w_top}:0] value);
        wide_w = {{{{{w_fill}{{{w_sign}}}}}, value}};
    endfunction

    function signed [{sum_top}:0] wide_sum(input [{acc_top}:0] value);
        wide_sum = {{{{{acc_fill}{{{acc_sign}}}}}, value}};
    endfunction

    reg signed [{sum_top}:0] sum;
    integer lane;
    always @* begin
        sum = wide_sum({running});
        for (lane = 0; lane < {group}; lane = lane + 1)
            sum = sum + wide_x(x[lane*{x_bits} +: {x_bits}]) * wide_w(w[lane*{w_bits} +: {w_bits}]);
    end

    // Overflow rule of the accumulator: {rule_note}.
    wire out_of_range = {out_of_range};
    wire [{acc_top}:0] next = {next};

{update}endmodule
"""

_LAST_PORT = "    input  wire {empty} last,      // the step ends a chunk\n"
_C_PORT = "    input  wire {c_range} c,         // start value, read with first\n"

_PARTIAL = "    reg {acc_range} partial; // the running sum of a chunk\n\n"

_UPDATE = """\
    always @(posedge clk)
        if (enable) begin
            result <= next;
            overflow <= out_of_range || (overflow && !first);
        end
"""

_UPDATE_CHUNKS = """\
    wire [{result_top}:0] earlier = first ? {zero_result} : result; // the sum of the chunks before

{merge}
    always @(posedge clk)
        if (enable) begin
            partial <= last ? {zero_acc} : next;
            result <= last ? merged : earlier;
            overflow <= out_of_range || {merge_flag}(overflow && !first);
        end
"""

_MERGE_BY_RULE = """\
    function signed [{total_top}:0] wide_chunk(input [{acc_top}:0] value);
        wide_chunk = {{{{{chunk_fill}{{{acc_sign}}}}}, value}};
    endfunction

    function signed [{total_top}:0] wide_result(input [{result_top}:0] value);
        wide_result = {{{{{result_fill}{{{result_sign}}}}}, value}};
    endfunction

    // Overflow rule of the sum of chunks: {note}.
    wire signed [{total_top}:0] total = wide_result(earlier) + wide_chunk(next);
    wire total_out_of_range = {out_of_range};
    wire [{result_top}:0] merged = {merged};
"""

_MERGE_EXACT = """\
    // The sum of chunks is exact.
    wire [{result_top}:0] merged = earlier + {{{{{fill}{{{sign}}}}}, next}};
"""


def mac_module(unit: MacUnit, name: str, version: str) -> str:
    """Return the source of the module."""
    rule, result, bits = unit.accumulator, unit.result, unit.sum_bits
    ranges = {
        "x_range": vector(unit.x.bits * unit.group),
        "w_range": vector(unit.w.bits * unit.group),
        "c_range": vector(rule.bits),
        "result_range": signed_vector(result),
    }
    width = max(map(len, ranges.values()))
    ranges = {name: text.ljust(width) for name, text in ranges.items()}
    start = "c" if unit.has_addend else constant(0, rule.bits)
    return _MODULE.format(
        name=name,
        what=describe(unit),
        version=version,
        empty=" " * width,
        **ranges,
        result_note="the accumulator" if not unit.chunk else "the sum of the chunks so far",
        last_port=only_if(bool(unit.chunk), _LAST_PORT.format(empty=" " * width)),
        partial=only_if(bool(unit.chunk), _PARTIAL.format(acc_range=vector(rule.bits))),
        c_port=only_if(unit.has_addend, _C_PORT.format(c_range=ranges["c_range"])),
        sum_bits=bits,
        sum_top=bits - 1,
        x_top=unit.x.bits - 1,
        x_fill=bits - unit.x.bits,
        x_sign=sign_bit(unit.x),
        w_top=unit.w.bits - 1,
        w_fill=bits - unit.w.bits,
        w_sign=sign_bit(unit.w),
        acc_top=rule.bits - 1,
        acc_fill=bits - rule.bits,
        acc_sign=sign_bit(OperandType(rule.bits, rule.signed)),
        running=f"first ? {start} : {'partial' if unit.chunk else 'result'}",
        group=unit.group,
        x_bits=unit.x.bits,
        w_bits=unit.w.bits,
        rule_note=rule_note(rule),
        out_of_range=outside(rule, "sum", bits),
        next=applied(rule, "sum", "out_of_range"),
        update=_chunked_update(unit) if unit.chunk else _UPDATE,
    )


def _chunked_update(unit: MacUnit) -> str:
    rule, merge, result = unit.accumulator, unit.merge, unit.result
    acc = OperandType(rule.bits, rule.signed)
    if merge is None:
        sign = f"next[{rule.bits - 1}]" if rule.signed else "1'b0"
        fill = result.bits - rule.bits
        lines = _MERGE_EXACT.format(result_top=result.bits - 1, fill=fill, sign=sign)
    else:
        lines = _MERGE_BY_RULE.format(
            acc_top=rule.bits - 1,
            result_top=result.bits - 1,
            total_top=unit.merge_bits - 1,
            chunk_fill=unit.merge_bits - rule.bits,
            acc_sign=sign_bit(acc),
            result_fill=unit.merge_bits - result.bits,
            result_sign=sign_bit(result),
            note=rule_note(merge),
            out_of_range=outside(merge, "total", unit.merge_bits),
            merged=applied(merge, "total", "total_out_of_range"),
        )
    return _UPDATE_CHUNKS.format(
        acc_top=rule.bits - 1,
        result_top=result.bits - 1,
        zero_acc=constant(0, rule.bits),
        zero_result=constant(0, result.bits),
        merge=lines,
        merge_flag="" if merge is None else "(last && total_out_of_range) || ",
    )


def describe(unit: MacUnit) -> str:
    """Return one line about a unit."""
    rule = unit.accumulator
    each = "one product" if unit.group == 1 else f"{unit.group} products"
    text = f"{each} {unit.x} x {unit.w} a step into {'' if rule.signed else 'u'}int{rule.bits}"
    text += f", {rule_note(rule)}"
    if unit.chunk:
        merge = unit.merge
        form = "exactly" if merge is None else f"in {'' if merge.signed else 'u'}int{merge.bits}"
        text += f"; chunks of {unit.chunk} terms added {form}"
    return text


def rule_note(rule: OverflowRule) -> str:
    """Return the name of a rule."""
    return rule.mode + (f" (wrap_bits {rule.wrap_bits})" if rule.wrap_bits else "")


def vector(bits: int) -> str:
    """Return the range of a vector."""
    return f"[{bits - 1}:0]"


def signed_vector(kind: OperandType) -> str:
    """Return the range of a number."""
    return ("signed " if kind.signed else "") + vector(kind.bits)


def constant(value: int, bits: int) -> str:
    """Return a literal: two's complement in `bits` bits."""
    return f"{bits}'h{value & ((1 << bits) - 1):x}"


def sign_bit(kind: OperandType) -> str:
    """Return what fills the bits above `value`."""
    return f"value[{kind.bits - 1}]" if kind.signed else "1'b0"


def outside(rule: OverflowRule, sum_name: str, bits: int) -> str:
    """Return the condition that a sum is out of range."""
    low, high = (
        f"-{bits}'sd{-value}" if value < 0 else f"{bits}'sd{value}"
        for value in (rule.lowest, rule.highest)
    )
    return f"{sum_name} < {low} || {sum_name} > {high}"


def applied(rule: OverflowRule, name: str, out: str) -> str:
    """Return what the rule makes of a sum, as an expression of rule.bits bits."""
    bits, n, negative = rule.bits, rule.wrap_bits, f"{name} < 0"
    low = f"{name}[{bits - 1}:0]"
    if rule.mode == "wrap" and not n:
        return low
    if rule.mode == "saturate_zero":
        return f"{out} ? {constant(0, bits)} : {low}"
    if rule.mode.startswith("saturate"):
        ends = f"({negative} ? {constant(rule.lowest, bits)} : {constant(rule.highest, bits)})"
        return f"{out} ? {ends} : {low}"
    if not n:  # the bit above the word becomes the sign
        inverted = f"{{{bits - 1}{{{name}[{bits}] ^ {name}[{bits - 1}]}}}}"
        return f"{{{name}[{bits}], {name}[{bits - 2}:0] ^ {inverted}}}"
    return f"{out} ? {{{saturated(rule, name)}, {free_bits(rule, name)}}} : {low}"


def saturated(rule: OverflowRule, name: str) -> str:
    """Return the saturated top bits of a wrapped word: a sign that stays, its opposite below."""
    n, negative = rule.wrap_bits, f"{name} < 0"
    if not rule.signed:
        return f"{{{n}{{!({negative})}}}}"
    return f"({negative})" + (f", {{{n - 1}{{!({negative})}}}}" if n > 1 else "")


def free_bits(rule: OverflowRule, name: str) -> str:
    """Return the low bits of a wrapped word."""
    free = rule.bits - rule.wrap_bits
    low = f"{name}[{free - 1}:0]"
    if rule.mode == "wrap":
        return low
    # they are inverted where the bit above them is not the lowest saturated bit
    lowest_saturated = f"({name} < 0)" if rule.wrap_bits == 1 else f"({name} >= 0)"
    return f"{low} ^ {{{free}{{{name}[{free}] ^ {lowest_saturated}}}}}"
