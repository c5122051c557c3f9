"""Pictures in a release: what training puts there for search by picture, and what looks at one.

<release>/search/
  pictures/     vectors of the items' own photos, each by itself; laid into the text encoder's space where the items
                have words too
                whose each is, its vector as the eye gives it (float16), and which items without words are found by
  described/    vectors of the items' words, with what familiar ones are discounted by (`Alignment.texts_for`)
                which items have none
  eye/          the image encoder as ONNX, so that pictures are looked at without torch
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from endcap.app.config import Config
from endcap.app.content import ALIGNMENT, Content
from endcap.app.lazy import LazyEncoder
from endcap.core.determinism import rng
from endcap.core.errors import EndcapError
from endcap.core.types import Float32Array
from endcap.encoders.align import Alignment
from endcap.encoders.media import Media
from endcap.encoders.onnx_files import exported_once
from endcap.encoders.onnx_image import OnnxImageEncoder
from endcap.features.items import ItemTable
from endcap.index.exact import ExactIndex
from endcap.recommend.sights import Described, Sights

PICTURES, DESCRIBED, EYE = "pictures", "described", "eye"
ITEMS, OWN, ALONE, DRAWN, WORDLESS = "items.npy", "own.npy", "alone.npy", "drawn.npy", "wordless.npy"
UNPACKED = 16_000_000  # pixels of a picture that is searched by: anybody may send one, and several at a time
TEXTS_IN_GENERAL = 5000  # at most, by lot


def write_sights(folder: Path, content: Content, config: Config) -> str:
    """Into an existing folder. Returns a note where pictures cannot be searched by, empty where all is well."""
    photos, texts = content.known.photos, content.known.modalities.get("text")
    if photos is None:
        return ""
    try:
        exported = _exported(photos.files, config)
    except EndcapError as error:
        return f"There is no search by picture: {error}"
    shutil.copytree(exported, folder / EYE)
    place = folder / PICTURES
    place.mkdir()
    np.save(place / ITEMS, photos.items.astype(np.int32))
    np.save(place / OWN, photos.vectors.astype(np.float16))
    if content.alignment is None or texts is None:
        ExactIndex(np.ascontiguousarray(photos.vectors, np.float32)).save(place)
        return ""
    laid = content.alignment.project(photos.vectors)
    ExactIndex(np.ascontiguousarray(laid, np.float32)).save(place)
    _write_described(folder, content.alignment, texts)
    alone = np.flatnonzero(~texts[photos.items].any(axis=1))
    np.save(place / ALONE, alone.astype(np.int32))
    np.save(place / DRAWN, content.alignment.drawn(laid[alone], _in_general(texts)))
    return ""


def _write_described(folder: Path, alignment: Alignment, texts: Float32Array) -> None:
    worded = texts.any(axis=1)
    bonus = np.float32(alignment.settings.discount) * (1 - alignment.familiarity(texts))
    described = np.append(texts, np.where(worded, bonus, 0)[:, None], axis=1)
    (folder / DESCRIBED).mkdir()
    ExactIndex(np.ascontiguousarray(described, np.float32)).save(folder / DESCRIBED)
    np.save(folder / DESCRIBED / WORDLESS, ~worded)


def _in_general(texts: Float32Array) -> Float32Array:
    """float32 [m, t]: what the catalogue says, by lot."""
    worded = np.flatnonzero(texts.any(axis=1))
    drawn = rng(0, "texts in general").permutation(worded)[:TEXTS_IN_GENERAL]
    return np.unique(texts[np.sort(drawn)], axis=0)


def read_sights(release: Path, folder: Path, table: ItemTable) -> Sights | None:
    """folder: the release's `search`. None where it has no pictures, or was written before photos were kept one by
    one. Imports neither torch nor transformers."""
    place = folder / PICTURES
    if not (folder / EYE).is_dir() or not (place / ITEMS).is_file():
        return None
    items, own = _read(place / ITEMS), np.load(place / OWN, mmap_mode="r", allow_pickle=False)
    eye, photos = _eye(folder, own.shape[1]), ExactIndex.load(place)
    unseen = np.bincount(items, minlength=len(table)) == 0
    if not (folder / DESCRIBED).is_dir():
        return Sights(eye, items, own, photos, lambda seen: seen, unseen)
    words, wordless = ExactIndex.load(folder / DESCRIBED), _read(folder / DESCRIBED / WORDLESS)
    described = Described(words, wordless, _read(place / ALONE), _read(place / DRAWN))
    return Sights(eye, items, own, photos, Alignment.load(release / "content" / ALIGNMENT).project, unseen, described)


def _eye(folder: Path, dim: int) -> LazyEncoder[Media]:
    return LazyEncoder(folder / EYE, dim, partial(OnnxImageEncoder, unpacked=UNPACKED))


def _read(file: Path) -> Any:
    return np.load(file, allow_pickle=False)


def _exported(photos: Sequence[Path], config: Config) -> Path:
    from endcap.encoders.image import ImageEncoder
    from endcap.encoders.onnx_image_export import export_image

    encoder = ImageEncoder(config.image)
    return exported_once(encoder.name, OnnxImageEncoder, lambda place: export_image(encoder, place, pictures=photos))
