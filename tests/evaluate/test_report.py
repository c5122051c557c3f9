import io
import json

import numpy as np
import pytest
from rich.console import Console

from endcap.core.errors import CallerError
from endcap.evaluate.intervals import mean_interval, paired_difference
from endcap.evaluate.metrics import measure, rank_targets
from endcap.evaluate.report import Comparison


@pytest.fixture
def vectors() -> dict[str, dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    base = draw.random(200)
    return {
        "endcap": {"ndcg@10": base + 0.2, "recall@10": base + 0.1},
        "popular": {"ndcg@10": base, "recall@10": base + 0.05 * draw.random(200)},
        "knn": {"ndcg@10": base + 0.1, "recall@10": base - 0.1},
    }


@pytest.fixture
def comparison(vectors) -> Comparison:
    built = Comparison("endcap")
    for model in ("popular", "endcap", "knn"):
        built.add("all", model, vectors[model], {"coverage@10": 0.25} if model == "endcap" else None)
    return built


def test_rows_are_sorted_by_the_headline(comparison):
    assert [row.model for row in comparison.rows("all")] == ["endcap", "knn", "popular"]


def test_equal_models_are_sorted_by_name(vectors):
    built = Comparison("c")
    for model in ("c", "a", "b"):
        built.add("all", model, vectors["knn"])
    assert [row.model for row in built.rows("all")] == ["a", "b", "c"]
    assert built.gaps("all")["ndcg@10"].difference.p == 1


def test_gap_is_to_the_best_baseline_of_each_metric(comparison, vectors):
    gaps = comparison.gaps("all")
    assert {metric: gap.baseline for metric, gap in gaps.items()} == {"ndcg@10": "knn", "recall@10": "popular"}
    expected = paired_difference(vectors["endcap"]["recall@10"], vectors["popular"]["recall@10"])
    found = gaps["recall@10"].difference
    assert (found.mean, found.lo, found.hi, found.p) == pytest.approx(
        (expected.mean, expected.lo, expected.hi, expected.p)
    )


def test_gaps_follow_models_added_later(comparison, vectors):
    assert comparison.gaps("all")["ndcg@10"].baseline == "knn"
    comparison.add("all", "better", {"ndcg@10": vectors["endcap"]["ndcg@10"] + 1})
    assert comparison.gaps("all")["ndcg@10"].baseline == "better"
    assert comparison.gaps("all")["recall@10"].baseline == "popular"


def test_figures_are_flat(comparison, vectors):
    flat = comparison.figures()
    inside = mean_interval(vectors["endcap"]["ndcg@10"])
    assert flat["queries_all"] == 200
    assert (flat["ndcg@10_all"], flat["ndcg@10_all_lo"], flat["ndcg@10_all_hi"]) == pytest.approx(
        (inside.mean, inside.lo, inside.hi)
    )
    assert flat["ndcg@10_all__knn"] == pytest.approx(vectors["knn"]["ndcg@10"].mean())
    assert flat["ndcg@10_all_gain"] == pytest.approx(0.1)
    assert flat["ndcg@10_all_gain_p"] == 0
    assert flat["coverage@10_all"] == 0.25
    assert all(isinstance(value, float | int) for value in flat.values())


def test_dict_is_json_and_keeps_each_interval(comparison):
    told = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert list(told["tasks"]["all"]["models"]) == ["endcap", "knn", "popular"]
    assert set(told["tasks"]["all"]["models"]["knn"]["metrics"]["ndcg@10"]) == {"mean", "lo", "hi"}
    assert told["tasks"]["all"]["gaps"]["ndcg@10"]["baseline"] == "knn"
    assert told["tasks"]["all"]["queries"] == 200


def test_markdown_marks_ours_and_escapes_names(vectors):
    built = Comparison("endcap")
    built.add("discovery", "endcap", {"ndcg@10": np.array([0.0, 0.5])}, {"seconds": 12345.6})
    built.add("discovery", "a|b", {"ndcg@10": np.array([0.0, 0.0])})
    lines = built.to_markdown().splitlines()
    assert lines[0] == "### discovery (2 queries)"
    assert lines[2] == "| model | ndcg@10 [95 %] | seconds |"
    assert lines[4] == "| **endcap \\*** | **0.2500 [0.0000, 0.5000]** | **12,346** |"
    assert lines[5] == "| a\\|b | 0.0000 [0.0000, 0.0000] |  |"
    assert lines[7].startswith("\\* ours. ndcg@10: +0.2500 [+0.0000, +0.5000] against a\\|b")


def test_tables_render_every_task_and_take_names_as_they_are(comparison, vectors):
    comparison.add("cart", "[bold]odd", vectors["knn"])
    tables = comparison.tables()
    console = Console(file=io.StringIO(), width=160)
    for table in tables:
        console.print(table)
    text = console.file.getvalue()
    assert len(tables) == 2
    assert "all (200 queries)" in text
    assert "[bold]odd" in text
    assert text.index("endcap *") < text.index("knn") < text.index("popular")
    assert "0.1000 [+0.1000, +0.1000] against knn" in text


def test_task_without_ours_has_no_gap(vectors):
    built = Comparison("endcap")
    built.add("all", "knn", vectors["knn"])
    assert built.gaps("all") == {}
    assert "ours" not in built.to_markdown()


def test_measured_ranks_go_straight_in():
    given = np.random.default_rng(0).random((30, 50)).astype(np.float32)
    queries = [rank_targets(row, np.array([0, 1], np.int32)) for row in given]
    built = Comparison("endcap")
    built.add("all", "endcap", measure(queries))
    assert built.figures()["auc_all"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"recall@10": np.zeros(200)}, "headline"),
        ({"ndcg@10": np.zeros(3)}, "200 queries"),
        ({"ndcg@10": np.full(200, np.nan)}, "NaN"),
        ({"ndcg@10": np.zeros(200), "auc": np.zeros(3)}, "200 queries"),
    ],
)
def test_measurements_that_do_not_fit_are_refused(comparison, values, match):
    with pytest.raises(CallerError, match=match):
        comparison.add("all", "other", values)
    assert len(comparison.rows("all")) == 3


def test_refused_model_leaves_no_empty_task():
    built = Comparison("endcap")
    with pytest.raises(CallerError):
        built.add("all", "knn", {})
    assert built.tasks == []
    with pytest.raises(CallerError, match="No task"):
        built.rows("all")


def test_model_is_added_once(comparison, vectors):
    with pytest.raises(CallerError, match="already"):
        comparison.add("all", "knn", vectors["knn"])
