"""Who may do what, and how often: decided for every request before its body is read."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from endcap.app import keys
from endcap.app.audit import acting
from endcap.core.errors import EndcapError
from endcap.web.buckets import Buckets
from endcap.web.problems import endcap_problem, problem_response
from endcap.web.scopes import OF_ALL_SHOPS, scope_of

if TYPE_CHECKING:
    from endcap.app.runtime import Shop
    from endcap.app.tenants import Tenants

MAKE_A_KEY = "Send `Authorization: Bearer KEY`, with a key from `endcap keys create`."
RETRY_S = 1


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may go on. key_id: "" where no key is needed. owe: pays for more events than the one that every
    writing request is taken for."""

    shop: Shop
    key_id: str
    owe: Callable[[int], None]


class Access:
    """Answers 401, 403, 429 and 503 itself; hands on the shop, the key's id and the account in `scope["state"]`."""

    def __init__(self, app: ASGIApp, tenants: Tenants, buckets: Buckets | None = None) -> None:
        self.app, self._tenants, self._buckets = app, tenants, buckets or Buckets()
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            admitted = self._admitted(scope)
        except EndcapError as error:
            admitted = endcap_problem(error, scope["state"]["request_id"])
        if isinstance(admitted, JSONResponse):
            await admitted(scope, receive, send)
            return
        if admitted is None:
            await self.app(scope, receive, send)
            return
        scope["state"] |= {"shop": admitted.shop, "key_id": admitted.key_id, "owe": admitted.owe}
        self._in_flight += 1
        try:
            with acting(f"key:{admitted.key_id}" if admitted.key_id else "http without a key"):
                await self.app(scope, receive, send)
        finally:
            self._in_flight -= 1

    def _admitted(self, scope: Scope) -> Admitted | JSONResponse | None:
        """None for routes that are everybody's; otherwise the request's account, or the answer that refuses it."""
        path = scope["path"].rstrip("\n")  # which a router takes for the end of a route
        needed = scope_of(scope["method"], path)
        if needed is None:
            scope["state"]["is_known"] = self._is_known(scope)
            return None
        shop, key_id = self._tenants.open_shop(), ""
        if shop is None:
            token = _token(scope)
            holder = self._tenants.holder(token) if token else None
            if holder is None:
                return _unknown(bool(token))
            shop, key_id = holder.shop, holder.key.id
            scope["state"]["key_id"] = key_id
            if needed not in holder.key.scopes:
                return _lacking(needed)
            if path in OF_ALL_SHOPS and shop is not self._tenants.shops[0]:
                return _of_others()
        most = self._tenants.shops[0].config.limits.in_flight
        if most and self._in_flight >= most:
            return _busy()
        return self._charged(shop, key_id, key_id or _address((scope.get("client") or ("",))[0]), needed)

    def _is_known(self, scope: Scope) -> bool:
        """Whether the caller may hear more than yes or no of the shop's health, which is told whatever keys are."""
        token = _token(scope)
        try:
            holder = self._tenants.holder(token) if token else None
            is_open = self._tenants.open_shop() is not None
        except EndcapError:
            return False
        if holder is not None:
            scope["state"] |= {"shop_asked": holder.shop, "key_id": holder.key.id}
        return holder is not None or is_open

    def _charged(self, shop: Shop, key_id: str, name: str, needed: keys.Scope) -> Admitted | JSONResponse:
        limits = shop.config.limits
        if needed is keys.Scope.READ and limits.reads_per_s:
            wait_s = self._buckets.take(f"read {name}", limits.reads_per_s, limits.read_burst)
            if wait_s:
                return _too_often(wait_s, f"{limits.reads_per_s:g} answers")
        if not limits.events_per_s:
            return Admitted(shop, key_id, _free)
        account, rate, burst = f"write {name}", limits.events_per_s, limits.event_burst
        if needed is not keys.Scope.WRITE:  # what an answer records is paid for once it is known
            return Admitted(shop, key_id, lambda events: self._buckets.owe(account, rate, burst, events))
        wait_s = self._buckets.take(account, rate, burst)
        if wait_s:
            return _too_often(wait_s, f"{rate:g} events")
        return Admitted(shop, key_id, lambda events: self._buckets.owe(account, rate, burst, max(0, events - 1)))


def _free(_events: int) -> None:
    """Where nothing is limited nothing is owed."""


def _token(scope: Scope) -> str:
    """What `Authorization: Bearer` or `X-API-Key` holds, the first before the second; "" without either."""
    headers = Headers(scope=scope)
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key", "").strip()


@lru_cache(maxsize=4096)
def _address(host: str) -> str:
    """The caller's, of IPv6 the network of 64 bits, for a machine has all addresses of one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((host, 64), strict=False)) if address.version == 6 else host


def _unknown(is_given: bool) -> JSONResponse:
    challenge = 'Bearer realm="endcap"' + (', error="invalid_token"' if is_given else "")
    what = "The API key is not known, or no longer valid." if is_given else "An API key is needed."
    return problem_response(401, what, "Authorization", MAKE_A_KEY, {"WWW-Authenticate": challenge})


def _lacking(needed: keys.Scope) -> JSONResponse:
    challenge = f'Bearer realm="endcap", error="insufficient_scope", scope="{needed}"'
    return problem_response(
        403,
        f"The API key lacks the scope {needed}.",
        "Authorization",
        f"Use a key that was made with --scopes {needed}.",
        {"WWW-Authenticate": challenge},
    )


def _of_others() -> JSONResponse:
    return problem_response(
        403,
        "This is told of all shops together.",
        "Authorization",
        "Use a key of the shop that is named first after `endcap serve`.",
    )


def _busy() -> JSONResponse:
    return problem_response(
        503,
        "As many requests as the server takes at a time are being answered.",
        "[limits] in_flight",
        f"Send it again after {RETRY_S} s.",
        {"Retry-After": str(RETRY_S)},
    )


def _too_often(wait_s: int, rate: str) -> JSONResponse:
    return problem_response(
        429,
        f"More than {rate} a second are asked for.",
        "[limits]",
        f"Send it again after {wait_s} s.",
        {"Retry-After": str(wait_s)},
    )
