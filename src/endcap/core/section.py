"""The base of every config section: frozen, unknown keys refused, defaults complete."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of `endcap.toml`. An empty file equals the defaults; a misspelt key is an error, not a silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")
