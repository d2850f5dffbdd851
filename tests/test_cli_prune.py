"""`abcdeep prune`: files in, sparse files out."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core.cli import main

Array = np.ndarray[Any, Any]


@pytest.fixture
def weights() -> Array:
    return np.random.default_rng(0).standard_normal((16, 24)).astype(np.float32)


def pruned(folder: Path, x: Array, *options: str) -> Array:
    source, target = folder / "w.npy", folder / "out.npy"
    np.save(source, x)
    assert main(["prune", str(source), "-o", str(target), *options]) == 0
    return np.load(target)


def test_magnitude(tmp_path: Path, weights: Array, capsys: pytest.CaptureFixture[str]) -> None:
    result = pruned(tmp_path, weights, "--pattern", "2:4")
    np.testing.assert_array_equal(result, ab.nm_mask(weights, 2, 4, output="values"))
    assert result.dtype == np.float32
    share = 100 * np.abs(result).sum(dtype=float) / np.abs(weights).sum(dtype=float)
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == ["-", "16x24", "float32", "50.00", "%", f"{share:.2f}", "%"]
    result = pruned(tmp_path, weights, "--pattern", "3:8", "--axis", "0", "--mask")
    np.testing.assert_array_equal(result, ab.nm_mask(weights, 3, 8, 0))


def test_transposable(tmp_path: Path, weights: Array) -> None:
    result = pruned(tmp_path, weights, "--pattern", "4:8", "--transposable")
    mask = ab.transposable_mask(weights, 4, 8)
    np.testing.assert_array_equal(result, np.where(mask, weights, 0))
    result = pruned(tmp_path, weights, "--transposable", "heavy_first", "--mask")
    greedy = ab.transposable_mask(weights, 2, 4, method="heavy_first")
    np.testing.assert_array_equal(result, greedy)


def test_unbiased(tmp_path: Path, weights: Array) -> None:
    result = pruned(tmp_path, weights, "--unbiased", "--seed", "7", "--axis", "0")
    np.testing.assert_array_equal(result, ab.nm_unbiased(weights, 2, 4, 0, seed=7))
    half = pruned(tmp_path, weights.astype(np.float16), "--unbiased")
    assert half.dtype == np.float16
    assert (np.count_nonzero(half.reshape(16, 6, 4), axis=-1) == 2).all()


def test_convolution_weights(tmp_path: Path) -> None:
    w = np.random.default_rng(1).standard_normal((8, 4, 3, 3)).astype(np.float32)
    result = pruned(tmp_path, w, "--mask")
    np.testing.assert_array_equal(result, ab.nm_mask(w, 2, 4, 1))
    result = pruned(tmp_path, w, "--transposable", "--mask")
    for row in range(3):
        for column in range(3):
            tap = ab.transposable_mask(np.ascontiguousarray(w[:, :, row, column]), 2, 4)
            np.testing.assert_array_equal(result[:, :, row, column], tap)


def test_several_arrays(tmp_path: Path, weights: Array, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "model.npz", tmp_path / "sparse.npz"
    odd, bias = weights[:, :10], weights[0]
    np.savez(source, dense=weights, odd=odd, bias=bias, steps=np.arange(8).reshape(2, 4))
    assert main(["prune", str(source), "-o", str(target)]) == 0
    with np.load(target) as result:
        assert sorted(result.files) == ["bias", "dense", "odd", "steps"]
        np.testing.assert_array_equal(result["dense"], ab.nm_mask(weights, 2, 4, output="values"))
        for name, kept in (("odd", odd), ("bias", bias), ("steps", np.arange(8).reshape(2, 4))):
            np.testing.assert_array_equal(result[name], kept)
    lines = capsys.readouterr().out.splitlines()
    assert any("odd" in line and "axis of 10 is no multiple of 4" in line for line in lines)
    assert main(["prune", str(source), "-o", str(target), "--arrays", "dense", "--mask"]) == 0
    with np.load(target) as result:
        assert result.files == ["dense"]
        assert result["dense"].dtype == np.bool_


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.ones((4, 6), np.float32), (), "axis of 6 is no multiple of 4"),
        (np.full((4, 4), np.nan, np.float32), (), "expected finite numbers"),
        (np.ones(8, np.float32), ("--transposable",), r"expected axes \(-2, -1\)"),
        (np.ones((4, 4), np.complex64), (), "must hold floats"),
        (np.ones((4, 4), np.float32), ("--axis", "5"), r"expected axes \(5,\)"),
        (np.full((1, 4), 3e38, np.float32), ("--unbiased",), "expected results within float32"),
        (np.full((1, 4), 6e4, np.float16), ("--unbiased",), "expected results within float16"),
    ],
)
def test_what_cannot_be_pruned(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    x: Array,
    options: tuple[str, ...],
    message: str,
) -> None:
    source, target = tmp_path / "w.npy", tmp_path / "out.npy"
    np.save(source, x)
    assert main(["prune", str(source), "-o", str(target), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("abcdeep prune: ")
    assert re.search(message, error)
    assert not target.exists()


def test_files_that_are_no_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "w.npy", tmp_path / "out.npy"
    assert main(["prune", str(source), "-o", str(target)]) == 1
    source.write_bytes(b"not an array")
    assert main(["prune", str(source), "-o", str(target)]) == 1
    np.savez(tmp_path / "w.npz", a=np.ones((4, 4)))
    assert (
        main(["prune", str(tmp_path / "w.npz"), "-o", str(tmp_path / "o.npz"), "--arrays", "b"])
        == 1
    )
    assert "--arrays: expected some of a, got b" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("w.npy", "-o", "out.npz"),
        ("w.txt", "-o", "out.txt"),
        ("w.npy",),
        ("w.npy", "-o", "out.npy", "--pattern", "5:4"),
        ("w.npy", "-o", "out.npy", "--pattern", "2of4"),
        ("w.npy", "-o", "out.npy", "--transposable", "--unbiased"),
        ("w.npy", "-o", "out.npy", "--transposable", "exact", "--axis", "0"),
        ("w.npy", "-o", "out.npy", "--seed", "-1"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["prune", *arguments])
    assert stopped.value.code == 2
    assert "expected" in (error := capsys.readouterr().err) or "argument" in error


def test_unbiased_draws_differ_between_arrays(tmp_path: Path, weights: Array) -> None:
    source, target = tmp_path / "g.npz", tmp_path / "out.npz"
    np.savez(source, a=weights, b=weights)
    assert main(["prune", str(source), "-o", str(target), "--unbiased", "--seed", "3"]) == 0
    with np.load(target) as result:
        for stream, name in enumerate("ab"):
            expected = ab.nm_unbiased(weights, 2, 4, seed=3, stream=stream)
            np.testing.assert_array_equal(result[name], expected)


def test_names_that_numpy_uses_itself(tmp_path: Path, weights: Array) -> None:
    source, target = tmp_path / "w.npz", tmp_path / "out.npz"
    with zipfile.ZipFile(source, "w") as archive:
        for name in ("file", "allow_pickle"):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, weights)
    assert main(["prune", str(source), "-o", str(target)]) == 0
    with np.load(target) as result:
        assert sorted(result.files) == ["allow_pickle", "file"]
        for name in result.files:
            np.testing.assert_array_equal(result[name], ab.nm_mask(weights, 2, 4, output="values"))


def test_broken_and_misnamed_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.npz"
    whole, cut, other = tmp_path / "w.npz", tmp_path / "cut.npz", tmp_path / "other.npz"
    np.savez(whole, a=np.ones((4, 4), np.float32))
    cut.write_bytes(whole.read_bytes()[:-40])
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("notes.txt", "no array")
    renamed = tmp_path / "renamed.npy"
    renamed.write_bytes(whole.read_bytes())
    for source, output in ((cut, target), (other, target), (renamed, tmp_path / "out.npy")):
        assert main(["prune", str(source), "-o", str(output)]) == 1
        assert capsys.readouterr().err.startswith(f"abcdeep prune: {source}: ")
        assert not output.exists()


def test_empty_and_huge_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pruned(tmp_path, np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert pruned(tmp_path, np.full((1, 8), 1.7e308)).tolist() == [[1.7e308, 1.7e308, 0, 0] * 2]
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "50.00 %" in out
