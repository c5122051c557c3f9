"""Asking a tuned model, as `endcap predict` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.models.finetune.asking import predict
from endcap.models.finetune.tuned import READING, Tuned, load_tuned

MATCHING = ("interest", "ranking", "pairs")


class Answer(msgspec.Struct, frozen=True):
    """answer: a class, labels apart by |, or a candidate; for a rating, the number itself is the score. classes: of a
    classification, every class with its probability, likeliest first."""

    text: str
    answer: str
    score: float
    classes: dict[str, float] = {}


def answers(run: Path, texts: Sequence[str], candidates: Sequence[str], others: Sequence[str] = ()) -> list[Answer]:
    """One for each text, or for a matching one for each candidate, best first. An ensemble's models are averaged.

    others: where the model was tuned on pairs of texts, the second one of each; CallerError where they are not asked
    for, or lacking.
    """
    members = [load_tuned(folder) for folder in sorted(run.glob("model*"))]
    if not members:
        raise CallerError("The folder holds no finished run.", where=str(run))
    first = members[0]
    if candidates and first.config.task.kind not in MATCHING:
        kind = first.config.task.kind
        raise CallerError(f"This model, tuned for {kind}, puts nothing into order.", where="--candidate")
    if not all(text.strip() for text in texts):
        raise CallerError("A text is empty.", where="texts", next_step="Give something to read.")
    _check_others(first, texts, others)
    read = {"text": list(texts)} | ({"other": list(others)} if others else {})
    match first.config.task.kind:
        case "classification":
            found = predict(members, pl.DataFrame(read))
            return [_classified(first, text, row) for text, row in zip(texts, found, strict=True)]
        case "rating":
            found = predict(members, pl.DataFrame(read))
            return [Answer(text, "", float(score)) for text, score in zip(texts, found, strict=True)]
        case kind if kind in MATCHING:
            return _ordered(members, texts, candidates)
        case kind:
            raise CallerError(f"A model tuned for {kind} answers no questions.", where=str(run))


def _check_others(tuned: Tuned, texts: Sequence[str], others: Sequence[str]) -> None:
    """Of a model whose folder does not tell, either is taken."""
    kind = tuned.config.task.kind
    if others and (kind not in READING or tuned.with_other is False):
        raise CallerError(f"This model, tuned for {kind}, reads no second text beside the first.", where="--other")
    if len(others) != len(texts) and (others or tuned.with_other):
        raise CallerError(
            f"This model reads pairs of texts, and there are {len(texts)} first and {len(others)} second ones.",
            where="--other",
            next_step="Give --other once for each text, in the same order.",
        )


def _classified(tuned: Tuned, text: str, probabilities: Float32Array) -> Answer:
    """The class, or the labels from a half on, apart by |, as in the data; the score is of the likeliest."""
    order = np.argsort(-probabilities, kind="stable")
    classes = {tuned.labels[place]: float(probabilities[place]) for place in order}
    best, score = next(iter(classes.items()))
    if tuned.config.task.several:
        best = "|".join(label for label in tuned.labels if classes[label] >= 0.5)
    return Answer(text, best, score, classes)


def _ordered(members: list[Tuned], texts: Sequence[str], candidates: Sequence[str]) -> list[Answer]:
    if not candidates:
        raise CallerError("There are no candidates to put into order.", next_step="Name some after --candidate.")
    if members[0].config.task.kind == "pairs":
        found = np.mean([_cosines(tuned, texts, candidates) for tuned in members], axis=0)
    else:
        rows = {"anchor": [list(texts)] * len(candidates), "candidate": list(candidates)}
        found = predict(members, pl.DataFrame(rows))
    order = np.argsort(-found, kind="stable")
    return [Answer(" ; ".join(texts), candidates[place], float(found[place])) for place in order]


def _cosines(tuned: Tuned, texts: Sequence[str], candidates: Sequence[str]) -> Float32Array:
    weights = tuned.config.task.decay ** np.arange(len(texts))[::-1]
    anchor = weights @ tuned.embed(texts)
    cosines: Float32Array = tuned.embed(candidates) @ (anchor / np.linalg.norm(anchor))
    return cosines
