"""`endcap backup`, `restore` and `verify`: what they say, and what they exit with."""

from __future__ import annotations

from pathlib import Path

import pytest

from endcap.core.errors import CallerError, ServiceError


def test_backup_restore_verify(endcap, endcap_json, folder: Path, tmp_path: Path) -> None:
    made = endcap_json("backup", tmp_path / "kept", "--shop", folder)
    assert made["events"] == made["last_seq"] > 0
    assert endcap_json("restore", tmp_path / "kept", "--shop", tmp_path / "new") == made
    for place in ("kept", "new"):
        assert "as it was written" in endcap("verify", "--shop", tmp_path / place).stdout
    with pytest.raises(CallerError, match="never restored over"):
        endcap("restore", tmp_path / "kept", "--shop", tmp_path / "new")


def test_damage_is_told_and_exits_with_1(endcap, folder: Path) -> None:
    path = next(path for path in (folder / "releases").glob("*/*") if path.name != "manifest.json" and path.is_file())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ServiceError, match="1 things are damaged") as told:
        endcap("verify", "--shop", folder)
    assert told.value.exit_code == 1
