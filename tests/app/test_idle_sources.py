"""Sources that a log gives nothing to say are left out before anything is fitted."""

import polars as pl
import pytest

from endcap.app.runtime import Shop
from endcap.app.sources import idle
from endcap.core.tables import EVENTS, ITEMS, conform
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories

DAY_MS = 86_400_000
FIRST = 20_000


def log(histories):
    rows = [
        {
            "event_type": "purchase",
            "user_id": user,
            "item_id": item,
            "ts_ms": (FIRST + day) * DAY_MS,
            "event_id": f"{user}{day}",
        }
        for user, items in histories.items()
        for day, item in enumerate(items)
    ]
    return conform(pl.DataFrame(rows), EVENTS)


def found(histories, categories):
    events = log(histories)
    items = conform(pl.DataFrame({"item_id": list("abc"), "categories": [categories] * 3}), ITEMS)
    table = ItemTable.build(items, [])
    return set(idle(Histories.build(events.lazy(), table.ids), table))


@pytest.mark.parametrize(
    ("histories", "categories", "left_out"),
    [
        ({"ann": "abc", "ben": "ba"}, [], {"buy_again", "newcomers", "category"}),
        ({"ann": "abc", "ben": "ba"}, ["tea"], {"buy_again", "newcomers"}),
        ({"ann": "aba", "ben": "ba"}, ["tea"], set()),
    ],
)
def test_who_has_nothing_to_say(histories, categories, left_out):
    assert found(histories, categories) == left_out


@pytest.mark.parametrize(("wanted", "left_out"), [('["buy_again"]', []), ('["buy_again", "popular"]', ["buy_again"])])
def test_a_release_does_without_them_unless_nothing_else_was_asked_for(wanted, left_out, tmp_path):
    folder = Shop.init(tmp_path / "shop", f"[train]\nsources = {wanted}\n")
    letters = "abcdefgh"
    once = {f"user{n}": letters[n % 8 :] + letters[: n % 8] for n in range(12)}
    with Shop.open(folder, clock=lambda: (FIRST + 30) * DAY_MS) as shop:
        shop.ingest(log(once))
        trained = shop.train(evaluate=False)
        assert shop.recommend(user="user3", n=3).items
    told = " ".join(note for note in trained.notes if "is left out" in note)
    assert [source for source in ("buy_again", "popular") if source in told] == left_out
