"""Where a tuning begins: a pretrained model by its name, or what an earlier tuning left.

Any Hugging Face name, local folder or packaged model is taken; weights are read as safetensors only, and a repository's
own code is never run.
"""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from endcap.core.errors import CallerError, MissingExtraError
from endcap.encoders.text import MINILM, PACKAGED_MODEL
from endcap.models.finetune.backbone import Backbone, prepare
from endcap.models.finetune.config import BaseConfig
from endcap.models.finetune.masked import MaskedModel


def load_backbone(config: BaseConfig, name: str) -> Backbone:
    """name: a packaged model, a local folder, or a Hugging Face name."""
    source = _source(name)
    body, tokeniser = _load(source, "AutoModel")
    prepare(body, config)
    return Backbone(body, tokeniser, _pooling(config, source, body), config.max_length)


def load_masked(config: BaseConfig, name: str) -> MaskedModel:
    body, tokeniser = _load(_source(name), "AutoModelForMaskedLM")
    prepare(body, config)
    return MaskedModel(body, tokeniser, config.max_length)


def fingerprint(body: nn.Module) -> str:
    """12 hexadecimal digits of the weights."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(body.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _source(name: str) -> str:
    return str(MINILM.find().parent) if name == PACKAGED_MODEL else name


def _pooling(config: BaseConfig, source: str, body: Any) -> str:
    return config.pooling if config.pooling != "auto" else "mean"


def _load(source: str, kind: str) -> tuple[Any, Any]:
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("transformers", "finetune") from error
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = getattr(transformers, kind).from_pretrained(source, use_safetensors=True, dtype="float32")
        return model, transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise CallerError(
            f"The model {source!r} cannot be loaded: {first_line}",
            where="base.name",
            next_step="Name a packaged model, a folder holding config.json, or a Hugging Face model you can reach.",
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
