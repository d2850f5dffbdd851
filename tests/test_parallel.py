"""The thread pool: forks, Ctrl-C, several callers at once, and the number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import abcdeep_core as ab
from abcdeep_core import _core


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def draw(threads: int | None) -> np.ndarray:
    return ab.random_bits(1_000_003, seed=5, threads=threads)


@pytest.mark.parametrize("how", ["fork", "fork_from_thread", "fork_twice", "multiprocessing"])
def test_pool_survives_a_fork(how):
    # In a process of its own: a child that hangs is ended by the alarm.
    result = run_python(
        """
        import multiprocessing, os, signal, threading
        import numpy as np
        import abcdeep_core as ab

        expected = ab.random_bits(1_000_003, seed=5, threads=4)  # the pool has workers now

        def same(_=None):
            signal.alarm(60)
            return bool((ab.random_bits(1_000_003, seed=5, threads=4) == expected).all())

        def fork(body):
            child = os.fork()
            if child == 0:
                os._exit(0 if body() else 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        how = os.environ["HOW"]
        if how == "fork":
            assert fork(same)
        elif how == "fork_twice":
            assert fork(lambda: same() and fork(same) and same())
        elif how == "fork_from_thread":
            done = []
            thread = threading.Thread(target=lambda: done.append(fork(same)))
            thread.start()
            while thread.is_alive():
                assert same()
            assert done == [True]
        else:
            with multiprocessing.get_context("fork").Pool(3) as pool:
                assert all(pool.map(same, range(6)))
        assert same()
        """,
        HOW=how,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )
    assert result.returncode == 0, result.stderr


# Calls that take several seconds on the narrowest instruction set.
LONG_CALLS = {
    "reference": "_core.matmul_float64(a, a, out, threads)",
    "matmul": "ab.matmul(x, x, stochastic, seed=1, threads=threads)",
    "events": "ab.matmul(x, x, lba, events=True, threads=threads)",
    "backward": "ab.matmul_backward(x, x, x, lba, ste='recursive_of', threads=threads)",
    "conv2d": "ab.conv2d(images, kernels, stochastic, padding=1, seed=1, threads=threads)",
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", LONG_CALLS)
def test_interrupt_is_noticed_within_a_second(call, threads):
    result = run_python(
        f"""
        import os, signal, threading, time
        import numpy as np
        import abcdeep_core as ab
        from abcdeep_core import _core

        _core.set_isa("base")
        threads = {threads}
        a, out = np.ones((3072, 3072)), np.empty((3072, 3072))
        x = np.random.default_rng(1).standard_normal((1536, 1536)).astype(np.float32)
        images, kernels = x[:1152].reshape(12, 64, 48, 48), x[:96].reshape(256, 64, 3, 3)
        lba, stochastic = ab.lba_accumulator(), ab.float_accumulator("fp16", rounding="stochastic")
        sent = []

        def interrupt():
            sent.extend((time.perf_counter(), time.process_time()))
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.5, interrupt)
        try:
            timer.start()
            {LONG_CALLS[call]}
        except KeyboardInterrupt:
            # In this process's own time, because other tests run beside it.
            wall, own = time.perf_counter() - sent[0], time.process_time() - sent[1]
            assert own < threads and wall < 20, (wall, own)
            # The pool works as before.
            _core.matmul_float64(a[:256], a, out[:256], threads)
            assert (out[:256] == 3072).all()
        else:
            raise AssertionError("the call ended before the interrupt was noticed")
        """
    )
    assert result.returncode == 0, result.stderr


def test_several_python_threads_call_at_once():
    # One of them has the pool, the others work on their own threads.
    expected = draw(1)
    with ThreadPoolExecutor(6) as executor:
        results = list(executor.map(draw, [None, 1, 2, 3, 7, 4] * 8))
    assert all(np.array_equal(result, expected) for result in results)


def test_more_threads_than_pieces_and_than_processors():
    expected = draw(1)
    assert np.array_equal(draw(1024), expected)
    assert np.array_equal(ab.random_bits(3, seed=5, threads=64), expected[:3])
    assert ab.random_bits(0, seed=5, threads=64).size == 0


def test_default_is_the_processors_of_this_process(monkeypatch):
    monkeypatch.delenv("ABCDEEP_NUM_THREADS", raising=False)
    assert _core.default_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("3", 3), ("1024", 1024)])
def test_environment_sets_the_default(monkeypatch, text, count):
    monkeypatch.setenv("ABCDEEP_NUM_THREADS", text)
    assert _core.default_threads() == count
    assert np.array_equal(draw(None), draw(1))


@pytest.mark.parametrize("text", ["", "0", "-2", "1025", "two", "2.0", "2x", "9" * 20])
def test_environment_with_another_value_is_an_error(monkeypatch, text):
    monkeypatch.setenv("ABCDEEP_NUM_THREADS", text)
    message = f"ABCDEEP_NUM_THREADS: expected an integer from 1 to 1024, got '{text}'"
    with pytest.raises(ValueError, match=message):
        _core.default_threads()
    with pytest.raises(ValueError, match=message):
        draw(None)
    assert draw(2).size  # `threads=` was given, so the variable is not read


@pytest.mark.parametrize("scalar", [np.float64, np.float32])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_reference_product_does_not_depend_on_threads(isa, scalar, threads):
    rng = np.random.default_rng(3)
    a = rng.standard_normal((201, 67)).astype(scalar)
    b = rng.standard_normal((67, 45)).astype(scalar)
    product = _core.matmul_float64 if scalar is np.float64 else _core.matmul_float32
    out, expected = np.empty((201, 45), scalar), np.empty((201, 45), scalar)
    product(a, b, expected, 1)
    product(a, b, out, threads)
    assert np.array_equal(out, expected)
    # 67 products and sums of numbers below 6, one rounding each.
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    assert np.abs(out - exact).max() < 67 * 36 * 67 * np.finfo(scalar).eps
