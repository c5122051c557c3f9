"""The transformer that sequence models are built of.

Dimension legend: b sequences, l positions, d width, h heads, e = d / h width of a head, f width of the feed-forward.

Sequences are padded on the right. A causal position never looks ahead, so real positions cannot see the padding and
no attention mask is needed, which keeps attention on the fused kernel and the exported graph small. Where positions
look both ways, they have to be told which of the others are real.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Pre-norm: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture". Layer normalisation, and
    not RMSNorm, because only the former has a fused kernel on CPUs.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, rotary_len: int = 0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, rotary_len=rotary_len)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = SwiGLU(width, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """[b, l, d] -> [b, l, d]. real: see `Attention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), real))
        out: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return out


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

    rotary_len: the longest sequence, if queries and keys are to be rotated by their position; 0 for no rotation.
    """

    def __init__(self, width: int, heads: int, *, rotary_len: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.rotary = Rotary(width // heads, rotary_len) if rotary_len else None

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """[b, l, d] -> [b, l, d]. Position i sees positions 0..i; with `real`, bool [b, l], all that are real, before
        and after it, of which each row needs one at least."""
        b, length, d = x.shape
        q, k, v = (
            self.qkv(x).view(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        )  # each [b, h, l, e]
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        seen = None if real is None else real[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, length, d))
        return out


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, RoFormer): pairs of coordinates turn by position x frequency, so that the
    inner product of a query and a key depends on their distance alone."""

    def __init__(self, width: int, max_len: int, base: float = 1000.0) -> None:
        super().__init__()
        frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
        angles = torch.outer(torch.arange(max_len, dtype=torch.float32), frequencies)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, h, l, e] -> [b, h, l, e]."""
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class SwiGLU(nn.Module):
    """Gated feed-forward, out(silu(gate(x)) * up(x)). Shazeer 2020, "GLU Variants Improve Transformer"."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_up = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, l, d] -> [b, l, d]; f = hidden inside."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        out: Tensor = self.out(functional.silu(gate) * up)
        return out
