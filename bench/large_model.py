"""An overflow report of a large model: its time, and the most memory that the process took."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import abcdeep_core as ab


def main() -> None:
    """Make random layers, and inputs in files; run the report; print what it took."""
    parser = argparse.ArgumentParser(prog="python -m bench.large_model", description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=2048, help="terms and channels of each layer")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    width, samples = options.width, options.samples
    names = [f"layer {number}" for number in range(options.layers)]
    layers = [
        ab.OverflowLayer(
            name=name,
            weight=np.clip(rng.normal(0, 32, (width, width)), -127, 127).astype(np.int8),
            input_range="s8",
        )
        for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        inputs = {}
        for name in names:
            path = Path(folder, f"{name}.npy")
            np.save(path, np.clip(rng.normal(0, 32, (samples, width)), -127, 127).astype(np.int8))
            inputs[name] = np.load(path, mmap_mode="r")
        before = time.perf_counter()
        report = ab.overflow_report(
            layers, inputs, title="large model", progress=True, threads=options.threads
        )
        seconds = time.perf_counter() - before
    weights = options.layers * width * width
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = weights * samples / seconds / 1e9
    print(f"{weights / 1e6:.1f} M weights, {samples} samples, {len(report.layers)} layers")
    print(f"{seconds:.0f} s, {rate:.1f} G products/s, at most {peak / 1e9:.2f} GB of memory")
    print("\n".join(report.table().splitlines()[:5]))


if __name__ == "__main__":
    main()
