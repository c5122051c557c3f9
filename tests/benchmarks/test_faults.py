"""What the harness must find, when it is there: lost and doubled events, torn releases, and a real kill."""

import pytest
from benchmarks.bench_durability import small_shop
from benchmarks.faults import Damage, inspect_log, inspect_releases, kill_servers

from endcap import Event, EventType, Shop
from endcap.core.artifacts import MANIFEST, ReleaseStore
from endcap.web.server import free_port


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_shop(tmp_path_factory.mktemp("durable"))


def test_a_whole_shop_has_no_damage_and_an_acknowledged_event_that_is_missing_is_lost(small, tmp_path):
    with Shop.open(small.workspace) as shop:
        shop.record(
            Event(event_id="fault-1", event_type=EventType.VIEW, user_id="u1", item_id="i1", ts_ms=shop.clock())
        )
    journal = tmp_path / "journal"
    journal.write_text("fault-1\nfault-2\nfault-")  # the last was not written to its end
    damage = Damage()
    inspect_log(small.workspace, journal, damage)
    inspect_releases(small.workspace, damage)
    assert damage.lost == {"fault-2"}
    assert not damage.duplicated
    assert not damage.torn


@pytest.mark.parametrize("tear", ["file", "manifest", "pointer"])
def test_a_torn_release_is_found(small, tear):
    releases = ReleaseStore(small.workspace / "releases")
    chosen = releases.root / (releases.current() or "")
    victim = {"file": chosen / "items.parquet", "manifest": chosen / MANIFEST, "pointer": releases.root / "current"}[
        tear
    ]
    content = victim.read_bytes()
    damage = Damage()
    try:
        if tear == "manifest":
            victim.unlink()
        else:
            victim.write_bytes(content[:-1])
        inspect_releases(small.workspace, damage)
    finally:
        victim.write_bytes(content)
    assert damage.torn


def test_a_server_that_is_killed_loses_nothing(small):
    found = kill_servers(small.workspace, small.users, small.items, times=1, port=free_port("127.0.0.1", 0)).figures()
    assert found["acknowledged"] > 0
    assert (found["kills"], found["lost"], found["duplicated"], found["torn"]) == (1, 0, 0, 0)
