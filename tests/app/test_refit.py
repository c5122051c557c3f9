"""A refitted release knows what was recorded since, and orders candidates as the one before did."""

import numpy as np
import polars as pl
import pytest

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError, NotFoundError
from endcap.core.tables import EVENTS, conform
from endcap.core.types import Event, EventType
from endcap.data.synthetic import cycle_shop
from endcap.models.sequence_weights import load_members

DAY_MS = 86_400_000
NEURAL = """
[train]
threads = 1
moments = 1
sources = ["sequence", "transitions"]
optional = []

[sequence]
dim = 16
epochs = 30
lr = 0.01
refit_epochs = 1
"""


def record_a_fashion(shop, planted, old, new="fashion"):
    """Forty new shoppers buy an old item and, the day after, one that nobody had seen."""
    rows = [
        {
            "event_id": f"late-{user}-{day}",
            "event_type": EventType.PURCHASE.value,
            "user_id": f"late-{user}",
            "item_id": item,
            "ts_ms": planted.now_ms - (4 - day) * DAY_MS + user,
        }
        for user in range(40)
        for day, item in enumerate((old, new))
    ]
    shop.ingest(conform(pl.DataFrame(rows), EVENTS), items=pl.DataFrame({"item_id": [new], "title": ["A new thing"]}))


def suggested(shop, old, n=4):
    after = Event(event_type=EventType.PURCHASE, user_id="someone", item_id=old, ts_ms=shop.clock() - 1)
    return [item.item_id for item in shop.recommend(n=n, session_events=(after,)).items]


def ordering(shop, release):
    """What a release orders candidates by."""
    return {path.name: path.read_bytes() for path in (shop.releases.root / release / "ranker").iterdir()}


def test_what_is_new_is_known_after_it_and_rollback_undoes_it(shop, planted):
    old = shop.store.items()["item_id"][0]
    before = shop.releases.current()
    record_a_fashion(shop, planted, old)
    assert "fashion" not in suggested(shop, old)
    done = shop.refit()
    assert shop.releases.current() == done.manifest.release_id != before == done.before
    assert done.new_events == 80
    assert "fashion" in suggested(shop, old)
    assert not {"fit the ranker", "ranker examples"} & done.seconds.keys()
    assert ordering(shop, done.manifest.release_id) == ordering(shop, before) != {}
    assert shop.rollback() == before
    assert "fashion" not in suggested(shop, old)


def test_with_nothing_new_it_answers_as_before(shop, planted):
    users = list(planted.answers)[:20]
    before = [shop.recommend(user=user, n=5).items for user in users]
    shop.refit()
    assert [shop.recommend(user=user, n=5).items for user in users] == before


def test_it_asks_sources_for_as_many_as_its_ranker_knows(folder, planted):
    config = folder / "endcap.toml"
    config.write_text(config.read_text().replace("[train]\n", "[train]\nper_source = 7\n", 1))
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        taught = shop.releases.open(str(shop.releases.current()))[1].data["per_source"]
        done = shop.refit()
        assert done.manifest.data["per_source"] == taught != 7
        assert "ask for 7" in " ".join(done.notes)


def test_it_need_not_publish(shop):
    before = shop.releases.current()
    assert shop.refit(publish=False).manifest.release_id != before == shop.releases.current()


def test_what_cannot_be_refitted(folder, tmp_path):
    with Shop.open(tmp_path / "empty") as shop, pytest.raises(NotFoundError, match=r"endcap train --shop .*empty"):
        shop.refit()
    config = folder / "endcap.toml"
    config.write_text(config.read_text().replace('"knn", ', ""))
    with Shop.open(folder) as shop, pytest.raises(CallerError, match=rf"\['knn'\].*endcap train --shop {folder}"):
        shop.refit()


def test_the_sequence_model_goes_on_from_its_weights(tmp_path):
    planted = cycle_shop(users=100, items=20)
    folder = Shop.init(tmp_path / "shop", NEURAL)
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        shop.train(evaluate=False)
        before = shop.releases.root / str(shop.releases.current())
        old = shop.store.items()["item_id"][3]
        record_a_fashion(shop, planted, old)
        done = shop.refit()
        assert "go on with the sequence model" in done.seconds
        after = shop.releases.root / done.manifest.release_id
        (ours,), (theirs,) = (load_members(release / "sources" / "sequence") for release in (after, before))
        assert set(ours.settings.items) - set(theirs.settings.items) == {"fashion"}
        known = [ours.settings.items.index(item) for item in theirs.settings.items]
        moved = np.linalg.norm(ours.item_vectors[known] - theirs.item_vectors, axis=1)
        assert 0 < np.median(moved) < 0.5 * np.median(np.linalg.norm(theirs.item_vectors, axis=1))
        source = next(one for one in shop._serving.current()[0].fitted.sources if one.name == "sequence")
        assert len(source.item_vectors) == 21
