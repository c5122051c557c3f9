"""A tuned model as a folder: what was learned, apart from the base it was learned on.

tuned.json           task, method, pooling, labels, whether two texts are read, where the base came from and the digest
                     of its weights, SHA-256 of every other file
tokeniser/           as Hugging Face writes it
body/                method full: the whole model, as Hugging Face writes it
adapter/             lora, adalora, prefix, ia3: as peft writes it; adapter: our own safetensors
head.safetensors     what stands on the model
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import nn

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.encoders.families import Family, Pooling, Said, family_of, write_family
from endcap.encoders.fingerprint import fingerprint
from endcap.encoders.packaged import sha256
from endcap.encoders.quiet import quietly
from endcap.encoders.weights import find_weights
from endcap.models.finetune.adapters import insert_adapters
from endcap.models.finetune.backbone import Backbone, prepare
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.heads import BiModel, CrossModel
from endcap.models.finetune.masked import MaskedModel
from endcap.models.finetune.methods import merged, read_as_tuned
from endcap.models.finetune.pretrained import load_backbone, load_masked

FORMAT = 1
ABOUT = "tuned.json"
READING = ("classification", "rating")  # of a text alone, or of two
Net = CrossModel | BiModel | MaskedModel
T = TypeVar("T")


class About(msgspec.Struct, frozen=True):
    """labels: of classification, in the order of the outputs. mean, spread: of rating. base_digest: of the base's
    weights, empty where the body is in the folder. prefix: words that go before every text. with_other: whether a
    second text is read beside each; None where nothing is told of it, as in older folders. files: SHA-256 by path in
    the folder; empty in older ones."""

    config: dict[str, Any]
    base: str
    base_digest: str
    pooling: Pooling
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    spread: float = 1.0
    prefix: str = ""
    format: int = FORMAT
    with_other: bool | None = None
    files: dict[str, str] = {}


@dataclass(slots=True)
class Tuned:
    """net: the model with its head. base: the name it was loaded by. with_other: see `About`."""

    config: FinetuneConfig
    net: Net
    base: str
    base_digest: str
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    spread: float = 1.0
    with_other: bool | None = None

    @property
    def backbone(self) -> Backbone:
        if isinstance(self.net, MaskedModel):
            raise CallerError("A masked-word model has no vectors of its own.", next_step="Tune it for another task.")
        return self.net.backbone

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, d], of unit length: the bi-encoder's vectors, or the pooled ones under another head."""
        self.net.eval()
        parts = [torch.zeros(0, self.backbone.dim)]
        with torch.inference_mode():
            for start in range(0, len(texts), 512):
                pooled = self.backbone(texts[start : start + 512])
                parts.append(nn.functional.normalize(pooled, dim=1).cpu())
        return torch.cat(parts).numpy()

    @quietly()
    def save(self, folder: Path) -> None:
        """Into a new folder, or over what an interrupted writing left."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.net, MaskedModel):
            self.net.body.save_pretrained(folder / "body")  # type: ignore[operator]
            self.net.tokeniser.save_pretrained(folder / "body")
            family, digest = self._family(), ""
            write_family(folder / "body", family)  # the folder's name no longer tells
        else:
            self._save_backbone(self.net.backbone, folder)
            family = _family_of(self.net.backbone)
            digest = "" if self.net.backbone.method == "full" else self.base_digest
            head = {name: tensor for name, tensor in self.net.state_dict().items() if not name.startswith("backbone.")}
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in head.items()}, folder / HEAD)
        settings, words = self.config.model_dump(mode="json"), family.passage_prefix
        about = About(settings, self.base, digest, family.pooling, self.labels, self.mean, self.spread, words)
        files = {path: content for path, content in _files(folder).items() if path != ABOUT}
        about = msgspec.structs.replace(about, with_other=self.with_other, files=files)
        replace_atomically(folder / ABOUT, msgspec.json.format(msgspec.json.encode(about), indent=2))

    @quietly()
    def export_encoder(self, folder: Path) -> bool:
        """The body with what was learned folded in, as an ordinary Hugging Face folder that the text encoder reads;
        False, and nothing is written, where the method cannot be folded in. The model is of no use afterwards."""
        backbone = self.backbone
        body: Any = merged(backbone)
        if body is None:
            return False
        body.save_pretrained(folder)
        backbone.tokeniser.save_pretrained(folder)
        write_family(folder, _family_of(backbone))
        return True

    def _family(self) -> Family:
        """Of the masked-word model's base."""
        model, base = run_model(self.base), self.config.base
        weights = find_weights(self.base if model is None else str(model / "body"))
        said = Said(None if base.pooling == "auto" else base.pooling, max_length=base.max_length)
        return family_of(weights.names, weights.folder, weights.settings, said)

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
            if backbone.method == "adalora":  # the best weights may have been of another pattern than the last
                body.peft_config["default"].rank_pattern = None
            body.save_pretrained(folder / "adapter")


def _family_of(backbone: Backbone) -> Family:
    """Whether a text is asked or answers, it was read with the same words before it."""
    return Family(backbone.pooling, backbone.prefix, backbone.prefix, backbone.max_length)


HEAD = "head.safetensors"
ADAPTER = "adapter/adapter.safetensors"


def load_tuned(folder: Path, max_length: int | None = None) -> Tuned:
    """max_length: tokens to read of each text; as in the tuning by default. Raises ArtifactError if the folder is
    damaged, or if the base is no longer what was tuned."""
    about = _about(folder)
    config = _config(about, folder)
    _check_files(about, folder)
    kept = (folder / "body").is_dir()
    changes: dict[str, object] = {"dropout": None, "gradient_checkpointing": False}  # which only training needs
    changes |= ({"layers": None} if kept else {}) | ({"max_length": max_length} if max_length else {})
    base = config.base.model_copy(update=changes)
    name = str(folder / "body") if kept else about.base
    if config.task.kind == "masked":
        return Tuned(config, _whole(folder, lambda: load_masked(base, name)).eval(), about.base, "")
    begin = config.model_copy(update={"base": base})
    backbone = _whole(folder, lambda: start_backbone(begin, name)) if kept else start_backbone(begin, name)
    if about.base_digest and digest_of(backbone) != about.base_digest:
        raise ArtifactError(
            f"The base {about.base!r} is not the one that was tuned.",
            where=str(folder),
            next_step="Bring that model back, or tune again.",
        )
    backbone.pooling, backbone.prefix = about.pooling, about.prefix
    _whole(folder, lambda: _load_addition(backbone, config, folder))
    net = new_net(config, backbone, len(about.labels) or 1)
    _whole(folder, lambda: _load_head(net, folder))
    told = (about.labels, about.mean, about.spread, about.with_other)
    return Tuned(config, net.eval(), about.base, about.base_digest, *told)


def start_backbone(config: FinetuneConfig, name: str) -> Backbone:
    """A pretrained model, or the body of an earlier tuning with what it learned folded in."""
    model = run_model(name)
    if model is None:
        return load_backbone(config.base, name)
    if _about(model).config["task"]["kind"] == "masked":
        return load_backbone(config.base, str(model / "body"))
    earlier = load_tuned(model, config.base.max_length)
    body, before = merged(earlier.backbone), earlier.backbone
    if body is None:
        raise CallerError(
            f"What {earlier.config.method.kind} learned cannot be folded into the model.",
            where=name,
            next_step="Begin from a run tuned by full, lora, adalora or ia3.",
        )
    for parameter in body.parameters():
        parameter.requires_grad_(True)
    prepare(body, config.base)
    pooling = before.pooling if config.base.pooling == "auto" else config.base.pooling
    return Backbone(body, before.tokeniser, pooling, before.max_length, before.prefix)


def start_masked(config: FinetuneConfig, name: str) -> MaskedModel:
    """A pretrained masked-word model, or that of an earlier run."""
    model = run_model(name)
    if model is None:
        return load_masked(config.base, name)
    found = load_tuned(model, config.base.max_length)
    if not isinstance(found.net, MaskedModel):
        raise CallerError(
            f"{name!r} was tuned for {found.config.task.kind}, and no longer says what a hidden word is.",
            next_step='Name a Hugging Face masked-word model, or a run of `task.kind = "masked"`.',
        )
    prepare(found.net.body, config.base)
    return found.net


def run_model(name: str) -> Path | None:
    """The model's folder in a run's, or in that of a model itself; None for any other name."""
    return next((folder for folder in (Path(name) / "model", Path(name)) if (folder / ABOUT).is_file()), None)


def files_digest(name: str) -> str:
    """Of what a pretrained model, or an earlier run, is loaded from, which is not loaded for it. A run that stands
    beside its base is told by its `tuned.json`, with that base's digest, which loading checks. CallerError where there
    is no such model."""
    model = run_model(name)
    if model is None:
        return find_weights(name).digest
    digest = hashlib.blake2b(digest_size=6)
    for path, content in _files(model).items():
        digest.update(f"{path} {content}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def digest_of(backbone: Backbone) -> str:
    """Of the weights that a text's vector depends on. BERT's pooler is not read here, and a base that brings none is
    given another one whenever it is loaded."""
    body: Any = backbone.body
    pooler = getattr(body, "pooler", None)
    if pooler is None:
        return fingerprint(body)
    body.pooler = None
    try:
        return fingerprint(body)
    finally:
        body.pooler = pooler


def new_net(config: FinetuneConfig, backbone: Backbone, outputs: int) -> CrossModel | BiModel:
    """A head, with fresh weights, on a backbone."""
    pairs = config.task.kind in ("pairs", "imitate")
    if pairs or (config.task.kind in ("interest", "ranking") and config.task.architecture == "bi"):
        return BiModel(backbone, config.task.temperature)
    return CrossModel(backbone, outputs)


def _load_addition(backbone: Backbone, config: FinetuneConfig, folder: Path) -> None:
    """What was learned beside a base that stayed as it was."""
    backbone.method = config.method.kind
    read_as_tuned(backbone)
    if config.method.kind == "adapter":
        insert_adapters(backbone.body, backbone.dim, config.method.width)
        learned = safetensors.torch.load_file(folder / ADAPTER)
        if unlike := set(learned) ^ {name for name, p in backbone.body.named_parameters() if p.requires_grad}:
            raise KeyError(", ".join(sorted(unlike)))
        backbone.body.load_state_dict(learned, strict=False)
    elif config.method.kind not in ("full", "frozen"):
        from peft import PeftModel, get_peft_model_state_dict

        # where one is missing, peft would ask a server, or read a pickle
        (folder / "adapter" / "adapter_config.json").read_bytes()
        learned = safetensors.torch.load_file(folder / "adapter" / "adapter_model.safetensors")
        body: Any = backbone.body
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that peft still calls transformers' parts by
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
            backbone.body = PeftModel.from_pretrained(body, str(folder / "adapter"))
        wanted = get_peft_model_state_dict(backbone.body, save_embedding_layers=False)
        if lacking := set(wanted) - set(learned):
            raise KeyError(", ".join(sorted(lacking)))


def _load_head(net: nn.Module, folder: Path) -> None:
    found = net.load_state_dict(safetensors.torch.load_file(folder / HEAD), strict=False)
    lacking = [name for name in found.missing_keys if not name.startswith("backbone.")]
    if lacking or found.unexpected_keys:
        raise KeyError(", ".join([*lacking, *found.unexpected_keys]))


def _whole(folder: Path, load: Callable[[], T]) -> T:
    """What `load` gives. Whatever a damaged folder makes it raise becomes an ArtifactError."""
    try:
        return load()
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, CallerError) as error:
        raise ArtifactError(
            f"The tuned model cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            where=str(folder),
            next_step="Tune again, or bring the folder back from a copy.",
        ) from error


def _about(folder: Path) -> About:
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"There is no tuned model: {error}", where=str(folder)) from error
    if about.format != FORMAT:
        raise ArtifactError(f"The model has format {about.format}; this version reads {FORMAT}.", where=str(folder))
    return about


def _check_files(about: About, folder: Path) -> None:
    for name, content in about.files.items():
        if not (folder / name).is_file() or sha256(folder / name) != content:
            raise ArtifactError(
                f"The tuned model cannot be read: {name} is missing, or no longer as it was written.",
                where=str(folder),
                next_step="Tune again, or bring the folder back from a copy.",
            )


def _config(about: About, folder: Path) -> FinetuneConfig:
    try:
        return FinetuneConfig.model_validate(about.config)
    except ValidationError as error:
        raise ArtifactError(
            f"The model's settings are not of this version: {error.errors()[0]['msg']}.",
            where=str(folder / ABOUT),
            next_step="Tune again.",
        ) from error
