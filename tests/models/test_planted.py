"""Sources on shops where the right answer is provable: the right item first for at least 99 % of the users."""

import numpy as np
import pytest

from endcap.core.types import Placement
from endcap.data.synthetic import cycle_shop, drift_shop, rhythm_shop, taste_shop
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.features.state import context
from endcap.models.baskets import Baskets
from endcap.models.buy_again import BuyAgain, BuyAgainConfig, PersonalFrequency
from endcap.models.neighbour_fits import NeighbourConfig, ease_sources, knn_sources
from endcap.models.popularity import PopularityConfig, fit_category_popularity, fit_popularity
from endcap.models.shoppers import ShopperConfig, fit_shoppers
from endcap.models.transitions import TransitionConfig, transition_sources

NEIGHBOURS = NeighbourConfig(shrink=0)


def popularity(place):
    return lambda shop, table, histories, _: fit_popularity(
        histories, len(table), shop.now_ms, PopularityConfig(half_life_days=14)
    )[place]


FITS = {
    "transitions": lambda *parts: transition_sources(parts[3], TransitionConfig(), set())[0],
    "knn": lambda *parts: knn_sources(parts[3], NEIGHBOURS)[1],
    "ease": lambda *parts: ease_sources(parts[3], NEIGHBOURS.model_copy(update={"ease_l2": 10.0}))[0],
    "shoppers": lambda shop, table, histories, _: fit_shoppers(histories, len(table), shop.now_ms, ShopperConfig()),
    "category": lambda shop, table, histories, _: fit_category_popularity(
        histories, table, shop.now_ms, PopularityConfig()
    ),
    "buy_again": lambda *_: BuyAgain(BuyAgainConfig()),
    "trending": popularity(1),
    "popular": popularity(0),
    "personal_frequency": lambda *parts: PersonalFrequency(np.ones(len(parts[1]), np.float32)),
}


def share_right(shop, fit):
    table = ItemTable.build(shop.dataset.items)
    histories = Histories.build(shop.dataset.events, table.ids)
    source = fit(shop, table, histories, Baskets.build(histories, len(table)))
    right = 0
    for user, answer in shop.answers.items():
        known = context(histories.of(user), shop.now_ms, Placement.HOME, row=histories.users.position(user))
        scores = source.weigh(known).at(np.arange(len(table), dtype=np.int32))
        if shop.hide_bought:
            scores[known.bought] = -np.inf
        wanted = table.ids.position(answer)
        right += int((scores >= scores[wanted]).sum() == 1)  # first, and alone there
    return right / len(shop.answers)


@pytest.mark.parametrize(
    ("make", "model"),
    [
        (cycle_shop, "transitions"),
        (taste_shop, "knn"),
        (taste_shop, "ease"),
        (taste_shop, "shoppers"),
        (taste_shop, "category"),
        (rhythm_shop, "buy_again"),
        (drift_shop, "trending"),
    ],
)
def test_a_model_finds_what_it_is_made_to_find(make, model):
    assert share_right(make(), FITS[model]) >= 0.99


@pytest.mark.parametrize(
    ("make", "model"),
    [(cycle_shop, "popular"), (cycle_shop, "knn"), (rhythm_shop, "personal_frequency"), (drift_shop, "popular")],
)
def test_a_model_without_the_sense_for_it_does_not(make, model):
    """Otherwise the shops above would prove nothing."""
    assert share_right(make(), FITS[model]) < 0.75
