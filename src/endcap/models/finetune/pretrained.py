"""Where a tuning begins: a pretrained model by its name.

Any packaged model, local folder, GGUF file or Hugging Face name is taken; weights are read as safetensors only, and a
repository's own code is never run.
"""

from __future__ import annotations

from typing import Any

from endcap.core.errors import MissingExtraError
from endcap.encoders.families import Said, family_of
from endcap.encoders.quiet import quietly
from endcap.encoders.weights import find_weights, load, unloadable
from endcap.models.finetune.backbone import Backbone, prepare
from endcap.models.finetune.config import BaseConfig
from endcap.models.finetune.masked import MaskedModel


def load_backbone(config: BaseConfig, name: str) -> Backbone:
    """CallerError where the model is not there or not whole; see `encoders.weights`."""
    weights = find_weights(name)
    tokeniser, body = load(weights)
    said = Said(None if config.pooling == "auto" else config.pooling, max_length=config.max_length)
    family = family_of(weights.names, weights.folder, weights.settings, said)
    prepare(body, config)
    length = min(family.max_length, weights.positions or family.max_length)
    return Backbone(body, tokeniser, family.pooling, length, family.passage_prefix)


def load_masked(config: BaseConfig, name: str) -> MaskedModel:
    """With its masked-word head; a fresh one where the weights bring none, as those of sentence encoders do."""
    try:
        from transformers import AutoModelForMaskedLM
    except ImportError as error:
        raise MissingExtraError("transformers", "finetune") from error
    weights = find_weights(name)
    tokeniser, _ = load(weights)
    try:
        with quietly():  # that the head is fresh is known
            body: Any = AutoModelForMaskedLM.from_pretrained(
                weights.folder, use_safetensors=True, dtype="float32", trust_remote_code=False
            )
    except ValueError as error:
        raise unloadable(name, "it is of no kind that fills in masked words") from error
    prepare(body, config)
    return MaskedModel(body, tokeniser, min(config.max_length, weights.positions or config.max_length))
