"""Keys: shown once, kept as hashes, changed by one at a time; and the log of acts."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from endcap.app.audit import AuditLog, acting, disguised
from endcap.app.keys import Keys, id_of
from endcap.core.errors import CallerError, NotFoundError, ServiceError

DAY_MS = 86_400_000


@pytest.fixture
def audit(tmp_path):
    return AuditLog(tmp_path, lambda: 1000)


@pytest.fixture
def keys(tmp_path, audit):
    return Keys(tmp_path, audit, lambda: 1000)


def test_the_secret_is_kept_nowhere(keys, audit):
    key, token = keys.create("till", ["write", "read"], expires_days=2)
    assert token.startswith(f"endcap_{key.id}_")
    assert len(token.split("_", 2)[2]) >= 43  # 256 bits in base64
    assert id_of(token) == key.id
    secret = token.split("_", 2)[2]
    assert secret not in keys.path.read_text() + audit.path.read_text()
    assert key.sha256 not in audit.path.read_text()
    assert key.scopes == ("read", "write")
    assert (key.created_ms, key.expires_ms, key.revoked_ms) == (1000, 1000 + 2 * DAY_MS, None)


def test_files_are_their_owner_s_alone(keys, audit):
    keys.create("till", ["read"])
    for path in (keys.path, audit.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    keys.create("other", ["read"])
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600


def test_a_key_counts_until_it_ends(keys):
    key, token = keys.create("till", ["read"], expires_days=1)
    assert key.is_good(token, 1000)
    assert key.is_good(token, 999 + DAY_MS)
    assert not key.is_good(token, 1000 + DAY_MS)
    assert not key.is_good(token + "\ud800", 1000)
    assert not keys.revoke(key.id).is_good(token, 1000)


def test_others_see_changes_at_once(keys, tmp_path, audit):
    other = Keys(tmp_path, audit)
    assert other.known() == {}
    key, _ = keys.create("till", ["read"])
    assert other.known()[key.id].revoked_ms is None
    keys.revoke(key.id)
    assert other.known()[key.id].revoked_ms == 1000
    assert keys.revoke(key.id) == other.known()[key.id]


def test_keys_made_side_by_side_are_all_kept(keys, tmp_path, audit):
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda n: Keys(tmp_path, audit).create(f"k{n}", ["read"]).key.id, range(12)))
    assert sorted(keys.known()) == sorted(made)
    assert len(audit.read()) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["all"]},
        {"scopes": [""]},
        {"name": " "},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"expires_days": 0},
        {"expires_days": 10**9},
    ],
)
def test_wrong_keys_are_not_made(keys, wrong):
    with pytest.raises(CallerError):
        keys.create(**{"name": "till", "scopes": ["read"], **wrong})
    assert not keys.path.exists()


def test_damage_is_said_and_no_key_is_lost(keys):
    keys.path.write_text('[{"id": 1}]')
    with pytest.raises(ServiceError, match=r"keys\.json"):
        keys.known()
    with pytest.raises(ServiceError, match=r"keys\.json"):
        keys.create("till", ["read"])
    assert keys.path.read_text() == '[{"id": 1}]'


def test_keys_that_are_gone_open_nothing_until_there_are_others(keys, tmp_path, audit):
    keys.create("till", ["read"])
    assert len(keys.known()) == 1
    keys.path.unlink()
    with pytest.raises(ServiceError, match="gone"):
        keys.known()
    made = Keys(tmp_path, audit).create("till again", ["read"])
    assert list(keys.known()) == [made.key.id]


def test_revoking_what_is_not_there(keys, audit):
    with pytest.raises(NotFoundError, match="endcap keys list"):
        keys.revoke("nothing")
    assert audit.read()[0].outcome.startswith("failed: There is no key")


def test_acts_name_who_did_them(audit):
    audit.write("publish", "r1")
    with acting("key:abc"):
        with pytest.raises(ZeroDivisionError), audit.act("restore", "backup"):
            _ = 1 // 0
        with audit.act("delete user", disguised("ann@example.org")):
            pass
    first, second, third = audit.read()
    assert first.who.startswith("python:")
    assert (first.what, first.on, first.outcome, first.ts_ms) == ("publish", "r1", "done", 1000)
    assert (second.who, second.outcome) == ("key:abc", "failed: ZeroDivisionError")
    assert third.on.startswith("user sha256:")
    assert "ann" not in audit.path.read_text()
    assert all(json.loads(line) for line in audit.path.read_text().splitlines())


def test_a_line_that_was_cut_short_takes_no_other_with_it(audit):
    audit.write("publish", "r1")
    with audit.path.open("ab") as file:
        file.write(b'{"ts_ms": 1000, "who"')
    audit.write("rollback", "r1")
    assert [act.what for act in audit.read()] == ["publish", "rollback"]


def test_acts_that_cannot_be_written_are_errors(audit):
    audit.path.mkdir()
    with pytest.raises(ServiceError, match="audit log"):
        audit.write("publish", "r1")


def test_what_is_kept_of_a_key_can_be_read_by_others(keys):
    key, _ = keys.create("till", ["admin"])
    assert json.loads(keys.path.read_text()) == [json.loads(msgspec.json.encode(key))]
