"""Tables of examples: what is read, refused and parted, with known answers."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from endcap.core.errors import CallerError, DataError
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples, group_codes, part_examples, read_examples


def settings(**sections: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate(sections)


def whole(examples: Examples) -> pl.DataFrame:
    return pl.concat([examples.train, examples.valid, examples.test])


def labelled(count: int = 60) -> pl.DataFrame:
    return pl.DataFrame({"text": [f"text {n}" for n in range(count)], "label": ["a", "b", "b"] * (count // 3)})


@pytest.mark.parametrize("ending", [".csv", ".CSV", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    frame = labelled()
    write = {".csv": frame.write_csv, ".jsonl": frame.write_ndjson, ".parquet": frame.write_parquet}[ending.lower()]
    write(path)
    read, direct = read_examples(path, settings()), part_examples(frame, settings())
    for part in ("train", "valid", "test"):
        assert getattr(read, part).equals(getattr(direct, part))


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("rows.xlsx", "", CallerError, "no kind of table"),
        ("rows", "", CallerError, "No ending"),
        ("missing.csv", None, CallerError, "no such file"),
        ("rows.csv", "text,label\na,b,c,d\n", DataError, "cannot be read"),
        ("rows.parquet", "this is no Parquet", DataError, "cannot be read"),
        ("rows.jsonl", "{oops\n", DataError, "cannot be read"),
        ("rows.csv", "text,class\na,b\n", DataError, "lacks label; it has text, class"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, name: str, content: str | None, error: type, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=said):
        read_examples(tmp_path / name, settings())


class TestColumns:
    def test_names_of_ones_own(self) -> None:
        frame = labelled().rename({"text": "query", "label": "intent"}).with_columns(text=pl.lit("not this"))
        found = whole(part_examples(frame, settings(columns={"text": "query", "label": "intent"})))
        assert set(found["text"]) == set(labelled()["text"])
        assert set(found["label"]) == {"a", "b"}

    def test_a_name_that_is_no_column(self) -> None:
        with pytest.raises(CallerError, match=r"columns\.label: The table has no column 'intent'; it has text, label"):
            part_examples(labelled(), settings(columns={"label": "intent"}))
        with pytest.raises(CallerError, match="no column 'lable'"):
            part_examples(labelled(), settings(columns={"lable": "label"}))

    def test_others_are_left_out(self) -> None:
        examples = part_examples(labelled().with_columns(price=pl.lit(1.0)), settings())
        assert examples.train.columns == ["row", "text", "label"]

    def test_a_kind_that_cannot_be_read(self) -> None:
        frame = pl.DataFrame({"text": [["a", "b"]] * 20, "label": ["x", "y"] * 10})
        with pytest.raises(DataError, match="cannot be read"):
            part_examples(frame, settings())

    def test_an_anchor_is_a_list_or_apart_by_bars(self) -> None:
        rows = {"candidate": ["c"] * 12, "label": [0, 1] * 6}
        apart = pl.DataFrame({"anchor": [" a | b ", "c||"] * 6, **rows})
        listed = pl.DataFrame({"anchor": [["a", "b"], ["c", "", None]] * 6, **rows})
        config = settings(task={"kind": "interest"}, split={"by": "random"})
        for frame in (apart, listed):
            found = whole(part_examples(frame, config)).sort("row")
            assert found["anchor"].to_list()[:2] == [["a", "b"], ["c"]]


class TestRefused:
    def test_reasons_and_what_the_rows_held(self) -> None:
        frame = labelled().with_columns(part=pl.lit("train"), ts_ms=pl.lit("5"))
        wrong = pl.DataFrame(
            {
                "text": ["  ", "x", "x", "x", None],
                "label": ["a", None, "a", "a", "a"],
                "part": ["train", "train", "dev", "train", "train"],
                "ts_ms": ["1", "1", "1", "yesterday", "1"],
            }
        )
        refused = part_examples(pl.concat([wrong, frame]), settings()).refused
        assert refused["row"].to_list() == [1, 2, 3, 4, 5]
        assert refused["reason"].to_list() == [
            "empty text",
            "no label",
            "part is not train, valid or test",
            "ts_ms is no number",
            "empty text",
        ]
        assert refused["ts_ms"][3] == "yesterday"

    @pytest.mark.parametrize(
        ("kind", "row", "reason"),
        [
            ("rating", {"text": "x", "rating": "good"}, "rating is no number"),
            ("rating", {"text": "x", "rating": "inf"}, "rating is no number"),
            ("interest", {"anchor": "a", "candidate": "c", "label": "2"}, "label is neither 0 nor 1"),
            ("interest", {"anchor": "|", "candidate": "c", "label": "1"}, "empty anchor"),
            ("interest", {"anchor": "a", "candidate": "", "label": "1"}, "empty candidate"),
            ("ranking", {"anchor": "a", "candidate": "c", "label": "-1", "group": "g"}, "label is below 0"),
            ("ranking", {"anchor": "a", "candidate": "c", "label": "1", "group": None}, "no group"),
            ("pairs", {"anchor": "a", "candidate": " "}, "empty candidate"),
            ("masked", {"text": ""}, "empty text"),
        ],
    )
    def test_by_task(self, kind: str, row: dict[str, str], reason: str) -> None:
        sound = [
            {name: (str(n % 2) if name in ("label", "rating") else f"{name} {n}") for name in row} for n in range(20)
        ]
        examples = part_examples(pl.DataFrame([*sound, row]), settings(task={"kind": kind}, split={"by": "random"}))
        assert examples.refused["reason"].to_list() == [reason]
        assert examples.refused["row"].to_list() == [21]
        assert whole(examples).height == 20

    def test_too_few_are_left(self) -> None:
        frame = pl.DataFrame({"text": ["a"] * 9 + [""] * 5, "label": ["x", "y"] * 7})
        with pytest.raises(DataError, match=r"Only 9 of 14 rows can be learned from \(5 x empty text\)"):
            part_examples(frame, settings())

    def test_nothing_to_tell_apart(self) -> None:
        with pytest.raises(DataError, match="All labels of the training part are the same"):
            part_examples(labelled().with_columns(label=pl.lit("a")), settings())
        with pytest.raises(DataError, match="no label"):
            part_examples(labelled().with_columns(label=pl.lit("|")), settings(task={"several": True}))
        with pytest.raises(DataError, match="No row falls into the training part"):
            part_examples(labelled().with_columns(part=pl.lit("test")), settings())


class TestSplit:
    def test_given_by_the_data(self) -> None:
        parts = ["train", "valid", "test"] * 20
        rows = labelled().with_columns(label=pl.Series(["a", "b"] * 30), part=pl.Series(parts))
        examples = part_examples(rows, settings())
        assert examples.train["row"].to_list() == list(range(1, 61, 3))
        assert examples.test["row"].to_list() == list(range(3, 61, 3))

    def test_stratified_keeps_the_shares_of_classes(self) -> None:
        frame = pl.DataFrame({"text": ["t"] * 200, "label": ["rare"] * 20 + ["often"] * 180})
        examples = part_examples(frame, settings())
        for part, rare, often in (("train", 12, 108), ("valid", 4, 36), ("test", 4, 36)):
            counts = dict(getattr(examples, part)["label"].value_counts().rows())
            assert counts == {"rare": rare, "often": often}

    def test_stratified_shares_out_what_is_rare_in_every_task(self) -> None:
        """Ten of two hundred rows, or groups of two rows, are 6, 2 and 2."""
        rows = pl.DataFrame({"row": range(200)}).select(
            anchor=pl.lit("a"), candidate=pl.lit("c"), text=pl.lit("t"), rare=pl.col("row") % 20 == 7
        )
        twice = pl.concat([rows.with_columns(group=pl.int_range(200))] * 2)
        several = pl.when("rare").then(pl.lit("often|rare|once")).otherwise(pl.lit("often"))
        number = pl.col("rare").cast(pl.Float64)
        once = pl.when(pl.int_range(pl.len()) < 200).then(number).otherwise(0.0)
        for frame, task in (
            (rows.with_columns(label=number), {"kind": "interest"}),
            (twice.with_columns(label=once), {"kind": "interest"}),
            (twice.with_columns(label=once), {"kind": "ranking"}),
            (rows.with_columns(label=several), {"several": True}),
            (twice.with_columns(label=several), {}),
            (rows.with_columns(rating=number + 3), {"kind": "rating"}),
            (twice.with_columns(rating=number + 3), {"kind": "rating"}),
        ):
            examples = part_examples(frame, settings(task=task))
            parts = (examples.train, examples.valid, examples.test)
            rare = frame.with_row_index("row", offset=1).filter("rare")["row"]
            size = frame.height // 200
            assert [part.height for part in parts] == [120 * size, 40 * size, 40 * size]
            assert [part["row"].is_in(rare.implode()).sum() for part in parts] == [6 * size, 2 * size, 2 * size]

    def test_labels_too_rare_to_be_shared_out_leave_the_shares_as_they_are(self) -> None:
        frame = pl.DataFrame({"text": ["t"] * 200, "label": [f"only {n}|{n % 2}" for n in range(200)]})
        examples = part_examples(frame, settings(task={"several": True}))
        assert (examples.train.height, examples.valid.height, examples.test.height) == (120, 40, 40)

    def test_a_class_of_one_is_learned_from(self) -> None:
        frame = pl.concat([labelled(), pl.DataFrame({"text": ["x"], "label": ["single"]})])
        assert "single" in part_examples(frame, settings()).train["label"]

    def test_by_time_is_six_two_two_in_order(self) -> None:
        times = np.random.default_rng(0).permutation(100)
        frame = pl.DataFrame({"text": ["t"] * 100, "label": ["a", "b"] * 50, "ts_ms": times})
        examples = part_examples(frame, settings(split={"by": "time"}))
        assert sorted(examples.train["ts_ms"]) == list(range(60))
        assert sorted(examples.valid["ts_ms"]) == list(range(60, 80))
        assert sorted(examples.test["ts_ms"]) == list(range(80, 100))

    def test_by_time_needs_times(self) -> None:
        with pytest.raises(CallerError, match="ts_ms"):
            part_examples(labelled(), settings(split={"by": "time"}))

    @pytest.mark.parametrize("by", ["random", "stratified", "time"])
    def test_groups_are_never_parted(self, by: str) -> None:
        draw = np.random.default_rng(1)
        groups = [None if n % 10 == 0 else f"g{n}" for n in draw.integers(40, size=300)]
        frame = pl.DataFrame(
            {"text": ["t"] * 300, "label": ["a", "b"] * 150, "group": groups, "ts_ms": draw.permutation(300)}
        )
        examples = part_examples(frame, settings(split={"by": by}))
        seen = [set(part["group"].drop_nulls()) for part in (examples.train, examples.valid, examples.test)]
        assert all(seen)
        assert len(seen[0] | seen[1] | seen[2]) == sum(map(len, seen))
        assert examples.test["group"].is_null().any()
        if by == "time":
            last = frame.group_by("group").agg(pl.col("ts_ms").max()).drop_nulls()
            ends = [last.filter(pl.col("group").is_in(groups))["ts_ms"] for groups in seen]
            assert ends[0].max() < ends[1].min() <= ends[1].max() < ends[2].min()

    def test_the_seed_decides(self) -> None:
        def rows(seed: int) -> list[int]:
            return part_examples(labelled(), settings(train={"seed": seed})).test["row"].to_list()

        assert rows(1) == rows(1) != rows(2)

    def test_no_test_part(self) -> None:
        examples = part_examples(labelled(), settings(split={"shares": (0.8, 0.2, 0.0)}))
        assert (examples.train.height, examples.valid.height, examples.test.height) == (48, 12, 0)


def test_rows_of_no_group_are_groups_of_their_own() -> None:
    codes = group_codes(pl.DataFrame({"group": ["b", None, "a", "b", None]}))
    assert codes.tolist() == [1, 2, 0, 1, 3]
    assert group_codes(pl.DataFrame({"group": [None, None]}, schema={"group": pl.String})).tolist() == [0, 1]
    assert group_codes(pl.DataFrame({"row": [1, 2, 3]})).tolist() == [0, 1, 2]
