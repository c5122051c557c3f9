"""What a model says of rows that it reads, or matches: nothing of its training is needed for it.

Dimension legend: n rows, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from endcap.core.types import Float32Array
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.heads import Bags, BiModel
from endcap.models.finetune.tuned import Net, Tuned
from endcap.models.judge import joined

AT_ONCE = 256


def predict(members: Sequence[Tuned], frame: pl.DataFrame) -> Float32Array:
    """The mean of what models that were tuned alike say: see `said`. frame: the task's columns without its labels."""
    each = [said(one.config, outputs(one.net, one.config, frame), one.mean, one.spread) for one in members]
    found: Float32Array = np.mean(each, axis=0)
    return found


def said(config: FinetuneConfig, outputs: Tensor, mean: float = 0.0, spread: float = 1.0) -> Float32Array:
    """Probabilities [n, k] for a classification, and [n] for interest; scores for ranking; ratings, whose head's zero
    and unit are `mean` and `spread`."""
    match config.task.kind:
        case "classification":
            outputs = outputs.sigmoid() if config.task.several else outputs.softmax(1)
        case "rating":
            outputs = outputs[:, 0] * spread + mean
        case "interest":
            outputs = outputs.sigmoid()
    found: Float32Array = outputs.numpy()
    return found


def outputs(net: Net, config: FinetuneConfig, frame: pl.DataFrame, at_once: int = AT_ONCE) -> Tensor:
    """What comes before a probability, on the CPU: [n, k] of texts that are read, [n] of candidates that are matched.
    at_once: rows."""
    matches = config.task.kind in ("interest", "ranking")
    with torch.inference_mode():
        parts = [
            (_matched(net, config, part) if matches else net(part["text"].to_list(), others(part))).float().cpu()
            for part in frame.iter_slices(at_once)
        ]
    return torch.cat(parts) if parts else torch.zeros(0)


def matched(net: Net, config: FinetuneConfig, anchors: list[list[str]], candidates: list[str]) -> Tensor:
    """The logit of each anchor with its candidate: [n]."""
    if not isinstance(net, BiModel):
        out: Tensor = net([joined(anchor) for anchor in anchors], candidates)[:, 0]
        return out
    bags = Bags(anchors, candidates, config.task.decay)
    vectors = net(bags.texts)
    cosines = (bags.anchors(vectors.texts) * vectors.texts[bags.candidates.to(vectors.texts.device)]).sum(1)
    logits: Tensor = vectors.scale * cosines + vectors.bias
    return logits


def others(frame: pl.DataFrame) -> list[str] | None:
    """The text beside each, where two are read."""
    return frame["other"].to_list() if "other" in frame.columns else None


def _matched(net: Net, config: FinetuneConfig, part: pl.DataFrame) -> Tensor:
    return matched(net, config, part["anchor"].to_list(), part["candidate"].to_list())
