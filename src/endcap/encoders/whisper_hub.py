"""Whisper as transformers has it: any checkpoint of Hugging Face, or a local folder of safetensors.

Each window of 30 seconds is one segment. Legend: t encoder states, d width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from endcap.core.errors import MissingExtraError
from endcap.core.types import Float32Array
from endcap.encoders.fingerprint import fingerprint
from endcap.encoders.quiet import quietly
from endcap.encoders.sound import RATE, somebody_speaks
from endcap.encoders.whispers import WINDOW_SECONDS, Heard, Segment, real_states, unloadable

if TYPE_CHECKING:
    from torch import Tensor


class HubWhisper:
    """Whisper in torch, float32."""

    def __init__(self, source: str) -> None:
        """Raises MissingExtraError, or CallerError if it cannot be loaded or is no Whisper."""
        try:
            import torch  # noqa: F401 - transformers imports without it and says so late
            from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration
        except ImportError as error:
            raise MissingExtraError(error.name or "transformers", "train,text") from error
        try:
            with quietly():
                model = WhisperForConditionalGeneration.from_pretrained(source, use_safetensors=True, dtype="float32")
                self._model: Any = model.eval()
                self._listen = WhisperFeatureExtractor.from_pretrained(source)
                self._tokeniser = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # of many libraries: the folder is the user's, and so is what is wrong with it
            raise unloadable(source, error) from error
        known: dict[str, int] = getattr(self._model.generation_config, "lang_to_id", None) or {}
        self._languages = {token.strip("<|>"): number for token, number in known.items()}
        self.languages = frozenset(self._languages or {"en"})
        self.name = f"{Path(source).name}:{fingerprint(self._model)}:float32"

    def transcribe(self, sound: Float32Array, language: str | None, beam_size: int) -> Heard:
        """Windows in which nobody speaks are left out."""
        spoken, probability, segments = language, 1.0, list[Segment]()
        for start in range(0, len(sound), WINDOW_SECONDS * RATE):
            window = sound[start : start + WINDOW_SECONDS * RATE]
            if not somebody_speaks(window):
                continue
            spectrum = self._spectrum(window)
            if spoken is None:
                spoken, probability = self._detected(spectrum)
            asked = {"language": spoken, "task": "transcribe"} if self._languages else {}
            tokens = self._model.generate(spectrum, num_beams=beam_size, **asked)
            text = self._tokeniser.batch_decode(tokens, skip_special_tokens=True)[0].strip()
            if text:
                segments.append(Segment(start / RATE, (start + len(window)) / RATE, text))
        return Heard(spoken or "en", probability, tuple(segments))

    def states(self, window: Float32Array) -> Float32Array:
        import torch

        with torch.inference_mode():
            found: Tensor = self._model.get_encoder()(self._spectrum(window)).last_hidden_state[0]
        states: Float32Array = found[: real_states(window)].numpy()
        return states

    def _spectrum(self, window: Float32Array) -> Tensor:
        """float32 [1, mels, 3,000]"""
        spectrum: Tensor = self._listen(window, sampling_rate=RATE, return_tensors="pt")["input_features"]
        return spectrum

    def _detected(self, spectrum: Tensor) -> tuple[str, float]:
        """The likeliest language, and how likely it is among those known."""
        import torch

        if not self._languages:
            return "en", 1.0
        begin = torch.tensor([[self._model.generation_config.decoder_start_token_id]])
        with torch.inference_mode():
            scores = self._model(spectrum, decoder_input_ids=begin).logits[0, -1]
        shares = torch.softmax(scores[list(self._languages.values())], 0)
        return list(self._languages)[int(shares.argmax())], float(shares.max())
