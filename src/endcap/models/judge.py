"""A tuned cross-encoder as it is served: an ONNX graph and a vocabulary, without torch or transformers.

judge.onnx        token ids int64 [n, t] -> logits float32 [n]; n and t are free
tokeniser.json    as the `tokenizers` library writes it
judge.json        how pairs are cut and padded, precision, where the model came from, checksums of the other two

Dimension legend: n pairs, t tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import numpy as np

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError, MissingExtraError
from endcap.core.types import Float32Array, Int64Array
from endcap.models.session import open_session

GRAPH, VOCABULARY, SETTINGS = "judge.onnx", "tokeniser.json", "judge.json"
FORMAT = 1
JOINED = " ; "  # between the texts of a history, as in training
LOGITS = "logits"


class JudgeSettings(msgspec.Struct, frozen=True):
    """inputs: what the graph reads, in order. max_length: tokens of both texts together. cut, padded: the side on which
    texts are cut and padded. pad: what each input is padded with. source: where the model came from. checksums: SHA-256
    by file. prefix: words before both texts. closing: the token that ends a pair, if any."""

    inputs: tuple[str, ...]
    max_length: int
    cut: Literal["left", "right"]
    padded: Literal["left", "right"]
    pad: dict[str, int]
    precision: Literal["int8", "float32"]
    source: str = ""
    checksums: dict[str, str] = {}
    format: int = FORMAT
    prefix: str = ""
    closing: int | None = None


class OnnxJudge:
    """Implements Judge. A history's texts are read as one, the latest first: it is what is cut last."""

    def __init__(self, graph: bytes, vocabulary: bytes, settings: JudgeSettings) -> None:
        """Raises MissingExtraError where `tokenizers` is not installed."""
        self.settings, self._graph, self._vocabulary = settings, graph, vocabulary
        self._session, self._tokeniser = open_session(graph), _tokeniser(vocabulary, settings)

    def judge(self, history: Sequence[str], candidates: Sequence[str]) -> Float32Array:
        """All pairs in one run, padded to the longest."""
        if not candidates:
            return np.empty(0, np.float32)
        logits: Float32Array = self._session.run([LOGITS], self._read(joined(history), candidates))[0]
        return logits

    def save(self, folder: Path) -> None:
        """Into an existing folder, byte for byte what was loaded."""
        content = {GRAPH: self._graph, VOCABULARY: self._vocabulary}
        told = msgspec.structs.replace(self.settings, checksums={name: digest(held) for name, held in content.items()})
        for name, held in content.items():
            replace_atomically(folder / name, held)
        replace_atomically(folder / SETTINGS, msgspec.json.format(msgspec.json.encode(told), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ArtifactError if a file is missing, damaged, or of another version."""
        try:
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=JudgeSettings)
            content = {name: (folder / name).read_bytes() for name in (GRAPH, VOCABULARY)}
        except (OSError, msgspec.MsgspecError) as error:
            raise _unreadable(f"The cross-encoder cannot be read: {error}.", folder) from error
        if settings.format != FORMAT:
            raise _unreadable(
                f"The cross-encoder has format {settings.format}; this version reads {FORMAT}.", folder / SETTINGS
            )
        for name, held in content.items():
            if settings.checksums.get(name) != digest(held):
                raise _unreadable("The file's checksum differs from the one noted beside it.", folder / name)
        return cls(content[GRAPH], content[VOCABULARY], settings)

    def _read(self, history: str, candidates: Sequence[str]) -> dict[str, Int64Array]:
        """The graph's inputs, int64 [n, t] each."""
        # one by one: a batch would be tokenised by threads, which a process forked later would wait for in vain
        prefix, closing = self.settings.prefix, self.settings.closing
        rows = [self._tokeniser.encode(f"{prefix}{history}", f"{prefix}{candidate}") for candidate in candidates]
        end = {} if closing is None else {"input_ids": [closing], "attention_mask": [1], "token_type_ids": [0]}
        return {
            name: self._padded(name, [[*getattr(row, READ_FROM[name]), *end.get(name, ())] for row in rows])
            for name in self.settings.inputs
        }

    def _padded(self, name: str, rows: Sequence[Sequence[int]]) -> Int64Array:
        found = np.full((len(rows), max(map(len, rows))), self.settings.pad[name], np.int64)
        for place, values in enumerate(rows):
            found[place, slice(len(values)) if self.settings.padded == "right" else slice(-len(values), None)] = values
        return found


READ_FROM: Mapping[str, str] = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def joined(history: Sequence[str]) -> str:
    """Several texts, oldest first, as the one that a cross-encoder reads."""
    return JOINED.join(reversed(history))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tokeniser(vocabulary: bytes, settings: JudgeSettings) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text") from error
    tokeniser = Tokenizer.from_buffer(vocabulary)
    tokeniser.no_padding()
    room = settings.max_length - (settings.closing is not None)
    tokeniser.enable_truncation(room, strategy="longest_first", direction=settings.cut)
    return tokeniser


def _unreadable(what: str, where: Path) -> ArtifactError:
    return ArtifactError(what, where=str(where), next_step="Train again, or `endcap rollback` to an earlier release.")
