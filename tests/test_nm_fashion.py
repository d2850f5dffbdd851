"""The N:M study: what its rows compute, its dense weights, its claims and its command."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abcdeep_core import nn
from abcdeep_core.examples import nm_fashion, nm_rows, training_study
from abcdeep_core.examples.fashion_networks import NETWORKS
from test_examples import write_images
from test_luq_fashion import same, settings

NAMES = nm_fashion.COMMAND.names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("fashion"))


def test_every_row_computes_otherwise_and_again_the_same(folder: Path) -> None:
    for row in nm_rows.ROWS:
        assert pickle.loads(pickle.dumps(row)).arithmetic(3) == row.arithmetic(3)
    short = settings(folder, epochs=1)
    trained = [training_study.train_row(short, "mlp", row, 0)[0] for row in nm_rows.ROWS]
    assert len({result.loss for result in trained}) == len(nm_rows.ROWS)
    again = [training_study.train_row(short, "mlp", row, 0)[0] for row in nm_rows.ROWS[-2:]]
    assert all(same(one, other) for one, other in zip(trained[-2:], again, strict=True))


def test_rows_are_what_their_names_say() -> None:
    rows = {row.name: row.arithmetic(1) for row in nm_rows.ROWS}
    for pattern in nm_rows.UNBIASED:
        n, m = nm_rows.counts(pattern)
        unbiased = rows[nm_rows.UNBIASED[pattern]].weight_gradient.b_quantizer
        assert unbiased == nn.UnbiasedMask(n, m)
        biased = rows[nm_rows.MAGNITUDE[pattern]].weight_gradient.b_quantizer
        assert biased == nn.MagnitudeMask(n, m)
    for pattern, name in nm_rows.TRANSPOSABLE.items():
        n, m = nm_rows.counts(pattern)
        assert rows[name].forward.b_quantizer == nn.TransposableMask(n, m)
    assert rows[nm_rows.WEIGHTS].forward.b_quantizer == nn.MagnitudeMask(2, 4)
    narrow, sparse = rows[nm_rows.NARROW], rows[nm_rows.NARROW_SPARSE]
    assert narrow.forward.datapath == sparse.forward.datapath is not None
    assert narrow.output_gradient == sparse.output_gradient == nn.LuqQuantizer()
    assert sparse.forward.b_quantizer == nn.TransposableMask(quantizer=nn.UniformQuantizer())
    assert sparse.weight_gradient.b_quantizer == nn.UnbiasedMask(2, 4)
    assert {arithmetic.seed for name, arithmetic in rows.items() if "MVUE" in name} == {1}


def test_dense_weights_are_those_without_mask() -> None:
    facts = nm_fashion.dense_weights({"mlp": 16, "cnn": 16})
    assert facts["dense in mlp, transposable weights 2:4"] == "16 x 10"
    # The first convolution has one input channel and the second four.
    assert facts["dense in cnn, transposable weights 2:4"] == "4 x 1 x 3 x 3, 256 x 10"
    assert facts["dense in cnn, transposable weights 4:8"] == (
        "4 x 1 x 3 x 3, 16 x 4 x 3 x 3, 256 x 10"
    )
    x = np.zeros((2, 1, 28, 28), np.float32)
    for network in ("mlp", "cnn"):
        for row in nm_rows.ROWS[-5:-3]:
            model = NETWORKS[network][0](0, 16).with_arithmetic(row.arithmetic(0))
            model.forward(x, training=True)
            dense = sum(mask is None for mask in nn.weight_masks(model))
            assert dense == len(facts[f"dense in {network}, {row.name}"].split(", "))


def test_every_claim_is_about_rows_of_the_study() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(nm_rows.NEAR) <= set(NAMES)
    assert {f"MVUE gradients {pattern}" for pattern in nm_rows.HALF} <= set(nm_rows.NEAR)
    for expectation in nm_rows.EXPECTATIONS:
        assert {expectation.row, expectation.other} <= set(NAMES)


def test_command(folder: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [report]")
    files = tmp_path / "nm.png", tmp_path / "nm.json"
    argv = ["--data", str(folder), "--width", "8", "--seeds", "0", "--epochs", "1"]
    argv += ["--networks", "mlp", "--samples", "150", "--test-samples", "50"]
    assert nm_fashion.main([*argv, "-o", str(files[0]), "--json", str(files[1])]) == 0
    captured = capsys.readouterr()
    record = json.loads(files[1].read_text())
    assert [t["network"] for t in record["trainings"]] == ["mlp"] * len(NAMES)
    assert len(record["claims"]) == len(nm_rows.NEAR) + 2 * len(nm_rows.EXPECTATIONS)
    for claim in record["claims"]:
        verdict = "shows" if claim["shown"] else "DOES NOT SHOW"
        assert f"{verdict}: {claim['claim']}: {claim['measured']}" in captured.out
    for name in NAMES:
        assert f"\n{name}  " in captured.out
    assert "dense in mlp, transposable weights 4:8: 8 x 10\n" in captured.out
    assert record["facts"]["dense in mlp, transposable weights 4:8"] == "8 x 10"
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_command_refuses(tmp_path: Path, capsys: Any) -> None:
    assert nm_fashion.main(["--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("nm_fashion: ")
    with pytest.raises(SystemExit):  # no row trains on
        nm_fashion.main(["--tuning-epochs", "2"])
