"""Feedback in Gorse's words: recorded as events, and listed again."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from endcap.app.gorse_words import Feedback, ms_of, time_of
from endcap.core.errors import NotFoundError
from endcap.web.deps import json_declared
from endcap.web.gorse.asking import Cursor, GorseDep, PageN, cursor_of, gorse_router, place_of
from endcap.web.gorse.schemas import FeedbackIterator, GorseFeedback, GorseFeedbackOut, RowAffected
from endcap.web.problems import error_responses

router = gorse_router()
SENT = error_responses(408, 413, 415)


@router.post("/feedback", summary="Insert feedback", responses=SENT, dependencies=[Depends(json_declared)])
async def insert(request: Request, gorse: GorseDep, feedback: list[GorseFeedback]) -> RowAffected:
    """All or none. Sending the same act with the same Timestamp again changes nothing; at another time it is another
    act. The next answer knows of it."""
    return await _insert(request, gorse, feedback)


@router.put("/feedback", summary="Put feedback", responses=SENT, dependencies=[Depends(json_declared)])
async def put(request: Request, gorse: GorseDep, feedback: list[GorseFeedback]) -> RowAffected:
    """As POST: the log is added to, never overwritten."""
    return await _insert(request, gorse, feedback)


@router.get("/feedback", summary="List feedback")
async def listed(gorse: GorseDep, n: PageN = 10, cursor: Cursor = "") -> FeedbackIterator:
    """The whole log, oldest first, a page at a time."""
    return await _page(gorse, cursor, n, None)


@router.get("/feedback/{feedback_type}", summary="List feedback of a type")
async def listed_of_type(gorse: GorseDep, feedback_type: str, n: PageN = 10, cursor: Cursor = "") -> FeedbackIterator:
    """The log's acts of one type, oldest first, a page at a time."""
    return await _page(gorse, cursor, n, feedback_type)


@router.get("/feedback/{user_id}/{item_id}", summary="Feedback of a user on an item")
async def of_pair(gorse: GorseDep, user_id: str, item_id: str) -> list[GorseFeedbackOut]:
    """The newest act of each type."""
    return told(await run_in_threadpool(gorse.feedback_of_user, user_id, item_id))


@router.get(
    "/feedback/{feedback_type}/{user_id}/{item_id}",
    summary="Feedback of a type, of a user on an item",
    responses=error_responses(404),
)
async def of_key(gorse: GorseDep, feedback_type: str, user_id: str, item_id: str) -> GorseFeedbackOut:
    """The newest such act. 404 where there is none."""
    for entry in await run_in_threadpool(gorse.feedback_of_user, user_id, item_id):
        if entry.feedback_type == feedback_type:
            return told([entry])[0]
    raise NotFoundError("There is no such feedback.", where="feedback", next_step="Insert it first.")


@router.get("/user/{user_id}/feedback", summary="Feedback of a user")
async def of_user(gorse: GorseDep, user_id: str) -> list[GorseFeedbackOut]:
    """The newest act of each type on each item, oldest first."""
    return told(await run_in_threadpool(gorse.feedback_of_user, user_id))


@router.get("/user/{user_id}/feedback/{feedback_type}", summary="Feedback of a type, of a user")
async def of_user_and_type(gorse: GorseDep, user_id: str, feedback_type: str) -> list[GorseFeedbackOut]:
    """The newest act on each item, oldest first."""
    found = await run_in_threadpool(gorse.feedback_of_user, user_id)
    return told(entry for entry in found if entry.feedback_type == feedback_type)


@router.get("/item/{item_id}/feedback/", include_in_schema=False)
@router.get("/item/{item_id}/feedback", summary="Feedback on an item")
async def of_item(gorse: GorseDep, item_id: str) -> list[GorseFeedbackOut]:
    """The newest act of each type of each user, oldest first. Reads the whole log: for looking into things only."""
    return told(await run_in_threadpool(gorse.feedback_of_item, item_id))


@router.get("/item/{item_id}/feedback/{feedback_type}", summary="Feedback of a type, on an item")
async def of_item_and_type(gorse: GorseDep, item_id: str, feedback_type: str) -> list[GorseFeedbackOut]:
    """The newest act of each user, oldest first. Reads the whole log: for looking into things only."""
    found = await run_in_threadpool(gorse.feedback_of_item, item_id)
    return told(entry for entry in found if entry.feedback_type == feedback_type)


def heard(feedback: Iterable[GorseFeedback]) -> list[Feedback]:
    return [
        Feedback(
            entry.feedback_type,
            entry.user_id,
            entry.item_id,
            ms_of(entry.timestamp, f"[{place}].Timestamp"),
            entry.value,
        )
        for place, entry in enumerate(feedback)
    ]


def told(feedback: Iterable[Feedback]) -> list[GorseFeedbackOut]:
    return [
        GorseFeedbackOut(
            feedback_type=entry.feedback_type,
            user_id=entry.user_id,
            item_id=entry.item_id,
            timestamp=time_of(entry.ts_ms),
            value=entry.value,
        )
        for entry in feedback
    ]


async def _insert(request: Request, gorse: GorseDep, feedback: list[GorseFeedback]) -> RowAffected:
    request.state.owe(len(feedback))
    return RowAffected(row_affected=await run_in_threadpool(gorse.insert, heard(feedback)))


async def _page(gorse: GorseDep, cursor: str, n: int, feedback_type: str | None) -> FeedbackIterator:
    place, found = await run_in_threadpool(gorse.feedback, place_of(cursor), n, feedback_type)
    return FeedbackIterator(cursor=cursor_of(place), feedback=told(found))
