"""Where the state of shoppers is kept while the server runs, and what workers remember together."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from endcap.app.config import StateConfig
from endcap.app.memory import LocalMemory, Memory, SharedMemory
from endcap.app.publish import Release
from endcap.data.redis_link import RedisLink
from endcap.features.live import LiveStates, OnlineStates
from endcap.features.shared import SharedStates

URL_VARIABLE = "ENDCAP_STATE_URL"


class State:
    """states: makes those that go with a release. memory: what workers remember together. where: the place on Redis,
    empty in process."""

    def __init__(self, config: StateConfig, workspace: Path) -> None:
        url = os.environ.get(URL_VARIABLE, config.url)
        self._prefix = config.prefix or _prefix(workspace)
        self._link = RedisLink(url, config.timeout_ms / 1000) if url else None
        self.where = "" if self._link is None else f"{self._link.where}, keys of {self._prefix}"
        self.memory: Memory = LocalMemory() if self._link is None else SharedMemory(self._link, self._prefix)
        self.states: Callable[[Release], OnlineStates] = in_process if self._link is None else self._shared

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    def _shared(self, release: Release) -> OnlineStates:
        assert self._link is not None
        ids = release.fitted.table.ids
        return SharedStates(self._link, self._prefix, release.id, release.histories, ids, release.seq)


def in_process(release: Release) -> OnlineStates:
    return LiveStates(release.histories, release.fitted.table.ids, release.seq)


def _prefix(workspace: Path) -> str:
    place = workspace.resolve()
    return f"{place.name}-{blake2b(str(place).encode(), digest_size=4).hexdigest()}"
