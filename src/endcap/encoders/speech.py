"""Speech -> text, and speech -> unit vectors, by Whisper on a CPU.

The default's weights come as Python packages, so nothing is downloaded, and it needs no torch. What runs the model is
imported when a `Speech` is made, not before. A model that listens to silence makes words up, so where nobody speaks
there is an error and never a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from endcap.core.errors import CallerError, DataError
from endcap.core.section import Section
from endcap.core.types import Float32Array
from endcap.encoders.media import Media, Refused, place_of
from endcap.encoders.sound import RATE, nothing_said, somebody_speaks, sound
from endcap.encoders.whisper_files import PACKAGED_MODEL, WEIGHTS
from endcap.encoders.whispers import WINDOW_SECONDS, ComputeType, FasterWhisper, Segment, Whisper

WINDOW = WINDOW_SECONDS * RATE
WRITTEN_WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})


class SpeechConfig(Section):
    """Which model listens, and to what."""

    model: str = Field(
        default=PACKAGED_MODEL,
        description="the packaged model, a folder (CTranslate2 or safetensors), a name that faster-whisper knows, "
        "or any Whisper of Hugging Face",
    )
    engine: Literal["auto", "ctranslate2", "transformers"] = Field(
        default="auto", description="what runs it; auto: by what is in the folder, or by the name"
    )
    language: str | None = Field(default=None, description="code of two letters; left out, it is detected")
    compute_type: ComputeType = Field(default="int8", description="numbers that CTranslate2 multiplies")
    beam_size: int = Field(default=5, ge=1, description="transcripts that are weighed at once")
    skip_silence: bool = Field(default=True, description="cut out stretches where nobody speaks")
    max_seconds: float = Field(default=600, gt=0, description="longer recordings are refused")
    max_bytes: int = Field(default=100_000_000, ge=1, description="longer files are refused")


@dataclass(frozen=True, slots=True)
class Transcript:
    """language: code; with how sure the model is of it. seconds: of the whole recording."""

    text: str
    language: str
    language_probability: float
    seconds: float
    segments: tuple[Segment, ...]


class Speech:
    """Listens and writes down."""

    def __init__(self, config: SpeechConfig | None = None) -> None:
        """Raises MissingExtraError if a package is missing, ArtifactError if the packaged weights are not those
        expected, CallerError if the model cannot be loaded or does not know the language."""
        self.config = config or SpeechConfig()
        self.whisper = _opened(self.config)
        if self.config.language is not None and self.config.language not in self.whisper.languages:
            raise CallerError(
                f"The model does not know the language {self.config.language!r}.",
                where="language",
                next_step=f"Choose one of: {', '.join(sorted(self.whisper.languages))}.",
            )

    def transcribe(self, content: Media) -> Transcript:
        """Raises DataError for a file that is no sound, is damaged or too long, and where nothing is said."""
        place = place_of(content, 0) if isinstance(content, Path) else "the recording"
        heard = self.listen(content, place)
        if not somebody_speaks(heard):
            raise nothing_said(place)
        found = self.whisper.transcribe(heard, self.config.language, self.config.beam_size)
        if not found.segments:
            raise nothing_said(place)
        parts = [segment.text for segment in found.segments]
        text = ("" if found.language in WRITTEN_WITHOUT_SPACES else " ").join(parts)
        return Transcript(text, found.language, found.language_probability, len(heard) / RATE, found.segments)

    def listen(self, content: Media, place: str) -> Float32Array:
        """The sound within the config's bounds; DataError as of `transcribe`, save that it need not be speech."""
        return sound(content, place, max_bytes=self.config.max_bytes, max_seconds=self.config.max_seconds)


class SpeechEncoder:
    """How something sounds and what is said in it: the mean of Whisper's encoder states over the whole recording,
    without those of the silence that fills the last window up.

    `name` names everything the vectors depend on: model, weights and the numbers they are run in.
    """

    def __init__(
        self,
        speech: Speech | SpeechConfig | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        refused: list[Refused] | None = None,
    ) -> None:
        """speech: one that is loaded already is shared. progress: called with (recordings done, in all). refused: takes
        those that cannot be listened to, whose rows are then all zero; without it the first of them is an error."""
        self.speech = speech if isinstance(speech, Speech) else Speech(speech)
        self.progress, self.refused = progress, refused
        self.name = f"{self.speech.whisper.name}:states"
        self.dim = self.speech.whisper.states(np.zeros(RATE, np.float32)).shape[1]

    def encode(self, contents: Sequence[Media]) -> Float32Array:
        """float32 [len(contents), dim], rows of unit length; all zero for empty bytes and for what is refused.

        Raises DataError for what is no sound, damaged, silent or too long, naming its path or its place, unless
        `refused` collects them.
        """
        vectors = np.zeros((len(contents), self.dim), dtype=np.float32)
        for place, content in enumerate(contents):
            if content != b"":
                self._fill(vectors[place], content, place_of(content, place))
            if self.progress is not None:
                self.progress(place + 1, len(contents))
        return vectors

    def _fill(self, row: Float32Array, content: Media, place: str) -> None:
        try:
            heard = self.speech.listen(content, place)
        except DataError as error:
            if self.refused is None:
                raise
            self.refused.append(Refused(error.where, error.what))
            return
        windows = (heard[start : start + WINDOW] for start in range(0, len(heard), WINDOW))
        total = sum(self.speech.whisper.states(window).sum(0, dtype=np.float64) for window in windows)
        row[:] = total / np.linalg.norm(total)


def _opened(config: SpeechConfig) -> Whisper:
    if _engine(config) == "ctranslate2":
        return FasterWhisper(config.model, config.compute_type, skip_silence=config.skip_silence)
    from endcap.encoders.whisper_hub import HubWhisper

    return HubWhisper(config.model)


def _engine(config: SpeechConfig) -> str:
    """What runs the model. A name without an owner is one of faster-whisper's own."""
    if config.engine != "auto":
        return config.engine
    if (folder := Path(config.model)).is_dir():
        return "ctranslate2" if (folder / WEIGHTS).is_file() else "transformers"
    return "transformers" if "/" in config.model else "ctranslate2"
