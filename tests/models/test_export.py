import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from endcap.core.errors import ArtifactError, ServiceError
from endcap.core.types import Context, EventType, Float32Array, Int32Array, Placement, session_user
from endcap.features.ids import Vocabulary
from endcap.features.sequences import Histories, History
from endcap.models.config import SequenceConfig
from endcap.models.export import export_tower
from endcap.models.sequence import SequenceModel, UserTower
from endcap.models.sequence_read import FILES
from endcap.models.sequence_source import SequenceSource

N_ITEMS, MAX_LEN = 30, 6


class Exhaustive:
    """The plainest VectorIndex: all inner products."""

    def __init__(self, vectors: Float32Array) -> None:
        self.vectors = vectors

    def search(self, vector: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        scores = self.vectors @ vector
        best = np.argsort(-scores, kind="stable")[:k].astype(np.int32)
        return best, scores[best]

    def search_many(self, vectors: Float32Array, k: int) -> tuple[Int32Array, Float32Array]:
        found = [self.search(vector, k) for vector in vectors]
        return np.stack([items for items, _ in found]), np.stack([scores for _, scores in found])

    def at(self, vector: Float32Array, items: Int32Array) -> Float32Array:
        return self.vectors[items] @ vector


def _context(items: list[int], kinds: list[EventType] | None = None) -> Context:
    n, empty = len(items), np.empty(0, dtype=np.int32)
    codes = [kind.code for kind in kinds] if kinds else [EventType.VIEW.code] * n
    times = np.arange(n, dtype=np.int64)
    return Context(
        now_ms=n,
        placement=Placement.HOME,
        items=np.array(items, dtype=np.int32),
        kinds=np.array(codes, dtype=np.int8),
        ts_ms=times,
        baskets=times.astype(np.uint64),
        bought=empty,
        bought_n=empty,
        bought_first_ms=times[:0],
        bought_last_ms=times[:0],
        cart=empty,
        session=empty,
    )


def _model() -> SequenceModel:
    torch.manual_seed(0)
    config = SequenceConfig(dim=16, blocks=2, max_len=MAX_LEN)
    model = SequenceModel(N_ITEMS, config, np.random.default_rng(0).normal(size=(N_ITEMS, 5)).astype(np.float32))
    torch.nn.init.normal_(model.ids.weight)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequence")
    model = _model()
    assert export_tower(UserTower(model), model.all_item_vectors(), MAX_LEN, folder) < 1e-4
    return folder


@pytest.fixture(scope="module")
def source(exported: Path) -> SequenceSource:
    return SequenceSource.load(exported, Exhaustive)


def test_onnx_gives_the_vectors_of_torch(source: SequenceSource) -> None:
    model = _model()
    histories = [[3], [1, 2, 3, 4], [5, 9, 2, 6, 5, 3, 29, 0, 8]]
    found = source.weigh_many([_context(history) for history in [*histories, []]])
    for row, history in zip((one.vector for one in found), histories, strict=False):
        with torch.inference_mode():
            expected = model(torch.tensor([history[-MAX_LEN:]]))[0].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert found[3].vector is None
    assert source.weigh_many([]) == []


def test_a_tower_that_differs_is_caught(tmp_path: Path) -> None:
    class Unfaithful(torch.nn.Module):
        def forward(self, items: torch.Tensor) -> torch.Tensor:
            return items[:, :1].float() + (0 if torch.compiler.is_exporting() else 0.01)

    with pytest.raises(ServiceError, match=r"differs .* by 0\.01"):
        export_tower(Unfaithful(), torch.zeros(N_ITEMS, 1), MAX_LEN, tmp_path)
    assert not list(tmp_path.iterdir())


def test_scores_are_measured_from_the_average_item(source: SequenceSource) -> None:
    context = _context([1, 2, 3])
    products = source.item_vectors @ source.weigh(context).vector
    expected = products - products.mean()
    evidence = source.weigh(context)
    everything = np.arange(N_ITEMS, dtype=np.int32)
    np.testing.assert_allclose(evidence.at(everything), expected, atol=1e-4)
    items, scores = evidence.top(5)
    assert items.tolist() == np.argsort(-expected)[:5].tolist()
    np.testing.assert_allclose(scores, np.sort(expected)[::-1][:5], atol=1e-4)
    assert len(evidence.top(N_ITEMS)[0]) == (expected > 0).sum()


def test_explains_what_it_favours_to_whom_it_knows(source: SequenceSource) -> None:
    context = _context([1, 2, 3])
    scores = source.weigh(context).at(np.arange(N_ITEMS, dtype=np.int32))
    reason = source.explain(context, int(scores.argmax()))
    assert reason is not None
    assert (reason.source, reason.code) == ("sequence", "next_for_you")
    assert source.explain(_context([]), 1) is None


def test_without_history_it_is_silent(source: SequenceSource) -> None:
    for context in (_context([]), _context([4], [EventType.REMOVE_FROM_CART])):
        evidence = source.weigh(context)
        assert len(evidence.top(5)[0]) == 0
        assert evidence.at(np.array([1, 2], dtype=np.int32)).tolist() == [0, 0]
        assert source.explain(context, 1) is None


def test_only_what_shows_interest_is_read(source: SequenceSource) -> None:
    kinds = [EventType.PURCHASE, EventType.IMPRESSION, EventType.ADD_TO_CART, EventType.REMOVE_FROM_CART]
    mixed, plain = source.weigh(_context([1, 7, 2, 8], kinds)), source.weigh(_context([1, 2]))
    np.testing.assert_array_equal(mixed.vector, plain.vector)


def test_saved_and_loaded_again(source: SequenceSource, tmp_path: Path) -> None:
    source.save(tmp_path)
    again = SequenceSource.load(tmp_path, Exhaustive)
    context, items = _context([4, 5]), np.arange(N_ITEMS, dtype=np.int32)
    np.testing.assert_array_equal(again.weigh(context).at(items), source.weigh(context).at(items))
    (tmp_path / "item_vectors.npy").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        SequenceSource.load(tmp_path, Exhaustive)


def test_serving_imports_no_torch() -> None:
    code = "import sys, endcap.models.sequence_source; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestReadShoppers:
    """One with more acts than are read, one with nothing to read, one with two, a visit without a name, and one of
    long ago."""

    USERS = ("a", "b", "c", session_user("d"), "e")
    HISTORIES = ([5, 9, 2, 6, 5, 3, 29, 0, 8], [4], [1, 2], [7], [8, 9])
    KINDS = (EventType.VIEW, EventType.REMOVE_FROM_CART, EventType.PURCHASE, EventType.VIEW, EventType.VIEW)

    @pytest.fixture
    def told(self, source: SequenceSource, exported: Path, tmp_path: Path, monkeypatch) -> SequenceSource:
        sizes = [len(history) for history in self.HISTORIES]
        items = np.concatenate(self.HISTORIES).astype(np.int32)
        kinds = np.repeat([kind.code for kind in self.KINDS], sizes).astype(np.int8)
        times = np.arange(len(items))
        times[-2:] = -5
        events = History(items, kinds, times, times.astype(np.uint64))
        source.save(tmp_path)
        source.read(Histories(Vocabulary(self.USERS), np.cumsum([0, *sizes]), events), most=2).save(tmp_path)
        return SequenceSource.load(tmp_path, Exhaustive)

    @pytest.fixture
    def contexts(self) -> list[Context]:
        kinds = ([kind] * len(history) for kind, history in zip(self.KINDS, self.HISTORIES, strict=True))
        pairs = zip(self.HISTORIES, kinds, strict=True)
        return [replace(_context(*pair), row=row) for row, pair in enumerate(pairs)]

    def test_the_vectors_are_the_towers_own(self, source: SequenceSource, told: SequenceSource, contexts) -> None:
        for one, context in zip(told.weigh_many(contexts), contexts, strict=True):
            expected = source.weigh(context).vector
            assert (one.vector is None) == (expected is None) == (context.row == 1)
            if expected is not None:
                np.testing.assert_allclose(one.vector, expected, atol=1e-6)

    def test_the_tower_is_asked_for_who_did_something_since(self, source, told, contexts, monkeypatch) -> None:
        asked: list[list[int]] = []

        def reads(items):
            asked.extend(row[row >= 0].tolist() for row in items)
            return SequenceSource._tower_reads(told, items)

        monkeypatch.setattr(told, "_tower_reads", reads)
        told.weigh_many(contexts[:3])
        assert asked == []
        told.weigh_many(contexts)
        assert sorted(asked) == [[7], [8, 9]], "neither who has no name nor who was not among the last two"
        asked.clear()
        later = replace(_context([1, 2, 7], [EventType.PURCHASE] * 3), row=2)
        another = replace(_context([2, 1], [EventType.PURCHASE] * 2), row=2)
        stranger = replace(_context([1, 2]), row=-1)
        found = told.weigh_many([contexts[0], later, another, stranger])
        assert sorted(asked) == [[1, 2], [1, 2, 7], [2, 1]]
        for one, context in zip(found, [contexts[0], later, another, stranger], strict=True):
            np.testing.assert_allclose(one.vector, source.weigh(context).vector, atol=1e-6)

    def test_vectors_of_another_model_are_refused(self, told: SequenceSource, tmp_path: Path) -> None:
        np.save(tmp_path / FILES[2], np.zeros((3, 4), np.float32))
        with pytest.raises(ArtifactError, match="not this model's"):
            SequenceSource.load(tmp_path, Exhaustive)
        (tmp_path / FILES[2]).write_bytes(b"half a file")
        with pytest.raises(ArtifactError, match="cannot be read"):
            SequenceSource.load(tmp_path, Exhaustive)
        (tmp_path / FILES[0]).unlink()
        assert SequenceSource.load(tmp_path, Exhaustive).weigh(_context([1])).vector is not None
