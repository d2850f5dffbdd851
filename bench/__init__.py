"""Speed against NumPy's own operations, measured side by side: ``python -m bench --help``."""

from __future__ import annotations

import os

# Before NumPy loads its BLAS: the yardstick is OpenBLAS's AVX2 kernel on every x86 machine.
os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
