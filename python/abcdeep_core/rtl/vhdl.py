"""The multiply-accumulate unit and its test bench in VHDL-2008, with numeric_std."""

from __future__ import annotations

from .layout import Layout, only_if
from .mac_unit import MacUnit, OperandType, OverflowRule
from .verilog import describe, rule_note

_ENTITY = """\
-- The entity {name}: {what}.
-- Written by abcdeep_core {version}. A step a cycle: drive the inputs, raise clk.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;

entity {name} is
    port (
        clk      : in  std_logic;
        enable   : in  std_logic; -- a step is on the inputs
        first    : in  std_logic; -- the step begins a dot product
{last_port}        x        : in  std_logic_vector({x_top} downto 0); -- lane 0 in the low bits
        w        : in  std_logic_vector({w_top} downto 0);
{c_port}        result   : out std_logic_vector({result_top} downto 0);
        overflow : out std_logic -- sticky: a step since first left the range
    );
end entity;

architecture rtl of {name} is
    subtype sum_t is signed({sum_top} downto 0); -- the exact sums of a step
    subtype acc_t is std_logic_vector({acc_top} downto 0);
    subtype result_t is std_logic_vector({result_top} downto 0);
    constant lowest  : sum_t := {lowest};
    constant highest : sum_t := {highest};
{merge_constants}
    -- Overflow rule of the accumulator: {rule_note}.
    function next_of(sum : sum_t; out_of_range : boolean) return acc_t is
        variable word : acc_t := std_logic_vector(sum({acc_top} downto 0));
        variable negative : std_logic := sum(sum'high);
    begin
{next_body}        return word;
    end function;
{merge_function}
    signal state : acc_t := (others => '0');
    signal sticky : std_logic := '0';
{merge_signal}begin
    result <= {result_signal};
    overflow <= sticky;

    process (clk)
        variable sum : sum_t;
        variable out_of_range : boolean;
        variable word : acc_t;
{merge_variables}    begin
        if rising_edge(clk) and enable = '1' then
            word := state;
            if first = '1' then
                word := {start};
            end if;
            sum := resize({acc_number}, sum'length);
            for lane in 0 to {group_top} loop
                sum := sum + resize({x_number} * {w_number}, sum'length);
            end loop;
            out_of_range := sum < lowest or sum > highest;
            word := next_of(sum, out_of_range);
{update}            if out_of_range then
                sticky <= '1';
            elsif first = '1' then
                sticky <= '0';
            end if;
        end if;
    end process;
end architecture;
"""

_LAST_PORT = "        last     : in  std_logic; -- the step ends a chunk\n"
_C_PORT = (
    "        c        : in  std_logic_vector({top} downto 0); -- start value, read with first\n"
)

_MERGE_LIMITS = """\
    constant total_lowest  : total_t := {lowest};
    constant total_highest : total_t := {highest};
"""

_MERGE_VARIABLES = """\
        variable earlier : result_t;
        variable total : total_t;
        variable total_out : boolean;
"""

_MERGE_FUNCTION = """
    -- The sum of chunks: {note}.
    function merged_of(sum : total_t; out_of_range : boolean) return result_t is
        variable word : result_t := std_logic_vector(sum({result_top} downto 0));
        variable negative : std_logic := sum(sum'high);
    begin
{body}        return word;
    end function;
"""

_MERGE_UPDATE = """\
            earlier := chunks;
            if first = '1' then
                earlier := (others => '0');
            end if;
            state <= word;
            if last = '1' then
                total := resize({earlier_number}, total'length)
                    + resize({acc_number}, total'length);
                total_out := {total_out};
                out_of_range := out_of_range or total_out;
                earlier := merged_of(total, total_out);
                state <= (others => '0');
            end if;
            chunks <= earlier;
"""


def mac_entity(unit: MacUnit, name: str, version: str) -> str:
    """Return the source of the entity."""
    rule, merge = unit.accumulator, unit.merge
    acc = OperandType(rule.bits, rule.signed)
    chunks = bool(unit.chunk)
    constants = function = ""
    if chunks:
        constants = f"    subtype total_t is signed({unit.merge_bits - 1} downto 0);\n"
        if merge is not None:
            constants += _MERGE_LIMITS.format(
                lowest=literal(merge.lowest, unit.merge_bits),
                highest=literal(merge.highest, unit.merge_bits),
            )
        function = _MERGE_FUNCTION.format(
            note=rule_note(merge) if merge else "exact",
            result_top=unit.result.bits - 1,
            body=applied(merge) if merge else "",
        )
    return _ENTITY.format(
        name=name,
        what=describe(unit),
        version=version,
        last_port=only_if(chunks, _LAST_PORT),
        c_port=only_if(unit.has_addend, _C_PORT.format(top=rule.bits - 1)),
        x_top=unit.x.bits * unit.group - 1,
        w_top=unit.w.bits * unit.group - 1,
        result_top=unit.result.bits - 1,
        sum_top=unit.sum_bits - 1,
        acc_top=rule.bits - 1,
        lowest=literal(rule.lowest, unit.sum_bits),
        highest=literal(rule.highest, unit.sum_bits),
        merge_constants=constants,
        rule_note=rule_note(rule),
        next_body=applied(rule),
        merge_function=function,
        merge_signal=only_if(chunks, "    signal chunks : result_t := (others => '0');\n"),
        result_signal="chunks" if chunks else "state",
        merge_variables=only_if(chunks, _MERGE_VARIABLES),
        start="c" if unit.has_addend else "(others => '0')",
        acc_number=number("word", acc),
        group_top=unit.group - 1,
        x_number=number(f"x(lane * {unit.x.bits} + {unit.x.bits - 1} downto lane * {unit.x.bits})",
                        unit.x),
        w_number=number(f"w(lane * {unit.w.bits} + {unit.w.bits - 1} downto lane * {unit.w.bits})",
                        unit.w),
        update=_MERGE_UPDATE.format(
            earlier_number=number("earlier", unit.result),
            acc_number=number("word", acc),
            total_out="total < total_lowest or total > total_highest" if merge else "false",
        )
        if chunks
        else "            state <= word;\n",
    )  # fmt: skip


def number(text: str, kind: OperandType) -> str:
    """Return a vector as a signed number; an unsigned one gets a zero above it."""
    return f"signed({text})" if kind.signed else f"signed('0' & {text})"


def literal(value: int, bits: int) -> str:
    """Return a number of `bits` bits."""
    return f'"{value & ((1 << bits) - 1):0{bits}b}"'


def applied(rule: OverflowRule) -> str:
    """Return the lines that change `word`, the low bits of `sum`, as the rule says."""
    bits, n = rule.bits, rule.wrap_bits
    if rule.mode == "wrap" and not n:
        return ""
    if rule.mode == "wrap_sign_magnitude" and not n:
        return (
            f"        if sum({bits}) /= sum({bits - 1}) then\n"
            "            word := not word;\n"
            "        end if;\n"
            f"        word({bits - 1}) := sum({bits});\n"
        )
    lines = []
    if rule.mode == "saturate_zero":
        lines = ["word := (others => '0');"]
    elif rule.mode.startswith("saturate"):
        lines = [
            "if negative = '1' then",
            f"    word := {literal(rule.lowest, bits)};",
            "else",
            f"    word := {literal(rule.highest, bits)};",
            "end if;",
        ]
    else:
        free = bits - n
        if rule.mode == "wrap_sign_magnitude":
            lowest = "negative" if n == 1 else "not negative"
            lines += [
                f"if sum({free}) /= ({lowest}) then",
                f"    word({free - 1} downto 0) := not word({free - 1} downto 0);",
                "end if;",
            ]
        lines.append(f"word({bits - 1} downto {free}) := (others => not negative);")
        if rule.signed:
            lines.append(f"word({bits - 1}) := negative;")
    body = "".join(f"            {line}\n" for line in lines)
    return f"        if out_of_range then\n{body}        end if;\n"


_BENCH = """\
-- The entity tb runs {name} on the operands of x.hex and w.hex and compares with expected.hex.
-- Written by abcdeep_core {version}. It prints PASS or FAIL in its last line.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;
use std.textio.all;
use std.env.all;

entity tb is
end entity;

architecture bench of tb is
    constant dots  : integer := {dots};
    constant steps : integer := {steps}; -- cycles of a dot product
    constant slots : integer := {slots}; -- steps of a memory word
    signal clk, first{last_name} : std_logic := '0';
    signal x : std_logic_vector({x_top} downto 0) := (others => '0');
    signal w : std_logic_vector({w_top} downto 0) := (others => '0');
{c_signal}    signal result : std_logic_vector({result_top} downto 0);
    signal overflow : std_logic;
begin
    unit : entity work.{name} port map (
        clk => clk, enable => '1', first => first,{last_map}
        x => x, w => w,{c_map} result => result, overflow => overflow
    );

    process
        file x_file : text open read_mode is "x.hex";
        file w_file : text open read_mode is "w.hex";
{c_file}        file expected_file : text open read_mode is "expected.hex";
        variable row : line;
        variable x_word : std_logic_vector({x_word_top} downto 0);
        variable w_word : std_logic_vector({w_word_top} downto 0);
{c_variable}        variable expected : std_logic_vector({expected_top} downto 0);
        variable slot, raised_at, mismatches, overflowed, first_dot, first_step : integer := 0;
        variable raised : boolean;
    begin
        for dot in 0 to dots - 1 loop
            raised := false;
            raised_at := 0;
{c_drive}            for step in 0 to steps - 1 loop
                if step mod slots = 0 then
                    readline(x_file, row);
                    hread(row, x_word);
                    readline(w_file, row);
                    hread(row, w_word);
                end if;
                slot := {slot};
                x <= x_word(slot * {x_bits} + {x_top} downto slot * {x_bits});
                w <= w_word(slot * {w_bits} + {w_top} downto slot * {w_bits});
                first <= '1' when step = 0 else '0';
{last_drive}                wait for 5 ns;
                clk <= '1';
                wait for 5 ns;
                clk <= '0';
                if overflow /= '0' and not raised then
                    raised := true;
                    raised_at := step;
                end if;
            end loop;
            if raised then
                if overflowed = 0 then
                    first_dot := dot;
                    first_step := raised_at;
                end if;
                overflowed := overflowed + 1;
            end if;
            readline(expected_file, row);
            hread(row, expected);
            if result /= expected({result_top} downto 0) or overflow /= expected({flag_bit})
                or raised_at /= to_integer(unsigned(expected({index_top} downto {index_bit}))) then
                mismatches := mismatches + 1;
                if mismatches <= 10 then
                    write(output, "MISMATCH dot product " & integer'image(dot) & ": result "
                        & to_hstring(result) & " step " & integer'image(raised_at)
                        & ", expected " & to_hstring(expected) & LF);
                end if;
            end if;
        end loop;
        if overflowed = 0 then
            write(output, "overflow: none" & LF);
        else
            write(output, "overflow: " & integer'image(overflowed)
                & " dot products, the first is " & integer'image(first_dot)
                & " at step " & integer'image(first_step) & LF);
        end if;
        if mismatches = 0 then
            write(output, "PASS " & integer'image(dots) & " dot products, 0 mismatches" & LF);
            finish;
        end if;
        write(output, "FAIL " & integer'image(dots) & " dot products, "
            & integer'image(mismatches) & " mismatches" & LF);
        assert false report "mismatches" severity failure;
    end process;
end architecture;
"""


_LAST_DRIVE = """\
                last <= '1' when step = steps - 1 or (step + 1) mod {chunk_steps} = 0 else '0';
"""

_C_DRIVE = """\
            readline(c_file, row);
            hread(row, c_word);
            c <= c_word({top} downto 0);
"""


def bench_entity(layout: Layout, name: str, version: str) -> str:
    """Return the source of the bench."""
    unit = layout.unit
    bits = unit.accumulator.bits
    addend, chunks = unit.has_addend, bool(unit.chunk)
    return _BENCH.format(
        name=name,
        version=version,
        dots=layout.dots,
        steps=unit.steps,
        slots=layout.slots,
        x_bits=unit.x.bits * unit.group,
        w_bits=unit.w.bits * unit.group,
        x_top=unit.x.bits * unit.group - 1,
        w_top=unit.w.bits * unit.group - 1,
        x_word_top=whole_digits(unit.x.bits * layout.lanes) - 1,
        w_word_top=whole_digits(unit.w.bits * layout.lanes) - 1,
        result_top=unit.result.bits - 1,
        expected_top=layout.expected_bits - 1,
        flag_bit=layout.flag_bit,
        index_bit=layout.index_bit,
        index_top=layout.expected_bits - 2,  # as far as VHDL's integers go
        slot="slots - 1 - step mod slots" if layout.msb_first else "step mod slots",
        last_name=only_if(chunks, ", last"),
        last_map=only_if(chunks, " last => last,"),
        last_drive=only_if(chunks, _LAST_DRIVE.format(chunk_steps=unit.chunk_steps)),
        c_signal=only_if(addend, f"    signal c : {c_vector(bits)} := (others => '0');\n"),
        c_map=only_if(addend, " c => c,"),
        c_file=only_if(addend, '        file c_file : text open read_mode is "c.hex";\n'),
        c_variable=only_if(addend, f"        variable c_word : {c_vector(whole_digits(bits))};\n"),
        c_drive=only_if(addend, _C_DRIVE.format(top=bits - 1)),
    )


def c_vector(bits: int) -> str:
    """Return the type of a vector of `bits` bits."""
    return f"std_logic_vector({bits - 1} downto 0)"


def whole_digits(bits: int) -> int:
    """Return the bits of the hexadecimal digits that hold `bits` bits."""
    return -(-bits // 4) * 4
