"""The safetensors reader: what it reads, and what it says about files that are broken."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from abcdeep_core.examples.safetensors_file import read_safetensors
from minilm_cases import safetensors_bytes, tiny_tensors


def write(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: Any = "U8", shape: Any = (2,), offsets: Any = (0, 2)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_arrays_come_back(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    tensors = tiny_tensors()
    path.write_bytes(safetensors_bytes(tensors))
    found = read_safetensors(str(path))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert not found[name].flags.writeable


@pytest.mark.parametrize(
    ("kind", "packed", "values"),
    [
        ("BOOL", "01 00", [True, False]),
        ("U8", "01 ff", [1, 255]),
        ("I8", "01 ff", [1, -1]),
        ("U16", "01 00 ff ff", [1, 65535]),
        ("I16", "00 80 ff ff", [-32768, -1]),
        ("U32", "01 00 00 00 00 00 00 80", [1, 2**31]),
        ("I32", "01 00 00 00 00 00 00 80", [1, -(2**31)]),
        ("U64", "00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 80", [2**32, 2**63]),
        ("I64", "00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 80", [2**32, -(2**63)]),
        ("F16", "00 3c 00 c0", [1.0, -2.0]),
        ("BF16", "80 3f 00 c0", [1.0, -2.0]),
        ("F32", "00 00 80 3f 00 00 00 c0", [1.0, -2.0]),
        ("F64", "00 00 00 00 00 00 f0 3f 00 00 00 00 00 00 00 c0", [1.0, -2.0]),
    ],
)
def test_every_element_type(tmp_path: Path, kind: str, packed: str, values: list[Any]) -> None:
    data = bytes.fromhex(packed)
    # A byte in front: the arrays of a file need not be aligned.
    header = {"x": entry(kind, [2, 1], [1, 1 + len(data)]), "first": entry("U8", [1], [0, 1])}
    found = read_safetensors(write(tmp_path, header, b"\x07" + data))
    assert list(found) == ["first", "x"]
    assert found["x"].shape == (2, 1)
    assert found["x"].ravel().tolist() == values
    assert found["first"].tolist() == [7]


def test_scalars_empty_arrays_and_no_array(tmp_path: Path) -> None:
    header = {"empty": entry("F32", [3, 0], [4, 4]), "scalar": entry("F32", [], [0, 4])}
    found = read_safetensors(write(tmp_path, header, struct.pack("<f", 2.5)))
    assert found["scalar"].shape == ()
    assert found["scalar"] == 2.5
    assert found["empty"].shape == (3, 0)
    assert read_safetensors(write(tmp_path, {})) == {}
    assert read_safetensors(write(tmp_path, {"__metadata__": {"a": "b"}})) == {}


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{", b"", "not JSON"),
        (b"\xff\xfe", b"", "not JSON"),
        (100_000 * b"[", b"", "not JSON"),
        (b"[1]", b"", "not a JSON object"),
        ({"x": 1}, b"", "array 'x': expected an object"),
        ({"x": {"dtype": "U8"}}, b"", "array 'x': expected a shape, got None"),
        ({"x": entry("F8_E4M3")}, b"ab", "array 'x': expected one of BOOL, .* got 'F8_E4M3'"),
        ({"x": entry(["U8"])}, b"ab", "array 'x': expected one of"),
        ({"x": entry(shape=[-2])}, b"ab", r"expected a shape, got \[-2\]"),
        ({"x": entry(shape=[2.0])}, b"ab", r"expected a shape, got \[2.0\]"),
        ({"x": entry(shape=[True, 2])}, b"ab", "expected a shape"),
        ({"x": entry(offsets=[0])}, b"ab", r"expected two data_offsets, got \[0\]"),
        ({"x": entry(offsets=None)}, b"ab", "expected two data_offsets, got None"),
        ({"x": entry(offsets=[2, 0])}, b"ab", "expected 2 bytes within the 2"),
        ({"x": entry(offsets=[0, 1])}, b"ab", "expected 2 bytes .* got bytes 0 to 1"),
        ({"x": entry()}, b"a", "expected 2 bytes within the 1 of the file"),
        ({"x": entry(shape=[2**40, 2**40])}, b"ab", "within the 2 of the file"),
        ({"x": entry(offsets=[1, 3])}, b"abc", "begins at byte 1 of the data, expected 0"),
        ({"x": entry(), "y": entry()}, b"abcd", "array 'y' begins at byte 0"),
        ({"x": entry()}, b"abc", "the arrays have 2 bytes, the file has 3"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, header: Any, data: bytes, words: str) -> None:
    path = write(tmp_path, header, data)
    with pytest.raises(ValueError, match=words) as error:
        read_safetensors(path)
    assert str(error.value).startswith(f"{path}: ")


def test_files_that_are_cut_off_or_something_else(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"\1\0\0")
    with pytest.raises(ValueError, match="8 bytes of a safetensors header's length, got 3"):
        read_safetensors(path)
    with pytest.raises(ValueError, match="a safetensors header of 99 bytes, got 2 bytes"):
        read_safetensors(write(tmp_path, {}, length=99))
    path.write_bytes(b"PK\3\4 an archive, for example")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_safetensors(path)
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "none")


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    content = safetensors_bytes({"a": np.ones((2, 2), np.float32), "b": np.ones(1, np.float32)})
    path = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors: "):
            read_safetensors(path)


def test_files_of_the_reference_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="needs the package safetensors")
    random = np.random.default_rng(0)
    arrays = {
        str(dtype): random.integers(0, 2, (3, 5)).astype(dtype)
        for dtype in (bool, np.int8, np.uint16, np.int64, np.float16, np.float64)
    }
    arrays["bf16"] = random.standard_normal((2, 7)).astype(ml_dtypes.bfloat16)
    path = tmp_path / "library.safetensors"
    library.save_file(arrays, path)
    found = read_safetensors(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
