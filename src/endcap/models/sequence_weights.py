"""The weights of a sequence model as a folder that another model, of the same shop or another one, can start from.

weights.safetensors   the tower, and the projection of content; nothing in it depends on the catalogue
item_vectors.npy      float32 [n, d], whole item vectors (own and content's); only where the model has ids
settings.json         the shape, the encoder, the objectives, the items' ids in order, and checksums

An export folder (`models.export`) that also holds the other two is such a folder, so a release can be started from.
That of an ensemble holds one such folder for each of its models: see `member_folder`.

Dimension legend: n items of the catalogue the weights come from, d width, c width of content vectors, t items taken.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.models.config import SequenceConfig
from endcap.models.sequence import SequenceModel
from endcap.models.sequence_source import ITEM_VECTORS

FORMAT = 1
WEIGHTS, SETTINGS = "weights.safetensors", "settings.json"
ITEMS_OWN, PLACES, PROJECTION = "ids.weight", "places.weight", "project.weight"
LAST_NORM = "norm."
AGAIN = "Make the weights again: endcap pretrain --shop SHOP --out FOLDER"


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """What positions and content vectors stand for. items: ids in the order of positions. encoder: what made the
    content vectors; "" where there are none or nobody knows."""

    items: Sequence[str]
    encoder: str = ""


class WeightSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What has to agree, and what is good to know. content_dim: 0 without content. unit_content: see `SequenceModel`.
    items: empty without ids.

    sha256: of the weights' file and, with ids, of the item vectors' numbers.
    """

    format: int
    dim: int
    blocks: int
    heads: int
    positions: str
    max_len: int
    content_dim: int
    unit_content: bool
    encoder: str
    ids: bool
    objectives: dict[str, float]
    turned: bool
    items: list[str]
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class SequenceWeights:
    """shared: name -> tensor of the model's state. item_vectors: float32 [n, d], or None without ids."""

    settings: WeightSettings
    shared: dict[str, Tensor]
    item_vectors: Float32Array | None

    @classmethod
    def of(cls, model: SequenceModel, names: Names) -> Self:
        config = model.config
        _check_names(model, names)
        shared = {name: tensor.detach() for name, tensor in model.state_dict().items() if name != ITEMS_OWN}
        vectors = None if model.ids is None else model.all_item_vectors().numpy()
        sums = {WEIGHTS: hashlib.sha256(_pack(shared)).hexdigest()}
        if vectors is not None:
            sums[ITEM_VECTORS] = hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest()
        settings = WeightSettings(
            format=FORMAT,
            dim=config.dim,
            blocks=config.blocks,
            heads=config.heads,
            positions=config.positions,
            max_len=config.max_len,
            content_dim=_content_dim(model),
            unit_content=model.unit_content,
            encoder=names.encoder,
            ids=model.ids is not None,
            objectives={name: getattr(config, name) for name in ("next_item", "masked_item", "contrastive")},
            turned=config.turned,
            items=[] if model.ids is None else list(names.items),
            sha256=sums,
        )
        return cls(settings, shared, vectors)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """CallerError where the folder holds no weights, ArtifactError where they are damaged or of another format."""
        if not (folder / SETTINGS).is_file():
            raise CallerError("There are no weights to start from.", where=str(folder), next_step=AGAIN)
        try:
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=WeightSettings)
            packed = (folder / WEIGHTS).read_bytes()
            vectors = np.load(folder / ITEM_VECTORS, allow_pickle=False) if settings.ids else None
            shared = safetensors.torch.load(packed)
        except (OSError, ValueError, msgspec.MsgspecError, SafetensorError) as error:
            raise ArtifactError(f"The weights cannot be read: {error}.", where=str(folder), next_step=AGAIN) from error
        if settings.format != FORMAT:
            raise ArtifactError(
                f"The weights have format {settings.format}; this version reads {FORMAT}.",
                where=str(folder),
                next_step=AGAIN,
            )
        found = {WEIGHTS: hashlib.sha256(packed).hexdigest()}
        if vectors is not None:
            found[ITEM_VECTORS] = hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest()
        if found != settings.sha256 or (vectors is not None and len(vectors) != len(settings.items)):
            raise ArtifactError("The files are not those that were written.", where=str(folder), next_step=AGAIN)
        return cls(settings, shared, vectors)

    def save(self, folder: Path) -> None:
        """Into an existing folder. Settings go last: a folder that was left half-written does not load."""
        replace_atomically(folder / WEIGHTS, _pack(self.shared))
        if self.item_vectors is not None:
            buffer = io.BytesIO()
            np.save(buffer, self.item_vectors, allow_pickle=False)
            replace_atomically(folder / ITEM_VECTORS, buffer.getvalue())
        replace_atomically(folder / SETTINGS, msgspec.json.format(msgspec.json.encode(self.settings), indent=1))

    def digest(self) -> str:
        """Names these weights: equal ones have equal digests."""
        return hashlib.sha256(msgspec.json.encode(self.settings)).hexdigest()

    def check(self, config: SequenceConfig, content_dim: int, encoder: str) -> None:
        """CallerError, naming what differs, where a model of this shape cannot take the weights.

        content_dim: 0 without content. Objectives, dropout and max_len may differ; encoders are compared where both
        names are known.
        """
        ours = self.settings
        pairs = {name: (getattr(ours, name), getattr(config, name)) for name in ("dim", "blocks", "heads", "positions")}
        if ours.content_dim and content_dim:
            pairs["content width"] = (ours.content_dim, content_dim)
            if ours.encoder and encoder:
                pairs["encoder"] = (ours.encoder, encoder)
        differing = [f"{name} {theirs} there, {here} here" for name, (theirs, here) in pairs.items() if theirs != here]
        if differing:
            raise CallerError(
                f"The weights to start from are of another shape: {'; '.join(differing)}.",
                where="sequence.start",
                next_step="Set the same under [sequence], [text] and [content] (pretraining reads words alone), or "
                "pretrain with these settings.",
            )
        if not (ours.content_dim and content_dim) and not (ours.ids and config.ids):
            raise CallerError(
                "The weights to start from tell items by their content, and this catalogue has no content vectors."
                if ours.content_dim
                else "The weights to start from know items by their ids alone, and this model has no ids.",
                where="sequence.start",
                next_step="Leave sequence.start empty, or give both models content or ids.",
            )

    def give(self, model: SequenceModel, names: Names | None) -> int:
        """Write into a fresh model all that both have; returns t, how many items took their vectors over.

        The tower, the projection and the mask are copied; of learned positions, those that both have. Of weights that
        were `turned`, which make no shop's choices sure, the last norm is not: it sets how far apart scores lie, and a
        model that begins unsure learns a shop's items slowly. The whole vector of an item that both know stays what it
        was: its own part is what remains of it after the content's. Items that are new begin as their content alone,
        or, without content, where a fresh model puts them.
        """
        self.check(model.config, _content_dim(model), names.encoder if names is not None else "")
        state = model.state_dict()
        if PROJECTION in state and PROJECTION in self.shared:
            model.unit_content = self.settings.unit_content
        with torch.no_grad():
            unsure = self.settings.turned and not model.config.turned
            left = {name for name in state if unsure and name.startswith(LAST_NORM)}
            for name in (state.keys() & self.shared.keys()) - left:
                given = self.shared[name]
                rows = min(len(given), len(state[name])) if name == PLACES else len(given)
                if given[:rows].shape != state[name][:rows].shape:
                    raise ArtifactError(f"{name} has not the shape of its settings.", where=WEIGHTS, next_step=AGAIN)
                state[name][:rows] = given[:rows]
            return self._give_items(model, names)

    def _give_items(self, model: SequenceModel, names: Names | None) -> int:
        if model.ids is None:
            return 0
        if model.project is not None:
            model.ids.weight.zero_()
        if names is None or self.item_vectors is None:
            return 0
        _check_names(model, names)
        known = {item: place for place, item in enumerate(self.settings.items)}
        pairs = [(place, known[item]) for place, item in enumerate(names.items) if item in known]
        here, there = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        described = model.item_vectors(here) - model.ids(here)
        model.ids.weight[here] = torch.from_numpy(self.item_vectors)[there] - described
        return len(pairs)


def member_folder(folder: Path, place: int, members: int, *, make: bool = False) -> Path:
    """Where an export folder keeps the weights of one of its models: a single one's lie in it itself."""
    found = folder if members == 1 else folder / f"member_{place}"
    if make:
        found.mkdir(exist_ok=True)
    return found


def load_members(folder: Path) -> list[SequenceWeights]:
    """The weights of all models of an export folder. CallerError where it holds none."""
    members = sorted(folder.glob("member_*"), key=lambda path: int(path.name.removeprefix("member_")))
    return [SequenceWeights.load(place) for place in members or [folder]]


def _content_dim(model: SequenceModel) -> int:
    return 0 if model.content is None else model.content.shape[1]


def _check_names(model: SequenceModel, names: Names) -> None:
    if len(names.items) != model.n_items:
        raise CallerError(
            f"There are {len(names.items):,} ids for {model.n_items:,} items.",
            where="Names",
            next_step="Give the ids of the whole catalogue, in the order of positions.",
        )


def _pack(shared: dict[str, Tensor]) -> bytes:
    packed: bytes = safetensors.torch.save({name: tensor.contiguous() for name, tensor in shared.items()})
    return packed
