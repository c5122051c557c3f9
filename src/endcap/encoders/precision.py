"""Whether this machine multiplies bfloat16 as fast as it should."""

from __future__ import annotations


def native_bfloat16() -> bool:
    """Without bfloat16 products in hardware they are emulated, and slower than float32."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(flags.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16"))
