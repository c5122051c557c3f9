"""What runs Whisper (Radford et al. 2022): CTranslate2 through faster-whisper, without torch; or transformers.

Legend: t encoder states, 50 a second, at most 1,500 in a window of 30 seconds; d width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from endcap.core.errors import CallerError, MissingExtraError
from endcap.core.types import Float32Array
from endcap.encoders.packaged import sha256
from endcap.encoders.sound import RATE
from endcap.encoders.whisper_files import PACKAGED_MODEL, WEIGHTS, WEIGHTS_SHA256, whisper_base

WINDOW_SECONDS = 30
SAMPLES_A_STATE = RATE // 50
WINDOW_SPECTRA = 100 * WINDOW_SECONDS
# After a short recording two seconds of silence are enough: states of such a window tell recordings apart as well as
# those of thirty seconds do, thirty times sooner.
QUIET_SPECTRA = 200
ComputeType = Literal["int8", "float32", "auto"]
# A segment is left out as made up if the model takes it for silence and is unsure, or if it repeats itself.
SILENCE, UNSURE, REPEATED = 0.6, -0.7, 2.4


class Segment(NamedTuple):
    """Seconds from the beginning."""

    start: float
    end: float
    text: str


class Heard(NamedTuple):
    """language: as ISO 639-1 where there is a code of two letters."""

    language: str
    language_probability: float
    segments: tuple[Segment, ...]


class Whisper(Protocol):
    """name: the model, its weights and the numbers it is run in. languages: the codes it knows."""

    name: str
    languages: frozenset[str]

    def transcribe(self, sound: Float32Array, language: str | None, beam_size: int) -> Heard:
        """language None: as detected in the first window. Without segments where nothing is understood."""
        ...

    def states(self, window: Float32Array) -> Float32Array:
        """float32 [t, d] of at most 30 seconds of sound, without the states of what fills the window up."""
        ...


class FasterWhisper:
    """Whisper in CTranslate2."""

    def __init__(self, source: str, compute_type: ComputeType, *, skip_silence: bool) -> None:
        """source: the packaged model, a folder in CTranslate2's format, or a name that faster-whisper knows. Raises
        MissingExtraError, ArtifactError if packaged weights are others, CallerError if it cannot be loaded."""
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise MissingExtraError("faster-whisper", "speech") from error
        try:
            folder = _folder(source)
            self._model: Any = WhisperModel(str(folder), device="cpu", compute_type=compute_type)
            digest = WEIGHTS_SHA256 if source == PACKAGED_MODEL else sha256(folder / WEIGHTS)
        except (OSError, ValueError, RuntimeError) as error:
            raise unloadable(source, error) from error
        self._skip_silence = skip_silence
        self.name = f"{Path(source).name}:{digest[:12]}:{compute_type}"
        self.languages = frozenset(self._model.supported_languages)

    def transcribe(self, sound: Float32Array, language: str | None, beam_size: int) -> Heard:
        heard, of_what = self._model.transcribe(
            sound,
            language=language,
            beam_size=beam_size,
            vad_filter=self._skip_silence,
            temperature=0.0,  # others draw at random
            condition_on_previous_text=False,  # what was misheard once would be heard again
        )
        kept = (Segment(part.start, part.end, part.text.strip()) for part in heard if not _made_up(part))
        return Heard(of_what.language, of_what.language_probability, tuple(kept))

    def states(self, window: Float32Array) -> Float32Array:
        spectrum = self._model.feature_extractor(window)[:, :-1]
        length = min(WINDOW_SPECTRA, spectrum.shape[1] + QUIET_SPECTRA)
        filled = np.pad(spectrum, ((0, 0), (0, length - spectrum.shape[1])))
        states: Float32Array = np.array(self._model.encode(filled))[0]
        return states[: real_states(window)]


def real_states(window: Float32Array) -> int:
    return -(-len(window) // SAMPLES_A_STATE)


def unloadable(source: str, error: Exception) -> CallerError:
    return CallerError(
        f"The speech model {source!r} cannot be loaded: {str(error).strip().split(chr(10), 1)[0]}",
        where="speech",
        next_step=f"Name {PACKAGED_MODEL!r}, a folder of a Whisper model, or a model's name that you can reach.",
    )


def _folder(source: str) -> Path:
    from faster_whisper import download_model

    if source == PACKAGED_MODEL:
        return whisper_base()
    return Path(source) if Path(source).is_dir() else Path(download_model(source))


def _made_up(part: Any) -> bool:
    silent = part.no_speech_prob > SILENCE and part.avg_logprob < UNSURE
    return silent or part.compression_ratio > REPEATED or not part.text.strip()
