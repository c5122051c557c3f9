"""The first answer of a process loads the release, and has all its time left after that."""

from __future__ import annotations

import time

import pytest

from endcap.app import serving
from endcap.app.runtime import Shop
from endcap.core.errors import NotFoundError


def test_loading_takes_nothing_of_the_first_answers_budget(
    shop: Shop, planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = serving.read_release

    def slowly(*given, **named):
        time.sleep(1.5 * shop.config.serve.budget_ms / 1000)
        return read(*given, **named)

    monkeypatch.setattr(serving, "read_release", slowly)
    first = shop.recommend(next(iter(planted.answers)), n=5)
    assert not first.degraded
    assert {item.source for item in first.items} != {"popular"}


def test_without_a_release_each_query_is_told(tmp_path) -> None:
    with Shop.open(Shop.init(tmp_path / "new")) as empty, pytest.raises(NotFoundError):
        empty.recommend(n=5)
