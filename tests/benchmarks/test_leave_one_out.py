"""What the benchmarks on sequences share: which folder is meant, and figures that are those of `endcap benchmark`."""

import pytest
from benchmarks.leave_one_out import folder_of, ndcg_by_user, pipeline, training
from benchmarks.readme import written

from benchmarks import bench_ablation
from endcap.app.benchmark import benchmark
from endcap.core.errors import CallerError, DataError


def put(folder, lines=("ann a b c",)):
    folder.mkdir()
    (folder / "sequences.txt").write_text("\n".join(lines))
    return folder


def test_the_folder_that_is_named_is_taken(tmp_path):
    beauty, sports = put(tmp_path / "amazon-beauty"), put(tmp_path / "sports")
    assert folder_of(tmp_path, "beauty") == folder_of(beauty, "beauty") == folder_of(beauty, "mine") == beauty
    assert folder_of(tmp_path, "sports") == sports


@pytest.mark.parametrize(("data", "dataset", "said"), [(None, "beauty", "DATA"), (".", None, "DATASET")])
def test_what_is_not_named_is_asked_for(data, dataset, said):
    with pytest.raises(CallerError, match=said):
        folder_of(data, dataset)


def test_a_folder_without_sequences_is_refused(tmp_path):
    with pytest.raises(CallerError, match=r"no sequences\.txt of beauty"):
        folder_of(tmp_path, "beauty")


def test_users_have_what_the_command_measures(tmp_path):
    """Half the steps are the next on a circle, so that the model is neither always right nor always wrong."""
    lines = [
        f"u{user} " + " ".join(f"i{(user * 7 + step * (1 + (user + step) % 2)) % 40}" for step in range(4 + user % 4))
        for user in range(300)
    ]
    folder = put(tmp_path / "circle", lines)
    measured = benchmark(folder, seeds=1, progress=lambda stage, share: None).figures
    with training(folder, 0) as (begun, steps):
        fusion = begun.fuse(begun.teach(steps))
        fitted = begun.fit_at(steps.test)
        values = ndcg_by_user(begun, steps, fitted, {"": pipeline(begun, fitted, fusion)})[""]
    assert 0.1 < values.mean() < 0.99
    assert len(values) == measured["queries"]
    assert values.mean() == pytest.approx(measured["ndcg@10"], abs=2e-6)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["ann a b c", "bob b c a"], "There are 6 purchases.*longer lines"),
        ([f"u{user} x{user}" for user in range(40)], "No line has two items"),
        ([f"u{user} a b c a b c" for user in range(40)], "Every user.s last item.*new to them"),
    ],
)
def test_what_is_wrong_with_the_data_is_said_of_their_folder(tmp_path, lines, said):
    folder = put(tmp_path / "short", lines)
    with pytest.raises(DataError, match=rf"^{folder}: {said}"), training(folder, 0):
        pass


def test_parts_of_a_ranker_that_nothing_teaches_are_not_taken_away(tmp_path):
    folder = put(tmp_path / "pairs", [f"u{user} i{user % 7} i{user % 11 + 7}" for user in range(60)])
    with pytest.raises(CallerError, match=rf"^{folder}: Nothing in these sequences teaches a ranker"):
        bench_ablation.run(folder, "pairs", seeds=1)


def test_a_page_has_a_place_for_every_block():
    blocks = {"sum": lambda: "2\n"}
    assert written("a <!-- sum -->\n1\n<!-- /sum --> b", blocks) == "a <!-- sum -->\n2\n<!-- /sum --> b"
    with pytest.raises(LookupError, match="sum"):
        written("a", blocks)
