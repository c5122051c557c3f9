"""What a tuning is measured by: the metrics of its task, on all rows, by segment, and on texts that were harmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from endcap.core.determinism import rng
from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.evaluate import predictions
from endcap.models.finetune.augment import Synonyms, drop_words, misspell
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples
from endcap.models.finetune.tasks import label_tensor
from endcap.models.finetune.tuned import Tuned

HARM = 0.15  # of a text's words
FEWEST = 20  # rows of a segment that is measured by itself
ASKED = {"classification": "text", "rating": "text", "interest": "candidate", "ranking": "candidate", "pairs": "anchor"}


@dataclass(frozen=True, slots=True)
class Measures:
    """measure: (rows, what was predicted for them) -> metrics by name."""

    config: FinetuneConfig
    labels: tuple[str, ...]
    measure: Callable[[pl.DataFrame, Float32Array], dict[str, float]]

    def segments(self, frame: pl.DataFrame, predicted: Float32Array) -> dict[str, dict[str, float]]:
        """By the column `segment`, where there is one; small segments, and those that cannot be measured, left out."""
        if "segment" not in frame.columns:
            return {}
        found = {}
        names = frame["segment"].cast(pl.String).fill_null("none")
        for name in names.unique().sort():
            kept = (names == name).to_numpy()
            if kept.sum() >= FEWEST and not self._one_sided(frame.filter(kept)):
                found[f"segment: {name}"] = self.measure(frame.filter(kept), predicted[kept])
        return found

    def harmed(self, examples: Examples, tuned: Tuned) -> Iterator[tuple[str, pl.DataFrame]]:
        """The test rows with their texts misspelt, in capitals, short of words, and with synonyms for words."""
        column = ASKED.get(self.config.task.kind)
        if column is None:
            return
        texts = examples.train[column].explode() if column == "anchor" else examples.train[column]
        synonyms = Synonyms.of(texts.to_list(), tuned.embed)
        ways: dict[str, Callable[[str, np.random.Generator], str]] = {
            "typos": lambda text, draw: misspell(text, HARM, draw),
            "capitals": lambda text, draw: text.upper(),
            "dropped words": lambda text, draw: drop_words(text, HARM, draw),
            "synonyms": lambda text, draw: synonyms.replace(text, HARM, draw),
        }
        for name, way in ways.items():
            draw = rng(self.config.train.seed, f"harm {name}")
            rows = examples.test[column].to_list()
            changed = [[way(t, draw) for t in row] if isinstance(row, list) else way(row, draw) for row in rows]
            yield name, examples.test.with_columns(pl.Series(column, changed, dtype=examples.test.schema[column]))

    def _one_sided(self, frame: pl.DataFrame) -> bool:
        kind = self.config.task.kind
        return kind in ("interest", "ranking") and frame["label"].n_unique() < 2


def measures_of(examples: Examples, config: FinetuneConfig) -> Measures:
    """Raises CallerError where the metric that decides is not among the task's."""
    labels: tuple[str, ...] = ()
    if config.task.kind == "classification":
        column = examples.train["label"].explode().drop_nulls() if config.task.several else examples.train["label"]
        labels = tuple(sorted(column.unique().to_list()))
    measure = _measure(config, labels)

    def checked(frame: pl.DataFrame, predicted: Float32Array) -> dict[str, float]:
        found = measure(frame, predicted)
        if config.metric not in found:
            raise CallerError(
                f"There is no metric {config.metric!r} for {config.task.kind}.",
                where="train.metric",
                next_step=f"There are: {', '.join(found)}.",
            )
        return found

    return Measures(config, labels, checked)


def _measure(config: FinetuneConfig, labels: tuple[str, ...]) -> Callable[[pl.DataFrame, Any], dict[str, float]]:
    match config.task.kind:
        case "classification" if config.task.several:
            return lambda frame, found: predictions.labels(label_tensor(frame, labels, True).numpy(), found)
        case "classification":
            place = {label: number for number, label in enumerate(labels)}
            # a label that training never saw is one more class, which nothing predicts
            return lambda frame, found: predictions.classes(
                np.array([place.get(label, len(labels)) for label in frame["label"]]), _wide(found, len(labels) + 1)
            )
        case "rating":
            return lambda frame, found: predictions.numbers(frame["rating"].to_numpy(), found)
        case "interest":
            return _interest
        case "ranking":
            return lambda frame, found: predictions.lists(frame["label"].to_numpy(), found, _groups(frame))
        case "pairs":
            return lambda frame, found: predictions.places(found)
        case "masked":
            return lambda frame, found: {"perplexity": float(np.exp(np.mean(found))), "log_loss": float(np.mean(found))}
        case "imitate":
            return lambda frame, found: {"distance": float(np.mean(found))}


def _interest(frame: pl.DataFrame, found: Float32Array) -> dict[str, float]:
    truth = frame["label"].to_numpy()
    metrics = predictions.probabilities(truth, found)
    if "group" in frame.columns:
        metrics |= predictions.lists(truth, found, _groups(frame))
    return metrics


def _groups(frame: pl.DataFrame) -> np.ndarray:
    return frame["group"].rank("dense").to_numpy()


def _wide(found: Float32Array, outputs: int) -> Float32Array:
    return np.pad(found, ((0, 0), (0, outputs - found.shape[1])))
