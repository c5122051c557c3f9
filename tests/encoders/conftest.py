"""Small models of random weights, saved as any Hugging Face model is, the packaged multilingual one; pictures that are
drawn here, and the folders of real ones and of speech."""

import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

WORDS = ["red", "green", "shoes", "boots", "milk"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of ten words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={token: place for place, token in enumerate(tokens)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of seven words, whose tokeniser has no padding token and ends no text by itself."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tiny-gpt")
    torch.manual_seed(0)
    tokens = ["<end>", "<unknown>", *WORDS]
    config = GPT2Config(
        vocab_size=len(tokens), n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unknown>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that multilingual-e5-small is converted to, under an ENDCAP_MODELS of the session's own."""
    from endcap.encoders import e5

    for file in (e5.BLOCKS, e5.TOKENISER):
        if importlib.util.find_spec(file.module) is None:
            pytest.skip(f"the package {file.requirement} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_MODELS", str(tmp_path_factory.mktemp("models")))
        yield e5.folder()


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """A data set's folder below ENDCAP_DATA; the test is skipped where there is none."""

    def folder(name: str) -> Path:
        if not (root := os.environ.get("ENDCAP_DATA")):
            pytest.skip(f"reads {name} below ENDCAP_DATA, which is not set")
        if not (path := Path(root) / name).is_dir():
            pytest.skip(f"there is no {path}")
        return path

    return folder


def drawn(shape: str, colour: str, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A disc, a box or stripes on grey."""
    image = Image.new("RGB", size, "lightgrey")
    pen = ImageDraw.Draw(image)
    width, height = size
    if shape == "disc":
        pen.ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=colour)
    elif shape == "box":
        pen.rectangle((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=colour)
    else:
        for left in range(0, width, 16):
            pen.rectangle((left, 0, left + 7, height), fill=colour)
    return image


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    return [stored(drawn(*what)) for what in (("disc", "red"), ("box", "blue"), ("stripes", "green"), ("disc", "blue"))]
