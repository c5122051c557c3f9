"""Masked words: domain adaptation before tuning, and rewriting of texts for training.

Dimension legend: b texts, t tokens, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from endcap.core.errors import CallerError

IGNORED = -100
KEPT, RANDOM = 0.1, 0.1  # of the chosen tokens: left as they are, made any other (Devlin et al. 2019, section 3.1)


class MaskedModel(nn.Module):
    """A language model that says what hidden tokens were. body: with its masked-word head."""

    def __init__(self, body: nn.Module, tokeniser: Any, max_length: int) -> None:
        super().__init__()
        if tokeniser.mask_token_id is None:
            raise CallerError(
                "The model has no mask token.", where="base.name", next_step="Choose a BERT-like model for this task."
            )
        self.body, self.tokeniser, self.max_length = body, tokeniser, max_length

    def forward(self, texts: Sequence[str], share: float, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """The sum of each text's cross-entropies over its chosen tokens, float32 [b], and how many they are, int64 [b].
        seeds: of each text, so that it is asked for the same tokens whatever it is read with; by default they are drawn
        by torch's global generator."""
        rows = self.tokeniser(
            list(texts),
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        special = rows.pop("special_tokens_mask").bool()
        tokens, real = rows["input_ids"], rows["attention_mask"].bool()
        if seeds is None:
            hidden, wanted = self._hide(tokens, special, share)
        else:
            hidden, wanted = tokens.clone(), torch.full_like(tokens, IGNORED)
            for row, seed in enumerate(seeds):
                own, draw = real[row], torch.Generator().manual_seed(seed)
                hidden[row, own], wanted[row, own] = self._hide(tokens[row, own], special[row, own], share, draw)
        device = next(self.body.parameters()).device
        rows["input_ids"] = hidden
        chosen = wanted != IGNORED
        logits: Tensor = self.body(**rows.to(device)).logits.float()  # [b, t, v]
        losses = cross_entropy(logits[chosen.to(device)], wanted[chosen].to(device), reduction="none")
        sums = torch.zeros(len(texts), device=device).index_add(0, chosen.nonzero()[:, 0].to(device), losses)
        return sums, chosen.sum(1).to(device)

    def _hide(
        self, tokens: Tensor, special: Tensor, share: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens with a share of them hidden, and what they were, IGNORED elsewhere."""
        draw = torch.rand(tokens.shape, generator=generator)
        chosen = (draw < share) & ~special
        fate = torch.rand(tokens.shape, generator=generator)
        other = torch.randint(len(self.tokeniser), tokens.shape, generator=generator)
        hidden = tokens.masked_fill(chosen & (fate >= KEPT + RANDOM), self.tokeniser.mask_token_id)
        hidden = torch.where(chosen & (fate < RANDOM), other, hidden)
        return hidden, tokens.masked_fill(~chosen, IGNORED)


class MaskedRewriter:
    """Replaces a share of the words of a text by what a masked language model would say there."""

    def __init__(self, model: MaskedModel, share: float) -> None:
        self.model, self.share = model, share

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        if not texts:
            return []
        tokeniser, body = self.model.tokeniser, self.model.body
        rows = tokeniser(
            list(texts),
            truncation=True,
            max_length=self.model.max_length,
            padding=True,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        special = rows.pop("special_tokens_mask").bool()
        chosen = torch.from_numpy(rng.random(special.shape) < self.share) & ~special
        asked = rows["input_ids"].masked_fill(chosen, tokeniser.mask_token_id)
        training = body.training
        body.eval()
        with torch.inference_mode():
            logits: Tensor = body(input_ids=asked, attention_mask=rows["attention_mask"]).logits
        body.train(training)
        noise = torch.from_numpy(rng.gumbel(size=tuple(logits.shape)).astype(np.float32))
        said = torch.where(chosen, (logits.float() + noise).argmax(-1), rows["input_ids"])
        return [text.strip() for text in tokeniser.batch_decode(said, skip_special_tokens=True)]
