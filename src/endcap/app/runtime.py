"""The shop: one object that ingests, trains, recommends and records. The server and the command line are thin over it.

shop = Shop.open("myshop")
shop.ingest("events.parquet", items="items.parquet")
shop.train()
shop.recommend(user="42", n=10)
shop.record(event)
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
import polars as pl

from endcap.app import catalogue
from endcap.app.answering import Answering, asked, searched
from endcap.app.audit import AuditLog
from endcap.app.config import Config, load_config
from endcap.app.content import holds
from endcap.app.events import check_events
from endcap.app.ingest import Ingested, Progress, ingest, silent
from endcap.app.keys import Keys
from endcap.app.queries import MAX_QUERY
from endcap.app.search import Ear
from endcap.app.serving import Serving
from endcap.app.state import State
from endcap.app.watching import Watch
from endcap.core.artifacts import ReleaseStore
from endcap.core.determinism import Clock, system_clock
from endcap.core.errors import CallerError, NotFoundError, ServiceError
from endcap.core.types import Event, EventType, Item, Placement, Query, Slate
from endcap.data import database
from endcap.data import synthetic as synthetic  # noqa: PLC0414 - registers its data sets
from endcap.data.datasets import DATASETS, Dataset
from endcap.data.open_store import is_embedded, open_store
from endcap.data.sqlite_store import SqliteStore
from endcap.data.store import Appended, Store
from endcap.features.ids import UNKNOWN
from endcap.features.state import context

if TYPE_CHECKING:
    from endcap.app.pretrain import Pretrained
    from endcap.app.publish import Release
    from endcap.app.refit import Refitted
    from endcap.app.train import Trained
    from endcap.encoders.speech import Transcript

CONFIG_FILE = "endcap.toml"
BACKUP = "backup.json"  # what makes a workspace a backup: see `app.keeping`
STARTER = """# What differs from the defaults. Every key: docs/reference/configuration.md

# [events.columns]          # our column = "theirs"
# user_id = "customer"
# item_id = "sku"
# ts_ms = "time"

# [serve]
# port = 8765
"""


@dataclass(frozen=True, slots=True)
class UserView:
    """What is known of a shopper."""

    user_id: str
    attributes: dict[str, str]
    events: int
    baskets: int
    cart: tuple[str, ...]
    favourites: tuple[str, ...]
    last_seen_ms: int | None


@dataclass(frozen=True, slots=True)
class Health:
    """ready: a release is loaded and answers. last_seq: the newest event in the log. degraded: what it answers
    without. problem: why it is not ready, or what is wrong."""

    ready: bool
    release: str | None = None
    items: int = 0
    users: int = 0
    last_seq: int = 0
    problem: str = ""
    degraded: tuple[str, ...] = ()


class Shop:
    """A workspace folder, opened. Safe to use from several threads; one process at a time may write."""

    def __init__(self, folder: Path, config: Config, store: Store, clock: Clock) -> None:
        self.folder, self.config, self.store, self.clock = folder, config, store, clock
        self.releases = ReleaseStore(folder / "releases")
        self.audit = AuditLog(folder, clock)
        self.keys = Keys(folder, self.audit, clock)
        self._state = State(config.state, folder)
        self.memory = self._state.memory
        self._serving = Serving(self.releases, store, config.slate, self._state.states)
        self._answering = Answering(self._serving, clock, config.serve.budget_ms)
        self._ear = Ear(config.speech)
        self._is_embedded = is_embedded(config.store) and not self._state.where
        self.watch: Watch | None = None

    @classmethod
    def init(cls, folder: str | Path, starter: str = STARTER) -> Path:
        """Make a workspace; an existing one is left as it is. Returns its folder. starter: its `endcap.toml`."""
        place = Path(folder)
        if not place.is_dir():
            database.make_folder(place)
        with database.translated(place):
            if not (place / CONFIG_FILE).exists():
                (place / CONFIG_FILE).write_text(starter, encoding="utf-8")
        settings = load_config(place / CONFIG_FILE).store
        try:  # one that is there may be another process's to write to
            open_store(place / "store", settings, read_only=True).close()
        except (NotFoundError, ServiceError):  # none, or one that was begun and has to be made whole
            open_store(place / "store", settings, create=True).close()
        return place

    @staticmethod
    def delete(folder: str | Path) -> None:
        """Delete all that is in a workspace; a folder that is empty or not there is no error.

        CallerError for a folder that is no workspace, ServiceError while another process writes to it. The config goes
        last, so that a workspace of which something could not be deleted is still one.
        """
        place = Path(folder)
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):
            return
        if not (place / CONFIG_FILE).is_file():
            raise CallerError("The folder is no workspace.", where=str(place), next_step="Choose another folder.")
        database.make_folder(place / "store")
        with database.translated(place), closing(database.lock_for_writing(place / "store")):
            for entry in sorted(place.iterdir(), key=lambda entry: entry.name == CONFIG_FILE):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    @classmethod
    def open(cls, folder: str | Path, *, clock: Clock = system_clock, read_only: bool = False) -> Self:
        """Open a workspace, making it where there is none. read_only: while another process serves or ingests."""
        place = Path(folder)
        if read_only and not (place / CONFIG_FILE).exists():
            raise NotFoundError(
                "There is no workspace here.", where=str(place), next_step=f"Make one: endcap init {place}"
            )
        if not (place / CONFIG_FILE).exists():
            cls.init(place)
        if (place / BACKUP).exists() and database.is_older(place / "store"):
            raise CallerError(
                "This is a backup that an older version made, and nothing in a backup changes.",
                where=str(place),
                next_step=f"Restore it into a new folder: endcap restore {place} --shop FOLDER",
            )
        config = load_config(place / CONFIG_FILE).seen_from(place)
        store = open_store(place / "store", config.store, create=not read_only, read_only=read_only)
        return cls(place, config, store, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state_where(self) -> str:
        """The place on Redis where the shoppers' state is; empty where it is in process."""
        return self._state.where

    def close(self) -> None:
        self._state.close()
        self.store.close()

    @property
    def takes_many_writers(self) -> bool:
        """Whether several processes may record side by side."""
        return not isinstance(self.store, SqliteStore)

    def ingest(
        self,
        events: str | Path | pl.DataFrame | Dataset | None = None,
        *,
        items: str | Path | pl.DataFrame | None = None,
        users: str | Path | pl.DataFrame | None = None,
        progress: Progress = silent,
    ) -> Ingested:
        """Read, check, clean and record files, tables or a named data set. What is refused is quarantined."""
        return ingest(
            self.store, self.config, events=events, items=items, users=users, now_ms=self.clock(), progress=progress
        )

    def ingest_dataset(self, name: str, progress: Progress = silent) -> Ingested:
        """Ingest a data set that comes as a package, by name (see `endcap.data.datasets`)."""
        return self.ingest(DATASETS.get(name)(), progress=progress)

    def train(self, *, evaluate: bool = True, publish: bool = True, progress: Progress = silent) -> Trained:
        """Fit sources and ranker on everything recorded, measure them against baselines, write a release.

        Needs the extras `train` and, for content vectors, `text`.
        """
        from endcap.app.train import train

        trained = train(self, evaluate=evaluate, progress=progress)
        if publish:
            self.publish(trained.manifest.release_id)
        return trained

    def refit(self, *, publish: bool = True, progress: Progress = silent) -> Refitted:
        """Bring the published release up to date with the log, without learning anew how to order candidates.

        A fraction of the time of `train`, for the days between two trainings. Needs the extras that `train` needs.
        """
        from endcap.app.refit import refit

        refitted = refit(self, progress=progress)
        if publish:
            self.publish(refitted.manifest.release_id)
        return refitted

    def pretrain(self, out: str | Path, *, progress: Progress = silent, **settings: Any) -> Pretrained:
        """Train the sequence model alone on everything recorded, and write weights that `sequence.start` begins from.

        settings: keys of `[sequence]` that differ from the shop's. `ids` is False where it is not given (items are
        their content alone, and the weights serve other shops), `turned` is True where there are no ids. Needs the
        extras `train` and `text`.
        """
        from endcap.app.pretrain import pretrain

        return pretrain(self, Path(out), settings, progress=progress)

    def publish(self, release_id: str | None = None) -> str:
        """Make a release (default: the newest) the one that answers."""
        found = self.releases.list()
        if not found:
            raise NotFoundError("There is no release yet.", where=str(self.folder), next_step=self._train_first())
        chosen = release_id or found[-1].release_id
        with self.audit.act("publish", chosen):
            self.releases.publish(chosen)
        self._serving.take_up()
        return chosen

    def rollback(self) -> str:
        """Go back to the release published before."""
        with self.audit.act("rollback", self.releases.current() or ""):
            back = self.releases.rollback()
        self._serving.take_up()
        return back

    def evaluation(self, release_id: str | None = None) -> dict[str, Any]:
        """What training measured for a release (default: the published one)."""
        chosen = release_id or self.releases.current()
        if chosen is None:
            raise NotFoundError("No release is published.", where=str(self.folder), next_step=self._train_first())
        self.releases.manifest(chosen)
        path = self.releases.root / chosen / "evaluation.json"
        if not path.is_file():
            raise NotFoundError(
                "The release was trained without evaluation.",
                where=chosen,
                next_step=f"Train with it: endcap train --shop {self.folder}",
            )
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return found

    def record(self, *events: Event) -> Appended:
        """Write events durably; when this returns, the next answer takes them into account."""
        checked = check_events(events, self.clock())
        appended = self.store.append(checked)
        if self.watch is not None:
            self.watch.recorded(checked, appended.duplicates)
        return appended

    def put_items(self, *items: Item | Mapping[str, Any]) -> catalogue.Put:
        """Insert or replace items, each judged on its own; what is not named of one gets the default of `Item`."""
        return catalogue.put_items(self.store, self.config.items, items)

    def patch_item(self, item_id: str, **fields: Any) -> Item:
        """Change only the fields that are given. The next answer knows. NotFoundError where there is no such item."""
        return catalogue.patch_item(self.store, self.config.items, item_id, fields)

    def delete_item(self, item_id: str) -> bool:
        """Take an item out of the catalogue: it is never shown again. False where it was not there."""
        with self.audit.act("delete item", item_id):
            return catalogue.delete_item(self.store, item_id)

    def recommend(self, user: str | None = None, n: int = 10, **rest: Any) -> Slate:
        """A slate for a user (a stranger without one). Further arguments are the fields of `Query`."""
        return self.answer(asked(user, n, rest))

    def answer(self, query: Query) -> Slate:
        """A slate for a query."""
        return self._seen(self._answering.slate(query))

    def answer_many(self, queries: Sequence[Query]) -> list[Slate | Exception]:
        """For each query its slate, or what `answer` raises. Several at once cost less than one after the other."""
        found = self._answering.slates(queries)
        return [slate if isinstance(slate, Exception) else self._seen(slate) for slate in found]

    def is_at_hand(self) -> bool:
        """Whether an answer would wait for nobody: log and state are this process's own, and nothing has to be taken
        over first."""
        return self._is_embedded and self._serving.is_at_hand()

    def search(self, text: str, user: str | None = None, n: int = 10, **rest: Any) -> Slate:
        """Items for words that were typed: by meaning and by the words themselves, in the order that fits the shopper.
        Further arguments are the fields of `Query`."""
        return self._seen(self._answering.found(*searched(text, user, n, rest)))

    def search_spoken(self, clip: bytes, user: str | None = None, n: int = 10, **rest: Any) -> tuple[Slate, Transcript]:
        """As `search`, for words that were spoken: a sound file's bytes. Needs the extra `speech`.

        DataError for bytes that are no sound, and where nobody speaks.
        """
        heard = self._ear.transcribe(clip)
        return self.search(heard.text[:MAX_QUERY], user, n, **rest), heard

    def search_picture(self, picture: bytes, user: str | None = None, n: int = 10, **rest: Any) -> Slate:
        """Items that look like a picture or whose words fit it: a picture file's bytes. Needs Pillow (the extra
        `image`) and a release whose items have pictures.

        DataError for bytes that are no picture, CallerError where the release has none.
        """
        release = self._serving.current()[0]
        if release.searcher.sights is None and holds(release.fitted.table, "image", self.config):
            raise CallerError(
                "The release has not read the pictures that the catalogue names.",
                where="search",
                next_step="Train again, with `content` among [train] sources and `image` among [content] modalities; "
                "the training's notes say what else is missing.",
            )
        query = asked(user, n, rest, placement=Placement.SEARCH)
        return self._seen(
            self._answering.found(lambda searcher, query, known: searcher.picture(query, known, picture), query)
        )

    def similar(self, item_id: str, n: int = 10, locale: str = "en") -> Slate:
        """Items to show beside one, for no shopper in particular."""
        if self._serving.current()[0].fitted.table.ids.position(item_id) == UNKNOWN:
            raise NotFoundError(
                f"The release has no item {item_id!r}.",
                where="item_id",
                next_step="Put it into the catalogue, over HTTP or with `endcap ingest`.",
            )
        return self.answer(Query(item_id=item_id, n=n, placement=Placement.ITEM, locale=locale))

    def user(self, user_id: str) -> UserView:
        """What is known of a shopper. NotFoundError for a stranger."""
        release, seen, _ = self._serving.known(user_id)
        attributes = self.store.user(user_id)
        if attributes is None and not seen.is_known:
            raise NotFoundError(
                f"There is no user {user_id!r}.", where="user_id", next_step="Record an event of theirs."
            )
        known = context(seen.history, self.clock(), Placement.HOME)
        ids = release.fitted.table.ids.ids
        favourites = known.bought[np.lexsort((known.bought, -known.bought_n))][:10]
        return UserView(
            user_id=user_id,
            attributes=attributes or {},
            events=len(known.items),
            baskets=len(np.unique(known.baskets[known.kinds == EventType.PURCHASE.code])),
            cart=tuple(ids[item] for item in known.cart),
            favourites=tuple(ids[item] for item in favourites),
            last_seen_ms=int(known.ts_ms[-1]) if len(known.ts_ms) else None,
        )

    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        """What a shopper reads for each item; its id where there is nothing else."""
        known = self._serving.titles(item_ids)
        return {item_id: known.get(item_id) or item_id for item_id in item_ids}

    def health(self) -> Health:
        """Never raises: what is wrong is in `problem`."""
        try:
            release, last_seq, degraded, problem = self._serving.standing()
        except Exception as error:  # health is asked when things are broken, and has to say so
            return Health(ready=False, problem=str(error))
        return Health(True, release.id, len(release.fitted.table), len(release.histories), last_seq, problem, degraded)

    def held(self) -> tuple[Release, int] | None:
        """The release that is loaded and the newest seq its answers know of, as they are; None before the first."""
        return self._serving.held()

    def _seen(self, slate: Slate) -> Slate:
        if self.watch is not None:
            self.watch.answered(slate)
        return slate

    def _train_first(self) -> str:
        return f"Train one: endcap train --shop {self.folder}"
