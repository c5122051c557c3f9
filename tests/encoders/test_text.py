import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from endcap.core.errors import CallerError
from endcap.core.protocols import Encoder
from endcap.encoders.text import TextEncoder, TextEncoderConfig

WORDS = ["red", "green", "shoes", "boots", "milk"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights and ten words, saved as any Hugging Face model is."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={token: place for place, token in enumerate(tokens)}).save_pretrained(folder)
    return folder


def _encoder(folder: Path, **changes: object) -> TextEncoder:
    return TextEncoder(
        TextEncoderConfig.model_validate({"model": str(folder), "precision": "float32", "batch_size": 2} | changes)
    )


def test_is_the_masked_mean_of_the_last_layer(tiny: Path) -> None:
    import torch

    encoder = _encoder(tiny)
    assert isinstance(encoder, Encoder)
    with torch.inference_mode():
        hidden = encoder._model(input_ids=torch.tensor([[2, 5, 7, 3]])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    np.testing.assert_allclose(encoder.encode(["red shoes"])[0], expected, atol=1e-6)


def test_batching_changes_neither_order_nor_vectors(tiny: Path) -> None:
    texts = ["red", "green shoes milk milk", "", "boots boots", "red green shoes boots milk", "  ", "milk"]
    together, alone = _encoder(tiny), _encoder(tiny, batch_size=1)
    vectors = together.encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (7, 16)
    np.testing.assert_allclose(vectors, alone.encode(texts), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1, 1, 0, 1], atol=1e-6)
    assert together.encode([]).shape == (0, 16)


def test_reads_no_further_than_max_length(tiny: Path) -> None:
    encoder = _encoder(tiny, max_length=4)
    first, second = encoder.encode(["red shoes milk", "red shoes boots green"])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_bfloat16_is_close_and_has_a_name_of_its_own(tiny: Path) -> None:
    exact, short = _encoder(tiny), _encoder(tiny, precision="bfloat16")
    texts = ["red shoes", "milk"]
    assert (exact.encode(texts) * short.encode(texts)).sum(1).min() > 0.999
    assert exact.name != short.name
    assert exact.name == _encoder(tiny).name


def test_progress_counts_texts(tiny: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = TextEncoderConfig(model=str(tiny), batch_size=2)
    TextEncoder(config, progress=lambda done, total: seen.append((done, total))).encode(["red", "", "milk", "boots"])
    assert seen == [(3, 4), (4, 4)]


def test_the_packaged_model_knows_what_words_mean() -> None:
    encoder = TextEncoder()
    dress, gown, drill = encoder.encode(["evening dress for women", "ladies' formal gown", "cordless power drill"])
    assert encoder.dim == 384
    assert dress @ gown > 0.6
    assert dress @ drill < 0.3


def test_a_model_that_is_not_there_is_the_callers_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CallerError, match="cannot be loaded"):
        _encoder(tmp_path)


def test_importing_the_module_is_light() -> None:
    code = "import sys, endcap.encoders.text; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
