"""Runs of the overflow report: batches, threads, executors, checkpoints, merging, errors."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import abcdeep_core as ab
import overflow_cases as cases
from abcdeep_core.overflow import ArraySource
from abcdeep_core.overflow.exact_sums import sum_of_floats, sum_of_squares

ACCUMULATORS = ("int16:wrap", "int14:saturate:g4", "m7e4")
PLAIN = {"accumulators": ACCUMULATORS}


@pytest.fixture(scope="module")
def source():
    return ArraySource(cases.model(), cases.inputs(), "two layers")


@pytest.fixture(scope="module")
def expected(source):
    return ab.overflow_report(source, **PLAIN).to_json()


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_batches_do_not_matter(source, expected, batch):
    assert ab.overflow_report(source, batch=batch, **PLAIN).to_json() == expected


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_and_memory_do_not_matter(source, expected, threads):
    report = ab.overflow_report(source, threads=threads, memory=1 << 16, **PLAIN)
    assert report.to_json() == expected


def test_reports_add_up(expected):
    layers, x = cases.model(), cases.inputs()

    def part(begin, end):
        inputs = {name: array[begin:end] for name, array in x.items()}
        return ab.overflow_report(layers, inputs, title="two layers", **PLAIN)

    a, b, c = part(0, 5), part(5, 11), part(11, cases.SAMPLES)
    assert (a + b + c).to_json() == expected
    assert (a + (b + c)).to_json() == expected
    assert (part(0, 0) + part(0, cases.SAMPLES)).to_json() == expected


def test_a_report_can_be_pickled(source, expected):
    report = ab.overflow_report(source, **PLAIN)
    assert pickle.loads(pickle.dumps(report)).to_json() == expected


def test_threads_as_executor(source, expected):
    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        report = ab.overflow_report(source, executor=executor, batch=2, **PLAIN)
    assert report.to_json() == expected


def test_processes_as_executor(source, expected):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        report = ab.overflow_report(source, executor=executor, batch=5, **PLAIN)
    assert report.to_json() == expected


@pytest.mark.slow
def test_dask_as_executor(source, expected):
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        report = ab.overflow_report(source, executor=client.get_executor(), batch=5, **PLAIN)
        assert report.to_json() == expected
        assert len(client.scheduler_info()["workers"]) == 2


class Together:
    """A source that computes the inputs of all layers at once."""

    def __init__(self, fail_at=None):
        self.title, self.layers, self.skipped = "two layers", cases.model(), ()
        self.samples = cases.SAMPLES
        self.fail_at, self.calls = fail_at, []

    def inputs(self, begin, end):
        self.calls.append((begin, end))
        if self.fail_at is not None and begin >= self.fail_at:
            raise KeyboardInterrupt
        return {name: x[begin:end] for name, x in cases.inputs().items()}


def test_layers_that_are_computed_together(expected):
    assert ab.overflow_report(Together(), batch=4, **PLAIN).to_json() == expected


@pytest.mark.parametrize("order", ["natural", "greedy"])
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, order):
    from abcdeep_core.overflow import run

    monkeypatch.setattr(run, "_SAVE_SECONDS", 0.0)
    path = tmp_path / "run.npz"
    whole = ab.overflow_report(Together(), batch=4, order=order, **PLAIN)
    options = {"batch": 4, "order": order, "checkpoint": path, **PLAIN}
    with pytest.raises(KeyboardInterrupt):
        ab.overflow_report(Together(fail_at=12), **options)
    again = Together()
    report = ab.overflow_report(again, **options)
    assert report.to_json() == whole.to_json()
    assert (4, 8) not in again.calls
    assert (12, 16) in again.calls
    once_more = Together()
    assert ab.overflow_report(once_more, **options).to_json() == whole.to_json()
    assert set(once_more.calls) == {(0, 1)}
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    ab.overflow_report(Together(), checkpoint=path, **PLAIN)
    other = Together()
    other.layers = [cases.linear(seed=3), cases.convolution()]
    for source, options in (
        (other, PLAIN),
        (Together(), {"accumulators": "int16:wrap"}),
        (Together(), PLAIN | {"group": 2}),
        (Together(), PLAIN | {"batch": 5}),
    ):
        with pytest.raises(ValueError, match=r"run\.npz: expected that of the same model"):
            ab.overflow_report(source, checkpoint=path, **options)
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"run\.npz: not a checkpoint"):
            ab.overflow_report(Together(), checkpoint=path, **PLAIN)


def test_ctrl_c_ends_a_run_soon(tmp_path):
    script = textwrap.dedent("""
        import numpy as np, abcdeep_core as ab
        rng = np.random.default_rng(0)
        w = rng.integers(-128, 128, (4096, 1024)).astype(np.int8)
        x = rng.integers(-128, 128, (65536, 4096)).astype(np.int8)
        layer = ab.OverflowLayer(name="fc", weight=w, input_range="s8")
        print("ready", flush=True)
        try:
            ab.overflow_report(layer, x, threads=1)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"interrupted\n"


def test_progress_names_what_is_left(source, capsys):
    ab.overflow_report(source, batch=2, progress=True, **PLAIN)
    shown = capsys.readouterr().err
    assert "two layers" in shown
    assert " left" in shown
    assert "24/24" in shown
    ab.overflow_report(source, **PLAIN)
    assert capsys.readouterr().err == ""


def test_sums_are_exact():
    rng = np.random.default_rng(0)
    for spread in (1, 20, 21, 22, 41, 42, 61):
        x = rng.integers(-(1 << spread), 1 << spread, 3000)
        assert sum_of_squares(x) == sum(int(v) ** 2 for v in x)
    floats = np.ldexp(rng.standard_normal(3000), rng.integers(-300, 300, 3000))
    from fractions import Fraction

    assert sum_of_floats(floats) == sum(Fraction(float(v)) for v in floats)
    assert sum_of_squares(np.zeros(0, np.int64)) == sum_of_floats(np.zeros(0)) == 0


LAYER = cases.linear()
X = cases.inputs()["fc"]
WRONG = {
    "no inputs": (lambda: ab.overflow_report(LAYER), TypeError, "inputs must hold"),
    "inputs of a source": (
        lambda: ab.overflow_report(ArraySource([LAYER], {"fc": X}), X),
        TypeError,
        "inputs must be None",
    ),
    "no layer": (lambda: ab.overflow_report([3], X), TypeError, "layers must be OverflowLayers"),
    "other names": (
        lambda: ab.overflow_report(LAYER, {"fd": X}),
        ValueError,
        r"those of the layers \['fc'\], got \['fd'\]",
    ),
    "two names": (
        lambda: ab.overflow_report([LAYER, LAYER], {"fc": X}),
        ValueError,
        "names of their own",
    ),
    "samples": (
        lambda: ab.overflow_report(cases.model(), {**cases.inputs(), "fc": X[:2]}),
        ValueError,
        "same number of samples",
    ),
    "one array": (lambda: ab.overflow_report(cases.model(), X), TypeError, "mapping for 2 layers"),
    "float input": (
        lambda: ab.overflow_report(LAYER, X.astype(np.float32)),
        TypeError,
        "fc: input must hold int8",
    ),
    "input shape": (
        lambda: ab.overflow_report(LAYER, X[:, :5]),
        ValueError,
        r"fc: input must have shape \(samples, ..., 48\), got \(\d+, 5\)",
    ),
    "input range": (
        lambda: ab.overflow_report(dataclasses.replace(LAYER, input_range="u4"), X),
        ValueError,
        "fc: input must be within 0 to 15, got",
    ),
    "widths": (lambda: ab.overflow_report(LAYER, X, widths=8), ValueError, "widths must be a pair"),
    "widths in order": (lambda: ab.overflow_report(LAYER, X, widths=(9, 8)), ValueError, "9..64"),
    "accumulator": (lambda: ab.overflow_report(LAYER, X, accumulators="int"), ValueError, "'int'"),
    "twice": (
        lambda: ab.overflow_report(LAYER, X, accumulators=["m7e4", "m7e4"]),
        ValueError,
        "differ in their names",
    ),
    "group": (lambda: ab.overflow_report(LAYER, X, group=0), ValueError, "group"),
    "order": (lambda: ab.overflow_report(LAYER, X, order="best"), ValueError, "order"),
    "greedy group": (
        lambda: ab.overflow_report(LAYER, X, order="greedy", group=4),
        ValueError,
        "group=1",
    ),
    "executor": (lambda: ab.overflow_report(LAYER, X, executor=3), TypeError, "executor"),
    "batch": (lambda: ab.overflow_report(LAYER, X, batch=0), ValueError, "batch"),
    "memory": (lambda: ab.overflow_report(LAYER, X, memory=3), ValueError, "memory"),
    "sum of other layers": (
        lambda: ab.overflow_report(LAYER, X) + ab.overflow_report(cases.linear(seed=2), X),
        ValueError,
        "different layers",
    ),
    "sum of other settings": (
        lambda: ab.overflow_report(LAYER, X) + ab.overflow_report(LAYER, X, group=2),
        ValueError,
        "different settings",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_what_was_expected(name):
    call, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        call()


WRONG_LAYERS = {
    "name": ({"name": ""}, TypeError, "name"),
    "kind": ({"kind": "conv"}, ValueError, "kind"),
    "float weight": ({"weight": np.ones((3, 2))}, TypeError, "fc: weight must hold int8"),
    "dimensions": ({"weight": np.ones((3, 2, 1, 1), np.int8)}, ValueError, "2 dimensions"),
    "range": ({"weight_range": "s4"}, ValueError, "fc: weight must be within -8 to 7, got"),
    "type": ({"input_range": "q8"}, ValueError, "input_range"),
    "bias": ({"bias": np.zeros(3, np.int64)}, ValueError, r"bias must have shape \(7,\)"),
    "float bias": ({"bias": np.zeros(7)}, TypeError, "bias must hold integers"),
    "large bias": ({"bias": np.full(7, 1 << 62)}, ValueError, "2^61"),
    "groups": ({"groups": 2}, ValueError, "groups must be 1"),
}


@pytest.mark.parametrize("name", WRONG_LAYERS)
def test_layers_are_checked(name):
    fields, error, text = WRONG_LAYERS[name]
    with pytest.raises(error, match=text.replace("^", r"\^")):
        dataclasses.replace(LAYER, **fields)
