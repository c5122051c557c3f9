import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from endcap.core.errors import CallerError
from endcap.core.protocols import Encoder
from endcap.encoders.cache import CachedEncoder
from endcap.encoders.families import Family, write_family
from endcap.encoders.text import TextEncoder, TextEncoderConfig
from endcap.testing import EncoderConformance


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


def test_what_is_all_in_the_cache_is_read_without_torch(tiny: Path, tmp_path: Path) -> None:
    texts = ["red shoes", "milk"]
    vectors = CachedEncoder(_encoder(tiny), tmp_path).encode(texts)
    code = f"""if True:
        import sys
        from pathlib import Path
        from endcap.encoders.cache import CachedEncoder
        from endcap.encoders.text import TextEncoder, TextEncoderConfig
        config = TextEncoderConfig(model={str(tiny)!r}, precision="float32")
        cached = CachedEncoder(TextEncoder(config), Path({str(tmp_path)!r}))
        print(cached.encode({texts!r}).tolist(), cached.encoded, {{"torch", "transformers"}} & set(sys.modules))
        """
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == f"{vectors.tolist()} 0 set()"


def test_the_first_token_is_pooled_where_the_settings_say_so(tiny: Path) -> None:
    import torch

    encoder = _encoder(tiny, pooling="cls")
    with torch.inference_mode():
        hidden = encoder._model(input_ids=torch.tensor([[2, 5, 7, 3]])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden[0], dim=0).numpy()
    np.testing.assert_allclose(encoder.encode(["milk boots red", "red shoes"])[1], expected, atol=1e-6)
    assert encoder.name != _encoder(tiny).name


def test_queries_and_passages_have_words_of_their_own(tiny: Path) -> None:
    encoder, plain = _encoder(tiny, query_prefix="green ", passage_prefix="milk "), _encoder(tiny)
    texts = ["red shoes", "", "boots"]
    np.testing.assert_allclose(encoder.encode(texts), plain.encode(["milk red shoes", "", "milk boots"]), atol=1e-6)
    queries = encoder.queries()
    assert isinstance(queries, Encoder)
    np.testing.assert_allclose(queries.encode(texts), plain.encode(["green red shoes", "", "green boots"]), atol=1e-6)
    assert len({encoder.name, queries.name, plain.name}) == 3
    assert plain.queries().name == plain.name


def test_a_tuned_model_is_read_as_it_was_tuned(tiny: Path, tmp_path: Path) -> None:
    tuned = _copy(tiny, tmp_path / "tuned")
    write_family(tuned, Family("cls", "green ", "milk ", 6))
    encoder = TextEncoder(TextEncoderConfig(model=str(tuned), precision="float32"))
    assert encoder.family == Family("cls", "green ", "milk ", 6)
    alike = _encoder(tiny, pooling="cls", max_length=6)
    texts = ["red shoes boots green milk red red", "boots"]
    np.testing.assert_allclose(encoder.encode(texts), alike.encode([f"milk {text}" for text in texts]), atol=1e-6)
    assert _encoder(tuned, pooling="mean", passage_prefix="", max_length=8).family == Family("mean", "green ", "", 8)


def test_a_model_that_looks_back_is_pooled_at_a_last_token_of_its_own(tiny_gpt: Path) -> None:
    import torch

    encoder = _encoder(tiny_gpt)
    assert (encoder.family.pooling, encoder.closing) == ("last", 0)
    with torch.inference_mode():
        hidden = encoder._model(input_ids=torch.tensor([[2, 4, 0]])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden[-1], dim=0).numpy()
    np.testing.assert_allclose(encoder.encode(["milk boots red green", "red shoes"])[1], expected, atol=1e-6)
    assert encoder.tokens(["red " * 50])[0] == [2] * 31 + [0], "the model has 32 places"


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_the_side_that_a_tokeniser_pads_on_changes_nothing(tiny_gpt: Path, tmp_path: Path, pooling: str) -> None:
    left = _copy(tiny_gpt, tmp_path / "left")
    settings = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left", "pad_token": "<end>"}))
    texts = ["red", "green shoes milk milk", "boots boots", "milk red"]
    one, other = _encoder(tiny_gpt, pooling=pooling), _encoder(left, pooling=pooling)
    assert other._tokeniser.padding_side == "left"
    np.testing.assert_array_equal(one.encode(texts), other.encode(texts))
    alone = np.concatenate([one.encode([text]) for text in texts])
    np.testing.assert_allclose(one.encode(texts), alone, atol=1e-6)


def test_of_a_model_with_a_decoder_the_encoder_alone_is_read(tiny_gpt: Path, tmp_path: Path) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    folder = _copy(tiny_gpt, tmp_path / "t5")
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=7, d_model=8, d_ff=16, num_layers=1, num_heads=2, d_kv=4))
    model.save_pretrained(folder)
    encoder = _encoder(folder)
    assert (encoder.dim, encoder.family.pooling) == (8, "mean")
    with torch.inference_mode():
        hidden = model.eval().encoder(input_ids=torch.tensor([[2, 4]])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
    np.testing.assert_allclose(encoder.encode(["red shoes", "milk"])[0], expected, atol=1e-6)


def test_a_tokeniser_that_ends_its_texts_is_left_to_it(tiny: Path) -> None:
    assert _encoder(tiny, pooling="last").closing is None


def test_a_batch_too_big_for_memory_is_cut_and_said(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is torch's own, of a tensor that no machine holds, whenever more than two texts are read at once."""
    import torch

    said: list[str] = []
    texts = ["red", "green", "shoes", "boots", "milk red", "milk"]
    expected = _encoder(tiny, batch_size=8).encode(texts)
    config = TextEncoderConfig(model=str(tiny), batch_size=8, precision="float32")
    encoder = TextEncoder(config, noted=said.append)
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda rows: run(rows) if len(rows) < 3 else torch.empty(10**15))
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-6)
    assert said == [
        f"Memory did not suffice for {many} contents at once, so {few} are taken." for many, few in ((6, 3), (3, 2))
    ]


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


class TestTextEncoder(EncoderConformance):
    @pytest.fixture(autouse=True)
    def _made(self, tiny: Path) -> None:
        self.contents = ("red shoes", "green milk boots", "milk")
        self.encoder = _encoder(tiny)

    def make(self) -> Encoder[str]:
        return self.encoder


class TestModelThatLooksBack(EncoderConformance):
    @pytest.fixture(autouse=True)
    def _made(self, tiny_gpt: Path) -> None:
        self.contents = ("red shoes", "green milk boots", "milk")
        self.encoder = _encoder(tiny_gpt)

    def make(self) -> Encoder[str]:
        return self.encoder
