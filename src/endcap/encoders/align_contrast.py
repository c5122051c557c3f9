"""The contrastive fit of an alignment: InfoNCE (van den Oord et al. 2018) of photos against all descriptions.

Unlike in a batch of pairs (Radford et al. 2021, CLIP), several photos show one product, so a photo is told from every
other description there is, each once, and other photos of its own product are no negatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from endcap.core.determinism import rng
from endcap.core.types import Float32Array

if TYPE_CHECKING:
    from endcap.encoders.align_fit import AlignmentConfig, Pairs

WARM_UP = 0.1  # share of the steps in which the learning rate rises


def contrast(
    pairs: Pairs, temperature: float, decay: float, config: AlignmentConfig
) -> tuple[Float32Array, Float32Array]:
    """weights float32 [i, t] and bias float32 [t]. pairs: photos centred, of mean square length 1.

    Begins at the mean text for every photo, so the order of steps is all that is random.
    """
    images, shows = torch.from_numpy(pairs.images), torch.from_numpy(pairs.shows)
    present, places = torch.unique(shows, return_inverse=True)
    texts = torch.from_numpy(pairs.texts)[present]
    layer = nn.Linear(images.shape[1], texts.shape[1])
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(texts[places].mean(0))
    steps = config.epochs * -(-len(images) // config.batch_size)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=config.learning_rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=max(2, steps), pct_start=WARM_UP
    )
    order = rng(config.seed, "alignment steps")
    for _ in range(config.epochs):
        shuffled = torch.from_numpy(order.permutation(len(images)))
        for batch in torch.split(shuffled, config.batch_size):
            projected = nn.functional.normalize(layer(images[batch]), dim=1)
            loss = nn.functional.cross_entropy(projected @ texts.T / temperature, places[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return layer.weight.detach().T.contiguous().numpy(), layer.bias.detach().numpy()
