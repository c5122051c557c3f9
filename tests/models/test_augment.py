import pytest
import torch

from endcap.models.augment import HIDDEN, crop, hide, reorder, view
from endcap.models.windows import PADDING

LENGTHS = (1, 2, 5, 10)


@pytest.fixture
def items() -> torch.Tensor:
    """500 rows of each length; row of length n holds n different items."""
    torch.manual_seed(0)
    rows = torch.arange(10).repeat(500 * len(LENGTHS), 1) + 100
    lengths = torch.tensor(LENGTHS).repeat_interleave(500)[:, None]
    return torch.where(torch.arange(10) < lengths, rows, PADDING)


def test_hidden_are_real_items_and_one_at_least(items: torch.Tensor) -> None:
    chosen = hide(items, 0.3)
    assert not chosen[items == PADDING].any()
    assert chosen.any(1).all()
    assert chosen[1500:].float().mean().item() == pytest.approx(0.3 + 0.7**10 / 10, abs=0.02)
    alone = chosen[1000:1500].sum(1) == 1
    assert (chosen[1000:1500][alone][:, 4]).float().mean() > 0.3  # mostly rows where chance chose none


def test_a_crop_is_a_run_from_anywhere(items: torch.Tensor) -> None:
    cropped = crop(items, 0.6)
    lengths = (cropped != PADDING).sum(1)
    assert lengths.view(4, 500).unique(dim=1).squeeze(1).tolist() == [1, 1, 3, 6]
    assert (cropped[:, :2].diff() == 1)[lengths > 1].all()
    assert cropped[1500:, 0].unique().tolist() == [100, 101, 102, 103, 104]
    assert (cropped.gather(1, lengths[:, None] - 1) >= 100).all()


def test_reordering_moves_one_run_and_keeps_all_items(items: torch.Tensor) -> None:
    moved = reorder(items, 0.6)
    assert torch.equal(moved.sort(1).values, items.sort(1).values)
    assert torch.equal(moved == PADDING, items == PADDING)
    assert torch.equal(moved[:1000], items[:1000])
    changed = (moved != items)[1500:]
    first, last = changed.float().argmax(1), 9 - changed.flip(1).float().argmax(1)
    assert (last - first)[changed.any(1)].max().item() == 5
    assert changed.any(0).all()


def test_a_view_is_one_of_the_three(items: torch.Tensor) -> None:
    torch.manual_seed(1)
    long = items[1500:]
    views = view(long)
    masked = (views == HIDDEN).any(1)
    cropped = (views == PADDING).any(1)
    assert not (masked & cropped).any()
    assert masked.float().mean().item() == pytest.approx(1 / 3, abs=0.08)
    assert cropped.float().mean().item() == pytest.approx(1 / 3, abs=0.08)
    assert torch.equal(views[~masked & ~cropped].sort(1).values, long[~masked & ~cropped])
    assert ((views != PADDING).sum(1) >= 1).all()
