"""Where encoders run, and in what numbers: each device is asked for itself."""

from pathlib import Path

import pytest
import torch

from endcap.encoders import cpu, precision
from endcap.encoders.image import ImageEncoder, ImageEncoderConfig
from endcap.encoders.precision import device, resolved, space
from endcap.encoders.text import TextEncoder, TextEncoderConfig


@pytest.mark.parametrize(("flags", "gpu"), [((), True), (("avx512_bf16",), False)])
def test_each_device_says_what_it_multiplies(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], gpu: bool
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(cpu, "flags", lambda: frozenset(flags))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    assert resolved("auto", "cuda") == ("bfloat16" if gpu else "float32")
    assert resolved("auto", "cpu") == ("bfloat16" if flags else "float32")
    assert resolved("float32", "cuda") == "float32"


def test_the_gpu_is_taken_where_torch_can_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(precision, "DRIVERS", (str(tmp_path / "none"),))
    assert device() == "cpu"
    monkeypatch.setattr(precision, "DRIVERS", (str(tmp_path),))
    assert device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == "cpu"


def test_words_and_pictures_are_read_in_the_same_numbers(tiny: Path) -> None:
    words = TextEncoder(TextEncoderConfig(model=str(tiny)))
    assert ImageEncoder(ImageEncoderConfig()).name.endswith(f":{words.precision}")


def test_numbers_are_no_part_of_what_vectors_mean() -> None:
    assert space("minilm:ab12:mean:64:float32") == space("minilm:ab12:mean:64:bfloat16") == "minilm:ab12:mean:64"
    assert space("e5:ab12:mean:64:bfloat16:passage: ") == "e5:ab12:mean:64:passage: "
    assert space("whisper-base:d0:int8:states") == "whisper-base:d0:int8:states"
