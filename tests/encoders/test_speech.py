"""The packaged Whisper on real clips and on sounds in which nobody speaks; a tiny one of random weights beside it."""

import io
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endcap.core.errors import ArtifactError, CallerError, DataError, ServiceError
from endcap.core.protocols import Encoder
from endcap.core.types import Float32Array
from endcap.encoders import whisper_files
from endcap.encoders.media import Refused
from endcap.encoders.packaged import sha256
from endcap.encoders.sound import RATE, sound
from endcap.encoders.speech import Speech, SpeechConfig, SpeechEncoder, Transcript
from endcap.encoders.text import TextEncoder
from endcap.testing.conformance_content import EncoderConformance

LIMITS: dict[str, Any] = {"max_bytes": 10_000_000, "max_seconds": 60}


def recorded(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of numbers between -1 and 1."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def hiss(seconds: float = 3, loudness: float = 0.05) -> np.ndarray:
    return np.clip(loudness * np.random.default_rng(0).standard_normal(int(RATE * seconds)), -1, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the packaged weights are joined in, once for all tests here."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_MODELS", str(models))


@pytest.fixture(scope="module")
def speech(models: Path) -> Speech:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_MODELS", str(models))
        return Speech()


class TestConforms(EncoderConformance):
    contents = tuple(recorded(sounds) for sounds in (tone(200), tone(1000, 0.4), hiss(0.7)))
    empty = b""
    tolerance = 1e-5

    @pytest.fixture(autouse=True)
    def _shared(self, speech: Speech) -> None:
        self._speech = speech

    def make(self) -> Encoder[Any]:
        return SpeechEncoder(self._speech)


class TestTheWeights:
    def test_are_joined_once(self, models: Path, speech: Speech):
        folder = models / "whisper-base"
        names = ["config.json", "model.bin", "tokenizer.json", "vocabulary.txt"]
        assert sorted(path.name for path in folder.iterdir()) == names
        before = [(folder / name).stat().st_mtime_ns for name in names]
        assert whisper_files.whisper_base() == folder
        assert [(folder / name).stat().st_mtime_ns for name in names] == before

    def test_are_joined_anew_where_damaged(self, models: Path, speech: Speech):
        whole = models / "whisper-base" / "model.bin"
        with whole.open("r+b") as file:
            file.seek(1000)
            file.write(b"!")
        whisper_files.whisper_base()
        assert sha256(whole) == whisper_files.WEIGHTS_SHA256

    def test_that_are_not_those_expected_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("ENDCAP_MODELS", str(tmp_path))
        monkeypatch.setattr(whisper_files, "HALVES", whisper_files.HALVES[::-1])
        with pytest.raises(ArtifactError, match="joined weights are not those"):
            whisper_files.whisper_base()
        assert not list(tmp_path.rglob("*model.bin*")), "something that is not the model was left behind"

    def test_need_a_folder_that_can_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (occupied := tmp_path / "file").write_text("")
        monkeypatch.setenv("ENDCAP_MODELS", str(occupied))
        with pytest.raises(ServiceError, match="ENDCAP_MODELS"):
            whisper_files.whisper_base()


@pytest.fixture(scope="module")
def english(speech: Speech, data: Callable[[str], Path]) -> Transcript:
    return speech.transcribe(data("speech") / "en-jfk.flac")


class TestTranscribing:
    def test_english(self, english: Transcript):
        said = english
        assert "ask not what your country can do for you" in said.text.lower()
        assert (said.language, said.seconds) == ("en", 11.0)
        assert said.language_probability > 0.8
        assert said.text == " ".join(segment.text for segment in said.segments)
        assert 0 <= said.segments[0].start < said.segments[-1].end <= 11.5

    def test_chinese(self, speech: Speech, data: Callable[[str], Path]):
        said = speech.transcribe((data("speech") / "zh.flac").read_bytes())
        assert "自己的脚" in said.text
        assert said.language == "zh"
        assert 0.9 < said.seconds < 1

    def test_a_spoken_query_finds_its_product(self, english: Transcript):
        catalogue = [
            "Organic whole milk, one litre",
            "Cordless drill with two batteries",
            "Great American speeches: a book on what citizens can do for their country",
            "Country-style oak dining table",
            "Women's trail running shoes",
            "USB microphone for recording speech",
        ]
        encoder = TextEncoder()
        alike = encoder.encode([english.text]) @ encoder.encode(catalogue).T
        assert int(alike.argmax()) == 2

    def test_a_language_may_be_given(self, data: Callable[[str], Path]):
        given = Speech(SpeechConfig(language="zh", beam_size=1, skip_silence=False))
        said = given.transcribe(data("speech") / "zh.flac")
        assert (said.language, said.language_probability) == ("zh", 1)
        with pytest.raises(CallerError, match=r"language 'klingon'.*en, "):
            Speech(SpeechConfig(language="klingon"))

    @pytest.mark.parametrize("samples", [np.zeros(3 * RATE), hiss(), hiss(3, 0.3), tone(440, 3), hiss(2, 5e-5)])
    def test_of_silence_and_noise_nothing_is_made_up(self, speech: Speech, samples: np.ndarray):
        with pytest.raises(DataError, match=r"the recording: Nothing is said"):
            speech.transcribe(recorded(samples))

    def test_what_the_model_makes_up_is_left_out(self, speech: Speech):
        """Asked past the detector of voices, this model hears "You" in silence."""
        assert speech.whisper.transcribe(np.zeros(5 * RATE, np.float32), "en", 5).segments == ()


def test_recordings_of_one_voice_are_alike(speech: Speech, data: Callable[[str], Path]) -> None:
    encoder = SpeechEncoder(speech)
    whole = sound(data("speech") / "en-jfk.flac", "here", **LIMITS)
    other = data("speech") / "zh.flac"
    first, second, foreign = encoder.encode([recorded(whole[: 5 * RATE]), recorded(whole[5 * RATE :]), other])
    assert first @ second > 0.85
    assert first @ foreign < 0.75
    assert encoder.name == "whisper-base:d01c3014881c:int8:states"


def test_a_long_recording_is_the_mean_over_its_windows(tiny: Path) -> None:
    speech = Speech(SpeechConfig(model=str(tiny)))
    encoder = SpeechEncoder(speech)
    samples = np.concatenate([tone(300, 30), hiss(4)]).astype(np.float32)
    whole = sound(recorded(samples), "here", **LIMITS)
    parts = [speech.whisper.states(part) for part in (whole[: 30 * RATE], whole[30 * RATE :])]
    assert [len(part) for part in parts] == [1500, 200]
    mean = np.concatenate(parts).mean(0)
    np.testing.assert_allclose(encoder.encode([recorded(samples)])[0], mean / np.linalg.norm(mean), atol=1e-5)


class TestWhatCannotBeListenedTo:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "damaged, or of a kind"),
            (b"no sound at all", "damaged, or of a kind"),
            (b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n", "damaged, or of a kind"),
            (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "damaged, or of a kind"),
            (recorded(tone(400))[:40], "damaged, or of a kind|Nothing is said"),
            (recorded(np.zeros(0)), "damaged, or of a kind|Nothing is said"),
            (recorded(tone(400, 61)), "longer than the 60 seconds"),
            (b"\0" * 10_000_001, "longer than the 10,000,000 bytes"),
        ],
    )
    def test_is_named(self, content: bytes, said: str):
        with pytest.raises(DataError, match=said) as caught:
            sound(content, "shelf/clip 7", **LIMITS)
        assert caught.value.where == "shelf/clip 7"
        assert caught.value.next_step

    def test_may_have_been_cut_off(self, data: Callable[[str], Path]):
        content = (data("speech") / "en-jfk.flac").read_bytes()
        with pytest.raises(DataError, match="damaged"):
            sound(content[:300_000], "here", **LIMITS)

    def test_is_an_error_or_collected(self, speech: Speech, tmp_path: Path):
        contents = [b"noise", recorded(tone(300)), tmp_path / "gone.wav", b"", recorded(np.zeros(RATE))]
        with pytest.raises(DataError, match=r"contents\[0\]"):
            SpeechEncoder(speech).encode(contents)
        refused: list[Refused] = []
        seen: list[tuple[int, int]] = []
        going = SpeechEncoder(speech, refused=refused, progress=lambda *counted: seen.append(counted))
        vectors = going.encode(contents)
        assert [entry.place for entry in refused] == ["contents[0]", str(tmp_path / "gone.wav"), "contents[4]"]
        assert refused[2].reason == "Nothing is said in it."
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0, 1, 0, 0, 0], atol=1e-6)
        assert seen[-1] == (5, 5)


def test_any_rate_and_number_of_channels_is_listened_to() -> None:
    both = np.stack([tone(440, 1, 44_100)] * 2, axis=1).reshape(-1)
    heard = sound(recorded(both, 44_100, 2), "here", **LIMITS)
    assert abs(len(heard) - RATE) < 50
    spectrum = np.abs(np.fft.rfft(heard[:RATE]))
    assert abs(int(spectrum.argmax()) * RATE / len(heard[:RATE]) - 440) < 2


def encoded(samples: np.ndarray, rate: int, layout: str) -> bytes:
    """AAC in pieces that each say their rate and channels, so that files may be put one behind the other."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        channels = np.tile(samples.astype(np.float32), (stream.layout.nb_channels, 1))
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_a_recording_may_go_on_at_another_rate_and_with_other_channels() -> None:
    parts = [encoded(tone(440, 1, 44_100), 44_100, "stereo"), encoded(tone(880, 1, 22_050), 22_050, "mono")]
    heard = sound(b"".join(parts), "here", **LIMITS)
    assert abs(len(heard) - 2 * RATE) < RATE // 4
    for part, hertz in ((heard[:RATE], 440), (heard[-RATE:], 880)):
        assert abs(int(np.abs(np.fft.rfft(part)).argmax()) - hertz) < 10


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of two layers and random weights, saved as any Hugging Face model is."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tiny-whisper")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>"]
    after = "<|notimestamps|>"  # whatever has a higher number is a time
    words = {word: place for place, word in enumerate([*special, "m", "i", "l", "k", after])}
    WhisperTokenizer(vocab=words, merges=[], additional_special_tokens=[*special[1:], after]).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 8, "max_target_positions": 16}
    places = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    config = WhisperConfig(
        vocab_size=len(words), **sizes, **heads, **places, suppress_tokens=None, begin_suppress_tokens=None
    )
    model = WhisperForConditionalGeneration(config)
    asked = model.generation_config
    asked._from_model_config = False  # as of any checkpoint whose settings for writing down were saved with it
    asked.lang_to_id, asked.task_to_id = {"<|en|>": 2, "<|zh|>": 3}, {"transcribe": 4}
    asked.no_timestamps_token_id, asked.is_multilingual, asked.max_length = words[after], True, 12
    asked.suppress_tokens = [1, 2, 3, 4, words[after]]
    model.save_pretrained(folder)
    return folder


class TestAnyCheckpointOfHuggingFace:
    def test_gives_the_mean_of_its_encoder_states(self, tiny: Path):
        import torch
        from transformers import WhisperFeatureExtractor, WhisperModel

        heard: Float32Array = sound(recorded(hiss(1.2)), "here", **LIMITS)
        spectrum = WhisperFeatureExtractor.from_pretrained(tiny)(heard, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            encoder = WhisperModel.from_pretrained(tiny).eval().get_encoder()
            states = encoder(spectrum["input_features"]).last_hidden_state[0, :60]
        expected = torch.nn.functional.normalize(states.mean(0), dim=0)
        ours = SpeechEncoder(SpeechConfig(model=str(tiny)))
        np.testing.assert_allclose(ours.encode([recorded(hiss(1.2))])[0], expected, atol=1e-5)
        assert ours.dim == 16
        assert ours.name.startswith(f"{tiny.name}:")

    def test_writes_down_window_by_window(self, tiny: Path, data: Callable[[str], Path]):
        """Random weights say nothing sensible: what is checked is whose words, of which window, in which language."""
        speech = Speech(SpeechConfig(model=str(tiny), beam_size=1))
        assert speech.whisper.languages == {"en", "zh"}
        clip = sound(data("speech") / "en-jfk.flac", "here", **LIMITS)
        heard = np.concatenate([clip, np.zeros(60 * RATE - len(clip), np.float32), clip])
        found = speech.whisper.transcribe(heard, None, 1)
        assert [(part.start, part.end) for part in found.segments] == [(0, 30), (60, 71)]
        assert set("".join(part.text for part in found.segments)) <= set("milk")
        assert found.language in ("en", "zh")
        assert 0.5 <= found.language_probability <= 1
        assert speech.whisper.transcribe(clip, "zh", 1)[:2] == ("zh", 1.0)

    def test_may_be_kept_in_half_precision(self, tiny: Path, tmp_path: Path):
        from transformers import WhisperForConditionalGeneration

        half = shutil.copytree(tiny, tmp_path / "half")
        WhisperForConditionalGeneration.from_pretrained(tiny).half().save_pretrained(half)
        given = [recorded(hiss(1.2))]
        whole, ours = (SpeechEncoder(SpeechConfig(model=str(folder))).encode(given) for folder in (tiny, half))
        np.testing.assert_allclose(ours, whole, atol=2e-3)
        assert Speech(SpeechConfig(model=str(half), beam_size=1)).whisper.transcribe(hiss(1).astype("f4"), "en", 1)

    def test_is_the_callers_to_mend_where_its_weights_were_cut_off(self, tiny: Path, tmp_path: Path):
        weights = shutil.copytree(tiny, tmp_path / "cut") / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(CallerError, match="cannot be loaded"):
            Speech(SpeechConfig(model=str(weights.parent)))

    def test_conforms(self, tiny: Path):
        encoder = SpeechEncoder(SpeechConfig(model=str(tiny)))
        assert isinstance(encoder, Encoder)
        vectors = encoder.encode([recorded(tone(200)), b"", recorded(hiss(0.4))])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("engine", ["auto", "ctranslate2", "transformers"])
def test_a_model_that_is_not_there_is_the_callers_error(tmp_path: Path, engine: str) -> None:
    with pytest.raises(CallerError, match="cannot be loaded"):
        Speech(SpeechConfig.model_validate({"model": str(tmp_path), "engine": engine}))
    with pytest.raises(CallerError, match="cannot be loaded"):
        Speech(SpeechConfig(model="no-such-model", engine="ctranslate2"))


def test_listening_needs_no_torch(models: Path, speech: Speech) -> None:
    """Importing is light, and so are transcribing and encoding with the packaged model."""
    light = "import sys, endcap.encoders.speech; assert not {'torch', 'faster_whisper', 'av'} & set(sys.modules)\n"
    used = (
        "from endcap.encoders.speech import *\n"
        "import io, wave\n"
        "file = io.BytesIO(); out = wave.open(file, 'wb'); out.setnchannels(1); out.setsampwidth(2)\n"
        "out.setframerate(16000); out.writeframes(np.arange(-9000, 9000, 2, dtype='<i2').tobytes()); out.close()\n"
        "encoder = SpeechEncoder()\n"
        "assert encoder.encode([file.getvalue()]).any()\n"
        "try: encoder.speech.transcribe(file.getvalue())\n"
        "except DataError as error: assert 'Nothing is said' in str(error)\n"
        "else: raise AssertionError('a ramp spoke')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'\n"
    )
    answer = subprocess.run([sys.executable, "-c", light + used], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
