"""An encoder that is loaded by the first of many."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from endcap.app.lazy import LazyEncoder
from endcap.core.errors import ArtifactError
from endcap.testing import FakeEncoder


class Meeting(FakeEncoder):
    """Answers two only when both are there."""

    met = Barrier(2, timeout=20)

    def encode(self, contents):
        self.met.wait()
        return super().encode(contents)


def test_is_loaded_once_and_answers_many_at_a_time() -> None:
    loaded: list[Path] = []

    def load(folder: Path) -> FakeEncoder:
        loaded.append(folder)
        return Meeting()

    lazy = LazyEncoder(Path("shop/release/search/eye"), 16, load)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lazy.encode, [["tea"], ["milk"]])
    assert len(loaded) == 1
    np.testing.assert_array_equal(np.concatenate([one, other]), FakeEncoder().encode(["tea", "milk"]))


def test_is_tried_again_where_it_could_not_be_loaded() -> None:
    tries: list[Path] = []

    def load(folder: Path) -> FakeEncoder:
        tries.append(folder)
        if len(tries) == 1:
            raise ArtifactError("It is gone.", where=str(folder), next_step="Train again.")
        return FakeEncoder()

    lazy = LazyEncoder(Path("shop/release/search/eye"), 16, load)
    with pytest.raises(ArtifactError):
        lazy.encode(["tea"])
    assert lazy.encode(["tea"]).any()
