"""Statistics of an unfinished report in a file, so that a run can go on where it ended."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..events import Events
from .layer import OverflowLayer
from .settings import Settings
from .source import Source
from .statistics import AccumulatorStatistics, LayerStatistics, Place

VERSION = 1
_ARRAYS = ("widths", "partial_sums", "input_lowest", "input_highest")


def fingerprint(source: Source, settings: Settings, plan: Sequence[Any]) -> str:
    """Return a digest of what a run depends on: layers, three samples, settings, pieces."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(repr(value).encode())

    add([VERSION, source.samples, settings.to_dict(), list(plan)])
    add([datapath.to_dict() for datapath in settings.accumulators])
    for layer in source.layers:
        for field in dataclasses.fields(OverflowLayer):
            add(field.name)
            add(getattr(layer, field.name))
    for sample in sorted({0, source.samples // 2, source.samples - 1} if source.samples else ()):
        for name, x in sorted(source.inputs(sample, sample + 1).items()):
            add(name)
            add(np.asarray(x))
    return digest.hexdigest()


def save(
    path: str | os.PathLike[str], run: str, done: int, statistics: Mapping[str, LayerStatistics]
) -> None:
    """Write the statistics after `done` pieces; an older file is replaced only by a whole one."""
    header: dict[str, Any] = {"version": VERSION, "run": run, "done": done, "layers": []}
    arrays: dict[str, Any] = {}
    for number, (name, seen) in enumerate(statistics.items()):
        for field in _ARRAYS:
            arrays[f"{number}.{field}"] = getattr(seen, field)
        for width, (_, inputs) in seen.first.items():
            arrays[f"{number}.first.{width}"] = inputs
        for i, accumulator in enumerate(seen.accumulators):
            if accumulator.spans is not None:
                arrays[f"{number}.spans.{i}"] = accumulator.spans
        header["layers"].append(
            {
                "name": name,
                "samples": seen.samples,
                "dots": seen.dots,
                "smallest": seen.smallest,
                "largest": seen.largest,
                "first": {
                    width: dataclasses.astuple(place) for width, (place, _) in seen.first.items()
                },
                "accumulators": [_plain(a) for a in seen.accumulators],
            }
        )
    target = Path(path)
    part = target.with_name(target.name + ".part")
    packed = io.BytesIO()
    np.savez(packed, header=np.array(json.dumps(header)), **arrays)
    part.write_bytes(packed.getvalue())
    os.replace(part, target)


def load(path: str | os.PathLike[str], run: str) -> tuple[int, dict[str, LayerStatistics]]:
    """Return the number of pieces that are done, and the statistics of the layers.

    Raises
    ------
    ValueError
        If the file is no checkpoint, or one of another run.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            if header["version"] != VERSION or header["run"] != run:
                raise _OtherRunError
            found = {
                layer["name"]: _statistics(number, layer, arrays)
                for number, layer in enumerate(header["layers"])
            }
            return int(header["done"]), found
    except _OtherRunError:
        raise ValueError(
            f"checkpoint {os.fspath(path)}: expected that of the same model, data and settings; "
            "remove it or name another file"
        ) from None
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError):
        raise ValueError(f"checkpoint {os.fspath(path)}: not a checkpoint") from None


class _OtherRunError(Exception):
    pass


def _plain(a: AccumulatorStatistics) -> dict[str, Any]:
    return {
        "wrong": a.wrong,
        "largest_error": a.largest_error,
        "sums": [str(value) for value in (a.noise, a.signal, a.lost, a.lost_magnitude)],
        "nonfinite": a.nonfinite,
        "events": None if a.events is None else a.events.to_dict(),
    }


def _number(text: str) -> int | Fraction:
    value = Fraction(text)
    return value.numerator if value.denominator == 1 else value


def _statistics(number: int, layer: Mapping[str, Any], arrays: Any) -> LayerStatistics:
    accumulators = []
    for i, a in enumerate(layer["accumulators"]):
        noise, signal, lost, lost_magnitude = (_number(text) for text in a["sums"])
        spans = f"{number}.spans.{i}"
        accumulators.append(
            AccumulatorStatistics(
                wrong=a["wrong"],
                largest_error=a["largest_error"],
                noise=noise,
                signal=signal,
                lost=Fraction(lost),
                lost_magnitude=Fraction(lost_magnitude),
                nonfinite=a["nonfinite"],
                events=None if a["events"] is None else Events(**a["events"]),
                spans=arrays.get(spans),
            )
        )
    return LayerStatistics(
        samples=layer["samples"],
        dots=layer["dots"],
        smallest=layer["smallest"],
        largest=layer["largest"],
        first={
            int(width): (
                Place(sample, tuple(position), channel),
                arrays[f"{number}.first.{width}"],
            )
            for width, (sample, position, channel) in layer["first"].items()
        },
        accumulators=accumulators,
        **{field: arrays[f"{number}.{field}"] for field in _ARRAYS},
    )
