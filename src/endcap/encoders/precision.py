"""Whether this machine multiplies bfloat16 as fast as it should."""

from __future__ import annotations

import re
from typing import Literal

from endcap.encoders.cpu import multiplies_bfloat16

Precision = Literal["auto", "float32", "bfloat16"]
NUMBERS = re.compile(r":(?:float32|bfloat16)(?=:|$)")


def native_bfloat16() -> bool:
    """Without bfloat16 products in hardware, on the GPU where there is one, they are emulated and slower."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return multiplies_bfloat16()


def resolved(precision: Precision) -> Literal["float32", "bfloat16"]:
    """auto: bfloat16 where the machine multiplies it natively."""
    if precision != "auto":
        return precision
    return "bfloat16" if native_bfloat16() else "float32"


def space(name: str) -> str:
    """An encoder's name without the numbers it is run in: they turn its vectors by less than a thousandth, and are
    others on another machine."""
    return NUMBERS.sub("", name)
