"""What a model pretrained on one shop is worth to another, by how many shoppers the other has to learn from.

`make bench NAME=transfer DATASET=beauty DATA=<folder> SEEDS=3` pretrains on `amazon-sports` beside it, as
`endcap pretrain` does, and then trains the sequence model on 1, 10 and 100 percent of the users of `amazon-beauty`,
from nothing and from those weights. The model is measured alone on the last act of every user, all items ranked, own
history hidden; everybody's history is read, and the share's is learned from. Figures, means over seeds with the
standard deviation of seeds as `..._sd`:

    ndcg@10_asis                       the pretrained weights as they are, without any training here
    ndcg@10_content_<percent>_scratch, ndcg@10_content_<percent>_start    items are their content alone
    ndcg@10_ids_<percent>_scratch, ndcg@10_ids_<percent>_start            items have vectors of their own beside it
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.leave_one_out import folder_of
from endcap.app.config import Config
from endcap.app.content import fit_content
from endcap.app.pretrain import train_weights
from endcap.app.sequences import trails
from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.data.datasets import amazon_folder
from endcap.features.items import ItemTable
from endcap.features.sequences import Histories
from endcap.models.config import SequenceConfig
from endcap.models.loop import use_threads
from endcap.models.sequence import SequenceModel
from endcap.models.sequence_fit import train_sequence
from endcap.models.sequence_validation import Validation, ndcg
from endcap.models.sequence_weights import Names, SequenceWeights
from endcap.models.windows import Sequences

FROM = "sports"
PERCENTS = (1, 10, 100)
LENT = {"ids": False, "turned": True}
ITEMS = {"content": {"ids": False}, "ids": {"ids": True}}


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A shop whose users' last acts are asked for. content: float32 [items, any]."""

    past: Sequences
    names: Names
    content: Float32Array
    test: Validation

    def measured(self, model: SequenceModel) -> float:
        return ndcg(model, self.test)


def run(data: Path | None, dataset: str, seeds: int) -> dict[str, float]:
    here = folder_of(data, dataset)
    there = folder_of(here.absolute().parent, FROM)
    if here == there:
        raise CallerError("A shop cannot lend to itself.", where="DATASET", next_step=f"Name another than {FROM}.")
    use_threads(1)
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as cache:
        lender, asked = _everything(there, Path(cache)), _asked(here, Path(cache))
    for seed in range(seeds):
        lent, _ = train_weights(*lender, SequenceConfig(**LENT, seed=seed))
        for name, value in _curve(asked, lent, seed):
            print(f"{time.strftime('%H:%M:%S')} seed {seed} {name} {value:.4f}", flush=True)
            found.setdefault(name, []).append(value)
    figures = {name: mean(values) for name, values in found.items()}
    return figures | {f"{name}_sd": stdev(values) for name, values in found.items() if seeds > 1}


def _curve(asked: Asked, lent: SequenceWeights, seed: int) -> Iterator[tuple[str, float]]:
    """(name of a figure, its value), one training each."""
    untrained = SequenceModel(len(asked.names.items), SequenceConfig(**LENT, seed=seed), asked.content)
    lent.give(untrained, asked.names)
    yield "ndcg@10_asis", asked.measured(untrained)
    order = np.random.default_rng(seed).permutation(len(asked.past.offsets) - 1)
    for percent in PERCENTS:
        part = asked.past.select(np.sort(order[: max(1, len(order) * percent // 100)]))
        for items, settings in ITEMS.items():
            config = SequenceConfig(**settings, seed=seed)
            for begin, start in (("scratch", None), ("start", lent)):
                model, _ = train_sequence(
                    part, len(asked.names.items), config, content=asked.content, names=asked.names, start=start
                )
                yield f"ndcg@10_{items}_{percent}_{begin}", asked.measured(model)


def _everything(folder: Path, cache: Path) -> tuple[Sequences, Names, Float32Array]:
    dataset, config = amazon_folder(folder), Config()
    events = dataset.events.collect()
    table = ItemTable.build(dataset.items, events["item_id"].unique().to_list())
    content = fit_content(table, config, cache, lambda stage, share: None, [], None)
    if content is None:
        raise CallerError("There are no titles to learn from.", where=str(folder), next_step="Add items.jsonl.")
    histories = trails(Histories.build(events.lazy(), table.ids))
    return histories, Names(table.ids.ids, content.name), content.vectors


def _asked(folder: Path, cache: Path) -> Asked:
    histories, names, content = _everything(folder, cache)
    last = histories.offsets[1:] - 1
    kept = np.ones(len(histories.items), np.bool_)
    kept[last] = False
    users = len(last)
    past = Sequences(histories.items[kept], histories.offsets - np.arange(users + 1))
    targets = histories.items[last].astype(np.int64)
    return Asked(past, names, content, Validation(past, targets, np.arange(users + 1), hide_seen=True))
