"""`endcap effects` and `endcap doctor`, as they are typed."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from endcap.app.runtime import Shop
from endcap.cli.main import app
from endcap.core.slates import new_id, release_hash
from endcap.core.types import Event, EventType, Placement


def test_effects(folder, endcap, endcap_json):
    assert "No event of this period quotes a slate" in endcap("effects", "--shop", folder).stdout
    with Shop.open(folder) as shop:
        release = shop.releases.current()
        slate = new_id(Placement.HOME, release_hash(release))
        shown, clicked = (
            Event(event_type=kind, user_id="u", item_id="i", ts_ms=shop.clock() - 1000, recommendation_id=slate)
            for kind in (EventType.IMPRESSION, EventType.CLICK)
        )
        shop.record(clicked)
        assert "nothing to take a share of" in endcap("effects", "--shop", folder).stdout
        shop.record(shown)
    (effect,) = endcap_json("effects", "--shop", folder, "--days", 1)["effects"]
    assert (effect["placement"], effect["release"], effect["shown"], effect["clicked"]) == ("home", release, 1, 1)
    assert effect["ctr"]["rate"] == 1
    text = endcap("effects", "--shop", folder).stdout
    assert release in text
    assert "100.00%" in text


def test_doctor(folder, endcap, endcap_json):
    told = endcap_json("doctor", "--shop", folder)
    assert told["problems"] == 0
    assert {"python", "store", "release"} <= {finding["check"] for finding in told["findings"]}
    assert "0 problems" in endcap("doctor", "--shop", folder).stdout


def test_doctor_of_what_is_broken(folder):
    (folder / "releases" / "current").unlink()
    result = CliRunner().invoke(app, ["doctor", "--shop", str(folder)])
    assert result.exit_code == 1
    assert "endcap train" in result.stdout
    told = CliRunner().invoke(app, ["doctor", "--shop", str(folder), "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout)["problems"] == 1
