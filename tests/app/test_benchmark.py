"""The benchmark on a folder whose next item is certain, and the warning where the whole is worse than a part."""

import re

import numpy as np
import pytest

from endcap.app.benchmark import benchmark
from endcap.app.train import _behind
from endcap.core.errors import CallerError, DataError, NotFoundError
from endcap.evaluate.report import Comparison

ITEMS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everybody walks the same circle, from anywhere."""
    place = tmp_path_factory.mktemp("circle")
    lines = [f"u{user} " + " ".join(str((user + step) % ITEMS) for step in range(5 + user % 5)) for user in range(300)]
    (place / "sequences.txt").write_text("\n".join(lines))
    return place


def test_it_finds_what_comes_next_and_says_how_well(folder):
    told = []
    found = benchmark(folder, seeds=2, progress=lambda stage, share: told.append(stage))
    figures = found.figures
    assert figures["ndcg@10"] > 0.95
    assert figures["ndcg@10_lo"] <= figures["ndcg@10"] <= figures["ndcg@10_hi"]
    assert figures["ndcg@10__transitions"] > figures["ndcg@10__popular"]
    assert figures["ndcg@10_unfiltered"] > 0.95
    assert figures["queries"] == figures["queries_unfiltered"] == 300
    assert figures["users_per_second"] > 0
    assert figures["seconds_per_seed"] > 0
    assert figures["ndcg@10_sd_of_seeds"] >= 0
    assert {stage[:7] for stage in told} == {"seed 0:", "seed 1:"}
    assert "no text" in " ".join(found.notes)


def test_bad_requests_are_named(folder, tmp_path):
    with pytest.raises(CallerError, match="0 seeds"):
        benchmark(folder, seeds=0, progress=lambda stage, share: None)
    with pytest.raises(NotFoundError, match=r"sequences\.txt"):
        benchmark(tmp_path, seeds=1, progress=lambda stage, share: None)
    (tmp_path / "sequences.txt").write_text("ann a b c\nbob b c a\ncid c a b\n")
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + r": There are 9 .*longer lines"):
        benchmark(tmp_path, seeds=1, progress=lambda stage, share: None)


def test_a_log_where_nothing_is_new_to_anybody(tmp_path):
    (tmp_path / "sequences.txt").write_text("\n".join(f"u{user} a b c a b c" for user in range(40)))
    with pytest.raises(DataError, match=r"own history hidden.*new to them"):
        benchmark(tmp_path, seeds=1, progress=lambda stage, share: None)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"u{user} x" for user in range(40)], "No line has two items"),
        ([f"u{user} x{user}" for user in range(40)], "No line has two items"),
    ],
)
def test_a_log_with_nothing_to_ask(tmp_path, lines, said):
    (tmp_path / "sequences.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=said):
        benchmark(tmp_path, seeds=1, progress=lambda stage, share: None)


def test_where_there_is_nothing_to_learn_that_is_told(tmp_path):
    (tmp_path / "sequences.txt").write_text("\n".join(f"u{user} i{user % 7} i{user % 11 + 7}" for user in range(60)))
    found = benchmark(tmp_path, seeds=1, progress=lambda stage, share: None)
    assert "Nobody did anything to learn from" in " ".join(found.notes)


def test_a_whole_that_is_worse_than_a_part_is_told():
    draw = np.random.default_rng(0)
    part = draw.random(200)
    worse, better = Comparison("ours"), Comparison("ours")
    for comparison, ours in ((worse, part - 0.1), (better, part + 0.1)):
        comparison.add("all", "part", {"ndcg@10": part})
        comparison.add("all", "ours", {"ndcg@10": ours})
    assert "part alone does better than the whole, by 0.1000" in _behind(worse, "all")
    assert _behind(better, "all") == _behind(better, "cart") == ""
