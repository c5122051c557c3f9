"""Whether this machine multiplies bfloat16 as fast as it should."""

from __future__ import annotations

from endcap.encoders.cpu import multiplies_bfloat16


def native_bfloat16() -> bool:
    """Without bfloat16 products in hardware, on the GPU where there is one, they are emulated and slower."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return multiplies_bfloat16()
