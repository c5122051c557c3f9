"""Where encoders run, and in what numbers."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Literal

from endcap.encoders.cpu import multiplies_bfloat16

Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA's, that of Windows seen from Linux, AMD's
NUMBERS = re.compile(r":(?:float32|bfloat16)(?=:|$)")


def device() -> Device:
    """The GPU where torch can use one. Asks torch only where there may be one."""
    if platform.system() == "Linux" and not any(Path(driver).exists() for driver in DRIVERS):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def native_bfloat16(device: Device) -> bool:
    """Whether the device multiplies bfloat16 as fast as it should: without products in hardware they are emulated."""
    if device == "cpu":
        return multiplies_bfloat16()
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def resolved(precision: Precision, device: Device) -> Literal["float32", "bfloat16"]:
    """auto: bfloat16 where the device multiplies it natively.

    All weights and activations are bfloat16 then, because autocast's conversions cost as much as it saves.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if native_bfloat16(device) else "float32"


def space(name: str) -> str:
    """An encoder's name without the numbers it is run in: they turn its vectors by less than a thousandth, and are
    others on another machine."""
    return NUMBERS.sub("", name)
