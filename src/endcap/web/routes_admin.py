"""Which release answers. Needs a key with the scope admin; every change is in the audit log."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from endcap.app.runtime import Shop
from endcap.web.deps import ShopDep, json_declared, no_parameters
from endcap.web.problems import error_responses

router = APIRouter(
    prefix="/v1/admin", tags=["admin"], responses=error_responses(404, 422, 503), dependencies=[Depends(no_parameters)]
)


class PublishIn(BaseModel):
    """Which release is to answer."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"release": "20260101T120000-3fa9c1"}]})
    release: str | None = Field(None, min_length=1, max_length=60, description="A release; the newest where missing.")


class PublishedAnswer(BaseModel):
    """The release that answers from now on."""

    release: str


class ReleaseEntry(BaseModel):
    """A release and what it was made of."""

    release: str
    created_ms: int = Field(description="UTC milliseconds.")
    published: bool = Field(description="Whether it is the one that answers.")
    data: dict[str, Any] = Field(description="Counts and fingerprint of what it was trained on.")
    metrics: dict[str, float] = Field(description="What training measured.")


class ReleasesAnswer(BaseModel):
    """Every release, oldest first."""

    releases: list[ReleaseEntry]


@router.get("/releases", summary="List the releases")
async def releases(shop: ShopDep) -> ReleasesAnswer:
    """Oldest first, with what training measured and which of them answers."""
    return await run_in_threadpool(_releases, shop)


@router.post(
    "/publish", summary="Publish a release", responses=error_responses(415), dependencies=[Depends(json_declared)]
)
async def publish(shop: ShopDep, asked: PublishIn) -> PublishedAnswer:
    """Make a release the one that answers, from the next request on. 404 for one that is not there."""
    return PublishedAnswer(release=await run_in_threadpool(shop.publish, asked.release))


@router.post(
    "/rollback",
    summary="Go back to the release before",
    responses=error_responses(415),
    dependencies=[Depends(json_declared)],
)
async def rollback(shop: ShopDep) -> PublishedAnswer:
    """The release that was published before answers from the next request on. The body is `{}`. 404 where there is
    none."""
    return PublishedAnswer(release=await run_in_threadpool(shop.rollback))


def _releases(shop: Shop) -> ReleasesAnswer:
    current = shop.releases.current()
    entries = [
        ReleaseEntry(
            release=manifest.release_id,
            created_ms=manifest.created_ms,
            published=manifest.release_id == current,
            data=manifest.data,
            metrics=manifest.metrics,
        )
        for manifest in shop.releases.list()
    ]
    return ReleasesAnswer(releases=entries)
