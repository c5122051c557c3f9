"""The settings of a tuning: from a TOML file, with single ones set beside it; and back into TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from endcap.app.config import described
from endcap.core.errors import CallerError
from endcap.models.finetune.config import FinetuneConfig

__all__ = ["FinetuneConfig", "as_toml", "checked", "reference", "settings_of"]

NEXT = "All keys are in docs/reference/finetuning.md."


def settings_of(path: Path | None, changes: Sequence[str] = ()) -> FinetuneConfig:
    """changes: "section.key=value" each, the value as in TOML, or a bare word. CallerError names what is wrong."""
    try:
        read: dict[str, Any] = {} if path is None else tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CallerError(f"The settings cannot be read: {error}.", where=str(path)) from error
    return checked(read, dict(_change(change) for change in changes), where=str(path or "--set"))


def checked(settings: Mapping[str, Any], changes: Mapping[str, Any], *, where: str) -> FinetuneConfig:
    """settings: nested, as from TOML. changes: by dotted key."""
    whole: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        if not section:
            whole[key] = value
        elif isinstance(whole.setdefault(section, {}), dict):
            whole[section][name] = value
    try:
        return FinetuneConfig.model_validate(whole)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CallerError(f"{wrong}.", where=where, next_step=NEXT) from error


def reference() -> str:
    """Every section and key of `finetune.toml` with its default and meaning, as Markdown."""
    head = ["# Settings of `endcap finetune`", "", "Every key of `finetune.toml`. An empty file equals these defaults."]
    return described(FinetuneConfig, head)


def as_toml(config: FinetuneConfig) -> str:
    """Every setting, so that the file says all of a run."""
    values = config.model_dump(mode="json", exclude_none=True)
    top = [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    sections = []
    for name, section in values.items():
        if isinstance(section, dict):
            sections += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in section.items())]
    return "\n".join([*top, *sections, ""])


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise CallerError(f"{text!r} sets nothing.", where="--set", next_step="Write section.key=value.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()
