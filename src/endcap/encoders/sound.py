"""A file's bytes -> sound as Whisper listens to it: 16,000 numbers a second between -1 and 1, one channel.

Files come from strangers, so only the containers named here are opened (playlists, which name other files, are not
among them), and no more is unpacked than is listened to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from endcap.core.errors import DataError, MissingExtraError
from endcap.core.types import Float32Array
from endcap.encoders.media import Media, read_bounded

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler
    from av.container import InputContainer

RATE = 16_000
CONTAINERS = "wav,flac,mp3,ogg,mov,matroska,aac,aiff,amr,asf"
SILENT = 1e-4  # root mean square; -80 dB of the loudest, below any microphone's hiss


def sound(content: Media, place: str, *, max_bytes: int, max_seconds: float) -> Float32Array:
    """float32 [16,000 a second]. place: for errors.

    Raises DataError if the file is no sound, is damaged, silent, or longer than is allowed; MissingExtraError without
    PyAV, which comes with faster-whisper.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("faster-whisper", "speech") from error
    file = io.BytesIO(read_bounded(content, max_bytes, place))
    options = {"format_whitelist": CONTAINERS}
    try:
        with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
            found = _unpacked(container, place, max_seconds)
    except av.FFmpegError as error:
        raise _damaged(place, error.strerror or str(error)) from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # PyAV's own, of files that FFmpeg reads and it does not expect
        raise _damaged(place, str(error)) from error
    if not len(found) or float(np.sqrt(np.mean(np.square(found)))) < SILENT:
        raise nothing_said(place)
    return found


def somebody_speaks(sound: Float32Array) -> bool:
    """By Silero's detector of voices, which comes with faster-whisper. Raises MissingExtraError without it."""
    try:
        from faster_whisper.vad import get_speech_timestamps
    except ImportError as error:
        raise MissingExtraError("faster-whisper", "speech") from error
    return bool(get_speech_timestamps(sound))


def nothing_said(place: str) -> DataError:
    return DataError("Nothing is said in it.", where=place, next_step="Record it anew, or leave it out.")


def _unpacked(container: InputContainer, place: str, max_seconds: float) -> Float32Array:
    if not container.streams.audio:
        raise DataError("There is no sound in the file.", where=place, next_step="Name a recording.")
    parts, samples = [np.zeros(0, np.int16)], 0
    for part in _resampled(container):
        parts.append(part)
        samples += len(part)
        if samples > max_seconds * RATE:
            raise DataError(
                f"The recording is longer than the {max_seconds:g} seconds that are listened to.",
                where=place,
                next_step="Cut it, or raise `max_seconds`.",
            )
    return np.concatenate(parts).astype(np.float32) / np.float32(32768)


def _resampled(container: InputContainer) -> Iterator[np.ndarray]:
    """Pieces of int16, in order; a file may go on at another rate, or with other channels."""
    import av

    resampler, before = None, None
    for frame in container.decode(audio=0):
        frame.pts = None  # what files say of the time of a frame is often wrong, and not needed
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or kind != before:
            yield from _pieces(resampler, None)
            resampler, before = av.AudioResampler(format="s16", layout="mono", rate=RATE), kind
        yield from _pieces(resampler, frame)
    yield from _pieces(resampler, None)


def _pieces(resampler: AudioResampler | None, frame: AudioFrame | None) -> Iterator[np.ndarray]:
    """Of a frame, or, of none, what is left."""
    for piece in resampler.resample(frame) if resampler is not None else ():
        yield piece.to_ndarray()[0]


def _damaged(place: str, said: str) -> DataError:
    return DataError(
        f"The recording is damaged, or of a kind that is not read ({CONTAINERS}): {said}.",
        where=place,
        next_step="Store it anew, or leave it out.",
    )
