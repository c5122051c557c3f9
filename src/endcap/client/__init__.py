"""A client of Endcap's HTTP routes, sync and async. Needs the extra `client` (httpx).

from endcap.client import Client

with Client("http://127.0.0.1:8765", api_key="...") as shop:
    slate = shop.recommend("42", n=5)
"""

from __future__ import annotations

from endcap.client.answers import (
    Health,
    Put,
    Recommended,
    Recorded,
    Refused,
    Slate,
    User,
)
from endcap.client.client import AsyncClient, Client
from endcap.client.retries import Retries

__all__ = [
    "AsyncClient",
    "Client",
    "Health",
    "Put",
    "Recommended",
    "Recorded",
    "Refused",
    "Retries",
    "Slate",
    "User",
]
