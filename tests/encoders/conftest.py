"""Small models of random weights, saved as any Hugging Face model is, the packaged multilingual one; pictures that are
drawn here, and the folders of real ones and of speech."""

import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

WORDS = ["red", "green", "shoes", "boots", "milk"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SEEN = SIZES | {"image_size": 32, "patch_size": 8}
READ = SIZES | {"vocab_size": 9, "max_position_embeddings": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}


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


def tokeniser() -> Any:
    """Seven words, ended as CLIP and SigLIP are."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[BOS]", "[UNK]", "[EOS]", "red", "shoes", "milk", "a", "boots"]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]")


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a tiny model of that family, of random weights, saved as any Hugging Face model is."""
    import transformers as hf
    from transformers.utils import logging

    logging.disable_progress_bar()
    towers = {"text_config": READ, "vision_config": SEEN}
    square = {"size": {"height": 32, "width": 32}}
    made: dict[str, Callable[[], tuple[Any, Any]]] = {
        "clip": lambda: (
            hf.CLIPModel(hf.CLIPConfig(**towers, projection_dim=12)),
            hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        ),
        "siglip": lambda: (hf.SiglipModel(hf.SiglipConfig(**towers)), hf.SiglipImageProcessorPil(**square)),
        "vit": lambda: (hf.ViTModel(hf.ViTConfig(**SEEN)), hf.ViTImageProcessorPil(**square)),
        "vit-bare": lambda: (
            hf.ViTModel(hf.ViTConfig(**SEEN), add_pooling_layer=False),
            hf.ViTImageProcessorPil(**square),
        ),
        "dinov2": lambda: (hf.Dinov2Model(hf.Dinov2Config(**SEEN)), hf.ViTImageProcessorPil(**square)),
        "convnext": lambda: (
            hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[4, 8, 8, 16], depths=[1, 1, 1, 1])),
            hf.ViTImageProcessorPil(size={"height": 64, "width": 64}),
        ),
        "swin-bare": lambda: (
            hf.SwinModel(hf.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1]), add_pooling_layer=False),
            hf.ViTImageProcessorPil(size={"height": 224, "width": 224}),
        ),
    }
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            model, processor = made[family]()
            model.save_pretrained(folders[family])
            processor.save_pretrained(folders[family])
            if family in ("clip", "siglip"):
                tokeniser().save_pretrained(folders[family])
        return folders[family]

    return folder
