"""A tuned model as a folder: what was learned, apart from the base it was learned on.

tuned.json           task, method, pooling, labels, where the base came from and the digest of its weights
tokeniser/           as Hugging Face writes it
body/                method full: the whole model, as Hugging Face writes it
adapter/             lora, adalora, prefix, ia3: as peft writes it; adapter: our own safetensors
head.safetensors     what stands on the model
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.encoders.families import Pooling
from endcap.encoders.fingerprint import fingerprint
from endcap.models.finetune.adapters import insert_adapters
from endcap.models.finetune.backbone import Backbone
from endcap.models.finetune.config import AugmentConfig, DistilConfig, FinetuneConfig
from endcap.models.finetune.heads import BiModel, CrossModel
from endcap.models.finetune.masked import MaskedModel
from endcap.models.finetune.methods import merged
from endcap.models.finetune.pretrained import load_backbone, load_masked

FORMAT = 1
ABOUT = "tuned.json"
Net = CrossModel | BiModel | MaskedModel


class About(msgspec.Struct, frozen=True):
    """labels: of classification, in the order of the outputs. mean, spread: of rating. base_digest: of the base's
    weights, empty where the body is in the folder."""

    config: dict[str, Any]
    base: str
    base_digest: str
    pooling: Pooling
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    spread: float = 1.0
    format: int = FORMAT


@dataclass(slots=True)
class Tuned:
    """net: the model with its head. base: the name it was loaded by."""

    config: FinetuneConfig
    net: Net
    base: str
    base_digest: str
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    spread: float = 1.0

    def plain(self) -> Tuned:
        """Without what only training needs."""
        changed = {"augment": AugmentConfig(), "distil": DistilConfig()}
        return replace(self, config=self.config.model_copy(update=changed))

    @property
    def backbone(self) -> Backbone:
        if isinstance(self.net, MaskedModel):
            raise CallerError("A masked-word model has no vectors of its own.", next_step="Tune it for another task.")
        return self.net.backbone

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, d], of unit length: the bi-encoder's vectors, or the pooled ones under another head."""
        self.net.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), 512):
                pooled = self.backbone(texts[start : start + 512])
                parts.append(nn.functional.normalize(pooled, dim=1).cpu())
        return torch.cat(parts).numpy()

    def save(self, folder: Path) -> None:
        """Into a new or empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        pooling: Pooling
        if isinstance(self.net, MaskedModel):
            self.net.body.save_pretrained(folder / "body")  # type: ignore[operator]
            self.net.tokeniser.save_pretrained(folder / "body")
            pooling, digest = "mean", ""
        else:
            self._save_backbone(self.net.backbone, folder)
            pooling = self.net.backbone.pooling
            digest = "" if self.net.backbone.method == "full" else self.base_digest
            head = {name: tensor for name, tensor in self.net.state_dict().items() if not name.startswith("backbone.")}
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in head.items()}, folder / HEAD)
        about = About(
            self.config.model_dump(mode="json"), self.base, digest, pooling, self.labels, self.mean, self.spread
        )
        replace_atomically(folder / ABOUT, msgspec.json.format(msgspec.json.encode(about), indent=2))

    def export_encoder(self, folder: Path) -> bool:
        """The body with what was learned folded in, as an ordinary Hugging Face folder that the text encoder reads;
        False, and nothing is written, where the method cannot be folded in. The model is of no use afterwards."""
        backbone = self.backbone
        body: Any = merged(backbone)
        if body is None:
            return False
        body.save_pretrained(folder)
        backbone.tokeniser.save_pretrained(folder)
        told = {"format": 1, "pooling": backbone.pooling, "query_prefix": "", "passage_prefix": ""}
        replace_atomically(
            folder / "encoder.json", msgspec.json.encode(told | {"max_length": backbone.max_length, "normalise": True})
        )
        return True

    @staticmethod
    def _save_backbone(backbone: Backbone, folder: Path) -> None:
        body: Any = backbone.body
        backbone.tokeniser.save_pretrained(folder / "tokeniser")
        if backbone.method == "full":
            body.save_pretrained(folder / "body")
            backbone.tokeniser.save_pretrained(folder / "body")
        elif backbone.method == "adapter":
            (folder / "adapter").mkdir(exist_ok=True)
            learned = {name: p.detach().contiguous() for name, p in body.named_parameters() if p.requires_grad}
            safetensors.torch.save_file(learned, folder / ADAPTER)
        elif backbone.method != "frozen":
            body.save_pretrained(folder / "adapter")


HEAD = "head.safetensors"
ADAPTER = "adapter/adapter.safetensors"


def load_tuned(folder: Path) -> Tuned:
    """Raises ArtifactError if the folder is damaged, or if the base is no longer what was tuned."""
    about = _about(folder)
    config = FinetuneConfig.model_validate(about.config)
    kept = (folder / "body").is_dir()
    base = config.base.model_copy(update={"layers": None} if kept else {})
    name = str(folder / "body") if kept else about.base
    if config.task.kind == "masked":
        return Tuned(config, load_masked(base, name).eval(), about.base, "")
    backbone = start_backbone(config.model_copy(update={"base": base}), name)
    if about.base_digest and fingerprint(backbone.body) != about.base_digest:
        raise ArtifactError(
            f"The base {about.base!r} is not the one that was tuned.",
            where=str(folder),
            next_step="Bring that model back, or tune again.",
        )
    backbone.pooling = about.pooling
    _load_addition(backbone, config, folder)
    net = new_net(config, backbone, len(about.labels) or 1)
    net.load_state_dict(_tensors(folder / HEAD), strict=False)
    return Tuned(config, net.eval(), about.base, about.base_digest, about.labels, about.mean, about.spread)


def start_backbone(config: FinetuneConfig, name: str) -> Backbone:
    """A pretrained model, or the body of an earlier tuning with what it learned folded in."""
    model = Path(name) / "model" if (Path(name) / "model" / ABOUT).is_file() else Path(name)
    if not (model / ABOUT).is_file():
        return load_backbone(config.base, name)
    if _about(model).config["task"]["kind"] == "masked":
        return load_backbone(config.base, str(model / "body"))
    earlier = load_tuned(model)
    body = merged(earlier.backbone)
    if body is None:
        raise CallerError(
            f"What {earlier.config.method.kind} learned cannot be folded into the model.",
            where=name,
            next_step="Begin from a run tuned by full, lora, adalora or ia3.",
        )
    for parameter in body.parameters():
        parameter.requires_grad_(True)
    return Backbone(body, earlier.backbone.tokeniser, earlier.backbone.pooling, config.base.max_length)


def new_net(config: FinetuneConfig, backbone: Backbone, outputs: int) -> CrossModel | BiModel:
    """A head, with fresh weights, on a backbone."""
    pairs = config.task.kind in ("pairs", "imitate")
    if pairs or (config.task.kind in ("interest", "ranking") and config.task.architecture == "bi"):
        return BiModel(backbone, config.task.temperature)
    return CrossModel(backbone, outputs)


def _load_addition(backbone: Backbone, config: FinetuneConfig, folder: Path) -> None:
    """What was learned beside a base that stayed as it was."""
    backbone.method = config.method.kind
    if config.method.kind == "adapter":
        insert_adapters(backbone.body, backbone.dim, config.method.width)
        backbone.body.load_state_dict(_tensors(folder / ADAPTER), strict=False)
    elif config.method.kind not in ("full", "frozen"):
        from peft import PeftModel

        body: Any = backbone.body
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that peft still calls transformers' parts by
            backbone.body = PeftModel.from_pretrained(body, str(folder / "adapter"))


def _about(folder: Path) -> About:
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"There is no tuned model: {error}", where=str(folder)) from error
    if about.format != FORMAT:
        raise ArtifactError(f"The model has format {about.format}; this version reads {FORMAT}.", where=str(folder))
    return about


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
        return tensors
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"The weights cannot be read: {error}", where=str(path)) from error
