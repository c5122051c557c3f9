"""Running what was exported: small ONNX graphs, on the thread that asks."""

from __future__ import annotations

from typing import Any

import onnxruntime


def open_session(content: bytes) -> Any:
    """An onnxruntime session on one thread: a request is too small to share, and requests run side by side."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
