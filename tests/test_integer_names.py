"""Integer datapaths by name: their word of saturation, texts, contradictions, their reports."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.accumulators import get_accumulator
from overflow_cases import inputs, linear

BYTE = ab.FixedFormat(bits=8, fraction_bits=0)


def test_words_of_datapaths_with_several_limits():
    def q(overflow, bits=12, **fields):
        form = ab.FixedFormat(bits=bits, fraction_bits=0, overflow=overflow, **fields)
        return ab.Quantizer(format=form)

    sat, wrap = q("saturate"), q("wrap")
    for fields, word in (
        ({"product": sat, "accumulator": sat}, "step"),
        ({"product": sat, "accumulator": wrap}, "product"),
        ({"product": sat, "accumulator": wrap, "output": sat}, "product"),
        ({"accumulator": wrap, "output": sat}, "end"),
        ({"accumulator": wrap, "merge": sat, "chunk": 4}, "tile"),
        ({"accumulator": wrap, "merge": sat}, "step"),  # there is no merge
        ({"accumulator": wrap, "product": wrap}, "step"),
        ({"accumulator": q("wrap", wrap_bits=12), "product": sat}, "step"),
        ({"accumulator": wrap, "group_quantizer": sat, "group": 4, "step": "exact_group"}, "group"),
        ({"group_quantizer": sat, "group": 4, "step": "tree"}, "group"),
        ({"product": wrap}, "product"),
        ({"output": q("saturate_zero")}, "end"),
    ):
        datapath = ab.Datapath(**fields)
        assert datapath.saturates_at == word, fields
        assert datapath.is_integer
        assert ab.Datapath.from_dict(datapath.to_dict()) == datapath
        assert pickle.loads(pickle.dumps(datapath)) == datapath
    assert not ab.Datapath(output=ab.Quantizer(format="fp16")).is_integer
    fixed = ab.FixedFormat(bits=8, fraction_bits=4)
    assert not ab.Datapath(output=ab.Quantizer(format=fixed)).is_integer


@pytest.mark.parametrize(
    ("text", "datapath"),
    [
        ("int16:saturate:t64", ab.integer_accumulator(16, "saturate", chunk=64)),
        ("int16:sat:g2:t2:exact",
         ab.integer_accumulator(16, "saturate", group=2, chunk=2, merge="exact")),
        ("int16:s4", ab.integer_accumulator(16, shift=4)),
        ("int16:s4:rnd_conv:SAT_SYM",
         ab.integer_accumulator(16, "saturate_symmetric", shift=4, rounding="RND_CONV")),
        ("uint12:wrap:n3", ab.integer_accumulator(12, signed=False, wrap_bits=3)),
        ("int16:saturate:t64:tile", ab.integer_accumulator(16, "saturate", chunk=64, at="tile")),
        ("int16:saturate:end", ab.integer_accumulator(16, "saturate", at="end")),
        ("int16:saturate:product", ab.integer_accumulator(16, "saturate", at="product")),
        ("int16:saturate:g8:tree", ab.integer_accumulator(16, "saturate", group=8, tree=True)),
        ("int9:wrap_sm:nearest_up:s1",
         ab.integer_accumulator(9, "WRAP_SM", shift=1, rounding="RND")),
    ],
)  # fmt: skip
def test_options_as_text(text, datapath):
    assert get_accumulator(text) == datapath


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: get_accumulator("int16:g4:g8"), ValueError, "group is given twice, by 'g8'"),
        (lambda: get_accumulator("int16:wrap:sat"), ValueError, "overflow is given twice"),
        (lambda: get_accumulator("int16:x4"), ValueError, "got 'x4'"),
        (lambda: get_accumulator("int16:s62"), ValueError, "shift must be in 0..61"),
        (lambda: get_accumulator("int60:s4"), ValueError, r"bits \+ shift must be at most 63"),
        (lambda: get_accumulator("uint60:s3"), ValueError, r"bits \+ shift must be at most 62"),
        (lambda: get_accumulator("int16:tile"), ValueError, "chunk must be at least 1"),
        (lambda: get_accumulator("int16:tree"), ValueError, "group must be at least 2 for tree"),
        (lambda: get_accumulator("int16:group"), ValueError, "group must be at least 2 for at"),
        (lambda: get_accumulator("int16:g4:step"), ValueError, "group must be 1 for at='step'"),
        (lambda: ab.integer_accumulator(16, at="start"), ValueError, "unknown at 'start'"),
        (
            lambda: ab.integer_accumulator(16, at="tile", chunk=4, merge="exact"),
            ValueError, "merge must be 'same' for at='tile', got 'exact'",
        ),
        (
            lambda: ab.integer_accumulator(16, at="end", output=BYTE),
            ValueError, "output must be None for at='end'",
        ),
        (
            lambda: ab.integer_accumulator(16, product="fp16"),
            TypeError, "product must be a FixedFormat or a Quantizer, got 'fp16'",
        ),
        (
            lambda: ab.integer_accumulator(16, product=ab.FixedFormat(bits=8, fraction_bits=1)),
            ValueError, "fraction_bits must be -shift <= 0 in an integer datapath, got 1",
        ),
        (
            lambda: ab.integer_accumulator(16, shift=2, rounding="stochastic"),
            ValueError, "rounding must be deterministic",
        ),
        (lambda: ab.integer_accumulator(16, shift=2, rounding="jam"), ValueError, "got 'jam'"),
        (lambda: ab.integer_accumulator(16, shift="2"), TypeError, "shift must be an integer"),
        (lambda: ab.integer_accumulator(16, tree=1), TypeError, "tree must be"),
        (
            lambda: ab.integer_accumulator(16).replace(
                group_quantizer=ab.integer_accumulator(8).accumulator
            ),
            ValueError, "group_quantizer must be None for step='chain'",
        ),
        (
            lambda: ab.integer_accumulator(16, group=2).replace(
                group_quantizer=ab.Quantizer(format="fp16")
            ),
            ValueError, "must all be float or all be integer",
        ),
    ],
)  # fmt: skip
def test_contradictions_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_floats_are_refused_by_an_exact_integer_sum():
    x = np.ones((2, 2), np.float32)
    with pytest.raises(TypeError, match="a must hold integers"):
        ab.matmul(x, x, ab.integer_accumulator(16, at="end"))


def test_a_report_of_these_accumulators():
    layer = linear()
    x = inputs()["fc"]
    exact = x.astype(np.int64) @ layer.weight.astype(np.int64)
    given = [
        "int16:saturate:end", "int16:saturate:t16:tile", "int12:saturate:product",
        ab.integer_accumulator(12, "saturate", shift=4, rounding="RND_CONV"),
        ab.integer_accumulator(16, "saturate", at="end"),
        "int16:saturate:g8:tree",
    ]  # fmt: skip
    report = ab.overflow_report([layer], {"fc": x}, accumulators=given)
    rows = report.to_dict()["layers"][0]["accumulators"]
    names = [*given[:3], "int12:s4:nearest_even:saturate", "int16:end:saturate", given[-1]]
    assert [row["name"] for row in rows] == names
    assert [row["saturates_at"] for row in rows] == [
        "end", "tile", "product", "step", "end", "group",
    ]  # fmt: skip
    for row, accumulator in zip(rows, given, strict=True):
        datapath = get_accumulator(row["name"])
        assert datapath == get_accumulator(accumulator)
        assert row["wrong"] == np.count_nonzero(ab.matmul(x, layer.weight, datapath) != exact)
    beyond = int(((exact < -(2**15)) | (exact >= 2**15)).sum())
    assert rows[0]["persistent"] == rows[1]["persistent"] == rows[3]["persistent"] == beyond > 0
    assert rows[0]["wrong"] == beyond
    assert not {"persistent", "lost"} & set(rows[2])
