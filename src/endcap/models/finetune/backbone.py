"""A pretrained model under a head: texts in, pooled vectors out.

Dimension legend: n texts, b texts of a forward pass, t tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from endcap.core.errors import CallerError
from endcap.encoders.families import Pooling
from endcap.encoders.lengths import closing_token
from endcap.encoders.pooling import pool
from endcap.models.finetune.config import BaseConfig, MethodKind

AT_ONCE = 128  # texts of like length in a forward pass: little of it is padding


class Backbone(nn.Module):
    """body: a Hugging Face encoder or causal model without its head, perhaps wrapped by a method. prefix: words that
    the family wants before every text."""

    def __init__(self, body: nn.Module, tokeniser: Any, pooling: Pooling, max_length: int, prefix: str = "") -> None:
        super().__init__()
        self.body, self.tokeniser, self.pooling, self.max_length = body, tokeniser, pooling, max_length
        self.prefix = prefix
        self.method: MethodKind = "full"
        if tokeniser.pad_token_id is None:  # never attended to, so any token will do
            tokeniser.pad_token = tokeniser.eos_token
        tokeniser.padding_side = "right"  # there, models that look back never see it

    @property
    def dim(self) -> int:
        config: Any = self.body.config
        return int(config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.body.parameters()).device

    def forward(self, texts: Sequence[str], others: Sequence[str] | None = None) -> Tensor:
        """[n, d]; with `others`, each text is read together with its other."""
        fields = [texts] if others is None else [texts, others]
        closing = closing_token(self.tokeniser, self.pooling)
        rows = self.tokeniser(
            *([f"{self.prefix}{text}" for text in field] for field in fields),
            truncation=True,
            max_length=self.max_length - (closing is not None),
        )
        if closing is not None:
            for name, values in rows.items():
                end = {"input_ids": closing, "attention_mask": 1}.get(name, 0)
                rows[name] = [[*row, end] for row in values]
        order = sorted(range(len(texts)), key=lambda row: len(rows["input_ids"][row]))
        parts = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
        with _attention(self.device, self.training):
            pooled = [
                self._pool({name: [values[row] for row in part] for name, values in rows.items()}) for part in parts
            ]
        back = torch.empty(len(order), dtype=torch.long, device=self.device)
        back[torch.tensor(order, device=self.device)] = torch.arange(len(order), device=self.device)
        return torch.cat(pooled)[back]

    def _pool(self, rows: dict[str, Any]) -> Tensor:
        """Token ids of b texts -> float32 [b, d]."""
        padded = self.tokeniser.pad(rows, padding=True, return_tensors="pt").to(self.device)
        hidden: Tensor = self.body(**padded).last_hidden_state[:, -padded["input_ids"].shape[1] :]  # [b, t, d]
        return pool(hidden, padded["attention_mask"], self.pooling)


def _attention(device: torch.device, training: bool) -> AbstractContextManager[None]:
    """On a CPU, the backward pass of torch's fused attention takes longer in bfloat16 than all else together."""
    if device.type == "cpu" and training and torch.is_autocast_enabled("cpu"):
        plain: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return plain
    return nullcontext()


def blocks_of(body: nn.Module) -> tuple[str, nn.ModuleList]:
    """The path and the list of a transformer's layers: the longest list of modules of one class."""
    lists = [
        (name, module)
        for name, module in body.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
    ]
    if not lists:
        raise CallerError("The model has no list of layers.", where=type(body).__name__)
    return max(lists, key=lambda entry: len(entry[1]))


def prepare(body: nn.Module, config: BaseConfig) -> None:
    """Fewer layers, other dropout, checkpointed gradients, as the config says."""
    if config.layers is not None:
        _thin(body, config.layers)
    if config.dropout is not None:
        for module in body.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    if config.gradient_checkpointing:
        model: Any = body
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()


def _thin(body: nn.Module, count: int) -> None:
    """Keep `count` layers, evenly spaced, the first among them."""
    path, blocks = blocks_of(body)
    if count > len(blocks):
        raise CallerError(f"The model has {len(blocks)} layers, not {count}.", where="base.layers")
    kept = [round(place * len(blocks) / count) for place in range(count)]
    parent, _, name = path.rpartition(".")
    setattr(body.get_submodule(parent), name, nn.ModuleList(blocks[place] for place in kept))
    model: Any = body
    model.config.num_hidden_layers = count
