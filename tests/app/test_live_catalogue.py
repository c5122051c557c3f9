"""What the shop says of its items counts for the next answer: a new item can be recommended, filtered and found by what
it is; price, stock and names apply at once."""

from __future__ import annotations

import shutil
from itertools import product

import polars as pl
import pytest

from endcap.app import live_catalogue
from endcap.app.runtime import Shop
from endcap.core.types import Availability, Event, EventType, Item, Placement, Query

NOW_MS = 1_760_000_000_000
DAY_MS = 86_400_000
KINDS = {
    "shoes": ("running shoes", "leather boots", "beach sandals"),
    "drinks": ("oat milk", "green tea", "orange juice"),
    "tools": ("cordless drill", "claw hammer", "tape measure"),
}
SIZES = ("small", "large", "premium", "eco")
SETTINGS = {
    "meaning": '[train]\nthreads = 1\nmoments = 1\nsources = ["content", "transitions", "popular"]\n',
    "words": '[train]\nthreads = 1\nmoments = 1\nsources = ["transitions", "knn", "popular"]\n',
}
TEA = Item(item_id="new-tea", title="green tea, jasmine", categories=("drinks",), price=3.5, brand="Leaf")


@pytest.fixture(scope="module", params=list(SETTINGS))
def trained(request, tmp_path_factory):
    """Everybody buys of one kind only."""
    names = [(kind, f"{name}, {size}") for kind, kept in KINDS.items() for name, size in product(kept, SIZES)]
    items = pl.DataFrame(
        {
            "item_id": [f"i{place}" for place in range(len(names))],
            "title": [name for _, name in names],
            "categories": [[kind] for kind, _ in names],
            "price": [1.0 + place for place in range(len(names))],
        }
    )
    of_kind = {kind: [f"i{at}" for at, (of, _) in enumerate(names) if of == kind] for kind in KINDS}
    acts = [
        (f"{kind}-{user}", of_kind[kind][(5 * user + 7 * act) % 12], "purchase", NOW_MS - (40 - user - act) * DAY_MS)
        for kind, user, act in product(KINDS, range(12), range(5))
    ]
    folder = Shop.init(tmp_path_factory.mktemp("live") / "shop", SETTINGS[request.param])
    with Shop.open(folder, clock=lambda: NOW_MS) as shop:
        shop.ingest(pl.DataFrame(acts, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row"), items=items)
        shop.train(evaluate=False)
    return folder


@pytest.fixture
def shop(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "shop")
    with Shop.open(folder, clock=lambda: NOW_MS) as opened:
        yield opened


def ids(slate) -> list[str]:
    return [item.item_id for item in slate.items]


def filtered(shop, **filters) -> list[str]:
    return ids(shop.answer(Query(n=50, **filters)))


def test_a_new_item_is_recommended_to_those_whom_it_fits(shop):
    before = ids(shop.recommend("drinks-1", n=8))
    shop.store.put_items([TEA])
    fits = shop.recommend("drinks-1", n=12)
    assert TEA.item_id not in before
    assert TEA.item_id in ids(fits)
    assert TEA.item_id not in ids(shop.recommend("tools-1", n=12))
    told = {item.item_id: item for item in fits.items}[TEA.item_id]
    assert (told.title, fits.degraded) == (TEA.title, ())
    assert told.source != "popular"
    assert told.reason.startswith("Similar to green tea")


def test_a_new_item_is_filtered_and_found(shop):
    shop.store.put_items([TEA])
    assert filtered(shop, brands=("Leaf",)) == [TEA.item_id]
    assert TEA.item_id in filtered(shop, categories=("drinks",))
    assert TEA.item_id not in filtered(shop, categories=("tools",))
    assert TEA.item_id in filtered(shop, min_price=3.5, max_price=3.5)
    assert TEA.item_id in ids(shop.search("jasmine tea", n=3))
    assert TEA.item_id not in filtered(shop, exclude=(TEA.item_id,))
    assert len(filtered(shop)) == 37


def test_pages_hold_what_came_between_them(shop):
    first = shop.recommend(n=20)
    shop.store.put_items([TEA])
    second = shop.recommend(n=30, after=first.recommendation_id)
    assert len(ids(second)) == 17
    assert TEA.item_id in ids(second)
    assert not set(ids(first)) & set(ids(second))


def test_what_is_new_goes_with_what_it_is_like(shop):
    shop.store.put_items([TEA])
    beside = shop.similar(TEA.item_id, n=6)
    kinds = {row["item_id"]: row["categories"][0] for row in shop.store.items().to_dicts()}
    assert sum(kinds[item] == "drinks" for item in ids(beside)) >= 5
    assert TEA.item_id not in ids(beside)


def test_acts_on_a_new_item_count(shop):
    shop.store.put_items([TEA])
    shop.record(Event(event_type=EventType.PURCHASE, user_id="newcomer", ts_ms=NOW_MS, item_id=TEA.item_id))
    assert shop.user("newcomer").favourites == (TEA.item_id,)
    shelf = shop.recommend("newcomer", n=37, placement=Placement.DISCOVERY)
    assert TEA.item_id not in ids(shelf)
    assert len(ids(shelf)) == 36
    kinds = {row["item_id"]: row["categories"][0] for row in shop.store.items().to_dicts()}
    assert [kinds[item] for item in ids(shelf)[:4]] == ["drinks"] * 4


def test_a_new_item_survives_a_restart_and_a_refit_gives_it_a_place(shop, trained):
    shop.store.put_items([TEA])
    asked = ids(shop.recommend("drinks-1", n=12))
    shop.close()
    with Shop.open(shop.folder, clock=lambda: NOW_MS) as again:
        assert ids(again.recommend("drinks-1", n=12)) == asked
        again.refit()
        assert again.recommend("drinks-1", n=12).release != asked
        assert len(filtered(again)) == 37
        assert filtered(again, brands=("Leaf",)) == [TEA.item_id]


def test_more_may_come_than_there_was_room_for(shop, monkeypatch):
    monkeypatch.setattr(live_catalogue, "ROOM", 2)
    shop._serving._watch.current().catalogue._room = 2 if shop.health().ready else 0
    shop.store.patch_items([{"item_id": "i3", "price": 77.0}])
    shop.store.put_items([TEA])
    shop.recommend(n=1)
    shop.store.patch_items([{"item_id": TEA.item_id, "availability": Availability.HIDDEN}])
    for place in range(9):
        shop.store.put_items([Item(item_id=f"n{place}", title=f"oat milk, flavour {place}", categories=("drinks",))])
        assert f"n{place}" in filtered(shop, categories=("drinks",))
    assert len(filtered(shop)) == 45
    assert filtered(shop, min_price=77.0) == ["i3"]
    assert TEA.item_id not in filtered(shop)
    assert sum(item.startswith("n") for item in ids(shop.recommend("drinks-1", n=20))) > 0


def test_price_stock_and_names_apply_at_once(shop):
    shop.store.put_items([TEA])
    for item_id in ("i0", TEA.item_id):
        shop.store.patch_items([{"item_id": item_id, "price": 99.0}])
        assert item_id in filtered(shop, min_price=99.0)
        shop.store.patch_items([{"item_id": item_id, "title": "another name", "categories": ("garden",)}])
        slate = shop.answer(Query(n=50, categories=("garden",)))
        assert [(item.item_id, item.title) for item in slate.items][-1] == (item_id, "another name")
        assert item_id not in filtered(shop, categories=("shoes", "drinks"))
        shop.store.patch_items([{"item_id": item_id, "availability": Availability.OUT_OF_STOCK}])
        assert item_id not in filtered(shop)
        assert item_id not in ids(shop.search("another name", n=50))
        shop.store.patch_items([{"item_id": item_id, "availability": Availability.IN_STOCK}])
        assert item_id in filtered(shop)
        shop.store.patch_items([{"item_id": item_id, "categories": ("garden", "x")}])


def test_what_is_deleted_never_comes_back(shop):
    shop.store.put_items([TEA])
    shop.recommend(n=5)
    shop.store.delete_items([TEA.item_id, "i0", "never-heard-of"])
    assert not {TEA.item_id, "i0", "never-heard-of"} & set(filtered(shop))
    shop.close()
    with Shop.open(shop.folder, clock=lambda: NOW_MS) as again:
        assert not {TEA.item_id, "i0", "never-heard-of"} & set(filtered(again))


def test_many_new_items_at_once(shop):
    many = [Item(item_id=f"n{place}", title=f"claw hammer, make {place}", categories=("tools",)) for place in range(60)]
    shop.store.put_items(many)
    assert {item.item_id for item in many} <= set(ids(shop.answer(Query(n=200))))
    assert any(item.startswith("n") for item in ids(shop.recommend("tools-1", n=20)))
