"""The tuning tasks, as the training loop sees them: batches of rows, a loss, a validation metric.

Dimension legend: n rows, b rows of a batch, k classes, d width, c candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from endcap.core.artifacts import replace_atomically
from endcap.core.determinism import rng
from endcap.core.types import Float32Array
from endcap.models.finetune import losses
from endcap.models.finetune.asking import AT_ONCE, matched, others, outputs, said
from endcap.models.finetune.batches import Batches, Rows
from endcap.models.finetune.config import LOWER_IS_BETTER, FinetuneConfig
from endcap.models.finetune.heads import BiModel, CrossModel, product
from endcap.models.finetune.labels import class_weights, label_tensor
from endcap.models.finetune.masked import MaskedModel

if TYPE_CHECKING:
    from endcap.models.finetune.augment import Augmenter
    from endcap.models.finetune.tuned import Net

Measure = Callable[[pl.DataFrame, Float32Array], dict[str, float]]
LEVELLED = 500  # training rows that tell how high cosines are before training


class Piece(NamedTuple):
    """Rows of a batch. labelled: how much each of them has of what the loss of labels is a mean over, as a multiple of
    what those of the whole batch have on average; a teacher's loss is a mean over rows."""

    rows: Rows
    labelled: float = 1.0


Batch = Rows | Piece  # whole, or in pieces


class Taught(NamedTuple):
    """A loss of labels, and one of what a teacher says."""

    labels: Tensor
    teacher: Tensor


class TuneTask(ABC):
    """Rows of a table and a model over them. measure: (rows, what was predicted for them) -> metrics by name."""

    def __init__(
        self,
        model: Net,
        config: FinetuneConfig,
        train: pl.DataFrame,
        valid: pl.DataFrame,
        measure: Measure,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.net, self.config, self.train, self.valid, self.measure = model, config, train, valid, measure
        self.augmenter = augmenter
        self.evaluations: dict[int, dict[str, float]] = {}  # by the epoch of the loop, from 0
        self.evaluated: Callable[[int, dict[str, float]], None] = lambda number, metrics: None
        self._memory: tuple[Path, str] | None = None
        self.penalty: Callable[[], Tensor | float] = lambda: 0.0
        self.parts = 1  # in which a batch is read, where memory does not suffice for all of it
        self.epoch = 0  # of the loop
        self.before = 0  # batches that the run has read before this epoch
        self._pass = 0  # over the training part
        self._batches = Batches(train, config)
        self.groups = self._batches.groups

    # -- what a task says of itself

    @abstractmethod
    def _loss(self, rows: Rows) -> Tensor | Taught: ...

    def outputs(self, frame: pl.DataFrame) -> Tensor:
        """Of what is read or matched: see `asking`."""
        return outputs(self.net, self.config, frame, max(1, AT_ONCE // self.parts))

    def predict(self, frame: pl.DataFrame) -> Float32Array:
        """float32 [n] or [n, k], what `measure` takes."""
        return said(self.config, self.outputs(frame))

    def predict_together(self, others: Sequence[TuneTask], frame: pl.DataFrame) -> Float32Array:
        """As `predict`, by this model and others that were tuned alike: the mean of what they say."""
        found: Float32Array = np.mean([task.predict(frame) for task in (self, *others)], axis=0)
        return found

    def counted(self, rows: Rows) -> float:
        """How much there is in the rows that the loss of their labels is the mean of."""
        return float(len(rows))

    # -- what the loop asks

    def batches(self, epoch: int) -> list[Batch]:
        """An epoch of the loop is one of the passes' `evaluations` parts. Each process gets its own rows."""
        parts = self.config.train.evaluations
        self.epoch, self._pass = epoch, epoch // parts
        batches = self._batches.of_pass(self._pass)
        draw = rng(self.config.train.seed, f"batches {self._pass}")
        shuffled = [batches[place] for place in draw.permutation(len(batches))]
        chosen = np.array_split(np.arange(len(shuffled)), parts)[epoch % parts]
        self.before = self._pass * len(shuffled) + int(chosen.min(initial=len(shuffled)))
        return [shuffled[place] for place in chosen]

    def loss(self, batch: Batch) -> Tensor:
        rows, labelled = batch if isinstance(batch, Piece) else (batch, 1.0)
        found = self._loss(rows)
        if isinstance(found, Taught):
            weight = self.config.distil.weight
            mixed = (1 - weight) * labelled * found.labels + weight * found.teacher
        else:
            mixed = labelled * found
        return mixed + self.penalty()

    def pieces(self, rows: Batch) -> list[tuple[Batch, float]]:
        """A batch in `parts`, with each piece's share of the rows: the pieces' losses, so weighed, add up to the
        batch's."""
        if self.parts == 1 or isinstance(rows, Piece):
            return [(rows, 1.0)]
        places = np.array(rows)
        _, units = np.unique(self._batches.units(places), return_inverse=True)
        split = np.array_split(np.arange(units.max() + 1), min(self.parts, units.max() + 1))
        pieces = [places[np.isin(units, part)].tolist() for part in split]
        each = (self.counted(rows) or 1) / len(rows)
        return [(Piece(piece, self.counted(piece) / len(piece) / each), len(piece) / len(rows)) for piece in pieces]

    def metric(self) -> float | None:
        if not self.valid.height:
            return None
        found = self.measure(self.valid, self.predict(self.valid))
        self.evaluations[self.epoch] = found
        if self._memory is not None:
            path, run_id = self._memory
            lines = [{"run_id": run_id, "epoch": epoch} | metrics for epoch, metrics in self.evaluations.items()]
            replace_atomically(path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        self.evaluated(self.epoch + 1, found)
        name = self.config.metric
        return -found[name] if name in LOWER_IS_BETTER else found[name]

    def remember(self, path: Path, run_id: str) -> None:
        """Keep evaluations in a file, beside the checkpoint, and know those that this run made before."""
        self._memory = path, run_id
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            found = msgspec.json.decode(line)
            if found.pop("run_id") == run_id:
                self.evaluations[found.pop("epoch")] = found

    # -- helpers of the tasks

    def altered(self, texts: Sequence[str], rows: Rows) -> list[str]:
        """The texts as training reads them in this epoch."""
        if self.augmenter is None:
            return list(texts)
        return self.augmenter(texts, rng(self.config.train.seed, f"augment {self._pass} {rows[0]}"))


class ReadingTask(TuneTask):
    """Classification and rating: a text, or two, and k outputs."""

    net: CrossModel

    def _read(self, rows: Rows) -> Tensor:
        part = self.train[rows]
        out: Tensor = self.net(self.altered(part["text"].to_list(), rows), others(part))
        return out


class Classification(ReadingTask):
    """labels: the classes, in the order of the outputs."""

    def __init__(self, *args: object, labels: Sequence[str], teacher: Tensor | None = None, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.labels, self.teacher = list(labels), teacher
        self._wanted = label_tensor(self.train, self.labels, self.config.task.several)
        self._weights = class_weights(self._wanted) if self.config.task.balanced else None

    def _loss(self, rows: Rows) -> Tensor | Taught:
        logits = self._read(rows)
        weights = None if self._weights is None else self._weights.to(logits.device)
        found = losses.classes(logits, self._wanted[rows].to(logits.device), weights, self.config.task.smoothing)
        if self.teacher is None:
            return found
        taught, temperature = self.teacher[rows].to(logits.device), self.config.distil.temperature
        return Taught(found, losses.likeness(logits, taught, temperature, several=self.config.task.several))

    def counted(self, rows: Rows) -> float:
        if self._weights is None or self.config.task.several:
            return super().counted(rows)
        return float(self._weights[self._wanted[rows]].sum())


class Rating(ReadingTask):
    """Squared error of one output; the training ratings' mean and spread are the head's zero and unit."""

    def __init__(self, *args: object, mean: float, spread: float, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self._mean, self._spread = mean, spread
        self._wanted = torch.tensor(self.train["rating"].to_numpy().copy())

    def _loss(self, rows: Rows) -> Tensor:
        out = self._read(rows)[:, 0]
        return (out - (self._wanted[rows].to(out.device) - self._mean) / self._spread).square().mean()

    def predict(self, frame: pl.DataFrame) -> Float32Array:
        return said(self.config, self.outputs(frame), self._mean, self._spread)


class Matching(TuneTask):
    """Interest and ranking: does this candidate belong to this anchor?"""

    net: CrossModel | BiModel

    def __init__(self, *args: object, teacher: Tensor | None = None, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.teacher = teacher
        self._wanted = torch.tensor(self.train["label"].to_numpy().copy())

    def _loss(self, rows: Rows) -> Tensor | Taught:
        part = self.train[rows]
        candidates = self.altered(part["candidate"].to_list(), rows)
        logits = matched(self.net, self.config, part["anchor"].to_list(), candidates)
        wanted = self._wanted[rows].to(logits.device)
        if self.config.task.kind == "interest":
            found = nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        else:
            loss = losses.listwise if self.config.task.loss == "softmax" else losses.pairwise
            found = loss(logits, wanted, torch.from_numpy(self.groups[rows]).to(logits.device))
        if self.teacher is None:
            return found
        return Taught(found, losses.likeness(logits, self.teacher[rows].to(logits.device), 1.0))

    @property
    def has_level(self) -> bool:
        """Whether a bi-encoder's logits are more than an order: probabilities, or what a teacher says."""
        return isinstance(self.net, BiModel) and (self.config.task.kind == "interest" or self.teacher is not None)

    def set_level(self) -> None:
        """To be called before training: a bi-encoder's mean logit becomes the base rate's, or the teacher's. All texts
        are somewhat alike to a pretrained model, whose cosines would say yes to everything."""
        if not isinstance(self.net, BiModel) or not self.has_level:
            return
        places = rng(self.config.train.seed, "level").permutation(self.train.height)[:LEVELLED]
        wanted = self._wanted.mean().logit() if self.teacher is None else self.teacher.mean()
        self.net.eval()
        with torch.no_grad():
            self.net.bias.add_(float(wanted - self.outputs(self.train[places]).mean()))

    def counted(self, rows: Rows) -> float:
        """Rows of interest; of ranking, lists with a positive label, or pairs of unequal ones."""
        if self.config.task.kind == "interest":
            return super().counted(rows)
        groups, wanted = self.groups[rows], self._wanted[rows].numpy()
        if self.config.task.loss == "softmax":
            return float(len(np.unique(groups[wanted > 0])))
        lists = (wanted[groups == group] for group in np.unique(groups))
        return float(sum((one[:, None] > one[None, :]).sum() for one in lists))


class Masked(TuneTask):
    """The model goes on learning language, from the catalogue's own texts."""

    net: MaskedModel

    def _loss(self, rows: Rows) -> Tensor:
        sums, counts = self.net(self.altered(self.train[rows]["text"].to_list(), rows), self.config.task.mask_share)
        found: Tensor = sums.sum() / counts.sum().clamp_min(1)
        return found

    def predict(self, frame: pl.DataFrame) -> Float32Array:
        """The sum of each row's cross-entropies over its hidden tokens, and how many there are: [n, 2]. The same are
        hidden every time."""
        seeded = frame.with_columns(seed=rng(self.config.train.seed, "hidden").integers(2**62, size=frame.height))
        out = [torch.zeros(0, 2)]
        for part in seeded.iter_slices(max(1, self.config.train.batch_size // self.parts)):
            with torch.inference_mode():
                told = self.net(part["text"].to_list(), self.config.task.mask_share, part["seed"].to_list())
            out.append(torch.stack([column.float() for column in told], 1).cpu())
        found: Float32Array = torch.cat(out).numpy()
        return found


class Imitate(TuneTask):
    """A small encoder learns a big one's vectors: not each for itself, but how alike they are, so that the two may be
    of different width."""

    net: BiModel

    def __init__(self, *args: object, teach: Callable[[list[str]], Tensor], **named: object) -> None:
        """teach: texts -> the teacher's vectors [n, e], of unit length."""
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self._teach = teach
        self._wanted = torch.cat([teach(part["text"].to_list()) for part in self.train.iter_slices(AT_ONCE)])

    def _loss(self, rows: Rows) -> Tensor:
        vectors = self.net(self.altered(self.train[rows]["text"].to_list(), rows)).texts
        wanted = self._wanted[rows].to(vectors.device)
        return (product(vectors, vectors.T) - product(wanted, wanted.T)).square().mean()

    def predict(self, frame: pl.DataFrame) -> Float32Array:
        """How far each text's cosines to the others of its part are from the teacher's, on average: [n]."""
        gaps = [torch.zeros(0)]
        for part in frame.iter_slices(max(1, AT_ONCE // self.parts)):
            texts = part["text"].to_list()
            with torch.inference_mode():
                vectors, wanted = self.net(texts).texts.cpu(), self._teach(texts)
            gaps.append((product(vectors, vectors.T) - product(wanted, wanted.T)).abs().mean(1))
        found: Float32Array = torch.cat(gaps).numpy()
        return found
