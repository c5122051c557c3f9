"""Names of classes as numbers.

Dimension legend: n rows, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from endcap.models.finetune.config import FinetuneConfig


def labels_of(frame: pl.DataFrame, config: FinetuneConfig) -> tuple[str, ...]:
    """The classes of a classification, as outputs are numbered: those of the training part."""
    if config.task.kind != "classification":
        return ()
    column = frame["label"].explode().drop_nulls() if config.task.several else frame["label"]
    return tuple(sorted(column.unique().to_list()))


def label_tensor(frame: pl.DataFrame, labels: Sequence[str], several: bool) -> Tensor:
    """int64 [n], or float32 [n, k] where a text may carry several."""
    place = {label: number for number, label in enumerate(labels)}
    if not several:
        return torch.tensor([place[label] for label in frame["label"]])
    out = torch.zeros(frame.height, len(labels))
    for row, given in enumerate(frame["label"].to_list()):
        out[row, [place[label] for label in given if label in place]] = 1
    return out


def class_weights(wanted: Tensor) -> Tensor:
    """By how much rarer than average a class is; for independent labels, how many times no is as frequent as yes."""
    if wanted.ndim == 2:
        had = wanted.sum(0).clamp_min(1)
        return (len(wanted) - had).clamp_min(1) / had
    counts = torch.bincount(wanted).clamp_min(1).float()
    return len(wanted) / (len(counts) * counts)
