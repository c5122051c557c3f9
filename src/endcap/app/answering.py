"""From a query to a slate: what is known of who asks, what the release makes of it, and the id that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, NamedTuple

from endcap.app.publish import Release
from endcap.app.queries import MAX_QUERY, checked
from endcap.app.serving import Moment, Serving
from endcap.core.determinism import Clock
from endcap.core.errors import CallerError, EndcapError
from endcap.core.slates import MAX_SHOWN, NONE_SHOWN, Hashes, new_id, parse, release_hash
from endcap.core.types import Context, Placement, Query, Recommendation, Slate
from endcap.recommend.search import Found, Searcher
from endcap.recommend.stages import Stages

Find = Callable[[Searcher, Query, Context], Found]


class _Asked(NamedTuple):
    """A valid query, what earlier pages showed, and all that is known at its moment."""

    query: Query
    before: Hashes
    moment: Moment


_UNANSWERED = LookupError("no answer yet")


class Answering:
    """Safe to use from several threads. budget_ms: what an answer may take where the query does not say; 0: any."""

    def __init__(self, serving: Serving, clock: Clock, budget_ms: float) -> None:
        self.serving, self._clock, self._budget_ms = serving, clock, budget_ms

    def slate(self, query: Query) -> Slate:
        """CallerError for a query that is not valid."""
        slate = self.slates([query])[0]
        if isinstance(slate, Exception):
            raise slate
        return slate

    def slates(self, queries: Sequence[Query]) -> list[Slate | Exception]:
        """For each query its slate, or what `slate` raises. Several at once cost less than one after the other; each
        says the time that all took."""
        with suppress(EndcapError):  # each query is told below
            self.serving.load()  # before the clock runs: a process's first answer would have no time left
        stages = Stages()
        found: list[Slate | Exception] = []
        asked: dict[int, _Asked] = {}
        for place, query in enumerate(queries):
            try:
                asked[place] = self._prepared(query)
                found.append(_UNANSWERED)
            except Exception as error:  # a query that is wrong is no fault of those beside it
                found.append(error)
        releases = {one.moment.release.id: one.moment.release for one in asked.values()}
        for release in releases.values():  # two at most, while one takes over from the other
            places = [place for place, one in asked.items() if one.moment.release.id == release.id]
            for place, slate in zip(places, self._answered(release, [asked[at] for at in places], stages), strict=True):
                found[place] = slate
        return found

    def _prepared(self, query: Query) -> _Asked:
        query = checked(query)
        return _Asked(query, _shown_before(query.after), self._known(query))

    def _answered(self, release: Release, asked: list[_Asked], stages: Stages) -> list[Slate | Exception]:
        stages.costs = release.pipeline.costs
        stages.budget_s = min(self._budget_s(one.query) for one in asked)
        stages.done("context")
        try:
            answers = release.pipeline.answers([(one.query, one.moment.context) for one in asked], stages)
        except Exception as error:
            if len(asked) == 1:
                return [error]
            return [self._answered(release, [one], Stages())[0] for one in asked]
        return [
            _slate(release, one.query, items, (*one.moment.degraded, *degraded), one.before, stages)
            for one, (items, degraded) in zip(asked, answers, strict=True)
        ]

    def found(self, find: Find, query: Query) -> Slate:
        """What a search finds. CallerError for a query that is not valid."""
        query = checked(query)
        stages, before = Stages(), _shown_before(query.after)
        release, known, away = self._known(query)
        stages.done("context")
        found = find(release.searcher, query, known)
        stages.done("search")
        items = tuple(
            release.pipeline.shown(
                int(item), float(score), ways[0], release.pipeline.plain(f"found_{ways[0]}", query.locale)
            )
            for item, score, ways in zip(found.items, found.scores, found.ways, strict=True)
        )
        stages.done("selection")
        return _slate(release, query, items, (*away, *found.degraded), before, stages)

    def _known(self, query: Query) -> Moment:
        return self.serving.context(query, self._clock() if query.now_ms is None else query.now_ms)

    def _budget_s(self, query: Query) -> float:
        budget_ms = self._budget_ms if query.budget_ms is None else query.budget_ms
        return budget_ms / 1000 if budget_ms else float("inf")


def asked(user: str | None, n: int, rest: dict[str, Any], **ours: Any) -> Query:
    """rest: fields of `Query` by name. CallerError for any other, and for those that are ours to set."""
    free = [field.name for field in fields(Query) if field.name not in ("user_id", "n", *ours)]
    if wrong := sorted(rest.keys() - set(free)):
        raise CallerError("This is not asked here.", where=wrong[0], next_step=f"One may ask by: {', '.join(free)}.")
    return Query(user_id=user, n=n, **ours, **rest)


def searched(text: str, user: str | None, n: int, rest: dict[str, Any]) -> tuple[Find, Query]:
    """For `found`. CallerError for words that are none, or too many."""
    if not text.strip():
        raise CallerError("Nothing is searched for.", where="q", next_step="Say what to look for.")
    if len(text) > MAX_QUERY:
        raise CallerError(
            f"The query has {len(text):,} characters.", where="q", next_step=f"Send at most {MAX_QUERY:,}."
        )
    query = asked(user, n, rest, placement=Placement.SEARCH)
    return lambda searcher, query, known: searcher.text(query, known, text), query


def _shown_before(after: str | None) -> Hashes:
    """What earlier pages showed."""
    if after is None:
        return NONE_SHOWN
    told = parse(after)
    if told is None:
        raise CallerError(
            "This is no recommendation_id of ours.", where="after", next_step="Send the one of the page before."
        )
    if len(told.shown) > MAX_SHOWN:
        raise CallerError(
            f"More than {MAX_SHOWN} items were shown already.", where="after", next_step="Ask for a new recommendation."
        )
    return told.shown


def _slate(
    release: Release,
    query: Query,
    items: tuple[Recommendation, ...],
    degraded: tuple[str, ...],
    before: Hashes,
    stages: Stages,
) -> Slate:
    name = new_id(query.placement, release_hash(release.id), [item.item_id for item in items], before)
    return Slate(name, release.id, query.placement, items, degraded, dict(stages.seconds))
