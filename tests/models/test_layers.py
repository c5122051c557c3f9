import pytest
import torch

from endcap.models.layers import Block, Rotary


@pytest.mark.parametrize("rotary_len", [0, 9])
def test_later_positions_do_not_reach_earlier_ones(rotary_len: int) -> None:
    torch.manual_seed(0)
    block = Block(16, heads=2, dropout=0.5, rotary_len=rotary_len).eval()
    x = torch.randn(2, 9, 16)
    changed = x.clone()
    changed[:, 5] = torch.randn(16)
    before, after = block(x), block(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=(0, 2)).min() > 1e-5


def test_rotary_products_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    rotary = Rotary(8, 20)
    query, key = torch.randn(8), torch.randn(8)
    turned_query = rotary(query.expand(1, 1, 20, 8))[0, 0]
    turned_key = rotary(key.expand(1, 1, 20, 8))[0, 0]
    products = turned_query @ turned_key.T
    torch.testing.assert_close(products[3, 1], products[19, 17])
    torch.testing.assert_close(products[0, 0], query @ key)
    assert (products[3, 1] - products[4, 1]).abs() > 1e-3


def test_attention_without_positions_ignores_the_order_of_the_past() -> None:
    torch.manual_seed(0)
    block = Block(16, heads=2, dropout=0.0).eval()
    x = torch.randn(1, 5, 16)
    torch.testing.assert_close(block(x)[:, -1], block(x[:, [2, 0, 3, 1, 4]])[:, -1])
