"""Gorse's words for feedback, items and users, and ours, each turned into the other.

An item's Comment is what a reader sees of it, our title; Labels may be any JSON and are kept so among the attributes.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from endcap.app.catalogue import DELETED, is_deleted
from endcap.app.gorse_settings import GorseConfig
from endcap.core.errors import CallerError
from endcap.core.types import Availability, Event, Item

MARK = "gorse"
LABELS, COMMENT = "labels", "comment"
LAST_MS = 253_402_300_799_999  # the end of the year 9999, the last that a date can say
NO_TIME = "0001-01-01T00:00:00Z"  # Go's zero
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
MS_OF = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
SECONDS_BELOW = 1e11  # a larger number is milliseconds: as seconds it would be the year 5138


@dataclass(frozen=True, slots=True)
class Feedback:
    """One act. ts_ms None means now; value 0 means none."""

    feedback_type: str
    user_id: str
    item_id: str
    ts_ms: int | None = None
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class GorseItem:
    """labels: any JSON. What is None is not said of the item."""

    item_id: str
    is_hidden: bool | None = None
    categories: tuple[str, ...] | None = None
    ts_ms: int | None = None
    labels: Any = None
    comment: str | None = None


def event_of(config: GorseConfig, feedback: Feedback, now_ms: int, where: str) -> Event:
    """The same act always has the same id, so that sending it again changes nothing.

    CallerError for a feedback type that the settings do not name.
    """
    kind = config.feedback_types.get(feedback.feedback_type)
    if kind is None:
        raise CallerError(
            f"The feedback type {feedback.feedback_type!r} is not known.",
            where=f"{where}.FeedbackType",
            next_step="Say what it means under `feedback_types` of [gorse] in endcap.toml, which names "
            f"{', '.join(config.feedback_types)}.",
        )
    moment = uuid.uuid4().hex if feedback.ts_ms is None else str(feedback.ts_ms)
    told = msgspec.json.encode([feedback.user_id, feedback.item_id, moment])
    digest = hashlib.blake2b(told, digest_size=16).hexdigest()
    return Event(
        event_type=kind,
        user_id=feedback.user_id,
        item_id=feedback.item_id,
        ts_ms=now_ms if feedback.ts_ms is None else feedback.ts_ms,
        event_id=f"{MARK}:{feedback.feedback_type}:{digest}",
        value=feedback.value or None,
    )


def feedback_of(config: GorseConfig, event: Event) -> Feedback | None:
    """None for an event on no item, and for one of a type that no feedback type stands for. What came as feedback has
    the type it came with."""
    mark, _, rest = event.event_id.partition(":")
    kind = rest.rpartition(":")[0] if mark == MARK else ""
    name = kind or next((name for name, ours in config.feedback_types.items() if ours is event.event_type), "")
    if event.item_id is None or not name:
        return None
    return Feedback(name, event.user_id, event.item_id, event.ts_ms, event.value or 0.0)


def item_fields(item: GorseItem, known: Item | None) -> dict[str, Any]:
    """The fields of ours that are said of an item. known: as the catalogue has it, whose other attributes stay."""
    fields: dict[str, Any] = {}
    if item.comment is not None:
        fields["title"] = item.comment
    if item.categories is not None:
        fields["categories"] = list(item.categories)
    if item.ts_ms is not None:
        fields["created_ms"] = item.ts_ms
    if item.labels is not None:
        said = {} if known is None or is_deleted(known) else known.attributes
        fields["attributes"] = {**said, LABELS: _json(item.labels)}
    if item.is_hidden is not None:
        fields["availability"] = _availability(item.is_hidden, known)
    return fields


def gorse_item(item: Item) -> GorseItem:
    return GorseItem(
        item.item_id,
        item.availability is Availability.HIDDEN,
        item.categories,
        item.created_ms,
        labels_of(item.attributes),
        item.title,
    )


def user_fields(labels: Any, comment: str) -> dict[str, str]:
    """A user's attributes."""
    said = {LABELS: None if labels is None else _json(labels), COMMENT: comment}
    return {name: value for name, value in said.items() if value}


def labels_of(attributes: Mapping[str, str]) -> Any:
    """Labels as they came; where there came none, the attributes there are; None where there are none of these."""
    if LABELS in attributes:
        try:
            return msgspec.json.decode(attributes[LABELS])
        except msgspec.MsgspecError:
            return attributes[LABELS]
    return {name: value for name, value in attributes.items() if name not in (COMMENT, DELETED)} or None


def ms_of(text: str, where: str) -> int | None:
    """UTC milliseconds of a time: ISO 8601, Go's own way, or a number of seconds or milliseconds. None for no time.

    CallerError for any other text.
    """
    text = text.strip()
    if not text or text.startswith("0001-01-01"):
        return None
    if re.fullmatch(r"\d{1,16}(\.\d+)?", text) and len(text) != len("20260131"):
        number = float(text)
        return round(number * 1000 if number < SECONDS_BELOW else number)
    plain = re.sub(r"(?<=\d) (?=[+-]\d\d:?\d\d)", "", re.sub(r" (UTC|GMT|Z)$", "", text)).replace("/", "-")
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError as error:
        raise CallerError(
            f"{text[:80]!r} is no time.", where=where, next_step="Send ISO 8601, such as 2026-01-31T12:00:00Z."
        ) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def time_of(ts_ms: int | None) -> str:
    """As Go writes it: `2026-01-31T12:00:00Z`, with a fraction only where there is one."""
    if ts_ms is None:
        return NO_TIME
    moment = datetime.fromtimestamp(min(max(ts_ms, 0), LAST_MS) / 1000, UTC)
    fraction = f".{ts_ms % 1000:03d}".rstrip("0") if ts_ms % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def duration_ms(text: str, where: str) -> int:
    """Milliseconds of `1h30m`, as Go writes durations. CallerError for any other text."""
    parts = DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise CallerError(f"{text[:80]!r} is no duration.", where=where, next_step="Send one such as 10m or 1h30m0s.")
    return round(sum(float(number) * MS_OF[unit] for number, unit in parts))


def _availability(is_hidden: bool, known: Item | None) -> str:
    """Whether an item is in stock is none of Gorse's words, so that what is said of it stays."""
    if is_hidden:
        return Availability.HIDDEN.value
    if known is None or known.availability is Availability.HIDDEN:
        return Availability.IN_STOCK.value
    return known.availability.value


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise CallerError(f"This cannot be kept as text: {error}.", where="Labels", next_step="Mend it.") from error
