"""What the MiniLM study runs: rows of arithmetic, each with the sentence similarities it gives."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import abcdeep_core as ab
from abcdeep_core import nn

from .accumulator_study import StepLog
from .minilm import Array, MatrixProduct, SentenceModel
from .minilm_products import FloatProducts, Int8Products, calibrate
from .minilm_similarity import Agreement, compare

FLOATS = ("fp32", "m10e5", "m7e4", "m5e4", "m4e3")
INTEGERS = (
    "int32:wrap",
    "int24:wrap",
    "int24:saturate",
    "int20:wrap",
    "int20:saturate",
    "int16:wrap",
    "int16:saturate",
)
# Formats whose biases are also chosen by the calibration sentences, and the biases that are tried.
BIASES = {"m7e4": range(7, 12), "m5e4": range(7, 12), "m4e3": range(2, 8)}
PRODUCT_BIASES = (2, 3, 4)  # how much larger the bias of products is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The whole model with one arithmetic in all linear layers.

    Attributes
    ----------
    operands : str
        ``"float32"`` or ``"int8"``.
    accumulator : str
        As `get_accumulator` takes it.
    note : str
        How the accumulator was chosen, if not from the list.
    agreement : Agreement
        With float32 throughout.
    seconds : float
        Of one pass over the sentences.
    """

    operands: str
    accumulator: str
    note: str = ""
    agreement: Agreement
    seconds: float

    @property
    def name(self) -> str:
        """For tables: ``int8, int16:wrap``."""
        return f"{self.operands}, {self.accumulator}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "operands": self.operands,
            "accumulator": self.accumulator,
            "note": self.note,
            **self.agreement.to_dict(),
            "seconds": self.seconds,
        }


class Study:
    """The model, the sentences, and their float32 vectors to compare with.

    Parameters
    ----------
    model : SentenceModel
    sentences : sequence of str
        Paraphrases next to each other, see `minilm_similarity.compare`.
    calibration : sequence of str
        Choose the scales of int8 activations and the biases of narrow floats.
    log : StepLog
        Told about every step; a terminal also sees a bar for each.
    """

    STEPS = len(FLOATS) + 2 * len(BIASES) + len(INTEGERS)  # of `rows`

    def __init__(
        self,
        model: SentenceModel,
        sentences: Sequence[str],
        calibration: Sequence[str],
        log: StepLog,
    ) -> None:
        self.model = model
        self.sentences = sentences
        self.calibration = calibration
        self.log = log
        self.layers = calibrate(model, calibration)
        self.reference = model.encode(sentences)

    def rows(self) -> list[Row]:
        """Run every arithmetic and return its row."""
        rows = [self._float_row(text) for text in FLOATS]
        for text in BIASES:
            rows.append(self._float_row(self._choose_biases(text), "biases chosen"))
        for text in INTEGERS:
            rows.append(self._row("int8", text, Int8Products(self.layers, _datapath(text))))
        return rows

    def _float_row(self, text: str, note: str = "") -> Row:
        return self._row("float32", text, FloatProducts(_datapath(text)), note)

    def _row(self, operands: str, accumulator: str, product: MatrixProduct, note: str = "") -> Row:
        started = time.perf_counter()
        vectors = self._encode(self.sentences, [product], accumulator)[0]
        row = Row(
            operands=operands,
            accumulator=accumulator,
            note=note,
            agreement=compare(vectors, self.reference),
            seconds=time.perf_counter() - started,
        )
        self.log.step(
            f"{row.name}: similarities move by {row.agreement.mean_difference:.4f} on average"
            f" ({row.seconds:.1f} s)"
        )
        return row

    def _choose_biases(self, text: str) -> str:
        """Return the accumulator of a format whose vectors of the calibration are the nearest."""
        started = time.perf_counter()
        names = [
            f"{text}:b{bias}:p{bias + more}" for bias in BIASES[text] for more in PRODUCT_BIASES
        ]
        products = [FloatProducts(_datapath(name)) for name in names]
        reference = self.model.encode(self.calibration)
        found = self._encode(self.calibration, products, f"biases of {text}")
        cosines = [float((vectors * reference).sum(axis=1).mean()) for vectors in found]
        best = cosines.index(max(cosines))
        self.log.step(
            f"{text}: of {len(names)} pairs of biases {names[best]} is the best for the"
            f" calibration sentences ({time.perf_counter() - started:.1f} s)"
        )
        return names[best]

    def _encode(
        self, sentences: Sequence[str], products: Sequence[MatrixProduct], label: str
    ) -> list[Array]:
        """Return the vectors for each product; a bar counts the linear layers."""
        with nn.ProgressBar(len(products) * len(self.layers), label=label) as bar:

            def counted(product: MatrixProduct) -> MatrixProduct:
                def run(name: str, x: Array, w: Array) -> Array:
                    y = product(name, x, w)
                    bar.advance(name)
                    return y

                return run

            return [self.model.encode(sentences, counted(product)) for product in products]


def _datapath(text: str) -> ab.Datapath:
    return ab.get_accumulator(text)
