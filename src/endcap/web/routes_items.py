"""The catalogue, changed while the shop is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from endcap.app import catalogue
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError
from endcap.core.types import Item
from endcap.web.catalogue_schemas import DeletedAnswer, ItemAnswer, ItemFields, ItemIn, ItemsAnswer
from endcap.web.deps import ShopDep, json_declared, no_parameters
from endcap.web.problems import JSON_NEXT_STEP, error_responses, problem_response, sentence

router = APIRouter(tags=["catalogue"], responses=error_responses(422, 503), dependencies=[Depends(no_parameters)])
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ItemsIn"},
                "example": {"items": [{"item_id": "1082185", "title": "Bananas", "price": 0.99, "currency": "USD"}]},
            }
        },
    }
}
WRITES = error_responses(408, 413, 415)


@router.put(
    "/v1/items",
    summary="Put items",
    response_model=ItemsAnswer,
    responses=WRITES,
    openapi_extra=BODY,
    dependencies=[Depends(json_declared)],
)
async def put_items(request: Request, shop: ShopDep) -> JSONResponse:
    """Insert or replace up to 1,000 items as `{"items": [...]}`.

    Each is judged on its own: good ones are kept, bad ones come back in `rejected` with the reason. When the answer
    arrives the accepted items are on disk, and the next answer knows their price, stock and visibility. What is left
    out of an item gets its default; to change some fields only, PATCH the item. Where every item is bad the status is
    422.
    """
    return await run_in_threadpool(_put, shop, await request.body(), request.state.owe)


@router.put("/v1/items/{item_id:path}", summary="Put an item", responses=WRITES, dependencies=[Depends(json_declared)])
async def put_item(shop: ShopDep, item_id: str, fields: ItemFields) -> ItemAnswer:
    """Insert or replace one item. What is left out gets its default."""
    return await run_in_threadpool(_put_one, shop, item_id, fields.model_dump(mode="json", exclude_unset=True))


@router.patch(
    "/v1/items/{item_id:path}",
    summary="Change an item",
    responses=WRITES | error_responses(404),
    dependencies=[Depends(json_declared)],
)
async def patch_item(shop: ShopDep, item_id: str, fields: ItemFields) -> ItemAnswer:
    """Change only what is given, for example `{"price": 1.99}` or `{"availability": "hidden"}`; null empties a field.
    The next answer knows. 404 for an item that the catalogue does not have."""
    return await run_in_threadpool(_patch, shop, item_id, fields.model_dump(mode="json", exclude_unset=True))


@router.get("/v1/items/{item_id:path}", summary="An item", responses=error_responses(404))
async def get_item(shop: ShopDep, item_id: str) -> ItemAnswer:
    """An item as the catalogue has it now. 404 where there is none of the id."""
    return item_answer(await run_in_threadpool(catalogue.item, shop.store, item_id))


@router.delete("/v1/items/{item_id:path}", summary="Delete an item")
async def delete_item(shop: ShopDep, item_id: str) -> DeletedAnswer:
    """Take an item out of the catalogue: no answer shows it again, unless it is put there anew. Its events stay."""
    return DeletedAnswer(deleted=await run_in_threadpool(shop.delete_item, item_id))


def item_answer(item: Item) -> ItemAnswer:
    return ItemAnswer.model_validate(msgspec.structs.asdict(item), from_attributes=True)


def _put_one(shop: Shop, item_id: str, fields: dict[str, Any]) -> ItemAnswer:
    return item_answer(catalogue.put_item(shop.store, shop.config.items, item_id, fields))


def _patch(shop: Shop, item_id: str, fields: dict[str, Any]) -> ItemAnswer:
    return item_answer(shop.patch_item(item_id, **fields))


def _put(shop: Shop, body: bytes, owe: Callable[[int], None]) -> JSONResponse:
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    rejected: dict[int, str] = {}
    batch = _batch(body)
    owe(len(batch))
    for position, given in enumerate(batch):
        try:
            rows.append(ItemIn.model_validate(given).model_dump(mode="json", exclude_unset=True))
            places.append(position)
        except ValidationError as error:
            rejected[position] = sentence(error.errors())
    put = shop.put_items(*rows)
    rejected |= {places[refused.position]: refused.reason for refused in put.refused}
    reasons = [{"position": position, "reason": rejected[position]} for position in sorted(rejected)]
    if not put.accepted:
        first = reasons[0]
        what = f"None of the items can be kept. The first: {first['reason']}"
        return problem_response(422, what, f"items[{first['position']}]", "Mend them and send again.", rejected=reasons)
    return JSONResponse({"accepted": list(put.accepted), "rejected": reasons})


def _batch(body: bytes) -> list[Any]:
    try:
        given = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CallerError(f"The body is not JSON: {error}.", where="body", next_step=JSON_NEXT_STEP) from error
    batch = given.get("items") if isinstance(given, dict) and len(given) == 1 else None
    if not isinstance(batch, list) or not batch:
        raise CallerError(
            "A batch holds `items`, a list of at least one item, and nothing else.",
            where="items",
            next_step='Send {"items": [...]}.',
        )
    if len(batch) > catalogue.MAX_BATCH:
        raise CallerError(
            f"A batch of {len(batch)} items is too large.",
            where="items",
            next_step=f"Send at most {catalogue.MAX_BATCH}.",
        )
    return batch
