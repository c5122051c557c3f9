"""The sequence model at the moments that training needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from endcap.app.config import Config
from endcap.core.types import Float32Array, Int64Array
from endcap.evaluate.protocols import Case
from endcap.features.ids import Vocabulary
from endcap.features.sequences import Histories
from endcap.index.exact import ExactIndex
from endcap.models.config import SequenceConfig
from endcap.models.loop import Progress, use_threads
from endcap.models.sequence_fit import fit_sequence
from endcap.models.sequence_source import FOLLOWED_CODES, SequenceSource
from endcap.models.sequence_validation import Validation
from endcap.models.sequence_weights import Names, SequenceWeights
from endcap.models.windows import Sequences

REFIT_GROWTH = 0.1
RARE = 0.01


class SequenceFits:
    """Fits the model first with early stopping on validation cases, then, on more data, for as many epochs as were
    best the first time. A log that has grown by less than `REFIT_GROWTH` since the last fit is served by that one: it
    reads the newest acts all the same. An interrupted fit resumes from its checkpoint in `folder`, which is the
    workspace's. Every fit begins from the weights at `sequence.start`, where the config names them; CallerError, before
    anything is fitted, where they are of another shape.
    """

    def __init__(
        self, items: Vocabulary, content: Float32Array | None, config: Config, folder: Path, asked: Sequence[Case]
    ) -> None:
        self._items, self._content, self._config, self._folder, self._asked = items, content, config, folder, asked
        self._names = Names(items.ids, "" if content is None else encoder_name(config))
        self._start = start_weights(config.sequence, folder.parent)
        if self._start is not None:
            self._start.check(config.sequence, 0 if content is None else content.shape[1], self._names.encoder)
        self.best_epoch: int | None = None
        self._latest: SequenceSource | None = None
        self._events = 0

    def fit(self, past: Histories, progress: Callable[[float], None]) -> SequenceSource:
        """On histories that end where the moment of use begins."""
        if self._latest is not None and len(past.events) < (1 + REFIT_GROWTH) * self._events:
            return self._latest
        use_threads(1)  # with two, an epoch is a quarter shorter on idle cores and many times longer on busy ones
        first = self.best_epoch is None
        config = self._config.sequence.model_copy(update={"seed": self._config.train.seed})
        if self.best_epoch is not None:
            config = config.model_copy(update={"epochs": self.best_epoch})
        self._folder.mkdir(parents=True, exist_ok=True)

        def report(at: Progress) -> None:
            progress((at.epoch - 1 + at.step / max(1, at.steps)) / at.epochs)

        with TemporaryDirectory(dir=self._folder) as exported:
            trained = fit_sequence(
                trails(past),
                len(self._items),
                config,
                Path(exported),
                content=self._content,
                validation=self._validation(past) if first else None,
                names=self._names,
                start=self._start,
                checkpoint=self._folder / "sequence.safetensors",
                progress=report,
            )
            if first:
                self.best_epoch = trained.report.best_epoch
            self._latest, self._events = SequenceSource.load(Path(exported), ExactIndex), len(past.events)
            return self._latest

    def _validation(self, past: Histories) -> Validation | None:
        known = [case for case in self._asked if case.user_id in past.users]
        if not known:
            return None
        rows = np.array([past.users.position(case.user_id) for case in known])
        contexts = trails(past).select(rows)
        targets = [self._items.positions(case.targets).astype(np.int64) for case in known]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in targets])])
        return Validation(contexts, np.concatenate(targets), offsets, hide_seen=not any_repeat(contexts, targets))


def start_weights(config: SequenceConfig, workspace: Path) -> SequenceWeights | None:
    """The weights that `start` names, seen from the workspace's folder; None where it names none."""
    return SequenceWeights.load(workspace / config.start) if config.start else None


def encoder_name(config: Config) -> str:
    """Whose vectors a model's projection reads; the same wherever a local model's folder lies."""
    return Path(config.text.model).name


def any_repeat(contexts: Sequences, targets: Sequence[Int64Array]) -> bool:
    """Whether shoppers come back to what they had: where hardly one target is of its own history, all of that history
    is hidden when the model is judged."""
    parts = np.split(contexts.items, contexts.offsets[1:-1])
    repeats = sum(int(np.isin(wanted, had).sum()) for wanted, had in zip(targets, parts, strict=True))
    return repeats > RARE * sum(len(wanted) for wanted in targets)


def trails(histories: Histories) -> Sequences:
    """What the sequence model follows of the histories, with baskets as groups."""
    followed = np.isin(histories.events.kinds, FOLLOWED_CODES)
    before = np.concatenate([[0], np.cumsum(followed)])
    events = histories.events.take(followed)
    return Sequences(events.items, before[histories.offsets], events.baskets.view(np.int64))
