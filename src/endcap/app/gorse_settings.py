"""How what a shop told Gorse is understood."""

from __future__ import annotations

from pydantic import Field, field_validator

from endcap.core.section import Section
from endcap.core.types import EventType

FEEDBACK = {
    "read": EventType.IMPRESSION,
    "view": EventType.VIEW,
    "click": EventType.CLICK,
    "like": EventType.RATING,
    "star": EventType.RATING,
    "favorite": EventType.RATING,
    "rating": EventType.RATING,
    "share": EventType.SHARE,
    "cart": EventType.ADD_TO_CART,
    "purchase": EventType.PURCHASE,
    "buy": EventType.PURCHASE,
}


class GorseConfig(Section):
    feedback_types: dict[str, EventType] = Field(
        FEEDBACK,
        description="Gorse feedback type -> our event type; those given here replace all of them. Others are refused.",
    )
    hide_read: bool = Field(
        True,
        description="Items that a user gave any feedback on are not recommended to them again; false: they may be.",
    )

    @field_validator("feedback_types")
    @classmethod
    def _plain(cls, types: dict[str, EventType]) -> dict[str, EventType]:
        if wrong := [name for name in types if not name or ":" in name]:
            raise ValueError(f"{wrong[0]!r} is no feedback type: it is empty or holds a colon")
        return types
