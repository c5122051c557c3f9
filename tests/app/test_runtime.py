import msgspec
import numpy as np
import polars as pl
import pytest

from endcap import Event, EventType, Placement, Query, Shop
from endcap.core.errors import ArtifactError, CallerError, NotFoundError, ServiceError


def ids(slate):
    return [entry.item_id for entry in slate.items]


def view(user, item, planted, kind=EventType.VIEW):
    return Event(event_type=kind, user_id=user, item_id=item, ts_ms=planted.now_ms)


def test_five_lines_answer(shop, planted):
    user, answer = next(iter(planted.answers.items()))
    slate = shop.recommend(user=user, n=10)
    assert len(ids(slate)) == 10
    assert ids(shop.recommend(user=user, n=1, hide_bought=True)) == [answer]
    assert slate.release == shop.releases.current()
    assert slate.recommendation_id != shop.recommend(user=user, n=10).recommendation_id


def test_a_store_that_was_only_begun_is_made_whole(tmp_path):
    Shop.init(tmp_path)
    database = tmp_path / "store" / "store.sqlite"
    for path in database.parent.iterdir():
        path.unlink()
    database.touch()
    with Shop.open(Shop.init(tmp_path)) as shop:
        assert shop.store.last_seq() == 0


def test_a_recorded_event_changes_the_very_next_answer(shop, planted):
    first, second = list(dict.fromkeys(planted.answers.values()))[:2]
    lists = [ids(shop.recommend(user="new-here", n=5))]
    for item in (first, second):
        shop.record(view("new-here", item, planted))
        lists.append(ids(shop.recommend(user="new-here", n=5)))
    assert lists[0] != lists[1] != lists[2]


def test_what_goes_into_the_cart_leaves_the_list(shop, planted):
    user = next(iter(planted.answers))
    top = ids(shop.recommend(user=user, n=5))[0]
    shop.record(view(user, top, planted, EventType.ADD_TO_CART))
    assert top not in ids(shop.recommend(user=user, n=24))
    assert shop.user(user).cart == (top,)


def test_events_of_one_request_count_for_that_answer_only(shop, planted):
    item = ids(shop.recommend(n=1))[0]
    acts = (view("", item, planted),)
    assert ids(shop.answer(Query(session_events=acts, n=5))) != ids(shop.answer(Query(n=5)))
    assert not shop.store.events_after(shop._serving.current()[0].seq)


def test_another_process_writing_is_seen(folder, shop, planted):
    with Shop.open(folder, read_only=True, clock=lambda: planted.now_ms) as reader:
        item = ids(reader.recommend(n=1))[0]
        before = ids(reader.recommend(user="guest", n=5))
        shop.record(view("guest", item, planted))
        assert ids(reader.recommend(user="guest", n=5)) != before


def test_stock_and_visibility_apply_at_once(shop):
    top = ids(shop.recommend(n=1))[0]
    gone = shop.store.items().filter(pl.col("item_id") == top).with_columns(availability=pl.lit("out_of_stock"))
    shop.store.put_items(gone)
    assert top not in ids(shop.recommend(n=24))


def test_publish_and_rollback_move_what_answers(shop):
    old, new = [manifest.release_id for manifest in shop.releases.list()]
    assert shop.recommend(n=1).release == new
    assert shop.rollback() == old
    assert shop.recommend(n=1).release == old
    shop.publish(new)
    assert shop.recommend(n=1).release == new


def test_a_damaged_release_is_refused_and_named(shop):
    release = shop.releases.current()
    path = shop.releases.root / release / "items.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"items\.parquet.*rollback"):
        shop.recommend(n=1)
    assert not shop.health().ready
    shop.rollback()
    assert shop.health().ready


def test_manifest_says_where_a_release_comes_from(shop):
    manifest = shop.releases.list()[0]
    assert manifest.seed == 0
    assert manifest.config["train"]["moments"] == 2
    assert manifest.data["fingerprint"] == shop.store.fingerprint()
    assert manifest.metrics["ndcg@10_all"] > 0.9
    assert "ndcg@10_all__personal_frequency" in manifest.metrics
    assert set(shop.evaluation(manifest.release_id)["tasks"]) == {"all", "discovery"}


def test_training_twice_gives_the_same_release(folder, planted):
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        first, second = shop.releases.list()[:2]
    sums = [{name: entry.sha256 for name, entry in release.files.items()} for release in (first, second)]
    assert sums[0].pop("evaluation.json")
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 501}, "n is 501"),
        ({"placement": Placement.ITEM}, "item_id"),
        ({"exclude": tuple(map(str, range(2000)))}, "exclude"),
        ({"user": 42}, "user_id: Expected `str"),
        ({"n": "3"}, "n: Expected `int`"),
        ({"placement": "foo"}, "home, discovery"),
        ({"cart": "sku-1"}, "cart: Expected"),
        ({"cart": ("a", 3)}, r"cart\[1\]"),
        ({"session_events": ({"user_id": "u"},)}, r"session_events\[0\]"),
        ({"colour": "red"}, "colour: .* placement, "),
    ],
)
def test_a_wrong_query_is_a_sentence(shop, asked, word):
    with pytest.raises(CallerError, match=word):
        shop.recommend(**asked)


def test_where_a_search_is_shown_is_not_asked(shop):
    with pytest.raises(CallerError, match="placement: This is not asked here"):
        shop.search("shoes", placement="home")


def test_a_placement_may_be_text_and_a_locale_have_an_underscore(shop, planted):
    user = next(iter(planted.answers))
    slate = shop.recommend(user, 1, placement="discovery", locale="zh_CN")
    assert slate.placement is Placement.DISCOVERY
    assert slate.items == shop.recommend(user, 1, placement=Placement.DISCOVERY, locale="zh").items


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"user_id": 42}, "Expected `str`"),
        ({"user_id": " "}, "user_id is blank"),
        ({"user_id": "a\x00"}, "control characters"),
        ({"item_id": "\ud800"}, "control characters"),
        ({"event_type": "teleport"}, "teleport"),
        ({"ts_ms": "now"}, "Expected `int`"),
        ({"quantity": 0}, "quantity 0 is not above zero"),
        ({"quantity": float("nan")}, "not a finite"),
        ({"price": -1}, "price -1 is negative"),
        ({"value": float("inf")}, "not a finite"),
        ({"value": -1e300}, r"value -1e\+300 is beyond 1e\+12"),
        ({"price": 1e13}, "beyond"),
    ],
)
def test_a_wrong_event_is_a_sentence_and_none_is_recorded(shop, planted, changed, word):
    before = shop.store.last_seq()
    good = view("u", "dairy-000", planted)
    with pytest.raises(CallerError, match=rf"events\[1\].*{word}"):
        shop.record(good, msgspec.structs.replace(good, **changed))
    assert shop.store.last_seq() == before


@pytest.mark.parametrize("given", [{"user_id": "u"}, [], None, "view"])
def test_what_is_no_event_is_named(shop, given):
    with pytest.raises(CallerError, match=f"A {type(given).__name__} is no Event"):
        shop.record(given)


def test_an_event_type_may_be_text(shop, planted):
    shop.record(
        Event(event_type="view", user_id="u", item_id=next(iter(planted.answers.values())), ts_ms=planted.now_ms)
    )
    assert shop.user("u").events == 1


def test_a_workspace_is_deleted_and_nothing_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(CallerError, match="no workspace"):
        Shop.delete(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()
    Shop.init(tmp_path / "shop")
    Shop.delete(tmp_path / "shop")
    assert not list((tmp_path / "shop").iterdir())
    Shop.delete(tmp_path / "shop")
    Shop.delete(tmp_path / "never made")


def test_a_workspace_that_is_written_to_is_not_deleted(tmp_path):
    with Shop.open(tmp_path / "shop"), pytest.raises(ServiceError, match="endcap serve"):
        Shop.delete(tmp_path / "shop")
    assert (tmp_path / "shop" / "store" / "store.sqlite").exists()


def test_a_workspace_that_is_there_is_left_to_its_writer(tmp_path):
    folder = Shop.init(tmp_path / "shop")
    with Shop.open(folder):
        assert Shop.init(folder, "[train]\nseed = 9\n") == folder
    assert "seed = 9" not in (folder / "endcap.toml").read_text()


def test_next_steps_name_the_shop(tmp_path):
    with Shop.open(tmp_path / "shop") as shop:
        for act, step in (
            (shop.evaluation, f"endcap train --shop {shop.folder}"),
            (shop.publish, f"endcap train --shop {shop.folder}"),
            (shop.rollback, f"endcap releases --shop {shop.folder}"),
        ):
            with pytest.raises(NotFoundError) as raised:
                act()
            assert step in raised.value.next_step


def test_what_is_not_there_is_named(shop, tmp_path):
    with pytest.raises(NotFoundError, match="nobody"):
        shop.user("nobody")
    with pytest.raises(NotFoundError, match="nothing"):
        shop.similar("nothing")
    with pytest.raises(NotFoundError, match="endcap init"):
        Shop.open(tmp_path / "none", read_only=True)
    with Shop.open(tmp_path / "fresh") as fresh, pytest.raises(NotFoundError, match="endcap train"):
        fresh.recommend(n=1)


def test_similar_shows_what_follows(shop, planted):
    slate = shop.similar(ids(shop.recommend(n=1))[0], n=3)
    assert len(set(ids(slate))) == 3
    assert slate.items[0].reason


def test_a_misspelt_setting_is_refused(tmp_path):
    with pytest.raises(CallerError, match=r"train\.seeed"):
        Shop.init(tmp_path / "shop", "[train]\nseeed = 1\n")
    with pytest.raises(CallerError, match=r"train\.seeed"):
        Shop.open(tmp_path / "shop")


def test_too_little_data_says_so(tmp_path):
    from endcap.core.errors import DataError

    with Shop.open(tmp_path / "shop") as shop:
        shop.record(Event(event_type=EventType.VIEW, user_id="u", item_id="a", ts_ms=shop.clock()))
        with pytest.raises(DataError, match="least to learn from"):
            shop.train()


def test_ingesting_again_records_nothing_twice(shop, planted):
    before = shop.store.counts().events
    again = shop.ingest(planted.dataset)
    assert again.events.rows_out == 0
    assert again.events.quarantined == {"already_recorded": again.events.rows_in}
    assert shop.store.counts().events == before


def test_a_table_with_bad_rows_is_split_and_adds_up(tmp_path):
    rows = pl.DataFrame(
        {
            "event_type": ["view", "view", "teleport", "purchase"],
            "user_id": ["u", None, "u", "u"],
            "item_id": ["a", "a", "a", "b"],
            "ts_ms": [1_767_225_600_000] * 4,
        }
    )
    with Shop.open(tmp_path / "shop", clock=lambda: 1_767_225_700_000) as shop:
        report = shop.ingest(rows).events
        assert (report.rows_in, report.rows_out) == (4, 2)
        refused = shop.store.quarantined().collect()
        assert sorted(refused["line"].to_list()) == [2, 3]
        assert refused["reason"].str.len_chars().min() > 10


def test_histories_of_a_release_are_mapped_not_read(shop):
    release = shop._serving.current()[0]
    assert isinstance(release.histories.events.items.base, np.memmap) or isinstance(
        release.histories.events.items, np.memmap
    )
