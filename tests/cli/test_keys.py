"""Keys and the audit log from the command line, and what a running server makes of them."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError, NotFoundError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def test_a_key_is_shown_once(endcap, endcap_json, folder):
    made = endcap("keys", "create", "--name", "till", "--scopes", "read, write", "--shop", folder).stdout
    token = made.split()[0]
    assert token.startswith("endcap_")
    assert "first" in made
    listed = endcap("keys", "list", "--shop", folder).stdout
    assert "till" in listed
    assert "valid" in listed
    assert token.split("_", 2)[2] not in listed
    (entry,) = endcap_json("keys", "list", "--shop", folder)
    assert entry["scopes"] == ["read", "write"]
    assert "sha256" not in entry
    again = endcap_json("keys", "create", "--name", "b", "--scopes", "admin", "--expires-days", 2, "--shop", folder)
    assert again["key"].startswith(f"endcap_{again['id']}_")
    assert again["expires_ms"] - again["created_ms"] == 2 * 86_400_000


def test_a_revoked_key_stays_in_the_list(endcap, endcap_json, folder):
    key = endcap_json("keys", "create", "--name", "till", "--scopes", "read", "--shop", folder)["id"]
    assert key in endcap("keys", "revoke", key, "--shop", folder).stdout
    assert "revoked" in endcap("keys", "list", "--shop", folder).stdout
    with pytest.raises(NotFoundError, match="endcap keys list"):
        endcap("keys", "revoke", "nothing", "--shop", folder)


def test_wrong_keys_are_not_made(endcap, folder):
    assert "endcap keys create" in endcap("keys", "list", "--shop", folder).stdout
    with pytest.raises(CallerError, match="read"):
        endcap("keys", "create", "--name", "till", "--scopes", "all", "--shop", folder)
    with pytest.raises(NotFoundError, match="endcap init"):
        endcap("keys", "create", "--name", "till", "--scopes", "read", "--shop", folder / "nowhere")
    assert not (folder / "keys.json").exists()


def test_acts_are_shown_with_who_did_them(endcap, endcap_json, folder):
    release = endcap_json("releases", "--shop", folder)[0]["release"]
    endcap("publish", release, "--shop", folder)
    key = endcap_json("keys", "create", "--name", "till", "--scopes", "read", "--shop", folder)["id"]
    shown = endcap("audit", "--shop", folder).stdout
    assert release in shown
    acts = endcap_json("audit", "--last", 2, "--shop", folder)
    assert [(act["what"], act["who"], act["outcome"]) for act in acts] == [
        ("publish", f"cli:{getpass.getuser()}", "done"),
        ("create key", f"cli:{getpass.getuser()}", "done"),
    ]
    assert acts[1]["on"] == f"{key} (till: read)"


@contextmanager
def serving(*arguments):
    command = [sys.executable, "-m", "endcap", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://[\d.]+:(\d+)", line)
            assert found, line + process.stderr.read()
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()


def test_with_a_key_any_address_is_served(folder):
    with Shop.open(folder, read_only=True) as shop:
        key, token = shop.keys.create("till", ["read"])
    with serving("--shop", folder, "--host", "0.0.0.0") as url:
        with Shop.open(folder, read_only=True) as shop:
            headers = {"Authorization": f"Bearer {token}", "Host": "shop.example"}
            assert httpx.get(f"{url}/v1/recommendations", headers=headers, timeout=60).status_code == 200
            assert httpx.get(f"{url}/v1/recommendations", timeout=60).status_code == 401
            shop.keys.revoke(key.id)
        assert httpx.get(f"{url}/v1/recommendations", headers=headers, timeout=60).status_code == 401
        assert httpx.get(f"{url}/health/ready", timeout=60).status_code == 200


def test_several_shops_in_one_process(endcap, folder, tmp_path):
    endcap("init", tmp_path / "other")
    tokens = []
    for place in (folder, tmp_path / "other"):
        with Shop.open(place, read_only=True) as shop:
            tokens.append(shop.keys.create("till", ["read"]).token)
    with serving("--shop", folder, "--shop", tmp_path / "other") as url:
        answers = [httpx.get(f"{url}/v1/recommendations", headers={"X-API-Key": token}, timeout=60) for token in tokens]
    assert [answer.status_code for answer in answers] == [200, 404]
    assert str(tmp_path / "other") in answers[1].json()["error"]["where"]
