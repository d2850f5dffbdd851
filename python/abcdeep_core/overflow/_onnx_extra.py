"""The package onnx of the extra ``[onnx]``, and whether onnxruntime is there too."""

from __future__ import annotations

import importlib.util

try:
    import onnx
    import onnx.inliner
    import onnx.reference
    from onnx import helper, numpy_helper
except ImportError as _error:
    raise ImportError("expected the extra [onnx]: pip install 'abcdeep_core[onnx]'") from _error

HAS_RUNTIME = importlib.util.find_spec("onnxruntime") is not None

__all__ = ["HAS_RUNTIME", "helper", "numpy_helper", "onnx"]
