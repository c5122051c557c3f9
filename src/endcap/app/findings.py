"""What an examination says: one sentence a finding, and what to do now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from endcap.core.errors import EndcapError

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """check: a short name, the same each time. said: one sentence. next_step: empty where all is well."""

    check: str
    level: Level
    said: str
    next_step: str = ""


def ok(check: str, said: str) -> Finding:
    return Finding(check, "ok", said)


def warning(check: str, said: str, next_step: str) -> Finding:
    return Finding(check, "warning", said, next_step)


def problem(check: str, said: str, next_step: str) -> Finding:
    return Finding(check, "problem", said, next_step)


def found(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one check. What it raises is a finding as well: an examination goes on to its end."""
    try:
        yield from list(look())
    except EndcapError as error:
        where = f"{error.where}: " if error.where else ""
        yield problem(check, f"{where}{error.what}", error.next_step or "Mend it, then ask again.")
    except Exception as error:  # whatever is broken, the other checks have something to say
        yield problem(check, f"It cannot be looked at: {type(error).__name__}: {error}", "Mend it, then ask again.")
