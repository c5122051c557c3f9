"""Altered views of sequences, for objectives that hide or disturb what they then ask about.

Dimension legend: b sequences, l positions.

Items are int64 [b, l], positions of the catalogue with PADDING on the right. Every row holds one item at least, and
the same number of positions goes in and comes out. Draws come from torch's global generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from endcap.models.windows import PADDING

HIDDEN = -2  # stands in an item's place where the model reads its mask
CROPPED, MASKED, REORDERED = 0.6, 0.3, 0.6  # shares of a sequence; the best of Xie et al. 2022 over their data sets


def hide(items: Tensor, share: float) -> Tensor:
    """bool [b, l]: real positions chosen each with probability `share`; the last one of a row where none was.

    Cloze (BERT4Rec, Sun et al. 2019, section 3.6): the rows with only their last item hidden ask what the model is
    asked when it serves.
    """
    real = items != PADDING
    chosen = (torch.rand(items.shape) < share) & real
    last = torch.arange(items.shape[1]) == real.sum(1, keepdim=True) - 1
    return chosen | (last & ~chosen.any(1, keepdim=True))


def view(items: Tensor) -> Tensor:
    """Each row cropped, masked or reordered, at random (CL4SRec, Xie et al. 2022, section 3.2). HIDDEN where masked."""
    kind = torch.randint(3, (len(items), 1))
    masked = torch.where(hide(items, MASKED), HIDDEN, items)
    return torch.where(kind == 0, crop(items, CROPPED), torch.where(kind == 1, masked, reorder(items, REORDERED)))


def crop(items: Tensor, share: float) -> Tensor:
    """A run of items, `share` of the row and one at least, at the row's front."""
    starts, kept = _runs(items, share)
    places = torch.arange(items.shape[1])
    moved = items.gather(1, (starts + places).clamp(max=items.shape[1] - 1))
    return torch.where(places < kept, moved, PADDING)


def reorder(items: Tensor, share: float) -> Tensor:
    """A run of items, `share` of the row and one at least, in a random order among themselves."""
    starts, moved = _runs(items, share)
    places = torch.arange(items.shape[1])
    inside = (places >= starts) & (places < starts + moved)
    keys = torch.where(inside, starts + torch.rand(items.shape) * moved, places)
    return items.gather(1, keys.argsort(dim=1, stable=True))


def _runs(items: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Where a run begins, uniformly, and how long it is: int64 [b, 1] each."""
    lengths = (items != PADDING).sum(1, keepdim=True)
    long = (lengths * share).long().clamp(min=1)
    return (torch.rand(lengths.shape) * (lengths - long + 1)).long(), long
