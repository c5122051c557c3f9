"""What a shop's pages would ask, over everybody and everything in it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from benchmarks.load import get, post

PATH, EVENTS = "/v1/recommendations", "/v1/events"
STRANGERS = 0.1


def plain_reads(users: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Ten items for a shopper, one in ten of whom nobody knows: what any recommender can be asked."""
    draw = np.random.default_rng([seed, 1])
    return [get(f"{PATH}?user_id={_someone(users, draw)}&n=10") for _ in range(count)]


def reads(users: Sequence[str], items: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """The pages of a shop: home, an item's, the cart's, a shelf of what is new to the shopper, and one in ten with acts
    of the visit that were not recorded."""
    draw = np.random.default_rng([seed, 2])
    pages = ("home", "item", "cart", "discovery", "session")
    chosen = draw.choice(len(pages), count, p=(0.5, 0.2, 0.1, 0.1, 0.1))
    return [_page(pages[page], users, items, draw) for page in chosen]


def events(users: Sequence[str], items: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Bodies of events, `{id}` where each takes an id of its own: mostly views."""
    draw = np.random.default_rng([seed, 3])
    kinds = draw.choice(("view", "add_to_cart", "purchase"), count, p=(0.8, 0.1, 0.1)).tolist()
    people, things = draw.integers(len(users), size=count), draw.integers(len(items), size=count)
    return [
        json.dumps({"event_id": "{id}", "event_type": kind, "user_id": users[user], "item_id": items[item]})
        for kind, user, item in zip(kinds, people.tolist(), things.tolist(), strict=True)
    ]


def _page(page: str, users: Sequence[str], items: Sequence[str], draw: np.random.Generator) -> str:
    user, item = _someone(users, draw), items[int(draw.integers(len(items)))]
    asked = f"{PATH}?user_id={user}&n=10&placement={page}"
    match page:
        case "item":
            return get(f"{asked}&item_id={item}")
        case "cart":
            return get(f"{asked}&cart={item},{items[int(draw.integers(len(items)))]}")
        case "session":
            acts = [{"event_type": "view", "item_id": items[int(place)]} for place in draw.integers(len(items), size=3)]
            return post(PATH, json.dumps({"user_id": user, "n": 10, "session_events": acts}))
    return get(asked)


def _someone(users: Sequence[str], draw: np.random.Generator) -> str:
    if draw.random() < STRANGERS:
        return f"stranger-{draw.integers(10**9)}"
    return users[int(draw.integers(len(users)))]
