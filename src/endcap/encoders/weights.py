"""What of a pretrained model its vectors depend on, and in which numbers it is best run here."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]


def fingerprint(model: nn.Module, *settings: str) -> str:
    """12 hexadecimal digits of the weights, which must be float32 or exact in it, and of any further texts."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().contiguous().numpy().data)
    for setting in settings:
        digest.update(setting.encode())
    return digest.hexdigest()


def resolved(precision: Precision) -> Literal["float32", "bfloat16"]:
    """auto: bfloat16 where the CPU multiplies it natively; where it is emulated it is slower than float32."""
    import torch

    if precision != "auto":
        return precision
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if any(flags.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"
