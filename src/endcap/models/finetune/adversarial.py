"""Training against the worst small change of what the model reads.

FGM (Miyato et al. 2017, Adversarial Training Methods for Semi-Supervised Text Classification, equation 8): one step
along the gradient of the token embeddings. PGD (Madry et al. 2018): several, each brought back to within the radius.
The change is made to the embeddings of the batch, not to their table, so that it works where the table is frozen; and
it is measured by the length of each token's embedding, so that one radius serves every model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from endcap.models.finetune.config import AdversarialConfig

Loss = Callable[[], Tensor]
Backward = Callable[[Tensor], None]


class Adversary:
    """Gives a batch's gradients: those of the batch, plus those of the batch as changed against the model."""

    def __init__(self, embedding: nn.Module, config: AdversarialConfig) -> None:
        """embedding: the module from token ids to [b, t, d]."""
        self.radius, self.steps = config.radius, config.steps if config.kind == "pgd" else 1
        self._outputs: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._lengths: list[Tensor] = []
        self._calls = 0
        embedding.register_forward_hook(self._hook)

    def __call__(self, loss: Loss, backward: Backward) -> Tensor:
        self._changes, self._calls, self._outputs = [], 0, []
        state = torch.get_rng_state()
        found = loss()
        backward(found)
        self._lengths = [output.detach().norm(dim=-1, keepdim=True) for output in self._outputs]
        for step in range(self.steps):
            self._changes = self._moved()
            self._calls, self._outputs = 0, []
            torch.set_rng_state(state)
            worse = loss()
            if step < self.steps - 1:
                grads = torch.autograd.grad(worse, self._outputs, allow_unused=True)
                for output, grad in zip(self._outputs, grads, strict=True):
                    output.grad = grad
            else:
                backward(worse)
        self._outputs, self._changes, self._lengths = [], [], []
        return found.detach()

    def _moved(self) -> list[Tensor]:
        """The changes, one step further along the gradient and no longer than the radius allows."""
        pace = self.radius if self.steps == 1 else 1.5 * self.radius / self.steps
        changes = self._changes or [torch.zeros_like(output) for output in self._outputs]
        moved = []
        for change, output, length in zip(changes, self._outputs, self._lengths, strict=True):
            grad = torch.zeros_like(output) if output.grad is None else output.grad
            step = pace * length * grad / grad.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            further = change + step
            most = self.radius * length
            moved.append(further * (most / further.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1.0))
        return moved

    def _hook(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or not module.training:
            return output
        if self._changes:
            output = output + self._changes[self._calls]
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        output.retain_grad()
        self._calls += 1
        self._outputs.append(output)
        return output
