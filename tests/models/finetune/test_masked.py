"""Masked words: which tokens are hidden, what the loss is over, and rewriting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from endcap.core.errors import CallerError
from endcap.models.finetune.config import FinetuneConfig
from endcap.models.finetune.masked import IGNORED, MaskedModel, MaskedRewriter
from endcap.models.finetune.pretrained import load_masked
from endcap.models.finetune.tasks import Masked

TEXTS = ["red shoes and blue boots", "teal"]


@pytest.fixture(scope="module")
def model(tuning: Callable[..., FinetuneConfig]) -> MaskedModel:
    return load_masked(tuning().base, tuning().base.name).eval()


def test_hides_the_share_as_bert_does(model: MaskedModel) -> None:
    """Of chosen tokens eight in ten are masked, one in ten is another, one in ten stays; special ones never."""
    tokens = torch.full((200, 100), 7)
    special = torch.zeros(200, 100, dtype=torch.bool)
    special[:, 0] = True
    hidden, wanted = model._hide(tokens, special, 0.3, torch.Generator().manual_seed(0))
    chosen = wanted != IGNORED
    assert chosen.float().mean() == pytest.approx(0.3 * 0.99, abs=0.01)
    assert not chosen[:, 0].any()
    assert (wanted[chosen] == 7).all()
    assert (hidden[~chosen] == 7).all()
    masked, same = hidden[chosen] == model.tokeniser.mask_token_id, hidden[chosen] == 7
    assert masked.float().mean() == pytest.approx(0.8, abs=0.02)
    assert same.float().mean() == pytest.approx(0.1, abs=0.02)


def test_the_loss_is_over_what_was_chosen(model: MaskedModel) -> None:
    """All tokens are chosen; the loss is what the head says of what they were."""
    torch.manual_seed(1)
    rows = model.tokeniser(TEXTS, padding=True, return_tensors="pt", return_special_tokens_mask=True)
    special = rows.pop("special_tokens_mask").bool()
    hidden, wanted = model._hide(rows["input_ids"], special, 0.9999999, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model.body(input_ids=hidden, attention_mask=rows["attention_mask"]).logits
        by_hand = torch.nn.functional.cross_entropy(logits[~special], rows["input_ids"][~special])
        sums, counts = model(TEXTS, 0.9999999)
    assert (wanted != IGNORED).equal(~special)
    assert counts.equal((~special).sum(1))
    torch.testing.assert_close(sums.sum() / counts.sum(), by_hand)


def test_texts_too_short_to_hide_anything_still_have_a_loss(
    model: MaskedModel, tuning: Callable[..., FinetuneConfig]
) -> None:
    found = masked(tuning, model, ["", ""]).loss([0, 1])
    assert found.item() == 0
    found.backward()


def test_a_text_is_asked_the_same_whatever_it_is_read_with(
    model: MaskedModel, tuning: Callable[..., FinetuneConfig]
) -> None:
    """Two segments in turns, one of long texts and one of short: neither's figures are the other's."""
    texts = ["red shoes and blue boots teal tent navy lamp", "teal tent"] * 20
    together, alone = (masked(tuning, model, texts, size) for size in (16, 1))
    found = together.predict(together.valid)
    np.testing.assert_allclose(found, alone.predict(alone.valid), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found, together.predict(together.valid))
    assert found[::2, 1].sum() > 2 * found[1::2, 1].sum()
    with torch.inference_mode():
        sums, counts = model(texts[:1] * 64, 0.15, range(64))
    assert len(set(sums.tolist())) > 32
    assert 0.1 < counts.sum() / (64 * 9) < 0.2


def masked(tuning: Callable[..., FinetuneConfig], model: MaskedModel, texts: list[str], size: int = 16) -> Masked:
    config = tuning(task={"kind": "masked"}, train={"batch_size": size})
    rows = pl.DataFrame({"text": texts})
    return Masked(model, config, rows, rows, lambda frame, found: {})


def test_no_more_is_read_than_the_model_has_places_for(tuning: Callable[..., FinetuneConfig]) -> None:
    base = tuning(base={"max_length": 99}).base
    sums, counts = load_masked(base, base.name)(["red shoes " * 60], 0.9999999)
    assert torch.isfinite(sums).all()
    assert counts.tolist() == [62]  # of 64 places, two are for special tokens


def test_rewriting_keeps_the_order_and_most_words(model: MaskedModel) -> None:
    rewrite = MaskedRewriter(model, 0.3)
    texts = ["red shoes blue boots teal tent navy lamp"] * 40
    said = rewrite(texts, np.random.default_rng(0))
    assert said == rewrite(texts, np.random.default_rng(0))
    kept = [word in text.split() for text in said for word in texts[0].split()]
    assert 0.5 < np.mean(kept) < 0.9
    assert rewrite([], np.random.default_rng(0)) == []


def test_a_model_without_a_mask_is_told(tiny_causal: Path) -> None:
    from transformers import AutoTokenizer

    with pytest.raises(CallerError, match="no mask token"):
        MaskedModel(torch.nn.Linear(1, 1), AutoTokenizer.from_pretrained(tiny_causal), 16)
