"""What `[slate]` says reaches the page."""

import numpy as np

from endcap.app.runtime import Shop

N = 6


def rare_places(folder, planted, below):
    """How many of the first N places hold an item sold in fewer baskets than `below`, for some shoppers."""
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        fitted = shop._serving.current()[0].fitted
        baskets = np.expm1(fitted.stats.baskets).round()
        rare = {item for item, sold in zip(fitted.table.ids.ids, baskets, strict=True) if sold < below}
        pages = [shop.recommend(user=user, n=N).items for user in list(planted.answers)[:20]]
    assert all(len(page) == N for page in pages)
    return np.array([sum(one.item_id in rare for one in page) for page in pages])


def test_places_are_kept_for_items_that_hardly_sell(folder, planted):
    bought = planted.dataset.events.collect()["item_id"].value_counts()["count"]
    below = int(bought.quantile(0.3)) + 1
    before = rare_places(folder, planted, below)
    assert before.min() < N // 2
    with (folder / "endcap.toml").open("a") as config:
        config.write(f"\n[slate]\nnew_every = 2\nnew_below = {below}\n")
    assert rare_places(folder, planted, below).min() >= N // 2
