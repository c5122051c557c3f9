"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variants leave out squeeze-and-excitation and use ReLU6) without its
classifier, in plain torch: of the package that brings the weights, nothing is run.

Batch normalisation is folded into the convolutions, since the network is only ever asked, never trained.
Dimension legend: b pictures, s the side in pixels, a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from endcap.encoders.preparing import Preparation

SIDE, SHARE = 224, 0.875  # of the shorter side that is seen, in training as here
PREPARATION = Preparation(
    height=SIDE, width=SIDE, middle=SHARE, mean=(127.0, 127.0, 127.0), spread=(128.0, 128.0, 128.0)
)
NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """A run of blocks; the stride and the change of width are the first one's."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_WIDTH = 32
FIRST_STAGE = 2  # earlier maps are of edges and single colours


class Block(nn.Module):
    """Widen, look around in each channel, narrow; what came in is added where it has the same shape."""

    def __init__(self, layers: nn.Module, adds: bool) -> None:
        super().__init__()
        self.layers, self.adds = layers, adds

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.layers(pixels)
        return pixels + found if self.adds else found


class Lite0(nn.Module):
    """float [b, 3, s, s] -> float32 [b, 1280], the mean over places of the last feature maps; or [b, 2024], that of
    every stage from the third on, narrow ones first, each of unit length: colours and textures beside things.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, all_stages: bool = False) -> None:
        """weights: as in the published checkpoint. Raises KeyError where one is missing."""
        super().__init__()
        self.stem = nn.Sequential(*_convolution(weights, "_conv_stem", "_bn0", stride=2), nn.ReLU6())
        self.stages = nn.ModuleList(_stages(weights))
        self.head = nn.Sequential(*_convolution(weights, "_conv_head", "_bn1"), nn.ReLU6())
        self.all_stages = all_stages
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.stem(pixels)
        found = []
        for place, stage in enumerate(self.stages):
            maps = stage(maps)
            if self.all_stages and place >= FIRST_STAGE:
                found.append(nn.functional.normalize(_mean(maps), dim=1))
        last = _mean(self.head(maps))
        return torch.cat([*found, nn.functional.normalize(last, dim=1)], dim=1) if self.all_stages else last


def _mean(maps: Tensor) -> Tensor:
    """[b, c, h, w] -> float32 [b, c]"""
    return maps.float().mean((2, 3))


def _stages(weights: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    number, width = 0, STEM_WIDTH
    for stage in STAGES:
        blocks = []
        for place in range(stage.blocks):
            stride = stage.stride if place == 0 else 1
            layers = nn.Sequential(*_block(weights, f"_blocks.{number}.", stage.expansion, stride))
            blocks.append(Block(layers, adds=stride == 1 and width == stage.width))
            number, width = number + 1, stage.width
        yield nn.Sequential(*blocks)


def _block(weights: Mapping[str, Tensor], at: str, expansion: int, stride: int) -> Iterator[nn.Module]:
    if expansion > 1:
        yield from _convolution(weights, f"{at}_expand_conv", f"{at}_bn0")
        yield nn.ReLU6()
    yield from _convolution(weights, f"{at}_depthwise_conv", f"{at}_bn1", stride)
    yield nn.ReLU6()
    yield from _convolution(weights, f"{at}_project_conv", f"{at}_bn2")


def _convolution(weights: Mapping[str, Tensor], name: str, norm: str, stride: int = 1) -> Iterator[nn.Module]:
    """A convolution and the normalisation after it as one; padded as TensorFlow's SAME: the odd one at the end."""
    kernels = weights[f"{name}.weight"]  # [out, in a group, k, k]
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
    out, into, size, _ = kernels.shape
    groups = out if into == 1 else 1
    margin = size - stride
    if margin > 0:
        yield nn.ZeroPad2d((margin // 2, margin - margin // 2) * 2)
    layer = nn.Conv2d(into * groups, out, size, stride, groups=groups)
    layer.weight = nn.Parameter(kernels * scale[:, None, None, None])
    layer.bias = nn.Parameter(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)
    yield layer
