"""The peers are measured as Endcap is: places by hand, and the same cases and ranks as Endcap's own."""

import json

import numpy as np
import pytest
from benchmarks.peers import protocol
from benchmarks.peers.contest import Asked, peak_rss_mb, report, search
from benchmarks.peers.run import PEERS, _named, _pins, named

from benchmarks import bench_amazon
from endcap.core.errors import CallerError
from endcap.data.datasets import amazon_folder
from endcap.evaluate.metrics import measure, rank_targets
from endcap.evaluate.protocols import leave_one_out_cases, new_only

# a buys apples again in the end; d is new in the end and nobody had it before; pairs and singles are short.
LINES = ["ann a b c a", "bob b c a d", "pair c b", "single b"]
A, B, C, D = range(4)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.txt").write_text("\n".join(LINES))
    return tmp_path


@pytest.fixture
def log(folder):
    return protocol.read(folder)


def scored(rows):
    table = np.array(rows, np.float32)
    return lambda users: table[users]


def test_the_last_is_for_the_test_and_the_one_before_for_validation(log):
    assert log.items == ("a", "b", "c", "d")
    validation, test = protocol.validation(log), protocol.test(log)
    assert [past.tolist() for past in validation.past] == [[A, B], [B, C], [C], [B]]
    assert validation.asked.tolist() == [0, 1]
    assert validation.targets.tolist() == [C, A]
    assert [past.tolist() for past in test.past] == [[A, B, C], [B, C, A], [C], [B]]
    assert test.asked.tolist() == [0, 1, 2]
    assert test.targets.tolist() == [A, D, B]
    assert test.known.tolist() == [True, True, True, False]
    users, items = test.pairs()
    assert list(zip(users.tolist(), items.tolist(), strict=True))[-2:] == [(2, C), (3, B)]


def test_ties_count_against_the_model_and_history_is_hidden(log):
    ranks = protocol.rank(protocol.validation(log), scored([[3, 1, 2, 9], [2, 2, 2, 9], [0] * 4, [0] * 4]))
    # d is not known yet, whatever it scores. c stands behind a; bob's a ties with b and c, which are his own.
    assert ranks.unfiltered.tolist() == [2, 3]
    assert ranks.filtered.tolist() == [1, 1]
    assert ranks.new.all()
    tied = protocol.rank(protocol.test(log), scored([[0] * 4, [0] * 4, [5, 5, 5, 5], [0] * 4]))
    assert tied.unfiltered[2] == 3
    assert tied.filtered[2] == 2


def test_what_cannot_be_found_is_not_found_and_repeats_count_unfiltered_only(log):
    ranks = protocol.rank(protocol.test(log), scored([[1, 2, 3, 0], [1, 2, 3, 9], [3, 2, 1, 0], [0] * 4]))
    assert ranks.new.tolist() == [False, True, True]
    assert ranks.unfiltered.tolist() == [3, protocol.NOWHERE, 2]
    assert ranks.filtered[1:].tolist() == [protocol.NOWHERE, 2]
    values = ranks.values()
    assert values["ndcg@10"] == pytest.approx([0, 1 / np.log2(3)])
    assert values["ndcg@10_unfiltered"] == pytest.approx([0.5, 0, 1 / np.log2(3)])
    assert values["recall@10"].tolist() == [0, 1]
    assert ranks.ndcg == pytest.approx(1 / np.log2(3) / 2)


def test_there_is_nobody_to_ask(tmp_path):
    (tmp_path / "sequences.txt").write_text("ann a b\nbob b")
    with pytest.raises(ValueError, match="three items"):
        protocol.rank(protocol.validation(protocol.read(tmp_path)), scored([[0.0] * 2] * 2))


def test_settings_that_give_no_scores_do_not_end_the_search(log):
    def fit(stage, settings, seed):
        return scored([[settings["x"]] * 4] * 4)

    trials = search(protocol.validation(log), fit, {"x": [0.0, float("nan")]}, seed=0, seconds=60)
    assert sorted(trial["ndcg@10"] > 0 for trial in trials) == [False, True]


def test_places_after_the_tenth_are_worth_nothing():
    ranks = protocol.Ranks(np.array([10, 11]), np.array([11, 12]), np.array([True, True]), 1.0)
    assert ranks.values()["ndcg@10"] == pytest.approx([1 / np.log2(11), 0])
    assert ranks.values()["recall@10"].tolist() == [1, 0]
    assert ranks.values()["recall@10_unfiltered"].tolist() == [0, 0]


def test_the_best_leave_out_what_is_hidden():
    scores = np.arange(20, dtype=np.float32)[None, :]
    known = np.arange(20) != 19
    found = protocol.best(scores, [np.array([18, 3], np.int32)], known)
    assert found.tolist() == [list(range(17, 7, -1))]


def test_scores_that_are_no_scores_are_refused(log):
    with pytest.raises(FloatingPointError, match="NaN"):
        protocol.rank(protocol.test(log), scored([[np.nan] * 4] * 4))
    with pytest.raises(ValueError, match="shape"):
        protocol.rank(protocol.test(log), scored([[0.0] * 3] * 4))


@pytest.mark.parametrize("lines", ["ann a\nann b", "ann a\n\nbob", "ann", "\n"])
def test_lines_that_are_no_sequence_are_refused(tmp_path, lines):
    (tmp_path / "sequences.txt").write_text(lines)
    with pytest.raises(ValueError, match=r"sequences\.txt"):
        protocol.read(tmp_path)


def test_intervals_hold_the_mean_and_repeat():
    values = {"ndcg@10": np.random.default_rng(0).random(500)}
    found = protocol.figures(values, seed=3)
    assert found == protocol.figures(values, seed=3)
    assert found["ndcg@10_lo"] < found["ndcg@10"] < found["ndcg@10_hi"]
    assert found["ndcg@10_hi"] - found["ndcg@10_lo"] == pytest.approx(2 * 1.96 * 0.2887 / 500**0.5, rel=0.15)


@pytest.fixture
def larger(tmp_path):
    """Random walks of one to nine items, repeats among them."""
    draw = np.random.default_rng(7)
    walks = [draw.integers(0, 40, draw.integers(1, 10)) for _ in range(120)]
    lines = [f"u{user} " + " ".join(f"i{item}" for item in walk) for user, walk in enumerate(walks)]
    (tmp_path / "sequences.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(("from_end", "stage_of"), [(2, protocol.validation), (1, protocol.test)])
def test_endcap_asks_the_same_of_the_same_and_ranks_alike(larger, from_end, stage_of):
    log = protocol.read(larger)
    stage = stage_of(log)
    events = amazon_folder(larger).events.collect()
    everything = leave_one_out_cases(events, from_end)
    asked = {case.user_id: log.items.index(case.targets[0]) for case in everything}
    names = [log.users[user] for user in stage.asked]
    assert dict(zip(names, stage.targets.tolist(), strict=True)) == asked
    fresh = {case.user_id: {log.items.index(item) for item in case.exclude} for case in new_only(everything, events)}
    # whole numbers, so that many tie
    scores = np.random.default_rng(1).integers(0, 12, (len(log.users), len(log.items))).astype(np.float32)
    ranks = protocol.rank(stage, lambda users: scores[users], batch=7)
    assert [name for name, new in zip(names, ranks.new, strict=True) if new] == [
        name for name in names if name in fresh
    ]
    for hidden, found, counts in (
        ({name: set() for name in names}, ranks.unfiltered, np.ones_like(ranks.new)),
        (fresh, ranks.filtered, ranks.new),
    ):
        places = [place for place, count in enumerate(counts) if count]
        theirs = [_ranked(scores[stage.asked[at]], stage, stage.targets[at], hidden[names[at]]) for at in places]
        assert [int(one.ranks[0]) for one in theirs] == found[places].tolist()
        mine = ranks.values()["ndcg@10_unfiltered" if counts.all() else "ndcg@10"]
        assert measure(theirs)["ndcg@10"] == pytest.approx(mine)


def _ranked(scores, stage, target, hidden):
    eligible = np.array([item for item in np.flatnonzero(stage.known) if item not in hidden])
    reachable = np.array([target] if target in eligible else [], np.int32)
    places = np.searchsorted(eligible, reachable).astype(np.int32)
    return rank_targets(scores[eligible], places, unreachable=1 - len(reachable))


def test_the_search_is_seeded_keeps_its_budget_and_tries_one_at_least(log, capsys):
    stage = protocol.validation(log)
    table = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    tried = []

    def fit(stage, settings, seed):
        tried.append(settings)
        return lambda users: table[users]

    choices = {"one": (1, 2, 3), "two": (4, 5)}
    assert len(search(stage, fit, choices, seed=0, seconds=60)) == 6
    first, tried[:] = list(tried), []
    search(stage, fit, choices, seed=0, seconds=60)
    assert tried == first
    assert {tuple(one.values()) for one in first} == {(one, two) for one in (1, 2, 3) for two in (4, 5)}
    assert len(search(stage, fit, choices, seed=0, seconds=0)) == 1
    assert "trial 1 of 6" in capsys.readouterr().out


def test_the_report_has_every_figure(log, tmp_path, capsys):
    ranks = protocol.rank(protocol.test(log), scored([[1, 2, 3, 0]] * 4))
    asked = Asked(tmp_path, tmp_path / "out.json", 0, 90.0)
    report(asked, ranks, {"seconds_fit": 1.0, "seconds_tuning": 2.0}, {"settings": {"k": 1}})
    found = json.loads(asked.out.read_text())
    assert found["details"] == {"seed": 0, "budget_minutes": 1.5, "settings": {"k": 1}}
    assert found["figures"]["queries"] == 2
    assert found["figures"]["queries_unfiltered"] == 3
    assert found["figures"]["users_per_second"] > 0
    assert 1 < found["figures"]["peak_rss_mb"] <= peak_rss_mb()
    assert {"ndcg@10_lo", "recall@10_unfiltered_hi", "seconds_fit", "seconds_tuning"} <= set(found["figures"])
    assert "test: ndcg@10" in capsys.readouterr().out


def test_figures_are_named_as_those_of_the_benchmark():
    assert _named("ndcg@10_unfiltered", "x") == "ndcg@10_unfiltered__peer_x"
    assert _named("ndcg@10_lo", "x") == "ndcg@10__peer_x_lo"


def test_every_peer_has_a_script_and_pins():
    from benchmarks.peers import run

    for name, requirements in PEERS.items():
        assert (run.HERE / f"{name}.py").is_file()
        assert all("==" in pin for pin in _pins(run.HERE / requirements))


def test_peers_are_known_before_anything_is_trained(folder):
    assert named("all") == list(PEERS)
    assert named("implicit_als,lenskit_slim") == ["implicit_als", "lenskit_slim"]
    assert named("") == []
    with pytest.raises(CallerError, match=r"PEERS: No peer is called 'nobody'.*lenskit_slim"):
        bench_amazon.run(folder, "few", seeds=1, peers="implicit_als,nobody")
