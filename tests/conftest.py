"""Tiny language models of random weights, saved as any Hugging Face model is: they learn what is planted in seconds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from tests.servers import PostgresServer, RedisServer, missing_postgres, missing_redis

if TYPE_CHECKING:
    from endcap.models.finetune.config import FinetuneConfig

COLOURS = {"warm": ("red", "orange", "amber", "scarlet"), "cold": ("blue", "teal", "navy", "cyan")}
TASTES = (("red", "amber", "blue", "navy"), ("orange", "scarlet", "teal", "cyan"))
THINGS = ("shoes", "boots", "shirt", "coat", "milk", "bread", "lamp", "chair", "table", "drill", "rope", "tent")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = (*SPECIAL, *COLOURS["warm"], *COLOURS["cold"], *THINGS, ";", *LETTERS, *(f"##{sign}" for sign in LETTERS))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres of the session's own. Tests share it, each in a schema of its own: see `schema`."""
    if reason := missing_postgres():
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture
def schema() -> str:
    """The name of a schema that no other test uses."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis of the session's own, which keeps nothing on disk."""
    if reason := missing_redis():
        pytest.skip(reason)
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of 32 dimensions with a masked-word head, over words of WordPiece."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model = BertForMaskedLM(config)
    _knowing_colours(model)
    _quietly(model, folder)
    BertTokenizerFast(vocab={token: place for place, token in enumerate(VOCABULARY)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers of 32 dimensions, whose tokens are whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "gpt2"
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({token: place for place, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    config = GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None
    )
    model = GPT2Model(config)
    _knowing_colours(model)
    _quietly(model, folder)
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tuning(tiny_bert: Path) -> Callable[..., FinetuneConfig]:
    """Settings of a short tuning of the tiny BERT, and what is given over them, by section."""
    from endcap.models.finetune.config import FinetuneConfig

    usual: dict[str, dict[str, Any]] = {
        "base": {"name": str(tiny_bert), "max_length": 16},
        "method": {"rank": 4, "alpha": 8.0, "width": 8, "length": 4},
        "train": {"lr": 1e-2, "epochs": 5, "patience": 9, "batch_size": 16, "threads": 1, "precision": "float32"},
        "track": {"tensorboard": False},
    }

    def settings(**given: Any) -> FinetuneConfig:
        sections = {name: usual.get(name, {}) | changes for name, changes in given.items() if isinstance(changes, dict)}
        return FinetuneConfig.model_validate(usual | given | sections)

    return settings


@pytest.fixture(scope="session")
def colours() -> pl.DataFrame:
    """text, label: things in colours, which are warm or cold; 96 rows, of either class as many."""
    rows = [(f"{word} {thing}", label) for label, words in COLOURS.items() for word in words for thing in THINGS]
    return pl.DataFrame(rows, schema=["text", "label"], orient="row")


@pytest.fixture(scope="session")
def liked() -> pl.DataFrame:
    """anchor, candidate, label, group: colours are of two tastes, which the model does not know, and who looked at
    things of one wants more of it. 48 lists of four, one of them wanted."""
    draw = np.random.default_rng(0)
    rows = []
    for group in range(48):
        ours, theirs = TASTES[group % 2], TASTES[1 - group % 2]
        anchor = [f"{draw.choice(ours)} {draw.choice(THINGS)}" for _ in range(1 + group % 3)]
        for place in range(4):
            colour = draw.choice(ours if place == group // 2 % 4 else theirs)
            rows.append((anchor, f"{colour} {draw.choice(THINGS)}", float(place == group // 2 % 4), f"list {group}"))
    return pl.DataFrame(rows, schema=["anchor", "candidate", "label", "group"], orient="row")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A Hugging Face folder of a BERT of two layers, that knows the words it is given, each as one token."""

    def make(words, name="base", **changed):
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        known = {word: place for place, word in enumerate([*specials, ";", *dict.fromkeys(words)])}
        vocabulary = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
        vocabulary.normalizer = normalizers.Lowercase()
        vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
        vocabulary.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        named = {"unk": 1, "pad": 0, "cls": 2, "sep": 3, "mask": 4}
        tokeniser = PreTrainedTokenizerFast(
            tokenizer_object=vocabulary,
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
            **{f"{kind}_token": specials[place] for kind, place in named.items()},
        )
        set_seed(0)
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        sizes = {**shape, "max_position_embeddings": 64, "initializer_range": 0.3, **changed}
        folder = tmp_path_factory.mktemp("tiny") / name
        BertModel(BertConfig(vocab_size=len(known), **sizes)).save_pretrained(folder)
        tokeniser.save_pretrained(folder)
        return folder

    return make


def _knowing_colours(model: Any) -> None:
    """As a pretrained model would: warm words are near each other, and so are cold ones."""
    import torch

    table = model.get_input_embeddings().weight
    with torch.no_grad():
        apart = 0.05 * torch.randn(table.shape[1], generator=torch.Generator().manual_seed(1))
        for colour, words in COLOURS.items():
            for word in words:
                table[VOCABULARY.index(word)] += apart if colour == "warm" else -apart


def _quietly(model: object, folder: Path) -> None:
    """Saved without a bar on the screen."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)  # type: ignore[attr-defined]
