"""Block formats, beside copies of as many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import abcdeep_core as ab

from .bench_quantize import copy_of, data
from .measure import Case, Settings, targets

COLUMNS = 4096
ROUNDINGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("nearest_even", "nearest_even", {}),
    ("stochastic, 8 bits", "stochastic", {"seed": 1, "bits": 8}),
    ("stochastic, exact", "stochastic", {"seed": 1}),
)
GOALS = {"nearest_even": targets(0.3, 0.2), "stochastic": targets(0.2, 0.1)}


def bytes_moved(fmt: ab.BlockFormat, elements: int) -> int:
    """Return the bytes read and written: a tensor scale needs a pass over the input of its own."""
    passes = 1 if fmt.tensor_scale is None else 2
    return 2 * ((4 * passes + 1) * elements // 2)


def cases(settings: Settings) -> Iterator[Case]:
    columns = min(COLUMNS, settings.elements)
    x = data(4 * settings.elements // columns * columns, "normal").reshape(-1, columns)
    for name in ("mxfp4", "mxfp8_e4m3", "mxint8", "nvfp4", "nvfp4_2d", "nvfp4_4over6"):
        fmt, target = ab.get_block_format(name), ab.quantize_blocks(x, name)
        for label, rounding, options in ROUNDINGS:
            if rounding == "stochastic" and name not in ("mxfp4", "nvfp4"):
                continue

            def quantize(
                name: str = name,
                rounding: str = rounding,
                options: dict[str, Any] = options,
                out: ab.BlockArray = target,
            ) -> object:
                return ab.quantize_blocks(
                    x, name, rounding, out=out, threads=settings.threads, **options
                )

            yield Case(
                name=f"quantize_blocks {name}, {label}",
                work=x.size,
                unit="element",
                run=quantize,
                baseline_run=copy_of(bytes_moved(fmt, x.size)),
                baseline="np.copyto",
                targets=GOALS[rounding] if name in ("mxfp4", "nvfp4") else {},
            )
    codes, scales, tensor_scale = ab.encode_blocks(x, "nvfp4")
    out = np.empty_like(x)

    def encode() -> object:
        return ab.encode_blocks(x, "nvfp4", threads=settings.threads)

    def decode() -> object:
        return ab.decode_blocks(
            codes, scales, "nvfp4", tensor_scale=tensor_scale, out=out, threads=settings.threads
        )

    for what, run, moved in (("encode", encode, 8.5), ("decode", decode, 4.5)):
        yield Case(
            name=f"{what}_blocks nvfp4, packed",
            work=x.size,
            unit="element",
            run=run,
            baseline_run=copy_of(2 * int(moved * x.size / 2)),
            baseline="np.copyto",
        )
