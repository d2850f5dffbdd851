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
from .minilm_products import EventProducts, FloatProducts, Int8Products, calibrate
from .minilm_similarity import Agreement, compare

FLOATS = ("fp32", "m10e5", "m7e4", "m7e4:rne", "m5e4", "m5e4:rne", "m4e3", "m4e3:rne")
WIDTHS = (24, 20, 18, 16, 14, 12)
INTEGERS = (
    "int32:wrap",
    *(f"int{bits}:{overflow}" for bits in WIDTHS for overflow in ("wrap", "saturate")),
)
# M4E3 also with the biases, of those tried, that are the best for the calibration sentences.
NARROWEST = ("m4e3:b{}:p{}", "m4e3:b{}:p{}:rne")
BIASES = tuple((bias, bias + more) for bias in (5, 6, 7, 8) for more in (0, 1, 2))
COUNTED = 4  # calibration sentences whose overflows and underflows are counted


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
    overflow, underflow : float or None
        Share of the steps whose sum was out of range, and of the products that became zero; of
        float accumulators, on the first `COUNTED` calibration sentences.
    agreement : Agreement
        With float32 throughout.
    seconds : float
        Of one pass over the sentences.
    """

    operands: str
    accumulator: str
    note: str = ""
    overflow: float | None = None
    underflow: float | None = None
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
            "overflow": self.overflow,
            "underflow": self.underflow,
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

    STEPS = len(FLOATS) + 2 * len(NARROWEST) + len(INTEGERS)  # of `rows`

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
        for text in NARROWEST:
            rows.append(self._float_row(self._choose_biases(text), "biases chosen"))
        for text in INTEGERS:
            rows.append(
                self._row("int8", text, Int8Products(self.layers, ab.get_accumulator(text)))
            )
        return rows

    def _float_row(self, text: str, note: str = "") -> Row:
        datapath = ab.get_accumulator(text)
        counts = EventProducts(datapath)
        self._encode(self.calibration[:COUNTED], [counts], f"events of {text}")
        return self._row(
            "float32",
            text,
            FloatProducts(datapath),
            note=note,
            overflow=counts.share("accumulator_overflow", "steps"),
            underflow=counts.share("product_underflow", "terms"),
        )

    def _row(self, operands: str, accumulator: str, product: MatrixProduct, **fields: Any) -> Row:
        started = time.perf_counter()
        vectors = self._encode(self.sentences, [product], accumulator)[0]
        row = Row(
            operands=operands,
            accumulator=accumulator,
            agreement=compare(vectors, self.reference),
            seconds=time.perf_counter() - started,
            **fields,
        )
        self.log.step(
            f"{row.name}: similarities move by {row.agreement.mean_difference:.4f} on average"
            f" ({row.seconds:.1f} s)"
        )
        return row

    def _choose_biases(self, text: str) -> str:
        """Return the accumulator of a format whose vectors of the calibration are the nearest."""
        started = time.perf_counter()
        names = [text.format(*biases) for biases in BIASES]
        products = [FloatProducts(ab.get_accumulator(name)) for name in names]
        reference = self.model.encode(self.calibration)
        found = self._encode(self.calibration, products, "biases of m4e3")
        cosines = [float((vectors * reference).sum(axis=1).mean()) for vectors in found]
        best = cosines.index(max(cosines))
        self.log.step(
            f"float32, {names[best]}: of {len(names)} pairs of biases the best for the calibration"
            f" sentences ({time.perf_counter() - started:.1f} s)"
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
