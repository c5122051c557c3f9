"""The parts of the tuning benchmark that learn from what shoppers bought next: interest, and titles as content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.bench_cold import Split
from benchmarks.leave_one_out import folder_of
from benchmarks.tuning import Told, figures, say, tuned
from endcap.core.determinism import rng
from endcap.core.types import Float32Array
from endcap.data.datasets import amazon_folder
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.models.finetune.tuned import load_tuned

DATASET = "beauty"
REMEMBERED = 3  # titles of a history that are read
DECAY = 0.5
KEPT_OUT = 1500  # shoppers of the test of interest, and as many by whom settings are chosen
NEGATIVES = 4
ASKED = 1000  # shoppers by whose last act a tuning of titles is stopped
CROSS_LISTS = 7000  # shoppers' lists that the cross-encoder reads
PAIRS: dict[str, Any] = {
    "task": {"kind": "pairs", "decay": DECAY},
    "base": {"max_length": 32, "dropout": 0.0},
}
TRAIN: dict[str, Any] = {"batch_size": 256, "evaluations": 3, "epochs": 2, "patience": 3}
RATES = {"full": 2e-4, "lora": 2e-3}
CROSS: dict[str, Any] = {
    "task": {"kind": "interest", "architecture": "cross"},
    "base": {"max_length": 96},
    "train": {"lr": 1e-4, "epochs": 1, "evaluations": 4, "batch_size": 32},
}


@dataclass(frozen=True, slots=True, eq=False)
class Shop:
    """lines: item positions of each user, oldest first. titles: of every item, "" where there is none."""

    lines: list[np.ndarray]
    titles: list[str]
    ids: list[str]

    @classmethod
    def read(cls, folder: Path) -> Shop:
        dataset = amazon_folder(folder)
        events = dataset.events.collect().sort("user_id", "ts_ms", maintain_order=True)
        ids = events["item_id"].unique(maintain_order=True).to_list()
        names = dict(dataset.items.select("item_id", "title").iter_rows())
        place = {item: number for number, item in enumerate(ids)}
        lines = [
            np.array([place[item] for item in group["item_id"]])
            for _, group in events.group_by("user_id", maintain_order=True)
        ]
        return cls(lines, [(names.get(item) or "").strip() for item in ids], ids)

    def texts(self, items: Sequence[int]) -> list[str]:
        return [self.titles[item] for item in items if self.titles[item]]


def interest(data: Path, seeds: int) -> dict[str, float]:
    """AUC over all questions together: one true next title and four by popularity for each of 1,500 shoppers."""
    shop = Shop.read(folder_of(data, DATASET))
    order = rng(0, "interest").permutation(len(shop.lines))
    test, valid, rest = order[:KEPT_OUT], order[KEPT_OUT : 2 * KEPT_OUT], order[2 * KEPT_OUT :]
    sold = np.bincount(np.concatenate([shop.lines[user] for user in rest]), minlength=len(shop.titles)) / 1.0
    lists = {part: _lists(shop, users, sold, part) for part, users in (("valid", valid), ("test", test))}
    truth = lists["test"]["label"].to_numpy()
    pairs = pl.concat([_pairs(shop, rest, 0, "train"), _pairs(shop, valid[:ASKED], 0, "valid").filter(pl.col("last"))])
    found = {"auc_interest_frozen": _auc(truth, _said(_encoder().encode, lists)["test"])}
    runs: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, value in _one(shop, pairs, lists, rest, sold, seed):
            runs.setdefault(name, []).append(value)
    for name, values in runs.items():
        found |= figures(name, values)
    return found


def _one(
    shop: Shop, pairs: pl.DataFrame, lists: dict[str, pl.DataFrame], rest: np.ndarray, sold: np.ndarray, seed: int
) -> Iterator[tuple[str, float]]:
    """(name of a figure, its value): the bi-encoder by full tuning and by LoRA, a cross-encoder that begins from the
    first, and the mixture of the two that did best in validation."""
    truths = {part: rows["label"].to_numpy() for part, rows in lists.items()}
    with TemporaryDirectory() as place:
        said: dict[str, dict[str, Float32Array]] = {}
        for method in ("full", "lora"):
            folder = Path(place) / method
            told = tuned(pairs, _pair_settings(method, seed), save=folder)
            embed = load_tuned(folder).embed
            said[method] = _said(embed, lists)
            yield f"auc_interest_{method}", _auc(truths["test"], said[method]["test"])
            yield f"seconds_interest_{method}", told.seconds
            yield from _curve(f"mrr_interest_{method}", told)
        yield from _crossed(shop, lists, rest, sold, seed, Path(place) / "full", said)


def _crossed(
    shop: Shop,
    lists: dict[str, pl.DataFrame],
    rest: np.ndarray,
    sold: np.ndarray,
    seed: int,
    base: Path,
    said: dict[str, dict[str, Float32Array]],
) -> Iterator[tuple[str, float]]:
    users = rng(seed, "cross").permutation(rest)[:CROSS_LISTS]
    rows = pl.concat([_lists(shop, users, sold, f"train {seed}").with_columns(part=pl.lit("train")), lists["valid"]])
    # the questions of both parts are asked of the model in one go, the test's only looked at below
    asked = pl.concat([rows, lists["valid"].with_columns(part=pl.lit("test")), lists["test"]])
    settings = {**CROSS, "base": {**CROSS["base"], "name": str(base)}, "train": {**CROSS["train"], "seed": seed}}
    told = tuned(asked, settings)
    split = np.split(_logit(told.predicted), [lists["valid"].height])
    cross = dict(zip(("valid", "test"), split, strict=True))
    truths = {part: frame["label"].to_numpy() for part, frame in lists.items()}
    yield "auc_interest_cross", _auc(truths["test"], cross["test"])
    yield "seconds_interest_cross", told.seconds
    yield from _curve("auc_interest_cross_valid", told)

    def mixed(part: str, weight: float) -> Float32Array:
        bi = said["full"][part] / said["full"]["valid"].std()
        return (1 - weight) * bi + weight * cross[part] / cross["valid"].std()

    weights = np.linspace(0, 1, 11)
    best = max(weights, key=lambda weight: _auc(truths["valid"], mixed("valid", weight)))
    say(f"weight of the cross-encoder {best:.1f}")
    yield "cross_weight", float(best)
    yield "auc_interest_best", _auc(truths["test"], mixed("test", best))


def content(data: Path, seeds: int) -> dict[str, float]:
    """Content-only NDCG@10 on the usual test, and Recall@10 of items that training never saw, tuned and untuned."""
    folder = folder_of(data, DATASET)
    shop, split = Shop.read(folder), Split(amazon_folder(folder))
    everybody = np.arange(len(shop.lines))
    asked = rng(0, "content").permutation(everybody)[:ASKED]
    usual = pl.concat([_pairs(shop, everybody, 2, "train"), _pairs(shop, asked, 1, "valid").filter(pl.col("last"))])
    new = np.array([item in split.new for item in shop.ids])
    titles = {title for item, title in enumerate(shop.titles) if new[item]}
    warm = usual.filter(
        ~pl.col("candidate").is_in(list(titles))
        & (pl.col("anchor").list.set_intersection(list(titles)).list.len() == 0)
    )
    before = _vectors(shop, _encoder().encode)
    found = {
        "ndcg@10_content_frozen": _leave_one_out(shop.lines, before),
        "recall@10_cold_frozen": _cold(shop, split, before),
    }
    runs: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, rows, measured in (
            ("ndcg@10_content_tuned", usual, lambda vectors: _leave_one_out(shop.lines, vectors)),
            ("recall@10_cold_tuned", warm, lambda vectors: _cold(shop, split, vectors)),
        ):
            with TemporaryDirectory() as place:
                told = tuned(rows, _pair_settings("full", seed), save=Path(place) / "model")
                value = measured(_vectors(shop, load_tuned(Path(place) / "model").embed))
            say(f"seed {seed} {name} {value:.4f}, {told.seconds:.0f} s")
            runs.setdefault(name, []).append(value)
            runs.setdefault(f"seconds_{name.partition('_')[2]}", []).append(told.seconds)
    for name, values in runs.items():
        found |= figures(name, values)
    return found


def _pairs(shop: Shop, users: np.ndarray, cut: int, part: str) -> pl.DataFrame:
    """What came next after the last titles, of each act but the last `cut` of each user."""
    rows = []
    for user in users:
        line = shop.lines[user][: len(shop.lines[user]) - cut]
        known = shop.texts(line)
        for place in range(1, len(line)):
            anchor, title = shop.texts(line[max(0, place - REMEMBERED) : place]), shop.titles[line[place]]
            if anchor and title:
                rows.append((anchor, title, known, str(user), place == len(line) - 1, part))
    return pl.DataFrame(rows, schema=["anchor", "candidate", "known", "group", "last", "part"], orient="row")


def _lists(shop: Shop, users: np.ndarray, sold: np.ndarray, purpose: str) -> pl.DataFrame:
    """The last act of each user, among titles drawn as often as they sell and never taken by that user."""
    draw, rows = rng(0, f"lists {purpose}"), []
    for user in users:
        line = shop.lines[user]
        own = set(line.tolist())
        drawn = [item for item in draw.choice(len(sold), 40, p=sold / sold.sum()) if item not in own]
        distinct = list(dict.fromkeys(item for item in drawn if shop.titles[item]))[:NEGATIVES]
        anchor = shop.texts(line[:-1][-REMEMBERED:])
        if anchor and shop.titles[line[-1]]:
            for item, label in [(line[-1], 1.0), *((item, 0.0) for item in distinct)]:
                rows.append((anchor, shop.titles[item], label, f"{purpose} {user}", purpose.split(maxsplit=1)[0]))
    return pl.DataFrame(rows, schema=["anchor", "candidate", "label", "group", "part"], orient="row")


def _pair_settings(method: str, seed: int) -> dict[str, Any]:
    return {**PAIRS, "method": {"kind": method}, "train": {**TRAIN, "lr": RATES[method], "seed": seed}}


def _encoder() -> TextEncoder:
    return TextEncoder(TextEncoderConfig(max_length=PAIRS["base"]["max_length"]))


def _vectors(shop: Shop, embed: Any) -> Float32Array:
    """float32 [items, d] of unit length, zero for items without a title: as they are or centred, as does better at
    each user's last act but one."""
    filled = [item for item, title in enumerate(shop.titles) if title]
    given = embed([shop.titles[item] for item in filled])
    earlier = [line[:-1] for line in shop.lines]
    found = []
    for vectors in (given, given - given.mean(axis=0)):
        out = np.zeros((len(shop.titles), vectors.shape[1]), np.float32)
        out[filled] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        found.append((_leave_one_out(earlier, out), out))
    return max(found, key=lambda one: one[0])[1]


def _taste(vectors: Float32Array, line: np.ndarray) -> Float32Array:
    weights = DECAY ** np.arange(len(line))[::-1]
    taste: Float32Array = weights @ vectors[line]
    return taste


def _leave_one_out(all_lines: list[np.ndarray], vectors: Float32Array) -> float:
    """NDCG@10 of each user's last item, all items ranked, own history hidden; ties count against us."""
    gains = []
    for start in range(0, len(all_lines), 1000):
        lines = all_lines[start : start + 1000]
        scores = np.stack([_taste(vectors, line[:-1]) for line in lines]) @ vectors.T
        for row, line in enumerate(lines):
            mine = scores[row, line[-1]]
            scores[row, line[:-1]] = -np.inf
            gains.append(0.0 if line[-1] in line[:-1] else _gain(int((scores[row] >= mine).sum())))
    return float(np.mean(gains))


def _cold(shop: Shop, split: Split, vectors: Float32Array) -> float:
    """Recall@10 of a user's first new item, by what the user had before it, all other items ranked."""
    place = {item: number for number, item in enumerate(shop.ids)}
    had = {str(user[0]): rows for user, rows in split.log.sort("ts_ms").group_by("user_id", maintain_order=True)}
    hits = []
    for case in split.cold:
        before = had[case.user_id].filter(pl.col("ts_ms") < case.now_ms)["item_id"] if case.user_id in had else []
        line = np.array([place[item] for item in before])
        if not len(line):
            continue
        target = place[case.targets[0]]
        scores = vectors @ _taste(vectors, line)
        mine = scores[target]
        scores[line] = -np.inf
        hits.append(float((scores >= mine).sum() <= 10))
    return float(np.mean(hits))


def _said(embed: Any, lists: dict[str, pl.DataFrame]) -> dict[str, Float32Array]:
    """Cosines [n] of each part, of vectors as they are or centred, as is better in validation."""
    truth = lists["valid"]["label"].to_numpy()
    ways = [{part: _cosines(embed, rows, centred) for part, rows in lists.items()} for centred in (False, True)]
    return max(ways, key=lambda way: _auc(truth, way["valid"]))


def _cosines(embed: Any, rows: pl.DataFrame, centred: bool) -> Float32Array:
    """Of each row's candidate and anchor: [n]."""
    texts = sorted({*rows["candidate"], *rows["anchor"].explode()})
    place, vectors = {text: number for number, text in enumerate(texts)}, embed(texts)
    if centred:
        vectors = vectors - vectors.mean(axis=0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    out = np.empty(rows.height, np.float32)
    for row, (anchor, candidate) in enumerate(rows.select("anchor", "candidate").iter_rows()):
        taste = _taste(vectors, np.array([place[text] for text in anchor]))
        out[row] = vectors[place[candidate]] @ taste / np.linalg.norm(taste)
    return out


def _curve(name: str, told: Told) -> Iterator[tuple[str, float]]:
    for number, value in enumerate(told.curve, start=1):
        yield f"{name}_at_{number}", value
    yield f"{name}_kept_at", float(told.best)


def _auc(truth: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def _logit(probability: Float32Array) -> Float32Array:
    clipped = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def _gain(rank: int) -> float:
    return float(1 / np.log2(1 + rank)) if rank <= 10 else 0.0
