"""A transformer over what a shopper did, giving a vector whose nearest items come next.

Dimension legend: b sequences, l positions, d width, c width of content vectors, n items of the catalogue, m items.

Follows SASRec (Kang & McAuley 2018, "Self-Attentive Sequential Recommendation") with the modern block of eSASRec
(2025). Items are the sum of a learned vector and a projection of frozen content vectors, so that an item nobody has
touched yet still has its place. Without learned vectors (`ids = false`) no weight depends on the catalogue, and a model
serves any catalogue that the same encoder has read: UniSRec (Hou et al. 2022), with a linear projection.

One tower serves all objectives. It looks back only, or, where it is told which positions are real, both ways, with a
learned vector in the place of items that are hidden (BERT4Rec, Sun et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.models.augment import HIDDEN
from endcap.models.config import SequenceConfig
from endcap.models.layers import Block

INIT_STD = 0.02


class SequenceModel(nn.Module):
    """Item vectors and the tower that reads them. The same vectors are read and predicted (tied).

    unit_content: whether projected content has unit length, so that an item's score is an angle and no length in it can
    learn how popular a kind of item is in one shop. Without ids it has, with ids only where start weights had it.
    """

    def __init__(self, n_items: int, config: SequenceConfig, content: Float32Array | None = None) -> None:
        """content: float32 [n, c], fixed, any scale; rows of zeros where an item has none."""
        super().__init__()
        _check(config, content)
        self.config, self.n_items = config, n_items
        self.unit_content = not config.ids
        self.ids = nn.Embedding(n_items, config.dim) if config.ids else None
        self.content: Tensor | None
        self.register_buffer("content", None if content is None else centred(content), persistent=False)
        self.project = None if content is None else nn.Linear(content.shape[1], config.dim, bias=False)
        longest = config.longest
        self.places = nn.Embedding(longest, config.dim) if config.positions == "learned" else None
        rotary_len = longest if config.positions == "rotary" else 0
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.dropout, rotary_len=rotary_len) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD if isinstance(module, nn.Embedding) else 0.05)
        self.mask = nn.Parameter(INIT_STD * torch.randn(config.dim)) if config.hides_items else None

    def item_vectors(self, items: Tensor) -> Tensor:
        """int64 [m] -> [m, d]."""
        own: Tensor | None = None if self.ids is None else self.ids(items)
        if self.content is None or self.project is None:
            assert own is not None
            return own
        described: Tensor = self.project(self.content[items])
        described = functional.normalize(described, dim=1) if self.unit_content else described
        return described if own is None else own + described

    def all_item_vectors(self) -> Tensor:
        """[n, d], without gradient."""
        with torch.no_grad():
            return self.item_vectors(torch.arange(self.n_items))

    def with_mask(self, items: Tensor, vectors: Tensor) -> Tensor:
        """vectors [b, l, d] of items [b, l], the mask's in the place of those that are HIDDEN."""
        return vectors if self.mask is None else torch.where((items == HIDDEN)[..., None], self.mask, vectors)

    def read(self, vectors: Tensor, real: Tensor | None = None) -> Tensor:
        """Item vectors [b, l, d] -> what follows each position [b, l, d], from it and those before it; with `real`,
        bool [b, l], what stands at each position, from all that are real."""
        x = vectors * self.config.dim**0.5
        if self.places is not None:
            x = x + self.places.weight[: x.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, real)
        out: Tensor = self.norm(x)
        return out

    def user_vectors(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Item vectors [b, l, d], of which each row's first `lengths`, int64 [b], are real -> [b, d]; zero for 0."""
        if self.config.asks_by_mask and self.mask is not None:
            asked = lengths
            places = torch.arange(vectors.shape[1] + 1)
            longer = functional.pad(vectors, (0, 0, 0, 1))
            longer = torch.where((places == asked[:, None])[..., None], self.mask, longer)
            read = self.read(longer, places <= asked[:, None])
        else:
            asked = (lengths - 1).clamp(min=0)
            read = self.read(vectors)
        found = read.gather(1, asked[:, None, None].expand(-1, 1, read.shape[2])).squeeze(1)
        return found * (lengths > 0).to(read.dtype)[:, None]

    def forward(self, items: Tensor) -> Tensor:
        """int64 [b, l], PADDING on the right -> the user vectors after the last item [b, d]."""
        return UserTower(self).forward(items)


class UserTower(nn.Module):
    """Histories to user vectors, with all item vectors computed once. This is what is exported."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model
        self.table: Tensor
        self.register_buffer("table", model.all_item_vectors(), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """int64 [b, l], PADDING on the right -> [b, d]; all zero for a row that is nothing but padding."""
        vectors = functional.embedding(items.clamp(min=0), self.table)
        return self.model.user_vectors(vectors, (items >= 0).sum(1))


class Ensemble(nn.Module):
    """Towers of several models as one: their user vectors end to end, divided by their number. The inner product with
    an item's vectors, end to end too, is the mean of what the models say."""

    def __init__(self, towers: Sequence[UserTower]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)

    def forward(self, items: Tensor) -> Tensor:
        """int64 [b, l], PADDING on the right -> [b, towers x d]."""
        return torch.cat([tower(items) for tower in self.towers], dim=1) / len(self.towers)


def centred(content: Float32Array) -> Tensor:
    """float32 [n, c] with what all items share taken out, rows of unit length; empty rows stay zero.

    Vectors of language models crowd into a narrow cone (Ethayarajh 2019); the common part says nothing of an item.
    """
    vectors = torch.from_numpy(np.asarray(content, dtype=np.float32))
    known = vectors.abs().sum(1) > 0
    if not bool(known.any()):
        return vectors.clone()
    moved = (vectors - vectors[known].mean(0)) * known[:, None]
    return functional.normalize(moved, dim=1)


def _check(config: SequenceConfig, content: Float32Array | None) -> None:
    if config.dim % (2 * config.heads):
        raise CallerError(
            f"dim {config.dim} cannot be divided into {config.heads} heads of even width.",
            where="SequenceConfig",
            next_step="Choose heads so that dim / heads is even.",
        )
    if not config.ids and content is None:
        raise CallerError(
            "Without ids an item is its content alone, and there are no content vectors.",
            where="SequenceConfig",
            next_step="Set ids = true, or give the catalogue titles and install the extra `text`.",
        )
