"""Names and factories, of ours and of third parties."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from endcap.core.errors import CallerError
from endcap.core.registry import Registry


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package on the path that declares one plug-in, as pip would have installed it."""
    about = tmp_path / "toolshed-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toolshed\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[endcap.test_tools]\nhammer = toolshed:Hammer\n")
    (tmp_path / "toolshed.py").write_text("class Hammer:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("toolshed", None)


def test_what_was_added_is_found() -> None:
    tools: Registry[type] = Registry("tool", "endcap.test_tools")
    assert tools.add("saw", int) is int
    assert tools.get("saw") is int
    assert tools.names() == ["saw"]


def test_a_name_is_taken_once() -> None:
    tools: Registry[type] = Registry("tool", "endcap.test_tools")
    tools.add("saw", int)
    tools.add("saw", int)
    with pytest.raises(CallerError, match="tool name 'saw' is taken"):
        tools.add("saw", str)
    assert tools.get("saw") is int


def test_an_unknown_name_lists_the_known_ones() -> None:
    tools: Registry[type] = Registry("tool", "endcap.test_tools")
    tools.add("saw", int)
    tools.add("axe", str)
    with pytest.raises(CallerError, match=r"no tool called 'drill'.*axe, saw"):
        tools.get("drill")


@pytest.mark.usefixtures("third_party")
def test_an_installed_package_extends_it() -> None:
    tools: Registry[type] = Registry("tool", "endcap.test_tools")
    tools.add("saw", int)
    assert tools.names() == ["hammer", "saw"]
    assert tools.get("hammer").__name__ == "Hammer"


@pytest.mark.usefixtures("third_party")
def test_a_registry_reads_its_own_group_only() -> None:
    assert Registry("toy", "endcap.test_toys").names() == []
