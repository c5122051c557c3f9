"""Adversarial gradients against ones made by hand, on a model small enough to see through."""

import pytest
import torch
from torch import Tensor, nn

from endcap.models.finetune.adversarial import Adversary
from endcap.models.finetune.config import AdversarialConfig

TOKENS = torch.tensor([[1, 2, 3], [4, 5, 0]])
WANTED = torch.tensor([1.0, 0.0])


class Reader(nn.Module):
    """A mean of embeddings through a bend and a line."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.line, self.dropout = nn.Embedding(6, 4), nn.Linear(4, 1), nn.Dropout(dropout)

    def read(self, embedded: Tensor) -> Tensor:
        return self.line(self.dropout(embedded.tanh()).mean(1))[:, 0]

    def loss(self, embedded: Tensor | None = None) -> Tensor:
        logits = self.read(self.table(TOKENS) if embedded is None else embedded)
        return nn.functional.binary_cross_entropy_with_logits(logits, WANTED)


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def by_adversary(model: Reader, **config: object) -> tuple[Tensor, list[Tensor]]:
    adversary = Adversary(model.table, AdversarialConfig.model_validate(config))
    model.zero_grad()
    found = adversary(model.loss, lambda loss: loss.backward())
    return found, gradients(model)


def test_fgm_adds_the_gradients_of_the_batch_and_of_the_changed_batch() -> None:
    model = Reader()
    model.zero_grad()
    embedded = model.table(TOKENS)
    embedded.retain_grad()
    clean = model.loss(embedded)
    clean.backward()
    grad, length = embedded.grad, embedded.detach().norm(dim=-1, keepdim=True)
    assert grad is not None
    change = 0.5 * length * grad / grad.norm(dim=-1, keepdim=True)
    worse = model.loss(model.table(TOKENS) + change)
    worse.backward()  # adds to what there is
    wanted = gradients(model)
    assert worse > clean
    found, summed = by_adversary(Reader(), kind="fgm", radius=0.5)
    torch.testing.assert_close(found, clean.detach())
    for one, other in zip(summed, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_pgd_stays_within_its_radius_and_raises_the_loss(steps: int) -> None:
    model, losses, changes = Reader(), [], []
    adversary = Adversary(model.table, AdversarialConfig(kind="pgd", radius=0.3, steps=steps))
    clean = model.table(TOKENS).detach()

    def loss() -> Tensor:
        embedded = model.table(TOKENS)
        changes.append((embedded - clean).detach())
        found = model.loss(embedded)
        losses.append(found.item())
        return found

    adversary(loss, lambda found: found.backward())
    assert len(losses) == steps + 1
    assert not changes[0].any()
    share = changes[-1].norm(dim=-1) / clean.norm(dim=-1)
    assert share.max() <= 0.3 + 1e-5
    assert share.max() > 0.29  # and goes as far as it may
    assert losses[-1] > losses[0]
    assert losses[-1] >= losses[1] - 1e-6


def test_a_frozen_table_is_attacked_all_the_same_and_stays_as_it_is() -> None:
    model = Reader()
    model.table.requires_grad_(False)
    found, summed = by_adversary(model, kind="fgm", radius=0.5)
    assert model.table.weight.grad is None
    plain = Reader()
    plain.loss().backward()
    assert plain.line.weight.grad is not None
    assert not torch.allclose(summed[0], 2 * plain.line.weight.grad)
    assert found == pytest.approx(plain.loss().item())


def test_the_same_dropout_is_drawn_for_both() -> None:
    """With a radius next to nothing, the sum is twice the batch's own gradient."""
    attacked, plain = Reader(dropout=0.5), Reader(dropout=0.5)
    torch.manual_seed(3)
    _, summed = by_adversary(attacked, kind="pgd", radius=1e-6, steps=3)
    torch.manual_seed(3)
    plain.loss().backward()
    for one, other in zip(summed, gradients(plain), strict=True):
        torch.testing.assert_close(one, 2 * other, atol=1e-5, rtol=1e-4)


def test_evaluation_is_left_alone() -> None:
    model = Reader()
    Adversary(model.table, AdversarialConfig(kind="fgm"))
    with torch.inference_mode():
        assert not model.table(TOKENS).requires_grad
    model.eval()
    assert model.table(TOKENS).grad_fn is not None
