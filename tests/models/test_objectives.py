import numpy as np
import pytest
import torch
from torch.nn import functional

from endcap.core.errors import CallerError
from endcap.models.objectives import ROWS_PER_TILE, Negatives, NegativeSampler, item_loss, whole_catalogue

N_ITEMS, WIDTH = 12, 4


def _problem(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(rows, WIDTH), torch.randn(N_ITEMS, WIDTH), torch.randint(0, N_ITEMS, (rows,))


@pytest.mark.parametrize("rows", [1, 7, ROWS_PER_TILE + 3])
def test_whole_catalogue_is_cross_entropy_with_its_gradients(rows: int) -> None:
    users, items, targets = _problem(rows)
    ours_users, ours_items = users.clone().requires_grad_(), items.clone().requires_grad_()
    loss = item_loss(ours_users, ours_items[targets], targets, whole_catalogue(N_ITEMS), ours_items, temperature=0.5)
    loss.backward()
    users.requires_grad_()
    items.requires_grad_()
    expected = functional.cross_entropy(users @ items.T / 0.5, targets)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours_users.grad, users.grad)
    torch.testing.assert_close(ours_items.grad, items.grad)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "log_uniform"])
def test_sampled_partition_is_the_full_one_in_expectation(kind: str) -> None:
    """exp(loss + target score) is the estimate of Z; its mean over many draws must be Z itself."""
    users, items, targets = _problem(1)
    counts = np.arange(N_ITEMS)[::-1].astype(np.int64) * 10
    samplers = {
        "uniform": lambda: NegativeSampler.uniform(N_ITEMS, 6),
        "popularity": lambda: NegativeSampler.popularity(counts, 6),
        "log_uniform": lambda: NegativeSampler.log_uniform(counts, 6),
    }
    sampler = samplers[kind]()
    users, items = users * 0.5, items * 0.5
    target_score = (users @ items[targets].T).item()
    estimates = []
    for _ in range(4000):
        negatives = sampler.draw()
        loss = item_loss(users, items[targets], targets, negatives, items[negatives.items])
        estimates.append(np.exp(loss.item() + target_score))
    full = (users @ items.T).exp().sum().item()
    standard_error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - full) < 4 * standard_error
    assert standard_error < 0.02 * full


def test_a_negative_equal_to_the_target_is_left_out() -> None:
    users, items, _ = _problem(2)
    targets = torch.tensor([3, 8])
    drawn = Negatives(torch.tensor([1, 3, 5]), torch.zeros(3))
    loss = item_loss(users, items[targets], targets, drawn, items[drawn.items])
    scores = users @ items.T
    first = functional.cross_entropy(scores[0, [3, 1, 5]][None], torch.tensor([0]))
    second = functional.cross_entropy(scores[1, [8, 1, 3, 5]][None], torch.tensor([0]))
    torch.testing.assert_close(loss, (first + second) / 2)


def test_repeated_draws_are_merged_and_weighed() -> None:
    torch.manual_seed(0)
    drawn = NegativeSampler(torch.tensor([0.5, 0.25, 0.25]), 1000).draw()
    assert drawn.items.tolist() == [0, 1, 2]
    counts = torch.exp(torch.log(torch.tensor([500.0, 250.0, 250.0])) - drawn.log_expected)
    assert counts.sum().item() == pytest.approx(1000, abs=0.1)
    assert counts[0].item() == pytest.approx(500, abs=70)


def test_log_uniform_follows_popularity_rank() -> None:
    sampler = NegativeSampler.log_uniform(np.array([5, 50, 0]), 1)
    expected = np.log([3 / 2, 2 / 1, 4 / 3]) / np.log(4)
    np.testing.assert_allclose(sampler.log_expected.exp().numpy(), expected, rtol=1e-5)


def test_an_impossible_item_is_refused() -> None:
    with pytest.raises(CallerError, match="positive probability"):
        NegativeSampler(torch.tensor([1.0, 0.0]), 5)
