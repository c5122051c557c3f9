"""From a trained user tower to files that are served without torch.

user_tower.onnx    items int64 [batch, length] -> vectors float32 [batch, d]; batch and length are free
item_vectors.npy   float32 [n_items, d]
sequence.json      max_len
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ServiceError
from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.onnx_graph import graph_of
from endcap.models.sequence_source import ITEM_VECTORS, SETTINGS, TOWER, Settings, encode_settings
from endcap.models.session import open_session
from endcap.models.windows import PADDING

TOLERANCE = 1e-4


def export_tower(tower: nn.Module, item_vectors: Tensor, max_len: int, folder: Path) -> float:
    """Write the three files into an existing folder; returns the largest difference between ONNX and torch.

    tower: takes int64 [batch, length <= max_len], PADDING on the right, gives float32 [batch, d]. Raises ServiceError
    if the two runtimes differ by 1e-4 or more on random histories of all lengths.
    """
    vectors = item_vectors.detach().float().numpy()
    content = tower_onnx(tower, len(vectors), max_len)
    difference = parity(tower, content, len(vectors), max_len)
    if not difference < TOLERANCE:
        raise ServiceError(
            f"The exported model differs from the trained one by {difference:.2g}, more than {TOLERANCE:.0e}.",
            where=TOWER,
            next_step="Please report this with the versions of torch, onnxscript and onnxruntime.",
        )
    replace_atomically(folder / TOWER, content)
    replace_atomically(folder / ITEM_VECTORS, _npy(vectors))
    replace_atomically(folder / SETTINGS, encode_settings(Settings(max_len)))
    return difference


def tower_onnx(tower: nn.Module, n_items: int, max_len: int) -> bytes:
    """The tower as one ONNX file with both axes free."""
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=max_len)}
    example = torch.from_numpy(random_histories(n_items, max_len, rows=3))
    return bytes(graph_of(tower, {"items": example}, "vectors", [axes]).SerializeToString())


def parity(tower: nn.Module, content: bytes, n_items: int, max_len: int) -> float:
    """Largest absolute difference of the outputs, over a padded batch and over single unpadded histories."""
    session = open_session(content)
    rows = random_histories(n_items, max_len, rows=16)
    probes = [rows, *(row[row != PADDING][None] for row in rows[:4]), rows[:1, :1]]
    worst = 0.0
    with torch.inference_mode():
        for probe in probes:
            expected = tower(torch.from_numpy(probe)).numpy()
            worst = max(worst, float(np.abs(expected - session.run(None, {"items": probe})[0]).max()))
    return worst


def random_histories(n_items: int, max_len: int, rows: int) -> Int64Array:
    """int64 [rows, max_len] of random items, padded to random lengths; the first row is full."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, max_len + 1, rows)
    lengths[0] = max_len
    items = random.integers(0, n_items, (rows, max_len), dtype=np.int64)
    return np.where(np.arange(max_len) < lengths[:, None], items, PADDING)


def _npy(array: Float32Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
