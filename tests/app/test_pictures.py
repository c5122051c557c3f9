"""A shop with pictures: what looks alike is found, words and pictures stand for each other, and nothing is lost."""

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from tests.encoders.conftest import drawn, stored

from endcap.app import content
from endcap.app.content import Content, Known, fit_content, read_content
from endcap.app.ingest import silent
from endcap.app.media import REFUSED, ContentConfig, Perceived
from endcap.app.runtime import Shop
from endcap.app.sights import read_sights, write_sights
from endcap.core.errors import CallerError, DataError
from endcap.encoders import align_fit
from endcap.features.items import ItemTable
from endcap.web.server import create_app

SETTINGS = """[train]
threads = 1
moments = 1
sources = ["content", "trending", "popular"]
[content]
folder = "photos"
[fusion]
steps = 60
[text]
precision = "float32"
[image]
precision = "float32"
layers = "all"
max_pixels = 40000
"""
SHAPES, COLOURS = ("disc", "box", "stripes"), ("red", "blue", "green", "yellow", "black", "purple")
KINDS = list(product(SHAPES, COLOURS))
SIZES = ((96, 80), (120, 90), (80, 100))  # of the first two there are items, each with its own picture
DAY_MS, NOW_MS = 86_400_000, 1_760_000_000_000
NAMELESS, UNSEEN = "disc-red-1", "box-blue-1"  # an item without words, and one without a picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Shop.init(tmp_path_factory.mktemp("pictures") / "shop", SETTINGS)
    (folder / "photos").mkdir()
    rows = []
    for shape, colour in KINDS:
        for place, size in enumerate(SIZES[:2]):
            name = f"{shape}-{colour}-{place}"
            (folder / "photos" / f"{name}.png").write_bytes(stored(drawn(shape, colour, size)))
            images = [] if name == UNSEEN else [f"{name}.png"]
            title = "" if name == NAMELESS else f"{colour} {shape}, size {place}"
            rows.append((name, title, images))
    (folder / "photos" / "broken.png").write_bytes(b"no picture")
    (folder.parent / "secret.png").write_bytes(stored(drawn("disc", "red")))
    lost = ["broken.png", "gone.png", "../../secret.png", "https://shop.example/a.png"]
    rows += [(f"plain-{place}", f"grey thing {place}", [file]) for place, file in enumerate(lost)]
    rows += [(f"word-{place}", f"a thing of number {place}", []) for place in range(20)]
    rows = [(*row, [] if row[0] == NAMELESS else ["things"]) for row in rows]
    columns = {"item_id": str, "title": str, "images": pl.List(pl.String), "categories": pl.List(pl.String)}
    items = pl.DataFrame(rows, schema=columns, orient="row")
    names = [row[0] for row in rows]
    acts = [
        (f"u{user}", names[(5 * user + 3 * act) % len(names)], "purchase", NOW_MS - (40 - user - act) * DAY_MS)
        for user, act in product(range(30), range(6))
    ]
    with Shop.open(folder, clock=lambda: NOW_MS) as shop:
        shop.ingest(pl.DataFrame(acts, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row"), items=items)
        trained = shop.train(evaluate=False)
    (folder / "notes.json").write_text(json.dumps(trained.notes))
    return folder


@pytest.fixture
def shop(folder: Path):
    with Shop.open(folder, clock=lambda: NOW_MS, read_only=True) as opened:
        yield opened


def found(shop: Shop, shape: str, colour: str, n: int = 3, **asked: object) -> list[str]:
    """By a picture that the shop has not seen."""
    slate = shop.search_picture(stored(drawn(shape, colour, SIZES[2]), "JPEG"), n=n, **asked)
    assert slate.degraded == ()
    return [item.item_id for item in slate.items]


def test_a_picture_finds_what_looks_like_it(shop: Shop) -> None:
    right = [
        any(item.startswith(f"{shape}-{colour}") for item in found(shop, shape, colour)) for shape, colour in KINDS
    ]
    assert np.mean(right) > 0.8
    slate = shop.search_picture(stored(drawn("disc", "red", SIZES[2])), n=1, locale="zh")
    assert slate.items[0].source == "picture"
    assert slate.items[0].reason == "与您的图片相似"


def test_filters_hold_for_pictures_too(shop: Shop) -> None:
    first = found(shop, "stripes", "green")[0]
    assert first not in found(shop, "stripes", "green", 20, exclude=(first,))


def test_an_item_without_words_is_found_by_words(shop: Shop) -> None:
    found = {item.item_id: item.reason for item in shop.search("red disc", n=6).items}
    assert found[NAMELESS] == "Its picture fits what you searched for"


def test_words_are_whatever_is_read(folder: Path, tmp_path: Path) -> None:
    """An item without a title has words where it has a category."""
    with Shop.open(folder, read_only=True) as shop:
        frame, config = shop.store.items(), shop.config
        release = shop.releases.root / shop.releases.current()
    before = read_sights(release, release / "search", ItemTable.build(frame))
    shelved = pl.when(pl.col("item_id") == NAMELESS).then(pl.lit(["things"])).otherwise("categories")
    table = ItemTable.build(frame.with_columns(shelved.alias("categories")))
    content = read_content(table, config, folder, silent, [], release)
    assert content is not None
    assert write_sights(tmp_path, content, config) == ""
    after = read_sights(release, tmp_path, table)
    for sights, wordless in ((before, [NAMELESS]), (after, [])):
        assert sights is not None
        assert sights.described is not None
        assert [table.ids.ids[item] for item in np.flatnonzero(sights.described.wordless)] == wordless


def test_an_item_without_a_picture_is_found_by_one(shop: Shop) -> None:
    assert UNSEEN in found(shop, "box", "blue", 10)


def test_what_cannot_be_read_is_listed_with_the_reason(folder: Path) -> None:
    lost = pl.read_csv(folder / REFUSED)
    assert sorted(lost["item_id"]) == [f"plain-{place}" for place in range(4)]
    assert sorted(lost["file"]) == ["../../secret.png", "broken.png", "gone.png", "https://shop.example/a.png"]
    why = dict(zip(lost["item_id"], lost["reason"], strict=True))
    assert "no picture of a kind that is read" in why["plain-0"]
    assert "cannot be read: No such file" in why["plain-1"]
    assert "outside of" in why["plain-2"]
    assert "download it" in why["plain-3"]
    notes = json.loads((folder / "notes.json").read_text())
    assert [note for note in notes if note.startswith("4 files of the catalogue's pictures and sound are not read")]


def test_a_refit_reads_items_as_the_release_does(folder: Path) -> None:
    """New items come, and the old ones' vectors stay where the release has them."""
    with Shop.open(folder, clock=lambda: NOW_MS) as shop:
        release, before = shop.releases.current(), _content(shop)
        (folder / "photos" / "new.png").write_bytes(stored(drawn("box", "orange")))
        new = pl.DataFrame({"item_id": ["new"], "title": ["orange box"], "images": [["new.png"]]})
        shop.ingest(items=new)
        assert shop.refit().before == release
        after = _content(shop)
        assert [item.item_id for item in shop.search_picture(stored(drawn("box", "orange")), n=1).items] == ["new"]
        shop.rollback()
    assert after.name == before.name
    kept = [place for place, item in enumerate(sorted([*_ids(folder), "new"])) if item != "new"]
    np.testing.assert_allclose(after.vectors[kept], before.vectors, atol=1e-6)


def test_a_refit_refuses_other_encoders_of_the_same_width(folder: Path) -> None:
    with Shop.open(folder, read_only=True) as shop:
        table, release = ItemTable.build(shop.store.items()), shop.releases.root / (shop.releases.current() or "")
        for section, changed in (("text", {"pooling": "cls"}), ("content", {"reads": ("title",)})):
            other = getattr(shop.config, section).model_copy(update=changed)
            config = shop.config.model_copy(update={section: other})
            with pytest.raises(CallerError, match=r"What encodes text is .* now, and .*Train again"):
                read_content(table, config, shop.folder, silent, [], release)


def test_a_release_that_knew_words_alone_is_refitted_by_them(folder: Path, tmp_path: Path) -> None:
    notes = list[str]()
    with Shop.open(folder, read_only=True) as shop:
        found = read_content(ItemTable.build(shop.store.items()), shop.config, shop.folder, silent, notes, tmp_path)
    assert found is not None
    assert list(found.known.modalities) == ["text"]
    assert notes == ["The catalogue has image now, which the release cannot read; a training will."]


def test_a_release_that_does_not_say_what_encoded_its_items_is_refused(folder: Path, tmp_path: Path) -> None:
    with Shop.open(folder, read_only=True) as shop:
        kept = shop.releases.root / (shop.releases.current() or "") / "content"
        copied = shutil.copytree(kept, tmp_path / "content") / "fusion" / "fusion.json"
        copied.write_text(json.dumps({"parts": json.loads(copied.read_text())["parts"]}))
        with pytest.raises(CallerError, match=r"does not say what encoded its items\. Train again"):
            read_content(ItemTable.build(shop.store.items()), shop.config, shop.folder, silent, [], tmp_path)


def test_a_refit_that_reads_no_words_still_looks_at_pictures(folder: Path, tmp_path: Path) -> None:
    with Shop.open(folder, read_only=True) as shop:
        config = shop.config.model_copy(
            update={"content": shop.config.content.model_copy(update={"modalities": ("image",)})}
        )
        table = ItemTable.build(shop.store.items())
        release = shop.releases.root / shop.releases.current()
    read = read_content(table, config, folder, silent, [], release)
    assert read is not None
    assert read.alignment is not None
    assert write_sights(tmp_path, read, config) == ""
    sights = read_sights(tmp_path, tmp_path, table)
    assert sights is not None
    seen = sights.laid(sights.eye.encode([(folder / "photos" / "disc-blue-1.png").read_bytes()]))[0]
    assert table.ids.ids[sights.items[sights.photos.search(seen, 1)[0][0]]] == "disc-blue-1"


def _content(shop: Shop) -> Content:
    table = ItemTable.build(shop.store.items())
    content = read_content(table, shop.config, shop.folder, silent, [], shop.releases.root / shop.releases.current())
    assert content is not None
    return content


def _ids(folder: Path) -> list[str]:
    with Shop.open(folder, read_only=True) as shop:
        return [item for item in shop.store.items()["item_id"] if item != "new"]


def test_an_item_whose_photo_was_not_learned_from_counts_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty items with words, thirty of them with a photo, of which fifteen are learned from."""
    shares = list[float]()
    monkeypatch.setattr(content, "ALIGNED_ON", 15)
    monkeypatch.setattr(align_fit, "fit_alignment", lambda photos, texts, *, new_share: shares.append(new_share))
    draw = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    photos = Perceived(draw[:30], np.arange(30), [Path()] * 30)
    content._aligned(Known({"text": draw, "image": photos.of_items(40)}, {}, photos))
    assert shares == [pytest.approx(25 / 40)]


def test_over_http_and_wrong_input(shop: Shop) -> None:
    picture = stored(drawn("disc", "red", SIZES[2]))
    with TestClient(create_app(shop)) as client:

        def sent(content: bytes, kind: str):
            return client.post("/v1/search", params={"n": 2}, content=content, headers={"Content-Type": kind})

        answer = sent(picture, "image/png").json()
        assert answer["items"][0]["item_id"].startswith("disc-red")
        assert answer["items"][0]["reason"] == "Looks like your picture"
        assert answer["heard"] is None
        assert sent(b"no picture", "image/png").status_code == 422
        assert sent(picture[:200], "image/png").status_code == 422
        assert sent(picture, "text/plain").status_code == 415
        assert "image/jpeg" in sent(picture, "text/plain").json()["error"]["next_step"]
        assert sent(b"", "image/png").status_code == 422
    with pytest.raises(DataError, match=r"^picture: .*300 x 200 pixels"):
        shop.search_picture(stored(drawn("disc", "red", (300, 200))))
    with pytest.raises(DataError, match=r"^picture: It is no picture"):
        shop.search_picture(b"no picture")


def test_a_folder_that_is_not_there_stops_the_training(folder: Path, tmp_path: Path) -> None:
    with Shop.open(folder, read_only=True) as shop:
        config = shop.config.model_copy(update={"content": ContentConfig(folder="nowhere")})
        with pytest.raises(CallerError, match=r"There is no folder .*nowhere"):
            fit_content(ItemTable.build(shop.store.items()), config, tmp_path, silent, [], None)


def test_a_server_looks_without_torch(folder: Path) -> None:
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom endcap.app.runtime import Shop\n"
        f"shop = Shop.open({str(folder)!r}, read_only=True)\n"
        f"picture = Path({str(folder / 'photos' / 'disc-red-0.png')!r}).read_bytes()\n"
        "found = shop.search_picture(picture, n=1)\n"
        "print(json.dumps([found.items[0].item_id, bool({'torch', 'transformers'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["disc-red-0", False]


def test_a_shop_without_pictures_or_that_did_not_read_them_says_which(tmp_path: Path) -> None:
    settings = SETTINGS.replace('"content", ', "").replace('folder = "photos"', "")
    with Shop.open(Shop.init(tmp_path / "shop", settings)) as shop:
        acts = [(f"u{act % 5}", f"i{act % 7}", "purchase", NOW_MS + act * DAY_MS) for act in range(60)]
        shop.ingest(pl.DataFrame(acts, schema=["user_id", "item_id", "event_type", "ts_ms"], orient="row"))
        why = "no source reads what items are"
        assert not any(why in note for note in shop.train(evaluate=False).notes)
        with pytest.raises(CallerError, match="no pictures to compare with"):
            shop.search_picture(stored(drawn("disc", "red")))
        shop.ingest(items=pl.DataFrame({"item_id": ["i0"], "title": ["a disc"], "images": [["disc.png"]]}))
        assert any(why in note for note in shop.refit().notes)
        with pytest.raises(CallerError, match=r"has not read the pictures .* `content` among \[train\] sources"):
            shop.search_picture(stored(drawn("disc", "red")))
