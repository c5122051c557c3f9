"""The sequence model at the moments that training needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from endcap.app.config import Config
from endcap.app.content import Content
from endcap.app.parallel import Tell, one_by_one, side_by_side
from endcap.core.errors import CallerError
from endcap.core.types import Int64Array
from endcap.evaluate.protocols import Case
from endcap.features.ids import Vocabulary
from endcap.features.sequences import Histories
from endcap.index.exact import ExactIndex
from endcap.models.config import SequenceConfig
from endcap.models.loop import Report, use_threads
from endcap.models.sequence_fit import fit_sequence
from endcap.models.sequence_source import FOLLOWED_KINDS, SequenceSource
from endcap.models.sequence_validation import Validation
from endcap.models.sequence_weights import Names, SequenceWeights, load_members
from endcap.models.windows import Sequences

REFIT_GROWTH = 0.1
WORSE = 0.95
RARE = 0.01


class SequenceFits:
    """Fits the model first with early stopping on validation cases, then, on more data, for as many epochs as were
    good the first time. With threads to spare, what will be asked for next is fitted beside it. A log that has grown by
    less than `REFIT_GROWTH` since the last fit is served by that one: it reads the newest acts all the same. An
    interrupted fit resumes from its checkpoint in `folder`, which is the workspace's. Every fit begins from the weights
    at `sequence.start`, where the config names them; CallerError, before anything is fitted, where they are of another
    shape.
    """

    def __init__(
        self,
        items: Vocabulary,
        content: Content | None,
        config: Config,
        folder: Path,
        asked: Sequence[Case],
        pasts: Sequence[Histories],
    ) -> None:
        """asked: what the first fit stops by. pasts: the histories that `fit` will be asked for, in order."""
        self._items, self._content, self._config, self._folder, self._asked = items, content, config, folder, asked
        self._names = Names(items.ids, "" if content is None else content.name)
        self._start = start_weights(config.sequence, folder.parent)
        if self._start is not None:
            self._start.check(config.sequence, 0 if content is None else content.vectors.shape[1], self._names.encoder)
        self._pasts = list(pasts)
        self._epochs: int | None = None
        self._latest: SequenceSource | None = None
        self._events = 0
        self._ahead: dict[int, SequenceSource] = {}

    def fit(self, past: Histories, progress: Callable[[float], None]) -> SequenceSource:
        """On histories that end where the moment of use begins."""
        events = len(past.events)
        if self._latest is not None and events < (1 + REFIT_GROWTH) * self._events:
            return self._latest
        if events not in self._ahead:
            self._fit_some([past, *self._next(past)][: self._config.train.threads], progress)
        self._latest, self._events = self._ahead.pop(events), events
        return self._latest

    def _next(self, past: Histories) -> list[Histories]:
        """What will be fitted after this, if everything is asked for."""
        found, events = [], len(past.events)
        for later in self._pasts:
            if len(later.events) >= (1 + REFIT_GROWTH) * events:
                found.append(later)
                events = len(later.events)
        return found

    def _fit_some(self, pasts: Sequence[Histories], progress: Callable[[float], None]) -> None:
        """The first of them, and the others as if it will settle on all epochs, as it mostly does."""
        settings = self._config.sequence.model_copy(update={"seed": self._config.train.seed})
        epochs = self._epochs or settings.epochs
        settings = settings.model_copy(update={"epochs": epochs})
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._folder) as exported:
            works = [
                partial(self._fit_one, past, settings, Path(exported) / str(place), self._epochs is None and place == 0)
                for place, past in enumerate(pasts)
            ]
            settled = _done(works, progress)
            self._epochs = settled[0]
            for place, past in enumerate(pasts[: 1 if self._epochs < epochs else None]):
                self._ahead[len(past.events)] = SequenceSource.load(
                    Path(exported) / str(place), ExactIndex, with_weights=True
                )

    def _fit_one(self, past: Histories, config: SequenceConfig, folder: Path, watched: bool, tell: Tell) -> int:
        """Fit and export into the folder; for how many epochs a model on more data should be trained.

        watched: stopped early where the validation cases say so.
        """
        use_threads(1)  # with two, an epoch is a quarter shorter on idle cores and many times longer on busy ones
        folder.mkdir(exist_ok=True)  # there already, where a process of its own has tried and could not
        trained = fit_sequence(
            trails(past),
            len(self._items),
            config,
            folder,
            content=None if self._content is None else self._content.vectors,
            validation=self._validation(past) if watched else None,
            names=self._names,
            starts=[] if self._start is None else [self._start],
            checkpoint=self._folder / f"sequence-{len(past.events)}.safetensors",
            progress=lambda at: tell((at.epoch - 1 + at.step / max(1, at.steps)) / at.epochs),
        )
        return settled(trained.report)

    def _validation(self, past: Histories) -> Validation | None:
        known = [case for case in self._asked if case.user_id in past.users]
        if not known:
            return None
        rows = np.array([past.users.position(case.user_id) for case in known])
        contexts = trails(past).select(rows)
        targets = [self._items.positions(case.targets).astype(np.int64) for case in known]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in targets])])
        return Validation(contexts, np.concatenate(targets), offsets, hide_seen=not any_repeat(contexts, targets))


def refit_sequence(
    past: Histories,
    items: Vocabulary,
    content: Content | None,
    config: Config,
    release: Path,
    checkpoints: Path,
    progress: Callable[[float], None],
) -> SequenceSource:
    """A few epochs (`sequence.refit_epochs`, and no more than a training has) on all histories, from the weights of a
    release's model in `release`."""
    use_threads(1)
    epochs = min(config.sequence.refit_epochs, config.sequence.epochs)
    settings = config.sequence.model_copy(update={"epochs": epochs, "seed": config.train.seed, "warmup_share": 0.0})
    checkpoints.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=checkpoints) as exported:
        fit_sequence(
            trails(past),
            len(items),
            settings,
            Path(exported),
            content=None if content is None else content.vectors,
            names=Names(items.ids, "" if content is None else content.name),
            starts=load_members(release),
            checkpoint=checkpoints / f"refit-{len(past.events)}.safetensors",
            progress=lambda at: progress((at.epoch - 1 + at.step / max(1, at.steps)) / at.epochs),
        )
        return SequenceSource.load(Path(exported), ExactIndex, with_weights=True)


def _done(works: Sequence[Callable[[Tell], int]], progress: Callable[[float], None]) -> list[int]:
    """Side by side; one after the other in a process that has trained by itself before, which torch cannot fork."""
    try:
        return side_by_side(works, progress)
    except RuntimeError as error:
        if "fork" not in str(error):
            raise
        return one_by_one(works, progress)


def settled(report: Report) -> int:
    """For how many epochs to train where nothing is left to stop by: all, unless more of them were measurably worse. A
    rate that has come down to zero is worth more than the epoch that some thousand shoppers happened to like best."""
    metrics = [epoch.metric for epoch in report.epochs]
    last, best = metrics[-1], metrics[report.best_epoch - 1]
    return report.best_epoch if last is None or best is None or last < WORSE * best else len(metrics)


def start_weights(config: SequenceConfig, workspace: Path) -> SequenceWeights | None:
    """The weights that `start` names, seen from the workspace's folder; None where it names none."""
    if not config.start:
        return None
    try:
        return SequenceWeights.load(workspace / config.start)
    except CallerError as error:
        raise CallerError(
            error.what, where=error.where, next_step=f"{error.next_step}, or correct `sequence.start`."
        ) from error


def any_repeat(contexts: Sequences, targets: Sequence[Int64Array]) -> bool:
    """Whether shoppers come back to what they had: where hardly one target is of its own history, all of that history
    is hidden when the model is judged."""
    parts = np.split(contexts.items, contexts.offsets[1:-1])
    repeats = sum(int(np.isin(wanted, had).sum()) for wanted, had in zip(targets, parts, strict=True))
    return repeats > RARE * sum(len(wanted) for wanted in targets)


def trails(histories: Histories) -> Sequences:
    """What the sequence model follows of the histories, with baskets as groups."""
    followed = FOLLOWED_KINDS[histories.events.kinds]
    before = np.concatenate([[0], np.cumsum(followed)])
    events = histories.events.take(followed)
    return Sequences(events.items, before[histories.offsets], events.baskets.view(np.int64))
