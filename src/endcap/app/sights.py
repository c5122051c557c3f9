"""Pictures in a release: what training puts there for search by picture, and what looks at one.

<release>/search/
  pictures/     vectors of the items' own pictures: laid into the text encoder's space where the items have words too
                which items have any
  described/    vectors of the items' words, with what familiar ones are discounted by (`Alignment.texts_for`)
  eye/          the image encoder as ONNX, so that pictures are looked at without torch
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from endcap.app.config import Config
from endcap.app.content import ALIGNMENT, Content
from endcap.app.lazy import LazyEncoder
from endcap.core.errors import EndcapError
from endcap.core.protocols import Encoder
from endcap.encoders.align import AlignedEncoder, Alignment
from endcap.encoders.media import Media
from endcap.encoders.onnx_files import exported_once
from endcap.encoders.onnx_image import OnnxImageEncoder
from endcap.features.items import ItemTable
from endcap.index.exact import ExactIndex
from endcap.recommend.search import Sights

PICTURES, DESCRIBED, EYE, SEEN = "pictures", "described", "eye", "seen.npy"
UNPACKED = 16_000_000  # pixels of a picture that is searched by: anybody may send one, and several at a time


def write_sights(folder: Path, content: Content, config: Config) -> str:
    """Into an existing folder. Returns a note where pictures cannot be searched by, empty where all is well."""
    photos, texts = content.known.photos, content.known.modalities.get("text")
    if photos is None:
        return ""
    alignment = None if texts is None else content.alignment
    try:
        exported = _exported(photos.files, config)
    except EndcapError as error:
        return f"There is no search by picture: {error}"
    count = len(content.vectors)
    for part in (PICTURES, DESCRIBED) if alignment is not None else (PICTURES,):
        (folder / part).mkdir()
    shutil.copytree(exported, folder / EYE)
    np.save(folder / PICTURES / SEEN, np.bincount(photos.items, minlength=count) > 0)
    if alignment is None or texts is None:
        ExactIndex(photos.of_items(count)).save(folder / PICTURES)
        return ""
    ExactIndex(photos.through(alignment.project).of_items(count)).save(folder / PICTURES)
    bonus = np.float32(alignment.settings.discount) * (1 - alignment.familiarity(texts))
    described = np.append(texts, np.where(texts.any(axis=1), bonus, 0)[:, None], axis=1)
    ExactIndex(np.ascontiguousarray(described, np.float32)).save(folder / DESCRIBED)
    return ""


def read_sights(release: Path, folder: Path, table: ItemTable) -> Sights | None:
    """folder: the release's `search`. Imports neither torch nor transformers."""
    if not (folder / EYE).is_dir():
        return None
    aligned = release / "content" / ALIGNMENT
    pictures, described = ExactIndex.load(folder / PICTURES), None
    wordless = (table.frame["title"].str.strip_chars() == "").to_numpy()
    if (folder / DESCRIBED).is_dir():
        alignment = Alignment.load(aligned)
        eye: Encoder[Media] = AlignedEncoder(_eye(folder, len(alignment.weights)), alignment)
        described = ExactIndex.load(folder / DESCRIBED)
    else:
        eye = _eye(folder, pictures.dim)
    return Sights(eye, pictures, described, wordless, ~np.load(folder / PICTURES / SEEN, allow_pickle=False))


def _eye(folder: Path, dim: int) -> LazyEncoder[Media]:
    return LazyEncoder(folder / EYE, dim, partial(OnnxImageEncoder, unpacked=UNPACKED))


def _exported(photos: Sequence[Path], config: Config) -> Path:
    from endcap.encoders.image import ImageEncoder
    from endcap.encoders.onnx_image_export import export_image

    encoder = ImageEncoder(config.image)
    return exported_once(encoder.name, OnnxImageEncoder, lambda place: export_image(encoder, place, pictures=photos))
