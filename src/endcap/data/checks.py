"""From raw rows to typed ones. Each rule has a name; a row that breaks one is refused with a sentence, and kept.

A row is refused by the first rule it breaks, in the order they stand here. The raw rows are read once, and once more
only if some are refused, to keep those as they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from endcap.core import tables
from endcap.core.errors import DataError
from endcap.core.types import MAX_NUMBER, SESSION_PREFIX, EventType
from endcap.data import cells, times
from endcap.data.lines import FAULT_REASON, FAULT_RULE, FAULTS, LINE, ROW
from endcap.data.quarantine import REASON, RULE, TYPED, as_it_came, collected, labelled, number_rows
from endcap.data.sources import SourceConfig, Table

EARLIEST_MS = 788_918_400_000  # 1995-01-01: before it nobody bought anything on the web
DAY_MS = 24 * 3600 * 1000
VERDICT = "verdict"
NUMBERS = ("quantity", "price", "value")


@dataclass(frozen=True, slots=True)
class Checked:
    """frame: the table's columns plus `line` and `row`. refused: conforms to `tables.QUARANTINE`.

    rows_in == frame.height + refused.height. fills: column -> how many missing cells the stated policy filled. given:
    the table's columns that the source says something of. further: its columns that are none of the table's.
    """

    frame: pl.DataFrame
    refused: pl.DataFrame
    rows_in: int
    fills: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    further: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """refuses: Boolean over raw and `typed.` columns. reason: a sentence, over the raw columns of refused rows."""

    name: str
    refuses: pl.Expr
    reason: pl.Expr


def check_events(raw: pl.LazyFrame, config: SourceConfig, *, source: str, now_ms: int) -> Checked:
    """Type a raw event table. now_ms: UTC milliseconds; events more than a day later are impossible.

    Where the source gives no event_id it is the event's content: `user|item|type|ts_ms|session|quantity|price`, then
    value, query, placement and recommendation_id if there are any; `|` within a part is written `%7C`.
    A row of a session without user_id is the session's own, under `session:<id>`.
    Raises DataError where user_id, ts_ms, item_id or event_type has no column.
    """
    require_columns(raw, ["user_id", "ts_ms"], source)
    if config.default_event_type is None:
        require_columns(raw, ["event_type"], source, "Or set `default_event_type`.")
    if not {"item_id", "query"} & set(raw.collect_schema().names()):
        require_columns(raw, ["item_id"], source)
    raw = number_rows(raw)
    when = times.reading(raw, "ts_ms", config.ts_unit, source)
    typed = _typed_events(raw, config, when.expr)
    checks = _event_checks(raw, now_ms, when.form)
    frame, refused, rows_in = run_checks(raw, typed, checks, "events", source)
    frame, fills = _fill_events(frame, config)
    found = raw.collect_schema().names()
    given = tuple(name for name in tables.names(tables.EVENTS) if name in found)
    return Checked(frame, refused, rows_in, fills, (when.note,), given, further_columns(found, tables.EVENTS))


def further_columns(found: list[str], columns: tuple[tables.Column, ...]) -> tuple[str, ...]:
    """The columns of a source that are neither the table's nor added by readers."""
    ours = {*tables.names(columns), ROW, LINE, *FAULTS}
    return tuple(name for name in found if name not in ours and not name.startswith(TYPED))


def run_checks(
    raw: pl.LazyFrame, typed: dict[str, pl.Expr], checks: list[Check], table: Table, source: str
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The typed rows that pass (with `line` and `row`), the quarantine of the others, and how many rows there were."""
    if FAULT_RULE in raw.collect_schema():
        checks = [Check("unreadable", pl.col(FAULT_RULE).is_not_null(), pl.col(FAULT_REASON)), *checks]
    judged = raw.with_columns(expr.alias(TYPED + name) for name, expr in typed.items())
    judged = judged.with_columns(_verdict(checks).alias(VERDICT))
    columns = [pl.col(TYPED + name).alias(name) for name in typed]
    everything = collected(judged.select(*columns, LINE, ROW, VERDICT), source)
    if everything[VERDICT].null_count() == everything.height:
        return everything.drop(VERDICT), tables.empty(tables.QUARANTINE), everything.height
    refused = judged.filter(pl.col(VERDICT).is_not_null()).select(
        LINE, ROW, _rule_name(checks).alias(RULE), _reason(checks).alias(REASON), as_it_came(raw).alias("raw")
    )
    kept = everything.filter(pl.col(VERDICT).is_null()).drop(VERDICT)
    return kept, labelled(collected(refused, source).sort(ROW), table, source), everything.height


def require_columns(raw: pl.LazyFrame, wanted: list[str], source: str, otherwise: str = "") -> None:
    """Raises DataError that lists the columns found and says how to map them."""
    found = [name for name in raw.collect_schema().names() if name not in (LINE, ROW, *FAULTS)]
    missing = [name for name in wanted if name not in found]
    if not missing:
        return
    hint = ""
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
        hint = " The header looks like one in which another mark divides the columns: set `delimiter`."
    raise DataError(
        f"There is no column for {', '.join(missing)}.",
        where=source,
        next_step=f'Columns found: {", ".join(found) or "none"}. Map them: columns = {{{missing[0]} = "THEIR NAME"}}. '
        f"{otherwise}{hint}".strip(),
    )


def not_a_number(raw: pl.LazyFrame, name: str) -> Check:
    unreadable = cells.present(raw, name) & pl.col(TYPED + name).is_null()
    return Check("wrong_type", unreadable, pl.format(f"The {name} {{}} is not a number.", cells.shown(raw, name)))


def not_finite(name: str) -> Check:
    return Check("not_finite", ~pl.col(TYPED + name).is_finite(), pl.lit(f"The {name} is not a finite number."))


def too_large(raw: pl.LazyFrame, name: str) -> Check:
    beyond = pl.col(TYPED + name).abs() > MAX_NUMBER
    return Check("too_large", beyond, pl.format(f"The {name} {{}} is beyond {MAX_NUMBER:g}.", cells.shown(raw, name)))


def negative_price(raw: pl.LazyFrame) -> Check:
    return Check(
        "negative_price",
        pl.col(f"{TYPED}price") < 0,
        pl.format("The price {} is negative.", cells.shown(raw, "price")),
    )


def missing(name: str, when: pl.Expr | None = None) -> Check:
    absent = pl.col(TYPED + name).is_null()
    return Check("missing_id", absent if when is None else absent & when, pl.lit(f"There is no {name}."))


def impossible_time(raw: pl.LazyFrame, name: str, now_ms: int) -> Check:
    typed = pl.col(TYPED + name)
    return Check(
        "impossible_time",
        (typed < EARLIEST_MS) | (typed > now_ms + DAY_MS),
        pl.format(f"The {name} {{}} is before 1995 or more than a day ahead.", cells.shown(raw, name)),
    )


def unreadable_time(raw: pl.LazyFrame, name: str, form: str) -> Check:
    return Check(
        "wrong_type",
        cells.present(raw, name) & pl.col(TYPED + name).is_null(),
        pl.format(f"The {name} {{}} is not a time; the column is read as {form}.", cells.shown(raw, name)),
    )


def _typed_events(raw: pl.LazyFrame, config: SourceConfig, when: pl.Expr) -> dict[str, pl.Expr]:
    typed = {column.name: cells.text(raw, column.name) for column in tables.EVENTS if column.dtype == pl.String()}
    typed |= {name: cells.number(raw, name) for name in NUMBERS} | {"ts_ms": when}
    typed["event_type"] = _event_type(raw, config)
    session = pl.when(typed["event_type"] != EventType.LOGIN.value).then(pl.lit(SESSION_PREFIX) + typed["session_id"])
    typed["user_id"] = pl.coalesce(typed["user_id"], session)
    if config.price_is_total:
        typed["price"] = typed["price"] / pl.coalesce(pl.when(typed["quantity"] > 0).then(typed["quantity"]), 1.0)
    return {column.name: typed[column.name] for column in tables.EVENTS}


def _event_type(raw: pl.LazyFrame, config: SourceConfig) -> pl.Expr:
    """The mapped type, else our own name in any case; null where it is neither."""
    default = pl.lit(config.default_event_type.value if config.default_event_type else None, pl.String)
    if "event_type" not in raw.collect_schema():
        return default
    theirs = cells.text(raw, "event_type")
    mapped = {name: kind.value for name, kind in config.event_types.items()}
    own = {kind.value: kind.value for kind in EventType}
    lowered = theirs.str.strip_chars().str.to_lowercase()
    known = lowered.replace_strict(list(own), list(own), default=None, return_dtype=pl.String)
    if mapped:
        exact = theirs.replace_strict(list(mapped), list(mapped.values()), default=None, return_dtype=pl.String)
        known = pl.coalesce(exact, known)
    return pl.when(theirs.is_null()).then(default).otherwise(known)


def _event_checks(raw: pl.LazyFrame, now_ms: int, form: str) -> list[Check]:
    kind = pl.col(f"{TYPED}event_type")
    unknown = pl.format("The event type {} is not known; map it in `event_types`.", cells.shown(raw, "event_type"))
    return [
        missing("user_id"),
        Check("event_type", kind.is_null(), unknown),
        missing("item_id", when=~kind.is_in([EventType.SEARCH.value, EventType.LOGIN.value])),
        missing("session_id", when=kind == EventType.LOGIN.value),
        Check("reserved_user", _kept_for_sessions(kind), pl.lit("The user_id is kept for anonymous sessions.")),
        unreadable_time(raw, "ts_ms", form),
        Check("missing_time", pl.col(f"{TYPED}ts_ms").is_null(), pl.lit("There is no ts_ms.")),
        *(not_a_number(raw, name) for name in NUMBERS),
        impossible_time(raw, "ts_ms", now_ms),
        *(not_finite(name) for name in NUMBERS),
        *(too_large(raw, name) for name in NUMBERS),
        negative_price(raw),
        Check(
            "nonpositive_quantity",
            pl.col(f"{TYPED}quantity") <= 0,
            pl.format("The quantity {} is not above zero.", cells.shown(raw, "quantity")),
        ),
    ]


def _kept_for_sessions(kind: pl.Expr) -> pl.Expr:
    """Where a user id begins as those of sessions do, and the row is a login or names another session or none."""
    user, session = pl.col(f"{TYPED}user_id"), pl.col(f"{TYPED}session_id")
    is_own = (user == pl.lit(SESSION_PREFIX) + session).fill_null(False)
    return user.str.starts_with(SESSION_PREFIX) & (~is_own | (kind == EventType.LOGIN.value))


def _fill_events(frame: pl.DataFrame, config: SourceConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    fills: dict[str, int] = {}
    unnamed = pl.col("currency").is_null() & pl.col("price").is_not_null()
    if config.currency and (count := frame.select(unnamed.sum()).item()):
        fills["currency"] = count
        frame = frame.with_columns(currency=pl.when(unnamed).then(pl.lit(config.currency)).otherwise("currency"))
    if count := frame["event_id"].null_count():
        fills["event_id"] = count
        frame = frame.with_columns(event_id=pl.coalesce("event_id", _content_key(frame)))
    return frame, fills


def _content_key(frame: pl.DataFrame) -> pl.Expr:
    names = ["user_id", "item_id", "event_type", "ts_ms", "session_id", "quantity", "price"]
    further = ["value", "query", "placement", "recommendation_id"]
    present = [name for name in further if frame[name].null_count() < frame.height]
    parts = [
        pl.col(name).str.replace_all("|", "%7C", literal=True)
        if frame.schema[name] == pl.String
        else pl.col(name).cast(pl.String)
        for name in [*names, *present]
    ]
    key = pl.concat_str([part.fill_null("") for part in parts], separator="|")
    return key.str.strip_chars_end("|") if present else key


def _verdict(checks: list[Check]) -> pl.Expr:
    """UInt8: the position of the first check that refuses the row; null where none does."""
    verdict = pl.lit(None, pl.UInt8)
    for at, check in reversed(list(enumerate(checks))):
        verdict = pl.when(check.refuses).then(pl.lit(at, pl.UInt8)).otherwise(verdict)
    return verdict


def _rule_name(checks: list[Check]) -> pl.Expr:
    at = list(range(len(checks)))
    name = pl.col(VERDICT).replace_strict(at, [check.name for check in checks], return_dtype=pl.String)
    if checks[0].name == "unreadable":
        name = pl.coalesce(FAULT_RULE, name)
    return name


def _reason(checks: list[Check]) -> pl.Expr:
    reason = pl.lit(None, pl.String)
    for at, check in enumerate(checks):
        reason = pl.when(pl.col(VERDICT) == at).then(check.reason).otherwise(reason)
    return reason
