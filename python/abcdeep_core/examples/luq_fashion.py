"""4-bit training from scratch on Fashion-MNIST: ``python -m abcdeep_core.examples.luq_fashion``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .luq_rows import EXPECTATIONS, LUQ, ROWS
from .training_command import Command, run

COMMAND = Command(
    name="luq_fashion",
    description="Train networks on Fashion-MNIST from scratch with 4-bit matrix products (LUQ),"
    " their biased twins and NVFP4; print one table a network and the claims it tests.",
    rows=ROWS,
    expectations=EXPECTATIONS,
    near=(LUQ,),
    widths={"mlp": 256, "cnn": 32},
    samples=20000,
    epochs=8,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return an exit status, see `training_command.run`."""
    return run(COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
