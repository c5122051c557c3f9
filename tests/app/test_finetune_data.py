"""Examples made of a shop's log: what came next, in parts by time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import polars as pl
import pytest

from endcap.app.finetune import finetune
from endcap.app.finetune_data import examples_of, next_items, with_negatives
from endcap.app.media import ContentConfig
from endcap.app.runtime import Shop
from endcap.app.tasks import successes
from endcap.core.errors import CallerError, DataError
from endcap.features.items import ItemTable
from endcap.models.finetune.config import FinetuneConfig

Tuning = Callable[..., FinetuneConfig]
QUICK = {"epochs": 1}


class TestFromALog:
    BOUGHT = pl.DataFrame(
        [(user, item, hour) for user, items in (("u", "abcb"), ("v", "ba")) for hour, item in enumerate(items)],
        schema=["user_id", "item_id", "ts_ms"],
        orient="row",
    )
    TEXTS = MappingProxyType({"a": "apple", "b": "bread", "c": "corn"})

    def test_each_act_that_followed_another(self) -> None:
        """u: a, then b, then c; b again is no news. v: b, then a."""
        found = next_items(self.BOUGHT, dict(self.TEXTS), (0.6, 0.2, 0.2))
        assert found.select("anchor", "candidate", "group", "segment", "ts_ms").rows() == [
            (["apple"], "bread", "u", "1", 1),
            (["apple", "bread"], "corn", "u", "2 to 3", 2),
            (["bread"], "apple", "v", "1", 1),
        ]
        assert found["known"].to_list() == [["apple", "bread"], ["apple", "bread", "corn"], ["bread", "apple"]]

    def test_training_knows_nothing_of_later_parts(self) -> None:
        """u acts on a, b, c, d, e: the shop's training part ends after c, and its validation after d."""
        hours = pl.DataFrame({"user_id": ["u"] * 5, "item_id": list("abcde"), "ts_ms": range(5)})
        found = next_items(hours, {name: name for name in "abcde"}, (0.6, 0.2, 0.2))
        assert found.select("candidate", "part", pl.col("known").list.join("")).rows() == [
            ("b", "train", "ab"),
            ("c", "valid", "abc"),
            ("d", "asked", "abcd"),
            ("e", "test", "abcde"),
        ]

    def test_a_long_history_never_contradicts_itself(self) -> None:
        """What was taken is no negative, however long ago, though only so many known texts are kept."""
        acts = [(f"u{user}", f"i{(7 * user + act) % 90}", act) for user in range(20) for act in range(80)]
        bought = pl.DataFrame(acts, schema=["user_id", "item_id", "ts_ms"], orient="row")
        taken = next_items(bought, {f"i{item}": f"title {item}" for item in range(90)}, (0.6, 0.2, 0.2))
        assert taken["known"].list.len().max() == 50
        had = {
            group: {*some["candidate"], *some["anchor"].explode()}
            for (group,), some in taken.filter(pl.col("part") == "train").group_by("group")
        }
        rows = with_negatives(taken, seed=0).filter(pl.col("part") == "train", pl.col("label") == 0)
        users = taken["group"].to_list()
        assert rows.height > 100
        assert not [row for row in rows.iter_rows(named=True) if row["candidate"] in had[users[row["group"]]]]

    def test_items_without_text_are_not_there(self) -> None:
        found = next_items(self.BOUGHT, {**self.TEXTS, "b": ""}, (0.6, 0.2, 0.2))
        assert found.select("anchor", "candidate").rows() == [(["apple"], "corn")]
        with pytest.raises(DataError, match="second product"):
            next_items(self.BOUGHT, {}, (0.6, 0.2, 0.2))

    def test_parts_follow_time(self, shop: Shop, tuning: Tuning) -> None:
        rows = examples_of(shop, tuning(task={"kind": "pairs"}))
        ends = [rows.filter(pl.col("part") == part)["ts_ms"] for part in ("train", "valid", "test")]
        assert ends[0].max() < ends[1].min() <= ends[1].max() < ends[2].min()
        assert ends[0].len() / rows.height == pytest.approx(0.54 / 0.8, abs=0.1)
        assert ends[1].len() / ends[0].len() == pytest.approx(1 / 9, abs=0.1)

    def test_negatives_are_unknown_to_the_shopper(self, shop: Shop, tuning: Tuning) -> None:
        table = ItemTable.build(shop.store.items())
        texts = dict(zip(table.ids.ids, table.texts(), strict=True))
        taken = next_items(successes(shop.store.events()), texts, (0.6, 0.2, 0.2))
        rows = with_negatives(taken, seed=0)
        assert rows.filter(pl.col("label") == 1)["candidate"].to_list() == taken["candidate"].to_list()
        for (group,), some in rows.filter(pl.col("label") == 0).group_by("group"):
            assert not set(some["candidate"]) & {*taken["known"][group], *taken["anchor"][group]}
            assert taken["candidate"][group] not in some["candidate"]
            assert some["candidate"].n_unique() == some.height <= 4
        given = examples_of(shop, tuning(task={"kind": "ranking"}))
        assert given.equals(rows.filter(pl.col("part") != "asked"))
        assert given.height < rows.height

    def test_a_shop_is_tuned_on(self, shop: Shop, tuning: Tuning, tmp_path: Path) -> None:
        config = tuning(task={"kind": "ranking"}, train=QUICK, base={"max_length": 8})
        run = finetune(examples_of(shop, config), config, tmp_path)
        assert {"valid", "test", "segment: 4 to 7"} <= set(run.metrics)
        assert (
            "parted by time" in (tmp_path / "card.md").read_text()
            or "given by the data" in (tmp_path / "card.md").read_text()
        )
        texts = examples_of(shop, tuning(task={"kind": "masked"}))
        assert texts.height == 24

    def test_what_gives_vectors_is_tuned_on_the_fields_that_are_read(self, shop: Shop, tuning: Tuning) -> None:
        table = ItemTable.build(shop.store.items())
        shop.config = shop.config.model_copy(update={"content": ContentConfig(reads=("categories",))})
        read = examples_of(shop, tuning(task={"kind": "pairs"}))["candidate"]
        assert set(read) <= set(table.texts(("categories",)))
        crossed = tuning(task={"kind": "ranking", "architecture": "cross"})
        assert set(examples_of(shop, crossed)["candidate"]) <= set(table.texts())
        assert not set(table.texts()) & set(read)

    def test_labels_that_a_log_does_not_hold(self, shop: Shop, tuning: Tuning) -> None:
        with pytest.raises(CallerError, match="no labels for rating"):
            examples_of(shop, tuning(task={"kind": "rating"}))
