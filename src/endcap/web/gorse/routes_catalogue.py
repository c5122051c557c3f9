"""Items and users in Gorse's words."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from endcap.app import catalogue
from endcap.app.gorse import Gorse
from endcap.app.gorse_words import COMMENT, GorseItem, gorse_item, labels_of, ms_of, time_of
from endcap.core.types import Item
from endcap.web.deps import json_declared
from endcap.web.gorse.asking import Cursor, GorseDep, PageN, cursor_of, gorse_router, place_of
from endcap.web.gorse.schemas import (
    GorseItemIn,
    GorseItemOut,
    GorseItemPatch,
    GorseUser,
    GorseUserOut,
    GorseUserPatch,
    ItemIterator,
    RowAffected,
    UserIterator,
)
from endcap.web.problems import error_responses

router = gorse_router()
SENT = error_responses(408, 413, 415)
MISSING = error_responses(404)
WRITES = [Depends(json_declared)]


@router.post("/item", summary="Insert an item", responses=SENT, dependencies=WRITES)
async def insert_item(gorse: GorseDep, item: GorseItemIn) -> RowAffected:
    """Insert or replace an item. What Gorse has no word for, such as a price, stays as it is."""
    return RowAffected(row_affected=await run_in_threadpool(gorse.put_items, _heard([item])))


@router.post("/items", summary="Insert items", responses=SENT, dependencies=WRITES)
async def insert_items(request: Request, gorse: GorseDep, items: list[GorseItemIn]) -> RowAffected:
    """As for one item, of up to 1,000."""
    request.state.owe(len(items))
    return RowAffected(row_affected=await run_in_threadpool(gorse.put_items, _heard(items)))


@router.get("/items", summary="List items")
async def list_items(gorse: GorseDep, n: PageN = 10, cursor: Cursor = "") -> ItemIterator:
    """The catalogue in the order in which it came, a page at a time."""
    place, found = await run_in_threadpool(gorse.items, place_of(cursor), n)
    return ItemIterator(cursor=cursor_of(place), items=[_item(item) for item in found])


@router.get("/item/{item_id}", summary="An item", responses=MISSING)
async def get_item(gorse: GorseDep, item_id: str) -> GorseItemOut:
    """404 where there is none of the id."""
    return _item(await run_in_threadpool(catalogue.item, gorse.shop.store, item_id))


@router.patch("/item/{item_id}", summary="Change an item", responses=SENT | MISSING, dependencies=WRITES)
async def patch_item(gorse: GorseDep, item_id: str, patch: GorseItemPatch) -> RowAffected:
    """Change what is given and not null. The next answer knows; an item that is shown again is so at once too."""
    said = GorseItem(
        item_id,
        patch.is_hidden,
        None if patch.categories is None else tuple(patch.categories),
        None if patch.timestamp is None else ms_of(patch.timestamp, "Timestamp"),
        patch.labels,
        patch.comment,
    )
    await run_in_threadpool(gorse.patch_item, said)
    return RowAffected(row_affected=1)


@router.delete("/item/{item_id}", summary="Delete an item")
async def delete_item(gorse: GorseDep, item_id: str) -> RowAffected:
    """It is never shown again, until it is inserted anew. What was done with it stays in the log."""
    await run_in_threadpool(gorse.shop.delete_item, item_id)
    return RowAffected(row_affected=1)


@router.put("/item/{item_id}/category/{category}", summary="Add a category to an item", responses=MISSING)
async def add_category(gorse: GorseDep, item_id: str, category: str) -> RowAffected:
    """At the end of its categories."""
    return await run_in_threadpool(_categorise, gorse, item_id, category, is_wanted=True)


@router.delete("/item/{item_id}/category/{category}", summary="Take a category from an item", responses=MISSING)
async def drop_category(gorse: GorseDep, item_id: str, category: str) -> RowAffected:
    """Where the item has it."""
    return await run_in_threadpool(_categorise, gorse, item_id, category, is_wanted=False)


@router.post("/user", summary="Insert a user", responses=SENT, dependencies=WRITES)
async def insert_user(request: Request, gorse: GorseDep, user: GorseUser) -> RowAffected:
    """Insert or replace a user."""
    return await insert_users(request, gorse, [user])


@router.post("/users", summary="Insert users", responses=SENT, dependencies=WRITES)
async def insert_users(request: Request, gorse: GorseDep, users: list[GorseUser]) -> RowAffected:
    """As for one user, of up to 1,000."""
    request.state.owe(len(users))
    rows = [(user.user_id, user.labels, user.comment) for user in users]
    return RowAffected(row_affected=await run_in_threadpool(gorse.put_users, rows))


@router.get("/users", summary="List users")
async def list_users(gorse: GorseDep, n: PageN = 10, cursor: Cursor = "") -> UserIterator:
    """Those that were inserted, in the order in which they came, a page at a time."""
    place, found = await run_in_threadpool(gorse.users, place_of(cursor), n)
    return UserIterator(cursor=cursor_of(place), users=[_user(*user) for user in found])


@router.get("/user/{user_id}", summary="A user", responses=MISSING)
async def get_user(gorse: GorseDep, user_id: str) -> GorseUserOut:
    """404 for someone who was neither inserted nor named in feedback."""
    return _user(user_id, await run_in_threadpool(gorse.user, user_id))


@router.patch("/user/{user_id}", summary="Change a user", responses=SENT | MISSING, dependencies=WRITES)
async def patch_user(gorse: GorseDep, user_id: str, patch: GorseUserPatch) -> RowAffected:
    """Change what is given and not null."""
    return await run_in_threadpool(_patch_user, gorse, user_id, patch)


def _patch_user(gorse: Gorse, user_id: str, patch: GorseUserPatch) -> RowAffected:
    known = gorse.user(user_id)
    labels = labels_of(known) if patch.labels is None else patch.labels
    comment = known.get(COMMENT, "") if patch.comment is None else patch.comment
    return RowAffected(row_affected=gorse.put_users([(user_id, labels, comment)]))


def _categorise(gorse: Gorse, item_id: str, category: str, *, is_wanted: bool) -> RowAffected:
    there = catalogue.item(gorse.shop.store, item_id).categories
    others = tuple(name for name in there if name != category)
    if is_wanted != (category in there):
        gorse.patch_item(GorseItem(item_id, categories=(*others, category) if is_wanted else others))
    return RowAffected(row_affected=1)


def _heard(items: list[GorseItemIn]) -> list[GorseItem]:
    return [
        GorseItem(
            item.item_id,
            item.is_hidden,
            tuple(item.categories or ()),
            ms_of(item.timestamp, f"[{place}].Timestamp"),
            item.labels,
            item.comment,
        )
        for place, item in enumerate(items)
    ]


def _item(item: Item) -> GorseItemOut:
    said = gorse_item(item)
    return GorseItemOut(
        item_id=said.item_id,
        is_hidden=bool(said.is_hidden),
        categories=list(said.categories or ()),
        timestamp=time_of(said.ts_ms),
        labels=said.labels,
        comment=said.comment or "",
    )


def _user(user_id: str, attributes: Mapping[str, str]) -> GorseUserOut:
    return GorseUserOut(user_id=user_id, labels=labels_of(attributes), comment=attributes.get(COMMENT, ""))
