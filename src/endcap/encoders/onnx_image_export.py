"""An image encoder -> files that are served without torch. Before anything is kept, it is measured on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from endcap.core.errors import ArtifactError, CallerError
from endcap.encoders.image import ImageEncoder
from endcap.encoders.media import Media
from endcap.encoders.onnx_export import NEIGHBOURS, overlap_at
from endcap.encoders.onnx_files import beside, checksums, keep
from endcap.encoders.onnx_graph import check_size, graph_of
from endcap.encoders.onnx_image import FILES, MODEL, SETTINGS, ImageSettings, OnnxImageEncoder
from endcap.encoders.pictures import blank

FEWEST = 2
MEASURED = 200  # pictures
ALIKE = 0.99  # cosine of a picture's two vectors, at least


@dataclass(frozen=True, slots=True)
class ImageExportReport:
    """overlap: the share of nearest neighbours that is kept. alike: the least cosine of a picture's two vectors.
    pictures: that it was measured on. bytes: of all files."""

    overlap: float
    alike: float
    pictures: int
    bytes: int


def export_image(
    encoder: ImageEncoder, folder: Path, *, pictures: Sequence[Media], min_overlap: float = 0.95
) -> ImageExportReport:
    """Write model.onnx and image.json into `folder`, made where missing, in float32.

    pictures: such as will be looked at, two or more that can be read; the first 200 are measured.

    Raises ArtifactError, and leaves nothing behind, where vectors or neighbours differ from torch's; CallerError where
    there are too few pictures, or the model's way to prepare them cannot be said without its library;
    MissingExtraError without onnx or onnxscript.
    """
    preparation = encoder.tower.preparation
    if preparation is None:
        raise CallerError(
            "How the model prepares a picture is not known beyond its own library.",
            where=encoder.config.model,
            next_step="Choose a model that scales and cuts pictures as CLIP, SigLIP or ViT do.",
        )
    exact = ImageEncoder(encoder.config.model_copy(update={"precision": "float32"}), refused=[])
    sample = pictures[:MEASURED]
    expected = exact.encode(sample)
    seen = [place for place in range(len(sample)) if expected[place].any()]
    if len(seen) < FEWEST:
        raise CallerError(
            f"{len(seen)} pictures are too few to measure an export on; it takes {FEWEST}.",
            where="pictures",
            next_step="Give the catalogue's pictures.",
        )
    model = _graph(exact).SerializeToString()
    with beside(folder) as staged:
        (staged / MODEL).write_bytes(model)
        settings = ImageSettings(
            name=Path(encoder.config.model).name,
            dim=exact.dim,
            preparation=preparation,
            overlap=0.0,
            alike=0.0,
            max_bytes=encoder.config.max_bytes,
            max_pixels=encoder.config.max_pixels,
            sha256=checksums({MODEL: model}),
        )
        (staged / SETTINGS).write_bytes(msgspec.json.encode(settings))
        found = OnnxImageEncoder(staged, torch.get_num_threads()).encode([sample[place] for place in seen])
        alike = float((found * expected[seen]).sum(1).min())
        overlap = overlap_at(expected[seen], found, min(NEIGHBOURS, len(seen) - 1))
        if overlap < min_overlap or alike < ALIKE:
            raise ArtifactError(
                f"The exported model finds {overlap:.3f} of the nearest neighbours that torch finds, where "
                f"{min_overlap:g} is asked for, and its vectors are {alike:.3f} alike, where {ALIKE:g} is.",
                where=str(folder),
                next_step="Look for pictures by another model, or serve this one with torch.",
            )
        settings = msgspec.structs.replace(settings, overlap=round(overlap, 4), alike=round(alike, 5))
        return ImageExportReport(overlap, alike, len(seen), keep(staged, folder, FILES, SETTINGS, settings))


def _graph(encoder: ImageEncoder) -> Any:
    """The ONNX model in float32, any number of pictures at once."""
    network = encoder.tower.network().cpu()
    check_size(network, encoder.config.model)
    pixels = torch.from_numpy(encoder.tower.prepare(blank()))[None].repeat(2, 1, 1, 1)
    return graph_of(network, {"pixels": pixels}, "vectors", [{0: torch.export.Dim("batch", min=1)}])
