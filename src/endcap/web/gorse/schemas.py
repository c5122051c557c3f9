"""What goes over the wire in Gorse's names. Fields that are not known are passed over, as Gorse does."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from endcap.web.catalogue_schemas import Id


class _Gorse(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, frozen=True, allow_inf_nan=False)


Time = Annotated[str, Field(max_length=64)]
Comment = Annotated[str, Field(max_length=1000)]


class GorseFeedback(_Gorse):
    """An act of a user on an item."""

    feedback_type: Annotated[str, Field(min_length=1, max_length=100)]
    user_id: Id
    item_id: Id
    timestamp: Time = Field("", description="ISO 8601. Empty: now.")
    value: float = Field(0.0, description="Strength of a rating; 0 is none.")
    comment: str = Field("", max_length=10_000, description="Not kept.")


class GorseSessionAct(GorseFeedback):
    """An act of a visit, which nobody need have a name for."""

    user_id: Annotated[str, Field(max_length=256)] = ""


class GorseFeedbackOut(_Gorse):
    feedback_type: str
    user_id: str
    item_id: str
    timestamp: str
    value: float
    comment: str = Field("", description="Always empty: it is not kept.")


class GorseItemIn(_Gorse):
    """An item. Comment is its title."""

    item_id: Id
    is_hidden: bool = False
    categories: list[Id] | None = Field(None, max_length=32)
    timestamp: Time = Field("", description="When it was listed, ISO 8601.")
    labels: Any = Field(None, description="Any JSON.")
    comment: Comment = ""


class GorseItemPatch(_Gorse):
    """What is null or left out stays as it is."""

    is_hidden: bool | None = None
    categories: list[Id] | None = Field(None, max_length=32)
    timestamp: Time | None = None
    labels: Any = None
    comment: Comment | None = None


class GorseItemOut(_Gorse):
    item_id: str
    is_hidden: bool
    categories: list[str]
    timestamp: str
    labels: Any
    comment: str


class GorseUser(_Gorse):
    """A user. Labels may be any JSON."""

    user_id: Id
    labels: Any = None
    comment: Comment = ""


class GorseUserPatch(_Gorse):
    """What is null or left out stays as it is."""

    labels: Any = None
    comment: Comment | None = None


class GorseUserOut(_Gorse):
    user_id: str
    labels: Any
    comment: str


class RowAffected(_Gorse):
    row_affected: int = Field(description="How many were given and are kept.")


class Score(_Gorse):
    id: str
    score: float


class ItemIterator(_Gorse):
    cursor: str = Field(description="For the next page; empty at the end.")
    items: list[GorseItemOut]


class UserIterator(_Gorse):
    cursor: str = Field(description="For the next page; empty at the end.")
    users: list[GorseUserOut]


class FeedbackIterator(_Gorse):
    cursor: str = Field(description="For the next page; empty at the end.")
    feedback: list[GorseFeedbackOut]


class HealthStatus(_Gorse):
    """Gorse's two stores are one here."""

    ready: bool
    data_store_error: str | None
    cache_store_error: str | None
    data_store_connected: bool
    cache_store_connected: bool
