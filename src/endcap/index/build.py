"""Which index a set of vectors gets: exact while a scan is fast enough, approximate above."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import Field

from endcap.core.errors import MissingExtraError
from endcap.core.protocols import VectorIndex
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.index.approximate import ABOUT, ApproximateIndex
from endcap.index.exact import ExactIndex

LOG = logging.getLogger(__name__)


class IndexConfig(Section):
    exact_up_to: int = Field(
        32_768,
        ge=1,
        description="Items whose vectors are searched exactly; those of more go into an approximate index (FAISS, the "
        "extra `large`).",
    )
    shoppers: int = Field(
        50_000,
        ge=0,
        description="Shoppers, those seen last, whom the sequence model reads when a release is written, so that their "
        "answers need not wait for it.",
    )


def build_index(vectors: Float32Array, config: IndexConfig, n_items: int) -> VectorIndex:
    """vectors: float32 [n, d]. n_items: how many these stand for, for equal vectors are kept once. Exact where FAISS is
    not installed, which the log says.

    In a large shop a scan of the vectors themselves is the lesser part of what it costs: they push what the rest of an
    answer needs out of the processor's cache.
    """
    if n_items > config.exact_up_to and len(vectors):
        try:
            return ApproximateIndex.build(vectors)
        except MissingExtraError as error:
            LOG.warning("%d vectors are searched exactly, which takes long. %s", len(vectors), error)
    return ExactIndex(vectors)


def save_index(index: VectorIndex, folder: Path) -> None:
    """What cannot be made again in no time, into a folder that is made for it."""
    if isinstance(index, ApproximateIndex):
        folder.mkdir()
        index.save(folder)


def open_index(exact: ExactIndex, folder: Path) -> VectorIndex:
    """What `save_index` left in the folder, over the same vectors; the exact one where it left nothing."""
    return ApproximateIndex.load(folder, exact) if (folder / ABOUT).is_file() else exact
