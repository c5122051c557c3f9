"""The catalogue's pictures and sound: which files belong to which item, and their vectors, cached by what is in them.

Only files below one folder are read, since a catalogue may come from strangers. Whatever cannot be read is listed with
its item and the reason; the item goes on without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import CallerError
from endcap.core.section import Section
from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.align import unit
from endcap.features.items import NAMED, ItemTable, Worded

if TYPE_CHECKING:
    from endcap.encoders.cache import CachedEncoder
    from endcap.encoders.media import Media, Refused

REFUSED = "refused_media.csv"


class ContentConfig(Section):
    modalities: tuple[Literal["text", "image", "audio"], ...] = Field(
        ("text", "image", "audio"),
        min_length=1,
        description="What of an item is read, where the catalogue has it and the extra is installed.",
    )
    reads: tuple[Worded, ...] = Field(
        NAMED,
        min_length=1,
        description="Fields of an item that the text encoder reads, in this order: title, brand, categories, "
        "description. Beside long descriptions raise `[text] max_length`, which costs time. Word search reads "
        "the same; a cross-encoder reads title and categories.",
    )
    folder: str = Field(
        "",
        description="Where the catalogue's paths of pictures and sound begin, seen from the workspace; nothing outside "
        "of it is read. Empty: the workspace.",
    )
    per_item: int = Field(4, ge=1, description="Pictures, and recordings, of an item that are read.")


class Lost(NamedTuple):
    """A file that could not be read. kind: images or audio."""

    item_id: str
    kind: str
    file: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Files:
    """names, as in the catalogue, paths, and whose they are: items int64, positions; all [p]. lost: what is not among
    them, and why."""

    names: list[str]
    paths: list[Path]
    items: Int64Array
    lost: list[Lost]


@dataclass(frozen=True, slots=True, eq=False)
class Perceived:
    """vectors: float32 [p, w], a unit row for each file that could be read. items: int64 [p]. files: its path [p]."""

    vectors: Float32Array
    items: Int64Array
    files: list[Path]

    def through(self, project: Callable[[Float32Array], Float32Array]) -> Perceived:
        """The same in another space."""
        return Perceived(project(self.vectors), self.items, self.files)

    def of_items(self, count: int) -> Float32Array:
        """float32 [count, w]: the direction of the mean over each item's files, zero where it has none."""
        sums = np.zeros((count, self.vectors.shape[1]), np.float32)
        np.add.at(sums, self.items, self.vectors)
        return unit(sums)


def files_of(table: ItemTable, column: str, folder: Path, per_item: int) -> Files:
    """The first `per_item` files of each item that are below the folder, whatever else stands before them. CallerError
    where there is no such folder."""
    if not folder.is_dir():
        raise CallerError(f"There is no folder {folder}.", where="[content] folder", next_step="Mend endcap.toml.")
    root = folder.resolve()
    names_read, paths, items, lost = list[str](), list[Path](), list[int](), list[Lost]()
    for item, (item_id, names) in enumerate(table.frame.select("item_id", column).iter_rows()):
        found = 0
        for name in names or []:
            if found == per_item:
                break
            path, why = _below(root, name)
            if path is None:
                lost.append(Lost(item_id, column, name, why))
            else:
                names_read.append(name)
                paths.append(path)
                items.append(item)
                found += 1
    return Files(names_read, paths, np.array(items, np.int64), lost)


def perceive(
    files: Files, table: ItemTable, column: str, encoder: CachedEncoder[Media], refused: list[Refused]
) -> tuple[Perceived, list[Lost]]:
    """refused: the list that the encoder was made with. Also what it refused."""
    vectors = encoder.encode(files.paths)
    reasons = {one.place: one.reason for one in refused}
    lost = []
    for place in np.flatnonzero(~vectors.any(axis=1)):
        path, item_id = str(files.paths[place]), table.ids.ids[files.items[place]]
        why = reasons.get(path, "It is the same as another that cannot be read.")
        lost.append(Lost(item_id, column, files.names[place], why))
    rows = np.flatnonzero(vectors.any(axis=1))
    return Perceived(vectors[rows], files.items[rows], [files.paths[row] for row in rows]), lost


def list_lost(workspace: Path, lost: Sequence[Lost], noted: Callable[[str], None]) -> None:
    """Into a table in the workspace, written anew, and one sentence."""
    place = workspace / REFUSED
    if not lost:
        place.unlink(missing_ok=True)
        return
    replace_atomically(place, pl.DataFrame(lost, schema=Lost._fields, orient="row").write_csv().encode())
    why = "; ".join(f"{count:,}: {reason}" for reason, count in Counter(one.reason for one in lost).most_common(3))
    noted(
        f"{len(lost):,} files of the catalogue's pictures and sound are not read; each is in {place}, with the reason. "
        f"The most frequent: {why}"
    )


def _below(root: Path, name: str) -> tuple[Path | None, str]:
    """The file, or why it is not read."""
    if "://" in name or name.startswith("data:"):
        return None, "It is an address, and only files are read; download it and name the file."
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        return None, f"It is no path: {error}."
    if not path.is_relative_to(root):
        return None, f"It is outside of {root}; name the folder that holds it in [content] folder."
    return path, ""
