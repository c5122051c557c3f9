"""A shop whose sources know nothing of order, and a cross-encoder that knows it from titles: trained with torch, served
without it, carried over by a refit; and one that knows nothing, which stays out."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import polars as pl
import pytest

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.data.synthetic import cycle_shop
from endcap.recommend.second_look import Weights

ITEMS = 16
SETTINGS = """
[train]
threads = 1
moments = 1
sources = ["trending", "popular"]
optional = []

[judge]
model = "runs/cross"
"""

SERVE = """
import sys
from endcap import Shop
from endcap.web.server import create_app

with Shop.open(sys.argv[1], read_only=True) as shop:
    create_app(shop)
    slate = shop.recommend(user=sys.argv[2], n=3, hide_bought=True)
print(sorted({"torch", "transformers"} & sys.modules.keys()), slate.items[0].item_id, slate.degraded)
"""


@pytest.fixture(scope="module")
def planted():
    """A ring of products with a word each for a title."""
    shop = cycle_shop(users=160, items=ITEMS)
    ids = shop.dataset.items["item_id"].to_list()
    items = pl.DataFrame({"item_id": ids, "title": [f"thing{place}" for place in range(ITEMS)]})
    return replace(shop, dataset=replace(shop.dataset, items=items))


@pytest.fixture(scope="module")
def ring(planted):
    """Titles in the order of the ring."""
    acts = planted.dataset.events.collect().sort("user_id", "ts_ms")
    titles = dict(planted.dataset.items.select("item_id", "title").iter_rows())
    after = {}
    for _, walk in acts.group_by("user_id", maintain_order=True):
        steps = [titles[item] for item in walk["item_id"]]
        after |= dict(pairwise(steps))
    found = ["thing0"]
    while len(found) < ITEMS:
        found.append(after[found[-1]])
    return found


@pytest.fixture(scope="module")
def cross(tiny_base, ring, tmp_path_factory):
    """A cross-encoder that has learned the ring by heart."""
    from endcap.models.finetune.config import FinetuneConfig
    from endcap.models.finetune.examples import Examples
    from endcap.models.finetune.tuner import tune

    rows = [
        ([ring[(place + step) % ITEMS] for step in (0, 1, 2)], ring[(place + 3 + off) % ITEMS], float(off == 0), place)
        for place in range(ITEMS)
        for off in range(ITEMS - 3)
    ]
    frame = pl.DataFrame(rows, schema=["anchor", "candidate", "label", "group"], orient="row")
    config = FinetuneConfig.model_validate(
        {
            "task": {"kind": "ranking", "architecture": "cross"},
            "base": {"name": str(tiny_base(ring, initializer_range=0.1)), "max_length": 16, "dropout": 0.0},
            "train": {"lr": 5e-3, "epochs": 60, "batch_size": 104, "precision": "float32", "threads": 1},
        }
    )
    none = frame.clear()
    learned = tune(Examples(frame, none, none, none), config, lambda rows, found: {})
    folder = tmp_path_factory.mktemp("runs") / "cross"
    learned.tuned.save(folder / "model")
    return folder


def opened(planted, folder, run, settings=SETTINGS):
    Shop.init(folder, settings)
    (folder / "runs").mkdir()
    (folder / "runs" / "cross").symlink_to(run)
    return Shop.open(folder, clock=lambda: planted.now_ms)


def right(shop, planted):
    """Share of the shoppers who are shown first what comes next."""
    first = {user: shop.recommend(user=user, n=1, hide_bought=True).items[0].item_id for user in planted.answers}
    return sum(first[user] == answer for user, answer in planted.answers.items()) / len(first)


@pytest.fixture(scope="module")
def trained(planted, cross, tmp_path_factory):
    with opened(planted, tmp_path_factory.mktemp("judged") / "shop", cross) as shop:
        shop.ingest(planted.dataset)
        done = shop.train()
        return shop.folder, done


def judge_of(shop, release):
    return {path.name: path.read_bytes() for path in (shop.releases.root / release / "judge").iterdir()}


def test_what_knows_more_than_the_ranker_stays(trained, planted):
    folder, done = trained
    note = next(note for note in done.notes if "cross-encoder" in note)
    assert note.startswith("The cross-encoder in runs/cross stays: NDCG@10 0.")
    assert "It is served as " in note
    assert "try the cross-encoder" in done.seconds
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        assert right(shop, planted) > 0.4
        weights = shop._serving.current()[0].pipeline.second_look.weights
        assert weights.top == 10
        shop._serving.current()[0].pipeline.second_look = None
        assert right(shop, planted) < 0.2


def test_the_server_looks_twice_without_torch(trained, planted):
    folder, _ = trained
    with Shop.open(folder, clock=lambda: planted.now_ms, read_only=True) as shop:
        looks = {user: shop.recommend(user=user, n=3, hide_bought=True).items[0].item_id for user in planted.answers}
    user = next(user for user, item in looks.items() if item == planted.answers[user])
    command = [sys.executable, "-c", SERVE, str(folder), user]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said.strip() == f"[] {looks[user]} ()"


def test_a_refit_carries_it_over(trained, planted):
    folder, done = trained
    config = folder / "endcap.toml"
    config.write_text(SETTINGS.replace('model = "runs/cross"', ""))
    with Shop.open(folder, clock=lambda: planted.now_ms + 1000) as shop:
        again = shop.refit()
        assert judge_of(shop, again.manifest.release_id) == judge_of(shop, done.manifest.release_id)
        assert "weights.json" in judge_of(shop, again.manifest.release_id)
        assert shop._serving.current()[0].pipeline.second_look.weights != Weights()


def test_what_knows_nothing_stays_out(planted, cross, tmp_path):
    import torch

    from endcap.models.finetune.tuned import load_tuned

    tuned = load_tuned(cross / "model")
    torch.manual_seed(0)
    for weights in tuned.net.parameters():
        weights.data.normal_(std=0.3)
    tuned.save(tmp_path / "noise" / "model")
    with opened(planted, tmp_path / "shop", tmp_path / "noise") as shop:
        shop.ingest(planted.dataset)
        done = shop.train(evaluate=False)
        assert not (shop.releases.root / done.manifest.release_id / "judge").exists()
    note = next(note for note in done.notes if "cross-encoder" in note)
    assert note.startswith("The cross-encoder in runs/cross stays out: NDCG@10 0.")


def test_with_few_to_try_it_on_it_stays_out(planted, cross, tmp_path):
    with opened(planted, tmp_path / "shop", cross, SETTINGS + "examples = 10\n") as shop:
        shop.ingest(planted.dataset)
        notes = shop.train(evaluate=False).notes
    assert any("stays out: only" in note for note in notes)


def test_a_missing_run_is_told_before_the_log_is_read(planted, tmp_path):
    with (
        opened(planted, tmp_path / "shop", tmp_path / "gone") as shop,
        pytest.raises(CallerError, match=r"judge\.model"),
    ):
        shop.train()
