"""The text side of a model that puts pictures and texts into one space (Radford et al. 2021, CLIP; Zhai et al. 2023,
SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from endcap.core.types import Float32Array
from endcap.encoders.batches import in_batches
from endcap.encoders.image_towers import shared_space, unloadable

BATCH = 64
TEXTS_OF_ONE_LENGTH = "siglip"  # those models were trained on texts filled up to the end, and read what fills them


class PairedTexts:
    """Texts -> unit vectors in the space of the pictures' encoder, from which it is made."""

    def __init__(self, model: Any, source: str, name: str) -> None:
        """model: as the pictures' encoder loaded it, shared with it. source: where its vocabulary is. name: of the
        pictures' encoder. Raises CallerError without a vocabulary."""
        from transformers import AutoTokenizer

        try:
            self._tokeniser = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise unloadable(source, str(error).strip().split("\n", 1)[0]) from error
        self._model = model
        self._length = int(model.config.get_text_config().max_position_embeddings)
        self._fill: bool | str = "max_length" if model.config.model_type.startswith(TEXTS_OF_ONE_LENGTH) else True
        self.name = f"{name}:texts:{self._length}"
        self.dim = self._forward(["a"]).shape[1]

    def encode(self, contents: Sequence[str]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for a text of nothing but white space."""

        def run(places: Sequence[int]) -> Float32Array:
            return self._forward([contents[place] for place in places])

        vectors = np.zeros((len(contents), self.dim), dtype=np.float32)
        filled = [place for place, text in enumerate(contents) if text.strip()]
        for places, found in in_batches(run, filled, BATCH):
            vectors[places] = found
        return vectors

    def _forward(self, texts: list[str]) -> Float32Array:
        import torch

        tokens = self._tokeniser(
            texts, padding=self._fill, truncation=True, max_length=self._length, return_tensors="pt"
        )
        names = ("input_ids",) if self._fill == "max_length" else ("input_ids", "attention_mask")
        asked = {name: tokens[name].to(self._model.device) for name in names}
        with torch.inference_mode():
            found = shared_space(self._model.get_text_features(**asked)).float()
        unit: Float32Array = torch.nn.functional.normalize(found, dim=1).cpu().numpy()
        return unit
