from math import log2

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, P, R, Success, nDCG

from endcap.core.errors import CallerError
from endcap.evaluate.metrics import (
    Ranked,
    category_diversity,
    content_diversity,
    coverage,
    measure,
    novelty,
    rank_in_each,
    rank_targets,
)


def items(*positions: int) -> np.ndarray:
    return np.array(positions, np.int32)


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ranked(*ranks: int, n: int) -> Ranked:
    return Ranked(np.array(ranks, np.int64), np.zeros(len(ranks), np.int64), n)


def test_rank_is_one_plus_what_is_greater_or_equal():
    # order by score: item 1 (.9), items 0 and 3 (.5), item 4 (.2), item 2 (.1)
    given = scores(0.5, 0.9, 0.1, 0.5, 0.2)
    assert rank_targets(given, items(1)).ranks.tolist() == [1]
    assert rank_targets(given, items(0)).ranks.tolist() == [3]
    assert rank_targets(given, items(2, 4)).ranks.tolist() == [5, 4]
    assert rank_targets(given, items(2)).ranks.dtype == np.int64


def test_targets_that_tie_take_successive_places_behind_their_rivals():
    # three items at .5, one of them no target: it comes first, then the targets, at 2 and 3
    assert rank_targets(scores(0.5, 0.5, 0.5, 0.1), items(0, 2)).ranks.tolist() == [2, 3]


def test_model_that_scores_all_alike_finds_nothing():
    found = rank_targets(np.zeros(1000, np.float32), items(0, 1, 2))
    assert found.ranks.tolist() == [998, 999, 1000]
    assert measure([found])["recall@20"].tolist() == [0]
    assert measure([found])["auc"].tolist() == [0.5]


def test_what_cannot_be_found_is_no_hit_in_a_catalogue_shorter_than_the_list():
    found = rank_targets(scores(0.9, 0.8, 0.7), items(0), unreachable=1)
    assert found.ranks.tolist() == [1, 4]
    measured = measure([found, rank_targets(scores(0.9), items(), unreachable=2)])
    assert measured["recall@10"].tolist() == [0.5, 0]
    assert measured["hit_rate@10"].tolist() == [1, 0]
    assert measured["ndcg@10"].tolist() == pytest.approx([1 / (1 + 1 / np.log2(3)), 0])
    assert measured["auc"].tolist() == pytest.approx([0.5, 0])


def test_excluded_items_are_not_eligible():
    given = scores(0.9, 0.8, 0.7, 0.6)
    found = rank_targets(given, items(3), items(0, 1, 1))
    assert found.ranks.tolist() == [2]
    assert found.n_eligible == 2


@pytest.mark.parametrize("few", [0, 32], ids=["sorted", "counted"])
def test_ranks_agree_with_counting_one_by_one(few, monkeypatch):
    monkeypatch.setattr("endcap.evaluate.metrics.FEW_TARGETS", few)
    draw = np.random.default_rng(5)
    for _ in range(50):
        given = draw.integers(0, 12, 60).astype(np.float32)
        shuffled = draw.permutation(60).astype(np.int32)
        targets, excluded = shuffled[:4], shuffled[4:10]
        rivals = np.delete(given, shuffled[:10])
        expected = [1 + int((rivals >= given[target]).sum()) for target in targets]
        found = rank_targets(given, targets, excluded)
        # among tied targets the places are shared out in the order given
        before = [
            sum((-given[t], i) < (-given[target], j) for i, t in enumerate(targets)) for j, target in enumerate(targets)
        ]
        assert found.ranks.tolist() == [rank + place for rank, place in zip(expected, before, strict=True)]
        assert found.ties.tolist() == [int((rivals == given[target]).sum()) for target in targets]
        assert found.n_eligible == 54


@pytest.mark.parametrize(
    ("given", "targets", "excluded"),
    [
        (scores(1, float("nan")), items(0), items()),
        (scores(1, 2), items(0), items(0)),
        (scores(1, 2), items(0), items(-1)),
        (scores(1, 2), items(2), items()),
        (scores(1, 2), items(-1), items()),
        (scores(1, 2), items(1, 1), items()),
        (scores(1, 2), items(), items()),
    ],
    ids=["nan", "target excluded", "unknown excluded", "unknown target", "negative target", "target twice", "none"],
)
def test_questions_without_an_answer_are_refused(given, targets, excluded):
    with pytest.raises(CallerError):
        rank_targets(given, targets, excluded)


def test_unreachable_targets_come_last_and_are_paid_for():
    given = scores(0.9, 0.8, 0.7, 0.6)
    found = rank_targets(given, items(1), unreachable=2)
    assert found.ranks.tolist() == [2, 5, 6]
    measured = measure([found], cutoffs=(10,))
    # the first target beats 2 of 3 rivals, the others none
    assert measured["auc"].tolist() == pytest.approx([2 / 9])


def test_query_may_have_unreachable_targets_only():
    for given in (scores(0.9, 0.8), scores()):
        found = rank_targets(given, items(), unreachable=1)
        assert found.ranks.tolist() == [found.n_eligible]
    found = rank_targets(np.zeros(11, np.float32), items(), unreachable=1)
    assert measure([found])["recall@10"].tolist() == [0]
    assert measure([found])["auc"].tolist() == [0]


def test_metrics_by_hand():
    # query 1: targets at 1, 3 and 12 of 20; query 2: one target at 2 of 5
    found = measure([ranked(3, 12, 1, n=20), ranked(2, n=5)], cutoffs=(3, 10))
    assert found["precision@3"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found["precision@10"].tolist() == pytest.approx([0.2, 0.1])
    assert found["recall@3"].tolist() == pytest.approx([2 / 3, 1])
    assert found["f1@3"].tolist() == pytest.approx([2 / 3, 0.5])  # 2 * 1/3 * 1 / (1/3 + 1)
    assert found["hit_rate@3"].tolist() == [1, 1]
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    assert found["ndcg@3"].tolist() == pytest.approx([(1 + 1 / log2(4)) / ideal, 1 / log2(3)])
    assert found["mrr@10"].tolist() == pytest.approx([1, 0.5])
    # precision at the hits: 1/1 and 2/3; the ideal list of 3 holds 3 targets
    assert found["map@3"].tolist() == pytest.approx([(1 + 2 / 3) / 3, 0.5])
    # of 3 x 17 pairs the targets at 1, 3, 12 beat 17, 16 and 8 others; of 1 x 4 pairs the target at 2 beats 3
    assert found["auc"].tolist() == pytest.approx([41 / 51, 3 / 4])


def test_nothing_found_is_zero_everywhere():
    found = measure([ranked(11, n=12)], cutoffs=(10,))
    assert {name: vector.tolist() for name, vector in found.items() if name != "auc"} == {
        f"{name}@10": [0] for name in ("precision", "recall", "f1", "hit_rate", "ndcg", "mrr", "map")
    }
    assert found["auc"].tolist() == pytest.approx([1 / 11])


def test_perfect_list_scores_one_even_with_more_targets_than_places():
    found = measure([ranked(*range(1, 9), n=30)], cutoffs=(5,))
    assert (found["ndcg@5"][0], found["map@5"][0], found["auc"][0]) == pytest.approx((1, 1, 1))
    assert found["recall@5"][0] == pytest.approx(5 / 8)


def test_auc_counts_ties_half():
    # one target, four rivals: one above, two tied, one below: (1 + 2 / 2) / 4
    found = rank_targets(scores(0.5, 0.9, 0.5, 0.5, 0.1), items(0))
    assert measure([found])["auc"].tolist() == [0.5]
    # two targets that tie with each other and with one of two rivals, the other above: each (0 + 1 / 2) / 2
    found = rank_targets(scores(0.5, 0.5, 0.5, 0.9), items(0, 1))
    assert measure([found])["auc"].tolist() == [0.25]


def test_auc_without_rivals_is_a_half():
    assert measure([ranked(1, 2, n=2)])["auc"].tolist() == [0.5]


def test_metrics_refuse_what_has_no_targets():
    with pytest.raises(CallerError, match="no queries"):
        measure([])
    with pytest.raises(CallerError, match="no targets"):
        measure([ranked(n=3)])


@pytest.mark.parametrize("k", [1, 5, 10])
def test_metrics_agree_with_ir_measures(k):
    draw = np.random.default_rng(k)
    queries, qrels, run = [], [], []
    for q in range(40):
        given = draw.permutation(80).astype(np.float32)
        targets = draw.choice(80, int(draw.integers(1, 15)), replace=False).astype(np.int32)
        queries.append(rank_targets(given, targets))
        qrels += [ir_measures.Qrel(f"{q:03}", str(item), 1) for item in targets]
        run += [ir_measures.ScoredDoc(f"{q:03}", str(item), float(score)) for item, score in enumerate(given)]
    ours = measure(queries, cutoffs=(k,))
    n_targets = np.array([len(query.ranks) for query in queries])
    theirs = {"precision": P, "recall": R, "ndcg": nDCG, "mrr": RR, "map": AP, "hit_rate": Success}
    measures = {name: measure_at @ k for name, measure_at in theirs.items()}
    values = {name: np.zeros(40) for name in measures}
    for metric in ir_measures.iter_calc(list(measures.values()), qrels, run):
        name = next(name for name, wanted in measures.items() if wanted == metric.measure)
        values[name][int(metric.query_id)] = metric.value
    # trec_eval divides average precision by all targets, we by those that fit
    values["map"] *= n_targets / np.minimum(n_targets, k)
    for name, expected in values.items():
        assert ours[f"{name}@{k}"] == pytest.approx(expected, abs=1e-6), name


def test_coverage_is_the_share_shown_at_all():
    assert coverage([items(0, 1), items(1, 2)], 6) == 0.5
    assert coverage([], 6) == 0


def test_novelty_is_information_in_bits():
    # of 8 events item 0 had 4 (1 bit), item 1 had 2 (2 bits), items 2 and 3 one each (3 bits), item 4 none (as one)
    counts = np.array([4, 2, 1, 1, 0])
    found = novelty([items(0, 1), items(2), items(4), items()], counts)
    assert found.tolist() == pytest.approx([1.5, 3, 3, 0])
    with pytest.raises(CallerError):
        novelty([items(0)], np.zeros(2, np.int64))


def test_several_models_are_ranked_as_each_is_alone():
    draw = np.random.default_rng(0)
    several = draw.integers(0, 6, (5, 40)).astype(np.float32)
    for targets in (items(7), items(3, 9, 30), np.arange(35, dtype=np.int32)):
        for found, row in zip(rank_in_each(several, targets, unreachable=1), several, strict=True):
            alone = rank_targets(row, targets, unreachable=1)
            assert found.ranks.tolist() == alone.ranks.tolist()
            assert (found.ties.tolist(), found.n_eligible) == (alone.ties.tolist(), alone.n_eligible)
    several[2, 5] = np.nan
    with pytest.raises(CallerError, match="NaN"):
        rank_in_each(several, items(1))


def test_content_diversity_is_one_minus_the_mean_cosine():
    vectors = np.array([[2, 0], [0, 3], [5, 0], [0, 0]], np.float32)
    # cosines: 0-1: 0, 0-2: 1, 1-2: 0; the zero vector is at 0 to all
    found = content_diversity([items(0, 1, 2), items(0, 2), items(0, 3), items(1), items()], vectors)
    assert found.tolist() == pytest.approx([2 / 3, 0, 1, 0, 0])


def test_category_diversity_is_one_minus_the_mean_overlap():
    categories = [{"food", "milk"}, {"food", "bread"}, {"food", "milk"}, set(), set()]
    # overlaps: 0-1: 1/3, 0-2: 1, 1-2: 1/3
    found = category_diversity([items(0, 1, 2), items(0, 2), items(3, 4), items(1)], categories)
    assert found.tolist() == pytest.approx([1 - 5 / 9, 0, 1, 0])
