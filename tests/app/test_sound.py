"""A shop with recordings: they are part of what an item is, and one that cannot be listened to stops nothing."""

import io
import json
import wave
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from endcap.app.media import REFUSED
from endcap.app.runtime import Shop

SETTINGS = """[train]
threads = 1
moments = 1
sources = ["content", "trending", "popular"]
[fusion]
steps = 20
"""
DAY_MS, NOW_MS = 86_400_000, 1_760_000_000_000
RATE, HERTZ = 16_000, (200, 400, 800, 1600)


def recorded(hertz: int, seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(
            (9000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype("<i2").tobytes()
        )
    return file.getvalue()


def test_recordings_are_fused_with_words_and_a_refit_listens_to_new_ones(tmp_path: Path) -> None:
    folder = Shop.init(tmp_path / "shop", SETTINGS)
    rows = [(f"i{place}", f"a sound of {hertz} hertz", f"{place}.wav") for place, hertz in enumerate(2 * HERTZ)]
    for (_, _, name), (seconds, hertz) in zip(rows, product((0.4, 0.5), HERTZ), strict=True):
        (folder / name).write_bytes(recorded(hertz, seconds))
    (folder / "7.wav").write_bytes(b"no sound")
    items = pl.DataFrame(rows, schema=["item_id", "title", "audio"], orient="row").with_columns(pl.concat_list("audio"))
    acts = [
        (f"u{user}", f"i{(3 * user + act) % 8}", "purchase", NOW_MS - (40 - user - act) * DAY_MS)
        for user, act in product(range(30), range(6))
    ]
    with Shop.open(folder, clock=lambda: NOW_MS) as shop:
        shop.ingest(pl.DataFrame(acts, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row"), items=items)
        first = shop.train(evaluate=False).manifest.release_id
        assert pl.read_csv(folder / REFUSED)["item_id"].to_list() == ["i7"]
        (folder / "new.wav").write_bytes(recorded(400, 0.6))
        shop.ingest(items=pl.DataFrame({"item_id": ["new"], "title": [""], "audio": [["new.wav"]]}))
        second = shop.refit().manifest.release_id
        assert len(shop.recommend(n=5).items) == 5
    fusions = [
        json.loads((folder / "releases" / release / "content" / "fusion" / "fusion.json").read_text())
        for release in (first, second)
    ]
    assert [part["name"] for part in fusions[0]["parts"]] == ["text", "audio"]
    assert fusions[0]["encoders"]["audio"] == "whisper-base:d01c3014881c:int8:states"
    assert fusions[0] == fusions[1]
