"""The example does what it says."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "client.py"


def test_a_visit(url, shop, capsys):
    shown = runpy.run_path(str(EXAMPLE))["visit"](url)
    assert len(shown) == len(set(shown)) == 8
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert shop.user("visitor-1").cart == (shown[0],)
    assert shop.store.item(shown[0]).price == 1.99
