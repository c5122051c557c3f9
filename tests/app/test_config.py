"""Where the settings of a workspace look for what they name."""

from pathlib import Path

import pytest

from endcap.app.config import Config
from endcap.core.errors import CallerError


def test_models_are_seen_from_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever one stands: a folder that is there only from where one stands is an error that names the way."""
    config = Config.model_validate({"text": {"model": "runs/encoder"}})
    (tmp_path / "shop" / "runs" / "encoder").mkdir(parents=True)
    assert config.seen_from(tmp_path / "shop").text.model == str(tmp_path / "shop" / "runs" / "encoder")
    listens = Config.model_validate({"speech": {"model": "ear"}, "text": {"model": "model.gguf"}})
    (tmp_path / "shop" / "ear").mkdir()
    (tmp_path / "shop" / "model.gguf").write_bytes(b"GGUF")
    seen = listens.seen_from(tmp_path / "shop")
    assert (seen.speech.model, seen.text.model) == (
        str(tmp_path / "shop" / "ear"),
        str(tmp_path / "shop" / "model.gguf"),
    )
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    with pytest.raises(CallerError, match=r'\[text\] model.*Write "\.\./shop/runs/encoder"'):
        config.seen_from(tmp_path / "empty")
    monkeypatch.chdir(tmp_path)
    assert config.seen_from(tmp_path / "empty").text.model == "runs/encoder"  # a name on the hub, perhaps


def test_the_password_of_a_redis_is_neither_printed_nor_written() -> None:
    config = Config.model_validate({"state": {"url": "redis://:hush@cache/0"}})
    assert config.state.url == "redis://:hush@cache/0"
    assert "hush" not in repr(config)
    assert "hush" not in config.model_dump_json()
