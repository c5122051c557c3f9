"""The packaged network, and tiny ones of random weights for every family of Hugging Face."""

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from endcap.core.errors import CallerError, DataError
from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array
from endcap.encoders import lite0
from endcap.encoders.cache import CachedEncoder
from endcap.encoders.image import ImageEncoder, ImageEncoderConfig
from endcap.encoders.image_towers import LITE0
from endcap.encoders.media import Refused
from endcap.testing.conformance_content import EncoderConformance

EXACT = {"precision": "float32"}


def stored(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def encoder(folder: Path | None = None, **changes: Any) -> ImageEncoder:
    settings = {name: changes.pop(name) for name in list(changes) if name in ImageEncoderConfig.model_fields}
    named = {"model": str(folder)} if folder else {}
    return ImageEncoder(ImageEncoderConfig.model_validate(EXACT | named | settings), **changes)


@pytest.fixture(scope="module")
def packaged() -> ImageEncoder:
    return encoder()


@pytest.fixture(scope="module")
def all_layers() -> ImageEncoder:
    return encoder(layers="all", precision="bfloat16")


class TestPackagedConforms(EncoderConformance):
    empty = b""
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _content(self, packaged: ImageEncoder, pictures: list[bytes]) -> None:
        self._encoder, self.contents = packaged, pictures

    def make(self) -> Encoder[Any]:
        return self._encoder


class TestAllLayersInShortNumbersConform(EncoderConformance):
    empty = b""
    tolerance = 0.02

    @pytest.fixture(autouse=True)
    def _content(self, all_layers: ImageEncoder, pictures: list[bytes]) -> None:
        self._encoder, self.contents = all_layers, pictures

    def make(self) -> Encoder[Any]:
        return self._encoder


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return torch.load(LITE0.find(), weights_only=True)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


class TestTheNetwork:
    def test_is_the_one_the_weights_were_published_for(self, weights: dict[str, torch.Tensor], pixels: torch.Tensor):
        published = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        published.load_state_dict(weights)
        with torch.inference_mode():
            expected = published.eval().extract_features(pixels).mean((2, 3))
            np.testing.assert_allclose(lite0.Lite0(weights)(pixels), expected, atol=1e-4)

    def test_all_stages_end_with_the_last_layer(self, weights: dict[str, torch.Tensor], pixels: torch.Tensor):
        with torch.inference_mode():
            last = torch.nn.functional.normalize(lite0.Lite0(weights)(pixels), dim=1)
            stages = lite0.Lite0(weights, all_stages=True)(pixels)
        assert stages.shape == (2, 40 + 80 + 112 + 192 + 320 + 1280)
        torch.testing.assert_close(stages[:, -1280:], last)
        torch.testing.assert_close(stages[:, :40].norm(dim=1), torch.ones(2))

    def test_knows_what_the_classifier_was_trained_to_tell(self, weights: dict[str, torch.Tensor], data):
        """Of ImageNet's thousand classes 954 is the banana, 953 the pineapple, 951 the lemon."""
        folder = data("grocery-images") / "test" / "Fruit"
        network = lite0.Lite0(weights)
        for kind, expected in (("Banana", 954), ("Pineapple", 953), ("Lemon", 951)):
            photos = sorted((folder / kind).glob("*.jpg"))[:12]
            seen = torch.from_numpy(np.stack([lite0.PREPARATION(Image.open(photo).convert("RGB")) for photo in photos]))
            with torch.inference_mode():
                scores = network(seen) @ weights["_fc.weight"].T + weights["_fc.bias"]
            assert (scores.topk(5).indices == expected).any(1).float().mean() > 0.6, kind


def test_a_picture_is_prepared_as_the_network_was_trained_to_see_it() -> None:
    flat = lite0.PREPARATION(Image.new("RGB", (64, 48), (255, 127, 0)))
    assert flat.shape == (3, 224, 224)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat[:, 100, 100], [1.0, 0.0, -127 / 128])
    split = Image.new("RGB", (320, 160))
    split.paste((255, 255, 255), (160, 0, 320, 160))
    seen = lite0.PREPARATION(split)  # the middle 140 pixels of 320: black on the left half, white on the right
    assert (seen[:, :, :100] < -0.98).all()
    assert (seen[:, :, 124:] > 0.98).all()


def test_photos_of_one_product_are_alike(packaged: ImageEncoder, data: Callable[[str], Path]) -> None:
    folder = data("grocery-images") / "test"
    kinds = ["Fruit/Banana", "Fruit/Pineapple", "Vegetables/Carrots", "Vegetables/Aubergine"]
    photos = [photo for kind in kinds for photo in sorted((folder / kind).glob("*.jpg"))[:15:3]]
    alike = (vectors := packaged.encode(photos)) @ vectors.T - 2 * np.eye(len(photos))
    product = np.repeat(np.arange(4), 5)
    assert (product[alike.argmax(1)] == product).mean() > 0.8


def test_the_name_names_what_vectors_depend_on(packaged: ImageEncoder) -> None:
    assert packaged.dim == 1280
    assert packaged.name == "efficientnet-lite0:579344248a93:last:224-0.875:float32"
    assert len({packaged.name, encoder(layers="all").name, encoder(precision="bfloat16").name}) == 3


def test_progress_counts_pictures(pictures: list[bytes]) -> None:
    seen: list[tuple[int, int]] = []
    encoder(batch_size=2, progress=lambda *counted: seen.append(counted)).encode([*pictures[:3], b""])
    assert seen == [(3, 4), (4, 4)]


def _pooled(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).pooler_output


TAKEN: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "clip": lambda model, pixels: model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output),
    "siglip": lambda model, pixels: model.vision_model(pixel_values=pixels).pooler_output,
    "vit": _pooled,
    "vit-bare": lambda model, pixels: model(pixel_values=pixels).last_hidden_state[:, 0],
    "dinov2": _pooled,
    "convnext": _pooled,
    "swin-bare": lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean(1),
}


@pytest.mark.parametrize("family", TAKEN)
def test_every_family_gives_what_it_was_trained_to(family: str, seeing: Any, pictures: list[bytes]) -> None:
    """Against the model itself, loaded apart, with the same processor."""
    import transformers as hf

    ours = encoder(seeing(family), batch_size=3)
    processor = hf.AutoImageProcessor.from_pretrained(seeing(family), backend="pil")
    images = [Image.open(io.BytesIO(content)).convert("RGB") for content in pictures]
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        expected = TAKEN[family](hf.AutoModel.from_pretrained(seeing(family)).eval(), pixels).flatten(1)
    np.testing.assert_allclose(ours.encode(pictures), torch.nn.functional.normalize(expected, dim=1), atol=1e-5)
    assert ours.dim == expected.shape[1]


def test_names_tell_models_and_precisions_apart(seeing: Any) -> None:
    names = [encoder(seeing(family)).name for family in ("vit", "vit-bare", "dinov2")]
    assert len({*names, encoder(seeing("vit"), precision="bfloat16").name}) == 4
    assert encoder(seeing("vit")).name == names[0]


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_texts_share_the_pictures_space(family: str, seeing: Any) -> None:
    pictured = encoder(seeing(family))
    texts = pictured.paired_text_encoder()
    assert isinstance(texts, Encoder)
    assert texts.dim == pictured.dim
    assert texts.name != pictured.name
    vectors = texts.encode(["red shoes", " ", "milk"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-6)
    tokens = [4, 5, 3] if family == "clip" else [4, 5, 3, 0, 0, 0, 0, 0]
    with torch.inference_mode():
        output = pictured.tower.model.get_text_features(input_ids=torch.tensor([tokens]))
    np.testing.assert_allclose(vectors[0], torch.nn.functional.normalize(output.pooler_output, dim=1)[0], atol=1e-5)
    alone = np.concatenate([texts.encode([text]) for text in ("red shoes", "milk")])
    np.testing.assert_allclose(vectors[[0, 2]], alone, atol=1e-5)


@pytest.mark.parametrize("family", [None, "dinov2"])
def test_a_model_without_a_text_side_says_so(family: str | None, seeing: Any) -> None:
    with pytest.raises(CallerError, match="looks at pictures only"):
        encoder(seeing(family) if family else None).paired_text_encoder()


def test_weights_that_are_missing_are_not_made_up(seeing: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in seeing("vit").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kept = load_file(tmp_path / "model.safetensors")
    kept.pop("layernorm.weight")
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CallerError, match=r"no weights for layernorm\.weight"):
        encoder(tmp_path)


def test_what_is_no_model_of_pictures_is_the_callers_error(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    with pytest.raises(CallerError, match="cannot be used"):
        encoder(tmp_path)
    BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8)).save_pretrained(
        tmp_path
    )
    with pytest.raises(CallerError, match="cannot be used"):
        encoder(tmp_path)


def test_weights_that_were_cut_off_are_the_callers_error(seeing: Any, tmp_path: Path) -> None:
    for file in seeing("vit").iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:-100] if file.suffix == ".safetensors" else content)
    with pytest.raises(CallerError, match="cannot be used"):
        encoder(tmp_path)


def test_only_the_packaged_model_gives_all_its_layers(seeing: Any) -> None:
    with pytest.raises(CallerError, match="all its layers"):
        encoder(seeing("vit"), layers="all")


class TestWhatCannotBeRead:
    def test_is_an_error_that_names_it(self, packaged: ImageEncoder, pictures: list[bytes], tmp_path: Path):
        with pytest.raises(DataError, match=r"contents\[2\]: It is no picture"):
            packaged.encode([pictures[0], b"", b"nothing"])
        (torn := tmp_path / "torn.png").write_bytes(pictures[0][:200])
        with pytest.raises(DataError, match=r"torn\.png: The picture cannot be read"):
            packaged.encode([pictures[0], torn])

    def test_is_collected_where_the_rest_is_to_go_on(self, seeing: Any, pictures: list[bytes], tmp_path: Path):
        refused: list[Refused] = []
        gone = tmp_path / "gone.jpg"
        going = encoder(seeing("vit"), refused=refused, batch_size=2)
        vectors = going.encode([b"nothing", pictures[0], gone, b"", pictures[1], pictures[2][:-60]])
        assert [entry.place for entry in refused] == ["contents[0]", str(gone), "contents[5]"]
        assert all(entry.reason.endswith(".") for entry in refused)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0, 1, 0, 0, 1, 0], atol=1e-6)
        np.testing.assert_allclose(vectors[[1, 4]], encoder(seeing("vit")).encode(pictures[:2]), atol=1e-6)

    def test_may_be_all_there_is(self, seeing: Any):
        refused: list[Refused] = []
        assert not encoder(seeing("vit"), refused=refused).encode([b"no", b"nor this"]).any()
        assert len(refused) == 2

    def test_has_limits_that_the_config_sets(self, seeing: Any):
        large = stored(Image.new("RGB", (40, 30)))
        with pytest.raises(DataError, match="40 x 30 pixels"):
            encoder(seeing("vit"), max_pixels=1199).encode([large])
        with pytest.raises(DataError, match="longer than"):
            encoder(seeing("vit"), max_bytes=len(large) - 1).encode([large])
        assert encoder(seeing("vit"), max_pixels=1200, max_bytes=len(large)).encode([large]).any()


def test_a_batch_that_memory_does_not_suffice_for_is_halved(
    seeing: Any, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    refused: list[Refused] = []
    small = encoder(seeing("vit"), batch_size=4, noted=notes.append, refused=refused)
    forward = small.tower.forward

    def holds_two(pixels: Float32Array) -> Float32Array:
        if len(pixels) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        return forward(pixels)

    monkeypatch.setattr(small.tower, "forward", holds_two)
    contents: Sequence[bytes] = [*pictures, b"nothing", *pictures]
    vectors = small.encode(contents)
    np.testing.assert_allclose(vectors, encoder(seeing("vit"), refused=[]).encode(contents), atol=1e-6)
    assert len(notes) == 1
    assert len(refused) == 1


def test_a_cache_keeps_paths_by_what_is_in_them(seeing: Any, pictures: list[bytes], tmp_path: Path) -> None:
    for place, content in enumerate(pictures):
        (tmp_path / f"{place}.png").write_bytes(content)
    paths = sorted(tmp_path.glob("*.png"))
    first = CachedEncoder(encoder(seeing("vit")), tmp_path / "cache")
    vectors = first.encode([*paths, *paths[:1]])
    again = CachedEncoder(encoder(seeing("vit")), tmp_path / "cache")
    np.testing.assert_array_equal(again.encode(pictures), vectors[:4])
    assert (first.encoded, again.encoded) == (4, 0)


def test_a_cache_passes_on_what_is_refused_in_every_run(seeing: Any, pictures: list[bytes], tmp_path: Path) -> None:
    contents = [pictures[0], b"nothing", tmp_path / "gone.png"]
    for encoded in (3, 2):
        refused: list[Refused] = []
        cached: CachedEncoder[bytes | Path] = CachedEncoder(encoder(seeing("vit"), refused=refused), tmp_path / "cache")
        vectors = cached.encode(contents)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 0], atol=1e-6)
        assert str(tmp_path / "gone.png") in {entry.place for entry in refused}
        assert (len(refused), cached.encoded) == (2, encoded)


def test_importing_the_module_is_light() -> None:
    code = "import sys, endcap.encoders.image; sys.exit(bool({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
