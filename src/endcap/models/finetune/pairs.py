"""Contrastive tuning: an anchor should be nearer to its own candidates than to any other.

Every other candidate of a batch is a negative (InfoNCE), as are, on request, mined ones: those that the model, as it
is now, puts near the anchor though they are not its own (Xiong et al. 2021, ANCE). What often stands beside the same
anchor in other rows of the part is its own as well.

Dimension legend: n rows, b rows of a batch, c candidates, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from endcap.core.determinism import rng
from endcap.core.types import Float32Array
from endcap.models.finetune import losses
from endcap.models.finetune.batches import Rows
from endcap.models.finetune.heads import Bags, BiModel, product
from endcap.models.finetune.nearest import nearest
from endcap.models.finetune.tasks import Batch, TuneTask

POOLED = 20_000  # candidates at most that validation ranks, and that negatives are mined from
FROM, TO = 10, 60  # places of the neighbours that are mined: the very nearest often belong to the anchor after all
OWN, OWN_OF_ALL = 500, 20_000_000  # candidates that are remembered as an anchor's own, by one row and by all of them
ENCODED_AT_ONCE = 512
APART = "\x1f"  # of an anchor's texts, and in none of them
SAME = 1e-6  # cosines no further apart are equal


def knowing(frame: pl.DataFrame) -> pl.DataFrame:
    """With an anchor's most frequent candidates among what is `known` of it."""
    most = max(1, min(OWN, OWN_OF_ALL // max(1, frame.height)))
    told = frame.with_columns(_key=pl.col("anchor").list.join(APART))
    counts = told.group_by("_key", "candidate", maintain_order=True).len()
    counts = counts.sort("len", descending=True, maintain_order=True)
    own = counts.group_by("_key", maintain_order=True).agg(_own=pl.col("candidate").head(most))
    told = told.join(own, on="_key", how="left", maintain_order="left")
    known = pl.concat_list("known", "_own") if "known" in frame.columns else pl.col("_own")
    return told.with_columns(known=known).drop("_key", "_own")


class Pairs(TuneTask):
    """anchor, candidate, and `known`: texts that are no honest negatives for this anchor."""

    net: BiModel

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.train = knowing(self.train)
        self._mined: list[list[str]] = []

    def batches(self, epoch: int) -> list[Batch]:
        """Negatives are mined anew for each evaluation, so that a run which goes on after one mines the same."""
        found = super().batches(epoch)
        if self.config.task.hard_negatives:
            self._mined = self._mine()
        return found

    def _loss(self, rows: Rows) -> Tensor:
        part = self.train[rows]
        anchors, own = part["anchor"].to_list(), part["candidate"].to_list()
        candidates = list(
            dict.fromkeys(own + [text for row in rows for text in self._mined[row]] if self._mined else own)
        )
        bags = Bags(anchors, candidates, self.config.task.decay)
        vectors = self.net(self.altered(bags.texts, rows)).texts
        scores = (
            product(bags.anchors(vectors), vectors[bags.candidates.to(vectors.device)].T) / self.config.task.temperature
        )
        place = {text: number for number, text in enumerate(candidates)}
        right = torch.tensor([place[text] for text in own], device=scores.device)
        return losses.contrast(scores, right, self._ignored(part, place).to(scores.device))

    def predict(self, frame: pl.DataFrame) -> Float32Array:
        """The place, from 1, of each row's candidate among the frame's distinct candidates, POOLED of them at most, its
        anchor's other candidates and known texts left out; equal ones count as before it: [n]."""
        return self.predict_together((), frame)

    def predict_together(self, others: Sequence[TuneTask], frame: pl.DataFrame) -> Float32Array:
        """Places by the mean of the models' cosines."""
        members = [self, *(task for task in others if isinstance(task, Pairs))]
        frame = knowing(frame)
        texts = list(dict.fromkeys(frame["candidate"].to_list()))
        place = {text: number for number, text in enumerate(texts)}
        pool = {text: number for number, text in enumerate(texts[:POOLED])}
        vectors, ranks = [task._encode(texts) for task in members], np.empty(frame.height, np.float32)
        row = 0
        for part in frame.iter_slices(ENCODED_AT_ONCE):
            right = np.array([place[text] for text in part["candidate"]])
            said = [(task._anchors(part), encoded) for task, encoded in zip(members, vectors, strict=True)]
            scores = np.mean([anchors @ encoded[: len(pool)].T for anchors, encoded in said], axis=0)
            mine = np.mean([(anchors * encoded[right]).sum(1) for anchors, encoded in said], axis=0)
            scores[self._ignored(part, pool).numpy()] = -np.inf
            inside = right < len(pool)
            scores[inside, right[inside]] = -np.inf
            # two ways of adding up a product differ in its last digits
            ranks[row : row + part.height] = 1 + (scores >= mine[:, None] - SAME).sum(1)
            row += part.height
        return ranks

    def _ignored(self, part: pl.DataFrame, place: dict[str, int]) -> Tensor:
        """bool [b, c]: the anchor's own texts and what else is known of it."""
        ignored = torch.zeros(part.height, len(place), dtype=torch.bool)
        columns = [part[name].to_list() for name in ("anchor", "known") if name in part.columns]
        for row, texts in enumerate(zip(*columns, strict=True)):
            ignored[row, [place[text] for known in texts for text in known if text in place]] = True
        return ignored

    def _mine(self) -> list[list[str]]:
        """For each training row, so many near candidates that are not its own, by the model as it is."""
        draw = rng(self.config.train.seed, f"mine {self.epoch}")
        texts = list(dict.fromkeys(self.train["candidate"].to_list()))
        texts = [texts[place] for place in sorted(draw.permutation(len(texts))[:POOLED])]
        place = {text: number for number, text in enumerate(texts)}
        vectors, mined = self._encode(texts), []
        first, last = min(FROM, len(texts) // 4), min(TO, len(texts))
        for part in self.train.iter_slices(ENCODED_AT_ONCE):
            scores = self._anchors(part) @ vectors.T
            scores[self._ignored(part, place).numpy()] = -np.inf
            for row, text in enumerate(part["candidate"]):
                if text in place:
                    scores[row, place[text]] = -np.inf
            near = nearest(scores, last)[:, first:]
            for choice, values in zip(near, np.take_along_axis(scores, near, 1), strict=True):
                sound = choice[np.isfinite(values)]
                mined.append([texts[at] for at in draw.permutation(sound)[: self.config.task.hard_negatives]])
        return mined

    def _anchors(self, part: pl.DataFrame) -> Float32Array:
        bags = Bags(part["anchor"].to_list(), [], self.config.task.decay)
        return bags.anchors(torch.from_numpy(self._encode(bags.texts))).numpy()

    def _encode(self, texts: list[str]) -> Float32Array:
        """[c, d], of unit length, by the model in evaluation."""
        training, size = self.net.training, max(1, ENCODED_AT_ONCE // self.parts)
        self.net.eval()
        with torch.no_grad():  # not inference mode: what shards a model keeps for training is made at its first use
            parts = [self.net(texts[start : start + size]).texts.float().cpu() for start in range(0, len(texts), size)]
        self.net.train(training)
        return torch.cat(parts).numpy()
