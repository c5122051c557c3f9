"""What a team would write in a day: FastAPI over implicit's ALS, titles from a dict, events into SQLite.

    python -m benchmarks.peers.als_service fit FOLDER        pairs.npy, user_ids.txt, ... -> factors
    python -m benchmarks.peers.als_service serve FOLDER PORT

One factor model, nothing live but that what was acted on just now is filtered out: no other candidates, no rules, no
reasons. It is tuned as such a service would be: one thread in BLAS (requests run side by side, and a small product
gains nothing), uvloop and httptools, handlers on the loop, answers written by pydantic itself. SQLite is as it comes,
which is durable: each event is on disk before it is acknowledged.

    pairs.npy      int32 [n, 2], user and item of every act
    user_ids.txt   item_ids.txt   titles.txt    a line each, in the order of the numbers
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import uvicorn
from fastapi import FastAPI
from implicit.cpu.als import AlternatingLeastSquares
from pydantic import BaseModel
from scipy import sparse
from threadpoolctl import threadpool_limits

FACTORS, REGULARISATION, ALPHA, ITERATIONS = 64, 0.05, 10.0, 10
COLUMNS = ("event_id", "event_type", "user_id", "item_id", "session_id", "ts_ms")


class Item(BaseModel):
    item_id: str
    score: float
    title: str


class Slate(BaseModel):
    items: list[Item]


class Event(BaseModel):
    event_type: str
    user_id: str
    item_id: str
    event_id: str | None = None
    session_id: str | None = None
    ts_ms: int | None = None


class Accepted(BaseModel):
    accepted: list[str]


def fit(folder: Path) -> None:
    started = time.monotonic()
    acts = _acts(folder)
    model = AlternatingLeastSquares(
        factors=FACTORS, regularization=REGULARISATION, alpha=ALPHA, iterations=ITERATIONS, random_state=0
    )
    model.fit(acts, show_progress=False)
    np.save(folder / "user_factors.npy", model.user_factors)
    np.save(folder / "item_factors.npy", model.item_factors)
    print(f"fitted in {time.monotonic() - started:.1f} s")


def create_app(folder: Path) -> FastAPI:
    model: Any = AlternatingLeastSquares(factors=FACTORS)
    model.user_factors, model.item_factors = (np.load(folder / f"{of}_factors.npy") for of in ("user", "item"))
    acts = _acts(folder)
    user_ids, item_ids, titles = (_lines(folder / f"{name}.txt") for name in ("user_ids", "item_ids", "titles"))
    user_of = {user_id: place for place, user_id in enumerate(user_ids)}
    item_of = {item_id: place for place, item_id in enumerate(item_ids)}
    title_of = dict(zip(item_ids, titles, strict=True))
    best = np.argsort(-np.bincount(acts.indices, minlength=len(item_ids)), kind="stable")[:1000]
    lately: dict[str, list[int]] = defaultdict(list)
    database = sqlite3.connect(folder / "events.sqlite", check_same_thread=False)
    database.execute(f"CREATE TABLE IF NOT EXISTS events ({', '.join(COLUMNS)}, UNIQUE (event_id))")
    insert = f"INSERT OR IGNORE INTO events VALUES ({', '.join('?' * len(COLUMNS))})"
    app = FastAPI()

    @app.get("/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v1/recommendations")
    async def recommend(user_id: str | None = None, n: int = 10) -> Slate:
        user = user_of.get(user_id or "")
        if user is None:
            chosen, scores = best[:n], np.zeros(n, np.float32)
        else:
            chosen, scores = model.recommend(
                user, acts[user], N=n, filter_already_liked_items=True, filter_items=lately.get(user_id or "")
            )
        names = [item_ids[place] for place in chosen.tolist()]
        return Slate(
            items=[
                Item(item_id=name, score=score, title=title_of[name])
                for name, score in zip(names, scores.tolist(), strict=True)
            ]
        )

    @app.post("/v1/events")
    async def record(event: Event) -> Accepted:
        event_id = event.event_id or uuid4().hex
        ts_ms = event.ts_ms or int(1000 * time.time())
        with database:
            database.execute(
                insert, (event_id, event.event_type, event.user_id, event.item_id, event.session_id, ts_ms)
            )
        if event.item_id in item_of:
            lately[event.user_id].append(item_of[event.item_id])
        return Accepted(accepted=[event_id])

    return app


def _acts(folder: Path) -> sparse.csr_matrix:
    """float32 [u, i]: how often each user acted on each item."""
    users, items = np.load(folder / "pairs.npy").T
    shape = (len(_lines(folder / "user_ids.txt")), len(_lines(folder / "item_ids.txt")))
    return sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")


if __name__ == "__main__":
    task, place = sys.argv[1], Path(sys.argv[2])
    threadpool_limits(1, "blas")
    if task == "fit":
        fit(place)
    else:
        uvicorn.run(
            create_app(place),
            host="127.0.0.1",
            port=int(sys.argv[3]),
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="warning",
        )
