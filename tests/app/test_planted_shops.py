"""The whole product on shops where the right answer is provable: it comes first for at least 99 % of the users."""

import pytest

from endcap.app.runtime import Shop
from endcap.data.synthetic import cycle_shop, drift_shop, rhythm_shop, taste_shop

SETTINGS = """
[train]
threads = 1
sources = ["buy_again", "together", "knn", "transitions", "ease", "shoppers", "category", "trending", "popular"]

[popularity]
half_life_days = 14
"""


@pytest.mark.parametrize("make", [cycle_shop, taste_shop, rhythm_shop, drift_shop])
def test_the_fused_model_puts_the_right_item_first(make, tmp_path):
    planted = make()
    folder = Shop.init(tmp_path / "shop", SETTINGS)
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        shop.train(evaluate=False)
        firsts = {
            user: shop.recommend(user=user, n=1, hide_bought=planted.hide_bought).items[0].item_id
            for user in planted.answers
        }
    right = sum(firsts[user] == answer for user, answer in planted.answers.items())
    assert right / len(planted.answers) >= 0.99
