"""Bottleneck adapters (Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, section 2.1).

After the attention's and after the feed-forward's projection of every layer, before the residual is added: down to a
few dimensions, a non-linearity, up again, plus what came in. The way up begins at zero, so a new adapter changes
nothing. The model's own weights stay as they are.
"""

from __future__ import annotations

from torch import Tensor, nn

from endcap.core.errors import CallerError
from endcap.models.finetune.backbone import blocks_of

PROJECTIONS = ("attention.output.dense", "attention.out_lin", "o_proj", "attn.c_proj", "attention.o", "out_proj")
FEED_FORWARDS = ("output.dense", "ffn.lin2", "down_proj", "mlp.c_proj", "wo", "fc2")


class Adapter(nn.Module):
    """[..., d] -> [..., d], through [..., width]."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.up(nn.functional.gelu(self.down(hidden)))
        return hidden + changed


class Adapted(nn.Module):
    """A projection, then its adapter."""

    def __init__(self, projection: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.projection, self.adapter = projection, adapter

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.adapter(self.projection(hidden))
        return out


def insert_adapters(body: nn.Module, dim: int, width: int) -> int:
    """Freeze the body and put adapters into every layer; returns how many. Layer norms go on learning, as
    in the paper; the RMS norms of causal models stay as they are."""
    for parameter in body.parameters():
        parameter.requires_grad_(False)
    _, blocks = blocks_of(body)
    count = 0
    for block in blocks:
        for path in _projections(block):
            parent, _, name = path.rpartition(".")
            place = block.get_submodule(parent)
            setattr(place, name, Adapted(getattr(place, name), Adapter(dim, width)))
            count += 1
        for module in block.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
    return count


def _projections(block: nn.Module) -> list[str]:
    names = [name for name, _ in block.named_modules()]
    attention = [name for name in names if name.endswith(PROJECTIONS)]
    feed_forward = [name for name in names if name.endswith(FEED_FORWARDS) and name not in attention]
    if not attention or not feed_forward:
        raise CallerError(
            "Adapters do not know where this model's layers end.",
            where=type(block).__name__,
            next_step='Choose `method.kind = "lora"`, which fits every model.',
        )
    return [attention[-1], feed_forward[-1]]
