"""Says what is wrong with an installation and how to mend it. Reads only, and works while a server runs.

Every check is a function that yields findings; what one of them raises is a finding too, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from endcap.app import doctor_machine as machine
from endcap.app import doctor_servers as servers
from endcap.app import doctor_shop as inside
from endcap.app.config import Config, load_config
from endcap.app.findings import Finding, found, ok, problem
from endcap.app.runtime import CONFIG_FILE, Shop
from endcap.core.determinism import Clock, system_clock
from endcap.core.errors import EndcapError


def examine(
    folder: Path, *, url: str | None = None, deep: bool = False, clock: Clock = system_clock
) -> Iterator[Finding]:
    """Findings as they are made. url: of a running server that is to be asked too. deep: read every byte."""
    yield from found("python", machine.python)
    yield from found("packages", machine.packages)
    yield from found("open_files", machine.open_files)
    yield from found("threads", machine.threads)
    if not (folder / CONFIG_FILE).is_file():
        yield problem("config", f"{folder} is no workspace.", f"Make one, or name it by --shop: endcap init {folder}")
        return
    yield from found("disk", partial(machine.disk, folder))
    yield from found("permissions", partial(machine.permissions, folder))
    try:
        config = load_config(folder / CONFIG_FILE).seen_from(folder)
    except EndcapError as error:
        yield problem("config", f"{error.where}: {error.what}", error.next_step or "Mend the file.")
        return
    yield ok("config", f"{folder / CONFIG_FILE} is valid.")
    yield from _by_config(config, folder)
    yield from _within(folder, url, deep, clock)


def _by_config(config: Config, folder: Path) -> Iterator[Finding]:
    yield from found("extras", partial(machine.extras, config))
    yield from found("callers", partial(servers.callers, config, folder))
    if address := machine.store_url(config):
        yield from found("postgres", partial(servers.postgres, address))
    if address := machine.state_url(config):
        yield from found("redis", partial(servers.redis, address))


def _within(folder: Path, url: str | None, deep: bool, clock: Clock) -> Iterator[Finding]:
    try:
        shop = Shop.open(folder, read_only=True, clock=clock)
    except EndcapError as error:
        yield problem("store", f"{error.where}: {error.what}", error.next_step)
        return
    with shop:
        yield from found("store", partial(inside.integrity, shop, deep))
        if deep:
            yield from found("releases", partial(inside.releases, shop))
        for name, check in inside.CHECKS.items():
            yield from found(name, partial(check, shop))
        if url is not None:
            yield from found("server", lambda: servers.server(url, shop.releases.current()))
