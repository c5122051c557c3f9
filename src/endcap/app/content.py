"""What is known of each item as one vector: its words, pictures and sound, encoded once and fused.

A catalogue of words alone keeps the text encoder's vectors as they are. Where there is more, the modalities are fused
(`encoders.fuse`) by what agrees within an item and by what shoppers took one after the other, and pictures are laid
into the text encoder's space (`encoders.align`), for search. What was fitted is part of the release: a refit reads new
items by it, so that vectors mean the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from endcap.app.config import Config
from endcap.app.media import Lost, Perceived, files_of, list_lost, perceive
from endcap.core.determinism import rng
from endcap.core.errors import CallerError, MissingExtraError
from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.align import Alignment
from endcap.encoders.fuse import Fusion
from endcap.encoders.media import Media, Refused
from endcap.encoders.precision import space
from endcap.features.items import ItemTable

if TYPE_CHECKING:
    from endcap.features.sequences import Histories

FOLDER, FUSION, ALIGNMENT = "content", "fusion", "alignment"
COLUMNS = {"image": "images", "audio": "audio"}
AT_ONCE = {"image": 64, "audio": 8}  # files that a killed run has to read again, at most
FEWEST_ALIGNED = 10  # photos of items with words, below which nothing can be learned from them
ALIGNED_ON = 5000  # such photos at most, by lot
BELONGING = 500_000  # pairs at most of what was taken one after the other, by lot
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What can be read of a catalogue. modalities: name -> float32 [items, w], each in its encoder's own space.
    encoders: name -> what that space depends on. photos: every picture by itself."""

    modalities: dict[str, Float32Array]
    encoders: dict[str, str]
    photos: Perceived | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """vectors: float32 [items, d], unit rows, zero where nothing is known: the item content vector everywhere. name: of
    the space they are in. alignment: from the pictures' space to the texts', where there are both."""

    vectors: Float32Array
    name: str
    known: Known
    fusion: Fusion
    alignment: Alignment | None = None

    def save(self, folder: Path) -> None:
        """What was fitted, into an existing folder."""
        for name, fitted in ((FUSION, self.fusion), (ALIGNMENT, self.alignment)):
            if fitted is not None:
                (folder / name).mkdir()
                fitted.save(folder / name)


def fit_content(
    table: ItemTable, config: Config, workspace: Path, progress: Progress, notes: list[str], taken: Histories | None
) -> Content | None:
    """taken: what shoppers took, from which what belongs together is learned. notes: takes sentences on what was
    decided. None, with a note, where there is nothing to read or nothing to read it with."""
    known = read_catalogue(table, config, workspace, progress, notes)
    if not known.modalities:
        return None
    if len(known.modalities) == 1:
        return _content(known, _only(known), _aligned(known))
    from endcap.encoders.fuse_fit import fit_fusion

    progress("fuse what is known of items", 0.0)
    try:
        fitted = fit_fusion(known.modalities, config.fusion, pairs=None if taken is None else belonging(taken))
        fusion = Fusion(fitted.projections, encoders=known.encoders)
    except CallerError as error:
        fusion = _only(known)
        notes.append(f"The content vectors are those of {next(iter(fusion.widths))} alone: {error}")
    return _content(known, fusion, _aligned(known))


def read_content(
    table: ItemTable, config: Config, workspace: Path, progress: Progress, notes: list[str], release: Path
) -> Content | None:
    """As a release reads items: of the catalogue what the release knew, by the same encoders. CallerError where they
    are others now, or the release does not say which they were."""
    folder, again = release / FOLDER, f"Train again: endcap train --shop {workspace}"
    fusion = Fusion.load(folder / FUSION) if (folder / FUSION).is_dir() else None
    if fusion is not None and not fusion.encoders:
        raise CallerError("The release does not say what encoded its items.", where=str(release), next_step=again)
    readable = ("text",) if fusion is None else fusion.encoders  # of a release that knew no more than words
    asked = config.content.modalities
    notes += [
        f"The catalogue has {name} now, which the release cannot read; a training will."
        for name in asked
        if name not in readable and holds(table, name, config)
    ]
    of_release = config.content.model_copy(update={"modalities": tuple(name for name in asked if name in readable)})
    read = config.model_copy(update={"content": of_release})
    known = read_catalogue(table, read, workspace, progress, notes)
    if fusion is None:
        return _content(known, _only(known), None) if known.modalities else None
    for name, encoder in known.encoders.items():
        if encoder != fusion.encoders[name]:
            raise CallerError(
                f"What encodes {name} is {encoder!r} now, and {fusion.encoders[name]!r} in the release.",
                where=name,
                next_step=again,
            )
    if not known.modalities.keys() & fusion.widths.keys():
        return None
    alignment = Alignment.load(folder / ALIGNMENT) if (folder / ALIGNMENT).is_dir() else None
    return _content(known, fusion, alignment)


def read_catalogue(table: ItemTable, config: Config, workspace: Path, progress: Progress, notes: list[str]) -> Known:
    """Of the modalities that the settings ask for, those that any item has and that there is an encoder for."""
    found: dict[str, Float32Array] = {}
    encoders: dict[str, str] = {}
    photos: Perceived | None = None
    lost: list[Lost] = []
    for name in config.content.modalities:
        try:
            if name == "text":
                texts = _read_texts(table, config, workspace, progress, notes)
                if texts is not None:
                    found[name], encoders[name] = texts
                continue
            perceived = _perceive(name, table, config, workspace, progress, notes, lost)
        except MissingExtraError as error:
            notes.append(f"There are no content vectors of {name}: {error}")
            continue
        if perceived is not None:
            files, encoders[name] = perceived
            found[name] = files.of_items(len(table))
            photos = files if name == "image" else photos
    list_lost(workspace, lost, notes.append)
    if not found and "text" in config.content.modalities and not any(table.texts(config.content.reads)):
        notes.append("The catalogue has no text, so there are no content vectors.")
    return Known(found, encoders, photos)


def holds(table: ItemTable, name: str, config: Config) -> bool:
    """Whether any item has something of the modality, by name."""
    if name == "text":
        return any(table.texts(config.content.reads))
    return bool((table.frame[COLUMNS[name]].list.len() > 0).any())


def belonging(taken: Histories) -> Int64Array:
    """int64 [p, 2]: what a shopper took, and what the same one took next."""
    users = np.repeat(np.arange(len(taken)), np.diff(taken.offsets))
    successes = taken.events.successes()
    items, users = taken.events.items[successes], users[successes]
    follows = np.flatnonzero((users[:-1] == users[1:]) & (items[:-1] != items[1:]))
    if len(follows) > BELONGING:
        follows = np.sort(rng(0, "what belongs together").permutation(follows)[:BELONGING])
    return np.stack([items[follows], items[follows + 1]], axis=1).astype(np.int64)


def _read_texts(
    table: ItemTable, config: Config, workspace: Path, progress: Progress, notes: list[str]
) -> tuple[Float32Array, str] | None:
    """Also what the vectors' space depends on: the encoder, and what it reads of an item."""
    from endcap.encoders.cache import Across, CachedEncoder
    from endcap.encoders.text import TextEncoder

    texts = table.texts(config.content.reads)
    if not any(texts):
        return None
    stage = "encode the catalogue's texts"
    progress(stage, 0.0)
    across = Across(lambda done, total: progress(stage, done / max(1, total)))
    encoder = TextEncoder(config.text, progress=across, noted=_once(notes))
    distinct, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
    vectors = CachedEncoder(encoder, workspace / "cache" / "text", progress=across).encode(distinct.tolist())
    return vectors[place], f"{space(encoder.name)}:{'+'.join(config.content.reads)}"


def _perceive(
    name: str,
    table: ItemTable,
    config: Config,
    workspace: Path,
    progress: Progress,
    notes: list[str],
    lost: list[Lost],
) -> tuple[Perceived, str] | None:
    """The pictures, or the recordings, of the items that have any, and what their space depends on."""
    files = files_of(table, COLUMNS[name], workspace / config.content.folder, config.content.per_item)
    lost += files.lost
    if not files.paths:
        return None
    from endcap.encoders.cache import Across, CachedEncoder
    from endcap.encoders.image import ImageEncoder
    from endcap.encoders.speech import SpeechEncoder

    stage, refused = f"encode the catalogue's {COLUMNS[name]}", list[Refused]()
    progress(stage, 0.0)
    across = Across(lambda done, total: progress(stage, done / max(1, total)))
    if name == "image":
        encoder: Encoder[Media] = ImageEncoder(config.image, progress=across, refused=refused, noted=_once(notes))
    else:
        encoder = SpeechEncoder(config.speech, progress=across, refused=refused)
    cached = CachedEncoder(encoder, workspace / "cache" / name, at_once=AT_ONCE[name], progress=across)
    found, unread = perceive(files, table, COLUMNS[name], cached, refused)
    lost += unread
    return (found, space(encoder.name)) if len(found.items) else None


def _once(notes: list[str]) -> Callable[[str], None]:
    """Takes a note that every part of a catalogue may give anew."""

    def noted(note: str) -> None:
        if note not in notes:
            notes.append(note)

    return noted


def _aligned(known: Known) -> Alignment | None:
    """Fitted on photos of items that have words."""
    texts, photos = known.modalities.get("text"), known.photos
    if texts is None or photos is None:
        return None
    rows = np.flatnonzero(texts[photos.items].any(axis=1))
    if len(rows) > ALIGNED_ON:
        rows = np.sort(rng(0, "photos to align by").permutation(rows)[:ALIGNED_ON])
    described = texts[photos.items[rows]]
    if len(rows) < FEWEST_ALIGNED or len(np.unique(described, axis=0)) < 2:
        return None
    from endcap.encoders.align_fit import fit_alignment

    worded = texts.any(axis=1)
    without = 1 - np.isin(np.flatnonzero(worded), photos.items[rows]).mean()
    return fit_alignment(photos.vectors[rows], described, new_share=float(without))


def _only(known: Known) -> Fusion:
    """The first modality's vectors as they are."""
    name, vectors = next(iter(known.modalities.items()))
    return Fusion({}, only=(name, vectors.shape[1]), encoders=known.encoders)


def _content(known: Known, fusion: Fusion, alignment: Alignment | None) -> Content:
    read = {name: vectors for name, vectors in known.modalities.items() if name in fusion.widths}
    names = list(fusion.widths)
    name = f"{'+'.join(names)}:{fusion.digest()}"
    if len(names) == 1:  # the model and its weights: how much of an item they read may differ between shops
        name = ":".join(fusion.encoders[names[0]].split(":")[:2])
    return Content(fusion.fuse(read), name, known, fusion, alignment)
