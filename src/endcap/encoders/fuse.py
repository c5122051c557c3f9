"""One content vector an item, of all that is known of it: title, pictures, sound. numpy only.

Each modality is projected into one space, where it is a belief about the item: a direction, and how sure it is. The
beliefs are multiplied: directions are added, weighted by how sure each is (the product of von Mises-Fisher densities;
Hinton 2002, products of experts). What is missing has no say.

Legend: n items, M modalities, w the width of one, d the width of the fused vector.

    folder/
      fusion.json            the modalities in order, the width of each and how sure it is at first; what encodes them
      <place>-weights.npy    float32 [w, d]
      <place>-bias.npy       float32 [d]
      <place>-trust.npy      float32 [d]
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from pydantic import Field

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.encoders.align import unit

SETTINGS = "fusion.json"
ARRAYS = ("weights", "bias", "trust")


class FusionConfig(Section):
    """How modalities are fused."""

    dim: int = Field(default=256, ge=2, description="width of the fused vector, at most the narrowest modality's")
    steps: int = Field(default=400, ge=0, description="of the contrastive fit")
    batch_size: int = Field(default=512, ge=2, description="items that are told from each other")
    learning_rate: float = Field(default=0.003, gt=0, description="at its highest")
    decay: float = Field(default=1.0, ge=0, description="how strongly projections are held to where they began")
    dropped: float = Field(default=0.3, ge=0, lt=1, description="chance of each modality to be missing in a pair")
    seed: int = Field(default=0, ge=0, description="of the views and of the order of steps")


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """weights float32 [w, d], bias float32 [d]: into the common space. trust float32 [d], sure: how sure a direction
    is of the item, exp(direction . trust + sure)."""

    weights: Float32Array
    bias: Float32Array
    trust: Float32Array
    sure: float

    def directions(self, vectors: Float32Array) -> Float32Array:
        """float32 [n, d], unit rows."""
        return unit(vectors @ self.weights + self.bias)

    def scores(self, directions: Float32Array) -> Float32Array:
        """float32 [n]: the logarithm of how sure each direction is."""
        scores: Float32Array = directions @ self.trust + np.float32(self.sure)
        return scores


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    width: int
    sure: float = 0.0


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: list[_Part]
    encoders: dict[str, str] = {}


class Fusion:
    """Made by `fit_fusion`. A catalogue of one modality keeps its vectors as they are."""

    def __init__(
        self,
        projections: Mapping[str, Projection],
        *,
        only: tuple[str, int] | None = None,
        encoders: Mapping[str, str] | None = None,
    ) -> None:
        """projections: modality -> its projection. only: name and width of the one modality there is, instead.
        encoders: modality -> name of what makes its vectors, where that is known."""
        self.projections, self.encoders = dict(projections), dict(encoders or {})
        self._only = only
        self.widths = {only[0]: only[1]} if only else {name: len(one.weights) for name, one in projections.items()}
        self.dim = only[1] if only else len(next(iter(projections.values())).bias)

    def fuse(self, vectors: Mapping[str, Float32Array]) -> Float32Array:
        """vectors: modality -> float32 [n, w], zero rows where it is missing; a modality that is left out is missing
        for all, and one that was all missing when this was fitted still has to be.

        float32 [n, dim], unit rows; all zero where everything is missing. Each row depends on its own item alone.
        """
        self._check(vectors)
        if self._only:
            name, width = self._only
            return vectors[name] if name in vectors else np.zeros((len(_any(vectors)), width), np.float32)
        directions = self._directions(vectors)
        gates = self._gates(vectors, directions)
        fused = np.zeros((len(gates), self.dim), np.float32)
        for name, rows in directions.items():
            fused += gates[:, list(self.widths).index(name), None] * rows
        return unit(fused)

    def gates(self, vectors: Mapping[str, Float32Array]) -> Float32Array:
        """float32 [n, M], in the order of `widths`: the weight of each modality, summing to one over those present."""
        self._check(vectors)
        return self._gates(vectors, self._directions(vectors))

    def _directions(self, vectors: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
        return {name: one.directions(vectors[name]) for name, one in self.projections.items() if name in vectors}

    def _gates(self, vectors: Mapping[str, Float32Array], directions: Mapping[str, Float32Array]) -> Float32Array:
        scores = np.full((len(_any(vectors)), len(self.widths)), -np.inf, np.float32)
        for place, name in enumerate(self.widths):
            if name in vectors:
                sure = self.projections[name].scores(directions[name]) if name in directions else np.float32(0)
                scores[:, place] = np.where(np.any(vectors[name] != 0, axis=1), sure, -np.inf)
        highest = scores.max(axis=1, keepdims=True)
        shares = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
        gates: Float32Array = shares / np.maximum(shares.sum(axis=1, keepdims=True), np.float32(1e-12))
        return gates

    def digest(self) -> str:
        """12 hexadecimal digits of what the fused vectors depend on."""
        digest = hashlib.blake2b(repr((self.widths, sorted(self.encoders.items()))).encode(), digest_size=6)
        for one in self.projections.values():
            for array in (one.weights, one.bias, one.trust):
                digest.update(np.ascontiguousarray(array).data)
            digest.update(repr(one.sure).encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Into an existing folder."""
        parts = [
            _Part(name, width, self.projections[name].sure if name in self.projections else 0.0)
            for name, width in self.widths.items()
        ]
        for place, projection in enumerate(self.projections.values()):
            for array in ARRAYS:
                np.save(folder / f"{place}-{array}.npy", getattr(projection, array), allow_pickle=False)
        settings = msgspec.json.encode(_Settings(parts, self.encoders))
        (folder / SETTINGS).write_bytes(msgspec.json.format(settings, indent=1))

    @staticmethod
    def load(folder: Path) -> Fusion:
        """Raises ArtifactError if a file is missing or damaged, or the shapes do not fit each other."""
        try:
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=_Settings)
            parts, encoders = settings.parts, settings.encoders
            if len(parts) == 1:
                return Fusion({}, only=(parts[0].name, parts[0].width), encoders=encoders)
            found = {part.name: _read(folder, place, part) for place, part in enumerate(parts)}
        except (OSError, ValueError, EOFError, msgspec.MsgspecError) as error:
            raise _damaged(folder, str(error)) from error
        shapes = {(one.bias.shape, one.trust.shape, one.weights.shape[1:]) for one in found.values()}
        if len(shapes) != 1 or len(set(shapes.pop())) != 1 or any(len(found[p.name].weights) != p.width for p in parts):
            raise _damaged(folder, "the arrays' shapes do not fit each other")
        return Fusion(found, encoders=encoders)

    def _check(self, vectors: Mapping[str, Float32Array]) -> None:
        known = ", ".join(f"{name} ({width})" for name, width in self.widths.items())
        lengths = {len(array) for array in vectors.values()}
        wrong = [
            name
            for name, array in vectors.items()
            if array.shape[1:] != (self.widths.get(name),) and (name in self.widths or array.any())
        ]
        if wrong or len(lengths) != 1:
            what = (
                f"{wrong[0]!r} was not fitted, or not of this width"
                if wrong
                else "The modalities differ in their items"
            )
            raise CallerError(f"{what}.", where="fusion", next_step=f"Give a row an item of some of: {known}.")


def _any(vectors: Mapping[str, Float32Array]) -> Float32Array:
    return next(iter(vectors.values()))


def _read(folder: Path, place: int, part: _Part) -> Projection:
    weights, bias, trust = (np.load(folder / f"{place}-{array}.npy", allow_pickle=False) for array in ARRAYS)
    return Projection(weights, bias, trust, part.sure)


def _damaged(folder: Path, said: str) -> ArtifactError:
    return ArtifactError(f"The fusion cannot be read: {said}.", where=str(folder), next_step="Fit and save it again.")
