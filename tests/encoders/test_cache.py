from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array
from endcap.encoders.cache import Across, CachedEncoder


class Letters:
    """Unit vectors of how often a, b and c occur; remembers what it was asked."""

    dim = 3

    def __init__(self, name: str = "letters") -> None:
        self.name = name
        self.asked: list[str] = []

    def encode(self, contents: Sequence[str]) -> Float32Array:
        self.asked.extend(contents)
        counts = np.array([[text.count(letter) for letter in "abc"] for text in contents], dtype=np.float32)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.divide(counts, lengths, out=np.zeros_like(counts), where=lengths > 0)


def _shard(folder: Path) -> Path:
    (path,) = folder.glob("*/shard-*.bin")
    return path


def test_each_text_is_encoded_once_and_order_is_kept(tmp_path: Path) -> None:
    encoder = Letters()
    cached = CachedEncoder(encoder, tmp_path)
    texts = ["ab", "c", "ab", "", "aab"]
    np.testing.assert_array_equal(cached.encode(texts), Letters().encode(texts))
    assert sorted(encoder.asked) == ["", "aab", "ab", "c"]
    assert cached.encode([]).shape == (0, 3)


def test_a_second_run_encodes_only_what_is_new(tmp_path: Path) -> None:
    CachedEncoder(Letters(), tmp_path).encode(["ab", "c"])
    encoder = Letters()
    cached = CachedEncoder(encoder, tmp_path)
    np.testing.assert_array_equal(cached.encode(["bc", "c", "ab"]), Letters().encode(["bc", "c", "ab"]))
    assert encoder.asked == ["bc"]
    assert (cached.encoded, len(cached), cached.ignored) == (1, 3, 0)


def test_an_interruption_costs_one_part_and_progress_is_of_all(tmp_path: Path) -> None:
    texts, told = ["a", "bb", "abc", "aabb", "abccc", "aaaaaa", "bbbbbbb"], list[tuple[int, int]]()
    progress = Across(lambda done, total: told.append((done, total)))

    class Telling(Letters):
        def encode(self, contents: Sequence[str]) -> Float32Array:
            if self.name in contents:
                raise KeyboardInterrupt
            for done in range(1, len(contents) + 1):
                progress(done, len(contents))
            return super().encode(contents)

    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(Telling("abccc"), tmp_path, at_once=2, progress=progress).encode(texts)
    assert told == [(done, 7) for done in (1, 2, 3, 4)]
    again = CachedEncoder(Letters("abccc"), tmp_path)
    np.testing.assert_array_equal(again.encode(texts), Letters().encode(texts))
    assert again.encoded == 3


def test_another_encoder_shares_nothing(tmp_path: Path) -> None:
    CachedEncoder(Letters(), tmp_path).encode(["ab"])
    other = Letters("letters:2")
    CachedEncoder(other, tmp_path).encode(["ab"])
    assert other.asked == ["ab"]


def test_rows_of_zeros_are_not_kept(tmp_path: Path) -> None:
    CachedEncoder(Letters(), tmp_path).encode(["ab", "xyz", ""])
    encoder = Letters()
    cached = CachedEncoder(encoder, tmp_path)
    assert cached.encode(["ab", "xyz", ""])[1:].tolist() == [[0, 0, 0]] * 2
    assert sorted(encoder.asked) == ["", "xyz"]
    cached.encode(["xyz"])
    assert sorted(encoder.asked) == ["", "xyz"]


@pytest.mark.parametrize("lost", [1, 31, 32, 33])
def test_a_torn_tail_is_ignored_and_encoded_again(tmp_path: Path, lost: int) -> None:
    """A record here is 16 + 3 * 4 + 4 = 32 bytes."""
    CachedEncoder(Letters(), tmp_path).encode(["a", "ab", "abc"])
    shard = _shard(tmp_path)
    shard.write_bytes(shard.read_bytes()[:-lost])
    encoder = Letters()
    cached = CachedEncoder(encoder, tmp_path)
    np.testing.assert_array_equal(cached.encode(["a", "ab", "abc"]), Letters().encode(["a", "ab", "abc"]))
    assert encoder.asked == (["abc"] if lost <= 32 else ["ab", "abc"])
    assert cached.ignored == (0 if lost == 32 else 1)


def test_a_damaged_record_is_noticed(tmp_path: Path) -> None:
    CachedEncoder(Letters(), tmp_path).encode(["a", "ab", "abc"])
    shard = _shard(tmp_path)
    content = bytearray(shard.read_bytes())
    content[32 + 20] ^= 1
    shard.write_bytes(content)
    encoder = Letters()
    cached = CachedEncoder(encoder, tmp_path)
    cached.encode(["a", "ab", "abc"])
    assert cached.ignored == 1
    assert encoder.asked == ["ab"]


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = CachedEncoder(Letters(), tmp_path), CachedEncoder(Letters(), tmp_path)
    first.encode(["a"])
    second.encode(["b"])
    first.encode(["c"])
    encoder = Letters()
    CachedEncoder(encoder, tmp_path).encode(["a", "b", "c"])
    assert encoder.asked == []


def test_an_encoder_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    encoder = Letters()
    encoder.dim = 4
    with pytest.raises(CallerError, match=r"\(1, 3\), not \(1, 4\)"):
        CachedEncoder(encoder, tmp_path).encode(["a"])
