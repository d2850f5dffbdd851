"""N:M sparse training on Fashion-MNIST: ``python -m abcdeep_core.examples.nm_fashion``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from abcdeep_core import nn

from .fashion_networks import NETWORKS
from .nm_rows import EXPECTATIONS, NEAR, ROWS, TRANSPOSABLE, counts
from .training_command import Command, run


def dense_weights(widths: Mapping[str, int]) -> dict[str, str]:
    """Return, for each network and transposable pattern, the shapes of the weights without mask.

    Parameters
    ----------
    widths : mapping of str to int
        Features or channels of a layer of each network.
    """
    facts = {}
    for network, width in widths.items():
        layers = NETWORKS[network][0](0, width).leaves()
        shapes = [layer.weight.value.shape for layer in layers if isinstance(layer, nn.GemmLayer)]
        for pattern, name in TRANSPOSABLE.items():
            mask = nn.TransposableMask(*counts(pattern))
            dense = [" x ".join(map(str, shape)) for shape in shapes if not mask.fits(shape)]
            facts[f"dense in {network}, {name}"] = ", ".join(dense) or "none"
    return facts


COMMAND = Command(
    name="nm_fashion",
    description="Train networks on Fashion-MNIST from scratch with N:M sparse weights and gradients"
    " (unbiased masks, their biased twins, transposable masks); print one table a network and the"
    " claims it tests.",
    rows=ROWS,
    expectations=EXPECTATIONS,
    near=NEAR,
    widths={"mlp": 256, "cnn": 32},
    samples=10000,
    epochs=5,
    facts=dense_weights,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return an exit status, see `training_command.run`."""
    return run(COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
