"""A shop with real titles, trained with the packaged encoder: what is typed is found by meaning, without torch."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import wave
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice, product
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from endcap.app.runtime import Shop
from endcap.app.search import Ear
from endcap.core.errors import CallerError
from endcap.core.types import Event, EventType
from endcap.encoders.speech import Transcript
from endcap.web.server import create_app

SETTINGS = '[train]\nthreads = 1\nmoments = 1\nsources = ["content", "trending", "popular"]\n'
KINDS = {
    "shoes": ("running shoes", "leather boots", "sandals for the beach"),
    "drinks": ("oat milk", "green tea", "orange juice"),
    "tools": ("cordless drill", "claw hammer", "tape measure"),
    "care": ("hair shampoo", "face cream", "lip balm"),
}
SIZES = ("small", "large", "for children", "premium", "eco")
DAY_MS = 86_400_000
NOW_MS = 1_760_000_000_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [(kind, f"{name}, {size}") for kind, kept in KINDS.items() for name, size in product(kept, SIZES)]
    items = pl.DataFrame(
        {
            "item_id": [f"i{place}" for place in range(len(names))],
            "title": [name for _, name in names],
            "categories": [[kind] for kind, _ in names],
        }
    )
    acts = [
        (f"u{user}", f"i{(7 * user + 11 * act) % len(names)}", "purchase", NOW_MS - (40 - user - act) * DAY_MS)
        for user, act in product(range(30), range(6))
    ]
    events = pl.DataFrame(acts, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row")
    folder = Shop.init(tmp_path_factory.mktemp("search") / "shop", SETTINGS)
    with Shop.open(folder, clock=lambda: NOW_MS) as shop:
        shop.ingest(events, items=items)
        shop.train(evaluate=False)
    return folder


@pytest.fixture
def shop(trained):
    with Shop.open(trained, clock=lambda: NOW_MS, read_only=True) as opened:
        yield opened


def titles(shop: Shop, text: str, n: int = 5, **asked) -> list[str]:
    found = [item.item_id for item in shop.search(text, n=n, **asked).items]
    names = shop.titles(found)
    return [names[item_id] for item_id in found]


@pytest.mark.parametrize(
    ("text", "kind"), [("sneakers for jogging", "running shoes"), ("power tool for holes", "cordless drill")]
)
def test_meaning_finds_what_no_word_says(shop: Shop, text: str, kind: str) -> None:
    assert all(kind in title for title in titles(shop, text, 3))


def test_words_find_the_very_thing(shop: Shop) -> None:
    slate = shop.search("eco lip balm", n=3)
    assert shop.titles([slate.items[0].item_id]) == {slate.items[0].item_id: "lip balm, eco"}
    assert slate.items[0].reason == "Has the words you searched for"
    assert slate.degraded == ()
    assert shop.search("eco lip balm", n=1, locale="zh-CN").items[0].reason == "包含您搜索的词语"


def test_filters_hold_in_search_too(shop: Shop) -> None:
    everything = titles(shop, "milk", 60, categories=("drinks",))
    assert everything
    assert all(title.split(",")[0] in KINDS["drinks"] for title in everything)
    first = shop.search("milk", n=1).items[0].item_id
    assert first not in [item.item_id for item in shop.search("milk", n=60, exclude=(first,)).items]


def test_the_shopper_moves_what_fits(trained: Path) -> None:
    with Shop.open(trained, clock=lambda: NOW_MS) as shop:
        ids = {title: item_id for item_id, title in shop.titles([f"i{place}" for place in range(60)]).items()}
        liked = ids["green tea, large"]
        for place in range(3):
            shop.record(
                Event(
                    event_type=EventType.VIEW,
                    user_id="likes-0",
                    ts_ms=NOW_MS - place,
                    item_id=liked,
                    event_id=f"e{place}",
                )
            )
        plain = [item.item_id for item in shop.search("tea", n=5).items]
        ours = [item.item_id for item in shop.search("tea", "likes-0", n=5).items]
    assert plain.index(liked) > ours.index(liked) == 0


def test_an_encoder_that_cannot_be_kept_costs_meaning_and_not_the_training(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(trained, tmp_path / "shop")
    (occupied := tmp_path / "file").write_text("")
    monkeypatch.setenv("ENDCAP_MODELS", str(occupied))
    with Shop.open(folder, clock=lambda: NOW_MS) as shop:
        notes = shop.train(evaluate=False).notes
        assert titles(shop, "eco lip balm", 1) == ["lip balm, eco"]
    assert any(note.startswith("Search goes by words alone") and "ENDCAP_MODELS" in note for note in notes)


def test_over_http_and_wrong_input(shop: Shop) -> None:
    with TestClient(create_app(shop)) as client:
        answer = client.get("/v1/search", params={"q": "sneakers for jogging", "n": 2}).json()
        assert answer["placement"] == "search"
        assert answer["recommendation_id"].startswith("r-")
        assert all("running shoes" in item["title"] for item in answer["items"])
        assert client.get("/v1/search").status_code == 422
        assert client.get("/v1/search", params={"q": "a" * 1001}).status_code == 422
        assert client.get("/v1/search", params={"q": "tea", "n": 0}).status_code == 422
        assert client.get("/v1/search", params={"q": " "}).status_code == 422
    with pytest.raises(CallerError, match="characters"):
        shop.search("a" * 1001)


def test_a_server_searches_without_torch(trained: Path) -> None:
    code = (
        "import json, sys\nfrom endcap.app.runtime import Shop\n"
        f"shop = Shop.open({str(trained)!r}, read_only=True)\n"
        "found = shop.search('sneakers for jogging', n=1)\n"
        "print(json.dumps([found.degraded, found.items[0].source, bool({'torch', 'transformers'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], "meaning", False]


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Somebody says, in English, what his country should be asked."""
    root = os.environ.get("ENDCAP_DATA")
    files = sorted(Path(root, "speech").glob("*.flac")) if root else []
    if not files:
        pytest.skip("reads a clip of English speech below ENDCAP_DATA")
    return files[0].read_bytes()


def test_spoken_words_are_heard_and_searched_for(shop: Shop, clip: bytes) -> None:
    with TestClient(create_app(shop)) as client:
        sent = {"content": clip, "headers": {"Content-Type": "audio/flac"}}
        answer = client.post("/v1/search", params={"n": 3}, **sent).json()
        assert "country" in answer["heard"]
        assert answer["language"] == "en"
        typed = client.get("/v1/search", params={"n": 3, "q": answer["heard"]}).json()
        assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in typed["items"]]


def test_a_wrong_setting_is_not_the_callers_fault(trained: Path) -> None:
    """And it is said every time, while words go on being searched for."""
    with Shop.open(trained, read_only=True) as opened:
        broken = opened.config.speech.model_copy(update={"model": "no such model"})
        opened._ear = Ear(broken)
        with TestClient(create_app(opened)) as client:
            for _ in range(2):
                answer = client.post("/v1/search", content=b"RIFF", headers={"Content-Type": "audio/wav"})
                assert answer.status_code == 503, answer.text
                assert answer.json()["error"]["where"] == "[speech]"
            assert client.get("/v1/search", params={"q": "tea"}).status_code == 200


def test_when_many_clips_wait_others_are_answered(shop: Shop) -> None:
    """One is listened to, eight wait, the tenth is told to come again; what is typed is answered meanwhile."""
    listening, go_on = threading.Event(), threading.Event()

    def transcribe(clip: bytes) -> Transcript:
        listening.set()
        assert go_on.wait(30)
        return Transcript("tea", "en", 1.0, 1.0, ())

    shop._ear.transcribe = transcribe
    sent = {"content": b"RIFF", "headers": {"Content-Type": "audio/wav"}}
    with TestClient(create_app(shop)) as client, ThreadPoolExecutor(12) as threads:
        try:
            first = [threads.submit(client.post, "/v1/search", **sent)]
            assert listening.wait(30)
            further = [threads.submit(client.post, "/v1/search", **sent) for _ in range(10)]
            for refused in islice(as_completed(further, timeout=30), 2):
                assert refused.result().status_code == 429
                assert "others wait" in refused.result().json()["error"]["what"]
            assert client.get("/v1/search", params={"q": "tea"}).status_code == 200
        finally:
            go_on.set()
        codes = sorted(one.result(30).status_code for one in (*first, *further))
    assert codes == [200] * 9 + [429] * 2


def test_what_is_no_speech_is_said(shop: Shop) -> None:
    silence = io.BytesIO()
    with wave.open(silence, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 16_000))
    with TestClient(create_app(shop)) as client:
        for body, kind, status in (
            (silence.getvalue(), "audio/wav", 422),
            (b"not a sound", "audio/wav", 422),
            (b"", "audio/wav", 422),
            (b"{}", "application/json", 415),
            (bytes(9 * 1024 * 1024), "audio/wav", 413),
        ):
            answer = client.post("/v1/search", content=body, headers={"Content-Type": kind})
            assert answer.status_code == status, answer.text
            assert answer.json()["error"]["what"].endswith(".")
