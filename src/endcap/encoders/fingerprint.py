"""What of a pretrained model its vectors depend on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def fingerprint(model: nn.Module, *settings: str) -> str:
    """12 hexadecimal digits of the weights, which must be float32 or exact in it, and of any further texts."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    for setting in settings:
        digest.update(setting.encode())
    return digest.hexdigest()
