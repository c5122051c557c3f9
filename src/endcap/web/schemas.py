"""What goes over the wire on routes that are asked now and then; for the others see `messages`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _wire(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": list(examples)} if examples else None,
    )


class UserAnswer(BaseModel):
    """What is known of a shopper."""

    model_config = _wire(
        {
            "user_id": "42",
            "attributes": {"household_size": "2"},
            "events": 512,
            "baskets": 61,
            "cart": [],
            "favourites": ["1082185"],
            "last_seen_ms": 1514700000000,
        }
    )
    user_id: str
    attributes: dict[str, str]
    events: int = Field(description="Events that are kept of them.")
    baskets: int = Field(description="Orders among them.")
    cart: list[str] = Field(description="Item ids in the cart now.")
    favourites: list[str] = Field(description="Item ids bought in the most orders, at most ten.")
    last_seen_ms: int | None


class LiveAnswer(BaseModel):
    status: str = Field(examples=["ok"])
    version: str


class ReadyAnswer(BaseModel):
    """Whether a release is loaded and answers, and what it answers without."""

    ready: bool
    release: str | None = Field(None, description="The release that answers.")
    items: int | None = None
    users: int | None = Field(None, description="Shoppers in the release.")
    last_seq: int | None = Field(None, description="Number of the newest event in the log.")
    problem: str = Field(description="Why it is not ready, or what is wrong.")
    degraded: list[str] | None = Field(
        None, description="What answers do without now: release, event_log, online_state."
    )
