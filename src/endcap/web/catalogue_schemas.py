"""Items and users as they go over the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.app.gorse_words import LAST_MS
from endcap.core.types import MAX_NUMBER, Availability
from endcap.web.openapi import SCHEMAS

Id = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[str, Field(max_length=256)]
Url = Annotated[str, Field(max_length=4096)]
Value = str | bool | int | float | list[str | int | float | bool] | None
EXAMPLE: dict[str, Any] = {
    "title": "Oat Milk",
    "description": "One litre, unsweetened.",
    "price": 1.99,
    "currency": "USD",
    "categories": ["Grocery", "Dairy", "Plant milk"],
    "brand": "Northfield",
    "attributes": {"size": "1 l"},
    "availability": "in_stock",
}


class ItemFields(BaseModel):
    """What is said of an item. A field that is left out has its default, or, in a change, stays as it is."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra={"examples": [EXAMPLE]}
    )
    title: str | None = Field(None, max_length=1000, description="What a shopper reads.")
    description: str | None = Field(None, max_length=20_000, description="Longer text.")
    price: float | None = Field(None, ge=0, le=MAX_NUMBER, description="List price, in `currency`.")
    currency: str | None = Field(None, max_length=8, description="ISO 4217.")
    categories: list[Label] | None = Field(None, max_length=32, description="A path from broad to narrow.")
    brand: Label | None = Field(None, description="Maker or label.")
    attributes: dict[Label, Value] | None = Field(None, max_length=200, description="Further names and values.")
    images: list[Url] | None = Field(None, max_length=32, description="Paths or URLs.")
    audio: list[Url] | None = Field(None, max_length=32, description="Paths or URLs.")
    availability: Availability | None = Field(
        None, description="Missing: in_stock. Shown are neither out_of_stock nor hidden."
    )
    created_ms: int | None = Field(None, ge=0, le=LAST_MS, description="When it was listed, UTC milliseconds.")


class ItemIn(ItemFields):
    """One thing the shop sells."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": "1082185", **EXAMPLE}]})
    item_id: Id


class ItemsIn(BaseModel):
    """A batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    items: list[ItemIn] = Field(min_length=1, max_length=1000)


class ItemAnswer(BaseModel):
    """An item as the catalogue has it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": "1082185", **EXAMPLE}]})
    item_id: str
    title: str
    description: str
    price: float | None
    currency: str | None
    categories: list[str]
    brand: str | None
    attributes: dict[str, str]
    images: list[str]
    audio: list[str]
    availability: Availability
    created_ms: int | None


class RejectedItem(BaseModel):
    """An item that was not kept."""

    position: int = Field(description="Place in the batch, from 0.")
    reason: str


class ItemsAnswer(BaseModel):
    """accepted: item ids. They are on disk, and the next answer knows of them."""

    accepted: list[str]
    rejected: list[RejectedItem]


class DeletedAnswer(BaseModel):
    deleted: bool = Field(description="False where it was not there.")


class UserIn(BaseModel):
    """What the shop says of a shopper."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"attributes": {"household_size": "2"}}]},
    )
    attributes: dict[Label, Value] = Field(
        {}, max_length=200, description="Names and values; they replace those there are."
    )


class UserPutAnswer(BaseModel):
    user_id: str
    attributes: dict[str, str]


def with_items(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the schemas of a batch, which the route reads by itself."""
    schemas = document["components"]["schemas"]
    for model in (ItemIn, ItemsIn):
        schema = model.model_json_schema(ref_template=f"{SCHEMAS}{{model}}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return document
