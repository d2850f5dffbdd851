"""A tiny BERT for the tests of the MiniLM example, as arrays and as a folder of files."""

from __future__ import annotations

import dataclasses
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from abcdeep_core.examples.minilm import LINEAR, BertConfig, SentenceModel
from abcdeep_core.examples.word_piece import WordPiece

CHARACTERS = string.ascii_lowercase + string.digits
VOCABULARY = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *CHARACTERS,
    *(f"##{character}" for character in CHARACTERS),
    *".,!?-'",
)
CONFIG = BertConfig(
    hidden_size=8,
    intermediate_size=12,
    num_attention_heads=2,
    num_hidden_layers=2,
    max_position_embeddings=80,
    layer_norm_eps=1e-3,
    vocab_size=len(VOCABULARY),
)
SENTENCES = ("Ab, cd!", "x", "the 2nd one is longer.", "")


def tiny_tensors(seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Return random weights by the names of a BERT checkpoint."""
    random = np.random.default_rng(seed)
    hidden, inner = CONFIG.hidden_size, CONFIG.intermediate_size
    tensors = {}
    for kind, rows in (("word", CONFIG.vocab_size), ("position", 80), ("token_type", 2)):
        tensors[f"embeddings.{kind}_embeddings.weight"] = random.standard_normal((rows, hidden))
    norms = ["embeddings"]
    for layer in range(CONFIG.num_hidden_layers):
        place = f"encoder.layer.{layer}"
        for path in LINEAR.values():
            outputs = inner if path == "intermediate.dense" else hidden
            inputs = inner if path == "output.dense" else hidden
            tensors[f"{place}.{path}.weight"] = random.standard_normal((outputs, inputs))
            tensors[f"{place}.{path}.bias"] = random.standard_normal(outputs)
        norms += [f"{place}.attention.output", f"{place}.output"]
    for place in norms:
        tensors[f"{place}.LayerNorm.weight"] = random.uniform(0.5, 2, hidden)
        tensors[f"{place}.LayerNorm.bias"] = random.standard_normal(hidden)
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def tiny_model(seed: int = 0) -> SentenceModel:
    return SentenceModel(CONFIG, tiny_tensors(seed), WordPiece(VOCABULARY))


def safetensors_bytes(tensors: dict[str, npt.NDArray[Any]]) -> bytes:
    """Return a safetensors file of float32 arrays."""
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    data = b""
    for name, array in tensors.items():
        assert array.dtype == np.float32
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += array.astype("<f4").tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def write_model(folder: Path) -> Path:
    """Write the three files of the tiny model and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(CONFIG)))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in VOCABULARY))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tiny_tensors()))
    return folder
