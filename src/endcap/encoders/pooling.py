"""Hidden states of a text's tokens -> one unit vector. b texts, t tokens, d width."""

from __future__ import annotations

import torch
from torch import Tensor

from endcap.encoders.families import Pooling


def pooled(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """As `pool`, scaled to unit length."""
    return torch.nn.functional.normalize(pool(hidden, mask, pooling), dim=1)


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """float [b, t, d], and 1 where a token is real, int [b, t] -> float32 [b, d].

    Padding may be on either side: the first and the last token are those of the mask.
    """
    hidden = hidden.float()
    if pooling == "mean":
        real = mask.unsqueeze(-1).float()
        mean: Tensor = (hidden * real).sum(1) / real.sum(1)
        return mean
    places = torch.arange(mask.shape[1], device=mask.device)
    order = places + 1 if pooling == "last" else mask.shape[1] - places
    chosen = (order * mask).argmax(1)
    return hidden.gather(1, chosen[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
