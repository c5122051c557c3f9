"""What a tuning is measured by: the metrics of its task, on all rows, by segment, and on texts that were harmed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from endcap.core.determinism import rng
from endcap.core.errors import ArtifactError, CallerError, DataError, MissingExtraError
from endcap.core.types import Float32Array
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.evaluate import predictions
from endcap.models.finetune.augment import Synonyms, drop_words, misspell
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.examples import Examples, group_codes
from endcap.models.finetune.heads import BiModel
from endcap.models.finetune.labels import label_tensor, labels_of
from endcap.models.finetune.pairs import knowing
from endcap.models.finetune.tuned import Tuned, start_backbone

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
            if kept.sum() >= FEWEST:
                with suppress(DataError):
                    found[f"segment: {name}"] = self.measure(frame.filter(kept), predicted[kept])
        return found

    def harmed(self, examples: Examples) -> Iterator[tuple[str, pl.DataFrame]]:
        """The test rows with their texts misspelt, in capitals, short of words, and with synonyms for words: the same
        harm whatever was tuned."""
        column = ASKED.get(self.config.task.kind)
        if column is None:
            return
        texts = (examples.train[column].explode() if column == "anchor" else examples.train[column]).to_list()
        synonyms = Synonyms.of(texts, word_reader(texts, self.config))
        ways: dict[str, Callable[[str, np.random.Generator], str]] = {
            "typos": lambda text, draw: misspell(text, HARM, draw),
            "capitals": lambda text, draw: text.upper(),
            "dropped words": lambda text, draw: drop_words(text, HARM, draw),
            "synonyms": lambda text, draw: synonyms.replace(text, HARM, draw),
        }
        told = _knowing_anchors(examples.test) if self.config.task.kind == "pairs" else examples.test
        for name, way in ways.items():
            draw = rng(self.config.train.seed, f"harm {name}")
            rows = told[column].to_list()
            changed = [[way(t, draw) for t in row] if isinstance(row, list) else way(row, draw) for row in rows]
            yield name, told.with_columns(pl.Series(column, changed, dtype=told.schema[column]))


def measures_of(examples: Examples, config: FinetuneConfig) -> Measures:
    """Raises, before anything is tuned, CallerError where the metric that decides is not among the task's, and
    DataError where a held-out part cannot be measured."""
    labels = labels_of(examples.train, config)
    measures = Measures(config, labels, _measure(config, labels))
    for name, frame in (("validation", examples.valid), ("test", examples.test)):
        if not frame.height:
            continue
        try:
            found = measures.measure(frame, _anything(frame, config, labels))
        except DataError as error:
            raise DataError(
                error.what,
                where=f"the {name} part",
                next_step="Let other rows fall into it: `split`, or column `part`.",
            ) from error
        if config.metric not in found:
            raise CallerError(
                f"There is no metric {config.metric!r} for {config.task.kind} on the {name} part.",
                where="train.metric",
                next_step=f"There are: {', '.join(found)}.",
            )
    return measures


def word_reader(texts: Sequence[str], config: FinetuneConfig) -> Callable[[Sequence[str]], Float32Array]:
    """Gives words vectors of unit length by a model that no tuning changes, so that its synonyms are the same for all
    runs on the texts: MiniLM, or the base as it was where the texts are of a script that MiniLM does not know, or its
    package is missing."""
    letters = Counter(letter for text in texts for letter in text if letter.isalpha())
    latin = sum(count for letter, count in letters.items() if unicodedata.name(letter, "").startswith("LATIN"))
    if 2 * latin >= letters.total():
        with suppress(MissingExtraError, ArtifactError):
            return TextEncoder(TextEncoderConfig(precision="float32")).encode
    name = config.base.name
    return Tuned(config, BiModel(start_backbone(config, name), config.task.temperature), name, "").embed


def _anything(frame: pl.DataFrame, config: FinetuneConfig, labels: tuple[str, ...]) -> Float32Array:
    """Predictions of the task's shape, to see what can be measured."""
    if config.task.kind == "classification":
        return np.full((frame.height, len(labels)), 1 / len(labels), np.float32)
    if config.task.kind == "masked":
        return np.ones((frame.height, 2), np.float32)
    return np.full(frame.height, 1.0, np.float32)


def _measure(config: FinetuneConfig, labels: tuple[str, ...]) -> Callable[[pl.DataFrame, Any], dict[str, float]]:
    match config.task.kind:
        case "classification" if config.task.several:
            return lambda frame, found: _several(frame, found, labels)
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
            return lambda frame, found: predictions.lists(frame["label"].to_numpy(), found, group_codes(frame))
        case "pairs":
            return lambda frame, found: predictions.places(found)
        case "masked":
            return lambda frame, found: _hidden_words(found)
        case "imitate":
            return lambda frame, found: {"distance": float(np.mean(found))}


def _knowing_anchors(frame: pl.DataFrame) -> pl.DataFrame:
    """What an anchor said before it was harmed still is no candidate of it, and what was its own still is."""
    return knowing(frame).with_columns(known=pl.concat_list("anchor", "known"))


def _several(frame: pl.DataFrame, found: Float32Array, labels: tuple[str, ...]) -> dict[str, float]:
    """Labels that training never saw are one more, which nothing predicts."""
    truth = label_tensor(frame, labels, several=True).numpy()
    strange = np.array([not set(given) <= set(labels) for given in frame["label"].to_list()])
    if not strange.any():
        return predictions.labels(truth, found)
    return predictions.labels(np.column_stack([truth, strange]), _wide(found, len(labels) + 1))


def _interest(frame: pl.DataFrame, found: Float32Array) -> dict[str, float]:
    """With the measures of lists, where groups hold what was taken beside what was not."""
    truth = frame["label"].to_numpy()
    metrics = predictions.probabilities(truth, found)
    if "group" in frame.columns:
        with suppress(DataError):
            metrics |= predictions.lists(truth, found, group_codes(frame))
    return metrics


def _hidden_words(found: Float32Array) -> dict[str, float]:
    """found: the sum of each row's cross-entropies, and how many of its words were hidden: [n, 2]."""
    total, count = found.sum(0, dtype=np.float64)
    if not count:
        raise DataError("No word of these rows was hidden, so nothing can be measured.", where="text")
    return {"perplexity": float(np.exp(total / count)), "log_loss": float(total / count)}


def _wide(found: Float32Array, outputs: int) -> Float32Array:
    return np.pad(found, ((0, 0), (0, outputs - found.shape[1])))
