"""What stands on a pretrained model: one output for each class, one score for a pair, or a vector to compare.

Dimension legend: n texts, m distinct texts, a anchors, k outputs, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from endcap.models.finetune.backbone import Backbone

HEAD_DROPOUT = 0.1
LEVEL_RATE = 1e-2  # peak learning rate of what turns cosines into probabilities: two numbers, far from where they go


class CrossModel(nn.Module):
    """Reads a text, or two at once, and gives k numbers."""

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(HEAD_DROPOUT), nn.Linear(backbone.dim, outputs))

    def forward(self, texts: Sequence[str], others: Sequence[str] | None = None) -> Tensor:
        """float32 [n, k]"""
        pooled = self.backbone(texts, others)
        with torch.autocast(pooled.device.type, enabled=False):
            out: Tensor = self.head(pooled)
        return out


@dataclass(frozen=True, slots=True)
class Vectors:
    """texts: [m, d], of unit length. scale, bias: turn a cosine into the logit of a probability."""

    texts: Tensor
    scale: Tensor
    bias: Tensor


class BiModel(nn.Module):
    """Gives each text a vector; what is near belongs together."""

    def __init__(self, backbone: Backbone, temperature: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / temperature)]))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, texts: Sequence[str]) -> Vectors:
        return Vectors(normalize(self.backbone(texts), dim=1), self.log_scale.exp(), self.bias * 1)


class Bags:
    """Anchors of one or several texts each, and candidates of one, over their distinct texts.

    An anchor's vector is the mean of its texts' vectors, the latest weighing most: a shopper is what he looked at last.
    """

    def __init__(self, anchors: Sequence[Sequence[str]], candidates: Sequence[str], decay: float) -> None:
        """anchors: texts of each, oldest first. decay: weight of a text as a share of that of the one after it."""
        self.texts = list(dict.fromkeys([text for anchor in anchors for text in anchor] + list(candidates)))
        self._place = {text: place for place, text in enumerate(self.texts)}
        self.candidates = torch.tensor([self._place[text] for text in candidates], dtype=torch.long)
        self._weights = torch.zeros(len(anchors), len(self.texts))
        for row, anchor in enumerate(anchors):
            for age, text in enumerate(reversed(anchor)):
                self._weights[row, self._place[text]] += decay**age

    def anchors(self, vectors: Tensor) -> Tensor:
        """[m, d] -> [a, d], of unit length."""
        return normalize(product(self._weights.to(vectors.device), vectors), dim=1)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in float32, whatever the precision around: a cosine is divided by a small temperature."""
    with torch.autocast(left.device.type, enabled=False):
        return left.float() @ right.float()
