"""`overflow_report`: batches of samples through the layers, on threads, processes or a cluster."""

from __future__ import annotations

import collections
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from .._arrays import Array
from .._format_base import integer
from .._threads import check_threads
from ..datapath import Datapath
from . import checkpoint as checkpoints
from .examine import Examination, examine
from .layer import OverflowLayer
from .report import LayerReport, OverflowReport
from .settings import DEFAULT_WIDTHS, Settings
from .source import ArraySource, Source
from .statistics import LayerStatistics

Batch = tuple[str | None, int, int]  # a layer (None: all of them), first sample, end
Results = dict[str, LayerStatistics]

DEFAULT_MEMORY = 1 << 30
_COUNTED_SAMPLES = 64
_MOST_PENDING = 32  # pieces in progress or waiting for an earlier one
_SAVE_SECONDS = 10.0
_TERMS_OF_A_PIECE = 1 << 34  # some seconds: progress and checkpoints come that often


def overflow_report(
    layers: Source | OverflowLayer | Sequence[OverflowLayer],
    inputs: Mapping[str, npt.ArrayLike] | npt.ArrayLike | None = None,
    *,
    accumulators: Sequence[str | Datapath] | str | Datapath | None = None,
    widths: Sequence[int] = DEFAULT_WIDTHS,
    group: SupportsIndex = 1,
    tile: SupportsIndex = 0,
    tile_merge: str = "same",
    order: str | tuple[int, ...] = "natural",
    signed: bool = True,
    title: str = "",
    batch: SupportsIndex | None = None,
    memory: SupportsIndex = DEFAULT_MEMORY,
    executor: Executor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = False,
    threads: SupportsIndex | None = None,
) -> OverflowReport:
    """Return what accumulators of every width do to the dot products of a model's layers.

    Parameters
    ----------
    layers : Source, OverflowLayer or sequence of OverflowLayer
        The model: `abcdeep_core.overflow.load_model` returns a Source with its data; layers need
        `inputs`.
    inputs : mapping of str to array_like, or array_like
        Integer inputs of the layers by name, with the samples first: (samples, ..., K), or
        (samples, C, H, W) of a convolution. An array stands for the input of a single layer.
    accumulators : sequence of str or Datapath, optional
        Emulated bit by bit for their errors, for example ``["int16:saturate", "m7e4"]`` (see
        `get_accumulator`); by default 16 bits that wrap and 16 that saturate. Float accumulators
        see operands times their scales.
    widths : pair of int
        Narrowest and widest accumulator of the curves, 2 to 64. One pass counts all of them.
    group : int
        Products per step (lanes of a SIMD instruction).
    tile : int
        Terms per partial sum, 0 for all.
    tile_merge : {"same", "exact"}
        Whether the sums of tiles are added in the same accumulator or in a wider one.
    order : str or tuple of int
        An order of `Datapath`, or ``"greedy"``: then the curves are those of the greedy order; the
        errors of `accumulators` stay those of the natural one.
    signed : bool
        Accumulators of the curves, and those by default: two's complement, or unsigned.
    title : str
        Of the report; by default the source's.
    batch : int, optional
        Samples at a time; by default what fits `memory`. The result does not depend on it.
    memory : int
        Bytes that operands and results of one piece of work may take; see Notes.
    executor : concurrent.futures.Executor, optional
        Runs the pieces of work: threads, processes, or ``distributed.Client(...).get_executor()``.
        The result is the same as without one. Each piece then uses one thread unless `threads` says
        otherwise.
    checkpoint : path-like, optional
        A file that keeps what is done; if it is there, the run goes on from it.
    progress : bool, optional
        Show a progress bar with an estimate on stderr; None shows it on a terminal.
    threads : int, optional
        Threads of the kernels.

    Returns
    -------
    OverflowReport

    Raises
    ------
    TypeError, ValueError
        Of names, shapes, dtypes and ranges of layers and inputs; of a checkpoint of another run.

    Notes
    -----
    Memory: the model and its data, plus about ``memory`` bytes for each piece of work in progress,
    plus 2.1 kB for each output channel. A piece is a batch of samples of one layer (of all layers,
    where a source computes their inputs together); its rows of outputs are cut so that
    ``rows * (4 K + 40 N)`` stays below ``memory / 4``.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> rng = np.random.default_rng(0)
    >>> w = rng.integers(-128, 128, (256, 10)).astype(np.int8)
    >>> layer = ab.OverflowLayer(name="fc", weight=w, input_range="u8")
    >>> x = rng.integers(0, 256, (100, 256)).astype(np.uint8)
    >>> report = ab.overflow_report(layer, x)
    >>> report["fc"].bounds["data_type"], report["fc"].data_widths["given"]
    (24, 21)
    >>> [int(n) for n in report.curve("fc").overflowed[10:14]]  # of 1000, with 18 to 21 bits
    [839, 249, 1, 0]
    """
    source = _as_source(layers, inputs, title)
    settings = Settings.of(
        accumulators,
        widths,
        group=integer("group", group, 1),
        tile=integer("tile", tile, 0),
        tile_merge=tile_merge,
        order=order,
        signed=signed,
    )
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f"executor must be a concurrent.futures.Executor, got {type(executor).__name__}"
        )
    check_threads(threads)
    limit = integer("memory", memory, 1 << 16)
    what = Examination(
        request=settings.request,
        accumulators=settings.accumulators,
        counted_samples=max(1, source.samples // _COUNTED_SAMPLES),
        piece_bytes=limit // 4,
        threads=1 if executor is not None and threads is None else _optional_int(threads),
    )
    batches = _batches(source, limit, None if batch is None else integer("batch", batch, 1))
    found = {
        layer.name: LayerStatistics.empty(
            layer.groups, layer.terms, layer.channels, len(settings.accumulators)
        )
        for layer in source.layers
    }
    done, run = 0, ""
    if checkpoint is not None:
        folder = os.path.dirname(os.path.abspath(checkpoint))
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"checkpoint: there is no folder {folder}")
        run = checkpoints.fingerprint(source, settings, batches)
        if os.path.exists(checkpoint):
            done, found = checkpoints.load(checkpoint, run)
    saved = time.monotonic()
    with _Progress(batches, done, source, progress) as shown:
        for results in _results(source, what, batches[done:], executor):
            for name, part in results.items():
                found[name] = found[name] + part
            done += 1
            shown.advance()
            if checkpoint is not None and (
                done == len(batches) or time.monotonic() - saved > _SAVE_SECONDS
            ):
                checkpoints.save(checkpoint, run, done, found)
                saved = time.monotonic()
    return OverflowReport(
        title=title or source.title,
        samples=source.samples,
        settings=settings,
        layers=tuple(LayerReport(layer, found[layer.name], settings) for layer in source.layers),
        skipped=tuple(source.skipped),
    )


def _as_source(
    layers: Source | OverflowLayer | Sequence[OverflowLayer],
    inputs: Mapping[str, npt.ArrayLike] | npt.ArrayLike | None,
    title: str,
) -> Source:
    if isinstance(layers, Source):
        if inputs is not None:
            raise TypeError("inputs must be None for a Source, which has its own")
        return layers
    given = [layers] if isinstance(layers, OverflowLayer) else list(layers)
    for layer in given:
        if not isinstance(layer, OverflowLayer):
            raise TypeError(f"layers must be OverflowLayers, got {type(layer).__name__}")
    if inputs is None:
        raise TypeError("inputs must hold the input of each layer, got None")
    if not isinstance(inputs, Mapping):
        if len(given) != 1:
            raise TypeError(
                f"inputs must be a mapping for {len(given)} layers, got {type(inputs).__name__}"
            )
        inputs = {given[0].name: inputs}
    arrays = {name: x if isinstance(x, np.ndarray) else np.asarray(x) for name, x in inputs.items()}
    return ArraySource(given, arrays, title)


def _batches(source: Source, memory: int, batch: int | None) -> list[Batch]:
    """Return the pieces of work in the order in which their results are added."""
    apart = getattr(source, "independent_layers", False)
    if not source.samples:
        return []
    one = {name: np.asarray(x) for name, x in source.inputs(0, 1).items()}
    loads = {
        layer.name: _load(layer, one[layer.name]) for layer in source.layers if layer.name in one
    }
    groups: list[tuple[str | None, int, int]]
    if apart:
        groups = [(name, *load) for name, load in loads.items()]
    else:
        inputs = sum(4 * x.nbytes for x in one.values())
        rows = max((size - 4 * one[name].nbytes for name, (size, _) in loads.items()), default=0)
        groups = [(None, inputs + rows, sum(terms for _, terms in loads.values()))]
    batches: list[Batch] = []
    for name, size, terms in groups:
        wanted = min(-(-source.samples // 4), max(8, _TERMS_OF_A_PIECE // max(terms, 1)))
        step = batch or max(1, min(memory // 2 // max(size, 1), wanted))
        batches += [
            (name, start, min(start + step, source.samples))
            for start in range(0, source.samples, step)
        ]
    return batches


def _load(layer: OverflowLayer, x: Array) -> tuple[int, int]:
    """Return the bytes that one sample takes, and its number of products."""
    x = layer.check_input(x)
    dots = math.prod(layer.position_shape(x.shape))
    # the operand rows of a convolution's group are no view of the input
    rows = dots * layer.terms * x.itemsize if layer.kind == "conv2d" else 0
    return 4 * x.nbytes + rows, dots * layer.terms * layer.channels


def work(
    layers: Sequence[OverflowLayer], source: Source, what: Examination, begin: int, end: int
) -> Results:
    """Return the statistics of some layers for samples [begin, end): one piece of work."""
    inputs = source.inputs(begin, end)
    results = {}
    for layer in layers:
        try:
            x = inputs[layer.name]
        except KeyError:
            raise ValueError(
                f"{layer.name}: the source has no input for it, it has {sorted(inputs)}"
            ) from None
        results[layer.name] = examine(layer, np.asarray(x), begin, what)
    return results


def _results(
    source: Source, what: Examination, batches: Sequence[Batch], executor: Executor | None
) -> Iterator[Results]:
    """Yield the results in the order of the batches; few wait at a time."""
    calls = (_call(source, what, one) for one in batches)
    if executor is None:
        for function, arguments in calls:
            yield function(*arguments)
        return
    pending: collections.deque[Any] = collections.deque()
    try:
        for function, arguments in calls:
            pending.append(executor.submit(function, *arguments))
            if len(pending) >= _MOST_PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _call(
    source: Source, what: Examination, one: Batch
) -> tuple[Callable[..., Results], tuple[Any, ...]]:
    name, begin, end = one
    if name is None:
        return work, (list(source.layers), source, what, begin, end)
    layer = next(layer for layer in source.layers if layer.name == name)
    part: Array = np.asarray(source.inputs(begin, end)[name])
    return _work_apart, (layer, part, what, begin)


def _work_apart(layer: OverflowLayer, x: Array, what: Examination, begin: int) -> Results:
    return {layer.name: examine(layer, x, begin, what)}


def _optional_int(threads: SupportsIndex | None) -> int | None:
    return None if threads is None else integer("threads", threads)


class _Progress:
    """Samples times layers that are done, and how long the rest will take."""

    def __init__(
        self, batches: Sequence[Batch], done: int, source: Source, shown: bool | None
    ) -> None:
        from ..nn.progress import ProgressBar

        self._bar = ProgressBar(len(batches), label=source.title or "overflow", shown=shown)
        self._bar.done = done
        self._left = len(batches) - done
        self._began, self._finished = time.monotonic(), 0

    def advance(self) -> None:
        self._finished += 1
        self._left -= 1
        seconds = (time.monotonic() - self._began) / self._finished * self._left
        self._bar.advance(f"about {_duration(seconds)} left" if self._left else "")

    def __enter__(self) -> _Progress:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
