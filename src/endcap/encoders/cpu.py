"""What the CPU says it can do."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

BFLOAT16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
EXACT_INT8 = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))


@cache
def flags() -> frozenset[str]:
    """Names of features, as Linux gives them; none on other systems."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        return frozenset(info.read_text(encoding="utf-8").lower().split())
    return frozenset()


def multiplies_bfloat16() -> bool:
    """Whether products of bfloat16 are made in hardware. Asks torch where the system does not tell."""
    if platform.system() == "Linux":
        return bool(BFLOAT16 & flags())
    import torch

    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(flag) for flag in BFLOAT16)


def overflows_int8() -> bool:
    """Whether fast products of uint8 with int8 may overflow: on x86 without VNNI, as far as can be seen."""
    return platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"} and not EXACT_INT8 & flags()
