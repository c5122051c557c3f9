"""Whether what a shop talks to over the network answers: Postgres, Redis, its own server; and who may call that.

URLs may hold passwords, and are never repeated.
"""

from __future__ import annotations

import http.client
import ipaddress
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from endcap import __version__
from endcap.app.findings import Finding, ok, problem, warning
from endcap.app.keys import FILE, Key
from endcap.core.determinism import system_clock
from endcap.core.errors import CallerError

if TYPE_CHECKING:
    from endcap.app.config import Config

TIMEOUT_S = 5
ASKED = 5  # times; the median counts
FAR_MS = 5.0
NEAR = "Run it nearer to the shop: every answer waits for it."


def postgres(url: str) -> Iterator[Finding]:
    try:
        import psycopg
    except ImportError:
        yield problem("postgres", "The store is on Postgres, and psycopg is not installed.", _pip("postgres"))
        return
    try:
        with psycopg.connect(url, connect_timeout=TIMEOUT_S, autocommit=True) as connection:
            spent_ms = _spent_ms(lambda: connection.execute("SELECT 1").fetchone())
    except psycopg.Error as error:
        yield problem(
            "postgres",
            f"Postgres does not answer: {type(error).__name__}.",
            "See that it runs, and that [store] url or ENDCAP_STORE_URL names it, and a user and database of it.",
        )
        return
    yield _answered("postgres", "Postgres", spent_ms)


def redis(url: str) -> Iterator[Finding]:
    try:
        from redis import Redis, RedisError
    except ImportError:
        yield problem("redis", "The shoppers' state is on Redis, and its client is not installed.", _pip("redis"))
        return
    try:
        with Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
            spent_ms = _spent_ms(client.ping)
    except (RedisError, OSError, ValueError) as error:
        yield problem(
            "redis",
            f"Redis does not answer: {type(error).__name__}.",
            "See that it runs, and that [state] url or ENDCAP_STATE_URL names it.",
        )
        return
    yield _answered("redis", "Redis", spent_ms)


def server(url: str, release: str | None) -> Iterator[Finding]:
    """url: of a running server. release: the one that is published in the workspace."""
    start = "See that it runs: endcap serve"
    try:
        _, live = _get(url, "/health/live")
        status, ready = _get(url, "/health/ready")
    except (OSError, http.client.HTTPException) as error:
        yield problem("server", f"The server does not answer: {type(error).__name__}: {error}.", start)
        return
    except msgspec.MsgspecError:
        yield problem("server", "What answers there is no server of Endcap.", "Give the URL that `endcap serve` says.")
        return
    version, loaded = live.get("version"), ready.get("release")
    if status != 200:
        why = ready.get("problem") or f"status {status}"
        yield problem("server", f"The server is not ready: {why}", "Do what it says; the server's log has more.")
    elif loaded is not None and loaded != release:
        yield problem(
            "server",
            f"The server answers with release {loaded}, and {release} is published here.",
            "See that it serves this workspace; it takes up a release with its next answer.",
        )
    if version != __version__:
        yield problem(
            "server", f"The server runs Endcap {version}, and this is {__version__}.", "Restart it with this version."
        )
    elif status == 200 and loaded in (release, None):
        which = f"release {loaded}" if loaded else "a release that it names only to who has a key"
        yield ok("server", f"The server is ready, with this version and {which}.")


def callers(config: Config, folder: Path) -> Iterator[Finding]:
    host = config.serve.host
    if _is_loopback(host):
        yield ok("callers", f"The server listens on {host}, which only this machine can reach.")
    elif _keys(folder / FILE):
        yield ok("callers", f"The server listens on {host}, and asks for API keys.")
    else:
        yield problem(
            "callers",
            f"The server would listen on {host}, which others can reach, and there are no API keys.",
            f"Make one: endcap keys create --shop {folder} --name NAME --scopes read,write",
        )


def _get(url: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CallerError("This is no URL of a server.", where="--url", next_step="Give http://127.0.0.1:8765, say.")
    secure = parts.scheme == "https"
    kind: type[http.client.HTTPConnection] = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read(1_000_000), type=dict[str, Any])
    finally:
        connection.close()


def _spent_ms(ask: Callable[[], object]) -> float:
    """The median round trip."""
    spent = []
    for _ in range(ASKED):
        began = time.perf_counter()
        ask()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


def _answered(check: str, name: str, spent_ms: float) -> Finding:
    said = f"{name} answers in {spent_ms:.1f} ms."
    return warning(check, said, NEAR) if spent_ms > FAR_MS else ok(check, said)


def _keys(path: Path) -> bool:
    """Whether there is a key that counts."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=list[Key])
    except (OSError, msgspec.MsgspecError):
        return False
    return any(key.is_in_force(system_clock()) for key in kept)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pip(extra: str) -> str:
    return f"pip install 'endcap[{extra}]'"
