"""Weights that leave one model and begin another, of the same catalogue or of one that shares no item with it."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.models.config import SequenceConfig
from endcap.models.loop import Progress
from endcap.models.sequence import SequenceModel
from endcap.models.sequence_fit import fit_sequence, train_sequence
from endcap.models.sequence_weights import Names, SequenceWeights
from endcap.models.windows import Sequences

KINDS, WIDTH = 12, 8
SMALL = SequenceConfig(dim=16, heads=2, dropout=0.0, max_len=8, lr=0.02, batch_size=32, epochs=8, patience=8)
BY_CONTENT = SMALL.model_copy(update={"ids": False})


def _catalogue(items: int, seed: int) -> tuple[Float32Array, np.ndarray]:
    """Content and kind of each item: the kinds' vectors are the same in every catalogue, the items' noise is not."""
    kinds = np.random.default_rng(0).normal(size=(KINDS, WIDTH))
    random = np.random.default_rng(seed)
    kind = random.permutation(np.arange(items) % KINDS)
    return (kinds[kind] + 0.1 * random.normal(size=(items, WIDTH))).astype(np.float32), kind


def _walks(kind: np.ndarray, users: int, length: int, seed: int) -> Sequences:
    """The rule is of content alone: after kind k comes any item of kind k + 1."""
    random = np.random.default_rng(seed)
    of_kind = [np.flatnonzero(kind == wanted) for wanted in range(KINDS)]
    steps = (random.integers(0, KINDS, users)[:, None] + np.arange(length)) % KINDS
    items = np.array([random.choice(of_kind[step]) for step in steps.ravel()], dtype=np.int32)
    return Sequences(items, np.arange(users + 1, dtype=np.int64) * length)


def _first_of_right_kind(model: SequenceModel, kind: np.ndarray) -> float:
    """How often the item ranked first after a fresh walk is of the kind that follows."""
    walks = torch.from_numpy(_walks(kind, 200, 5, seed=9).items.reshape(-1, 5).astype(np.int64))
    with torch.inference_mode():
        best = (model.eval()(walks) @ model.all_item_vectors().T).argmax(1).numpy()
    return float((kind[best] == (kind[walks[:, -1].numpy()] + 1) % KINDS).mean())


def _names(items: int, first: int = 0) -> Names:
    return Names([f"item-{place}" for place in range(first, first + items)], "an encoder")


@pytest.fixture(scope="module")
def by_content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-content")
    content, kind = _catalogue(60, seed=1)
    fit_sequence(_walks(kind, 200, 10, seed=2), 60, BY_CONTENT, folder, content=content, names=_names(60))
    return folder


@pytest.fixture(scope="module")
def with_ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("with-ids")
    content, kind = _catalogue(60, seed=1)
    model, _ = train_sequence(_walks(kind, 200, 10, seed=2), 60, SMALL, content=content)
    SequenceWeights.of(model, _names(60)).save(folder)
    return folder


def test_weights_without_ids_serve_another_catalogue_at_once(by_content: Path) -> None:
    content, kind = _catalogue(96, seed=5)
    model = SequenceModel(96, BY_CONTENT, content)
    assert _first_of_right_kind(model, kind) < 0.4
    assert SequenceWeights.load(by_content).give(model, _names(96, first=1000)) == 0
    assert _first_of_right_kind(model, kind) >= 0.95
    on_top = SequenceModel(96, SMALL, content)
    SequenceWeights.load(by_content).give(on_top, _names(96, first=1000))
    torch.testing.assert_close(on_top.all_item_vectors(), model.all_item_vectors())


def test_weights_without_ids_hold_nothing_of_the_catalogue(by_content: Path) -> None:
    weights = SequenceWeights.load(by_content)
    assert weights.item_vectors is None
    assert weights.settings.items == []
    assert all(60 not in tensor.shape for tensor in weights.shared.values())


@pytest.mark.parametrize(
    ("turned_there", "turned_here", "taken"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_how_sure_a_turned_model_is_does_not_bind_a_shops_own(turned_there, turned_here, taken) -> None:
    content, _ = _catalogue(60, seed=1)
    there = SequenceModel(60, BY_CONTENT.model_copy(update={"turned": turned_there}), content)
    here = SequenceModel(60, BY_CONTENT.model_copy(update={"turned": turned_here}), content)
    with torch.no_grad():
        there.norm.weight.mul_(0.5)
    SequenceWeights.of(there, _names(60)).give(here, _names(60))
    assert here.norm.weight.unique().tolist() == [0.5 if taken else 1.0]


def test_items_that_both_know_stay_where_they_were(with_ids: Path) -> None:
    """Places have moved and content has changed; the whole vector of an item is what it was."""
    content, _ = _catalogue(50, seed=6)
    model = SequenceModel(50, SMALL, content)
    start = SequenceWeights.load(with_ids)
    assert start.item_vectors is not None
    assert start.give(model, _names(50, first=20)) == 40
    vectors = model.all_item_vectors()
    torch.testing.assert_close(vectors[:40], torch.from_numpy(start.item_vectors)[20:])
    assert model.ids is not None
    assert not model.ids.weight[40:].any()
    assert vectors[40:].any(1).all()


def test_the_same_shop_goes_on_where_it_was(with_ids: Path) -> None:
    content, kind = _catalogue(60, seed=1)
    start = SequenceWeights.load(with_ids)
    model = SequenceModel(60, SMALL, content)
    start.give(model, _names(60))
    assert _first_of_right_kind(model, kind) >= 0.95
    walks = _walks(kind, 100, 10, seed=4)
    one = SMALL.model_copy(update={"epochs": 1, "lr": 1e-3})
    _, warm = train_sequence(walks, 60, one, content=content, names=_names(60), start=start)
    _, cold = train_sequence(walks, 60, one, content=content)
    assert warm.epochs[0].loss < 0.8 * cold.epochs[0].loss


def test_positions_are_taken_as_far_as_both_have_them() -> None:
    long = SequenceModel(5, SMALL.model_copy(update={"positions": "learned", "max_len": 12, "masked_item": 1.0}))
    short = SequenceModel(5, SMALL.model_copy(update={"positions": "learned"}))
    SequenceWeights.of(long, _names(5)).give(short, _names(5))
    assert long.places is not None
    assert short.places is not None
    assert torch.equal(short.places.weight, long.places.weight[:8])


@pytest.mark.parametrize(
    ("changes", "content", "encoder", "match"),
    [
        ({"dim": 24, "blocks": 2}, (60, WIDTH), "", "dim 16 there, 24 here; blocks 1 there, 2 here"),
        ({"heads": 4}, (60, WIDTH), "", "heads 2 there, 4 here"),
        ({"positions": "learned"}, (60, WIDTH), "", "positions rotary there, learned here"),
        ({}, (60, 5), "", "content width 8 there, 5 here"),
        ({}, (60, WIDTH), "another", "encoder an encoder there, another here"),
        ({"ids": True}, None, "", "has no content vectors"),
    ],
)
def test_what_does_not_fit_is_refused(
    by_content: Path, changes: dict[str, object], content: tuple[int, int] | None, encoder: str, match: str
) -> None:
    config = BY_CONTENT.model_copy(update=changes)
    given = np.random.default_rng(0).normal(size=content).astype(np.float32) if content else None
    model = SequenceModel(60, config, given)
    with pytest.raises(CallerError, match=match) as refused:
        SequenceWeights.load(by_content).give(model, Names([str(place) for place in range(60)], encoder))
    assert refused.value.next_step


def test_ids_alone_do_not_begin_a_model_without() -> None:
    start = SequenceWeights.of(SequenceModel(60, SMALL), _names(60))
    with pytest.raises(CallerError, match="by their ids alone"):
        start.give(SequenceModel(60, BY_CONTENT, _catalogue(60, seed=1)[0]), None)


def test_a_catalogue_that_is_not_all_named_is_refused(with_ids: Path) -> None:
    model = SequenceModel(60, SMALL, _catalogue(60, seed=1)[0])
    with pytest.raises(CallerError, match="59 ids for 60 items"):
        SequenceWeights.load(with_ids).give(model, _names(59))


def test_a_model_without_ids_needs_content() -> None:
    with pytest.raises(CallerError, match="ids = true"):
        SequenceModel(5, BY_CONTENT)


def test_damaged_folders_are_refused(with_ids: Path, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="no weights"):
        SequenceWeights.load(tmp_path)
    SequenceWeights.load(with_ids).save(tmp_path)
    assert SequenceWeights.load(tmp_path).digest() == SequenceWeights.load(with_ids).digest()
    np.save(tmp_path / "item_vectors.npy", np.zeros((60, 16), dtype=np.float32))
    with pytest.raises(ArtifactError, match="not those that were written"):
        SequenceWeights.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="cannot be read"):
        SequenceWeights.load(tmp_path)
    settings = SequenceWeights.load(with_ids).settings
    SequenceWeights.load(with_ids).save(tmp_path)
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(settings, format=9)))
    with pytest.raises(ArtifactError, match="format 9"):
        SequenceWeights.load(tmp_path)


def test_an_interrupted_run_from_weights_resumes_to_the_same(by_content: Path, tmp_path: Path) -> None:
    """With every objective, so through every random draw; and not from the checkpoint of another start."""
    content, kind = _catalogue(96, seed=5)
    histories, names, start = _walks(kind, 60, 10, seed=3), _names(96), SequenceWeights.load(by_content)
    everything = {"epochs": 3, "dropout": 0.3, "masked_item": 0.5, "contrastive": 0.2, "negatives": 9}
    config = BY_CONTENT.model_copy(update=everything)
    checkpoint = tmp_path / "run.safetensors"

    def stop(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    whole, _ = train_sequence(histories, 96, config, content=content, names=names, start=start)
    with pytest.raises(KeyboardInterrupt):
        train_sequence(
            histories, 96, config, content=content, names=names, start=start, checkpoint=checkpoint, progress=stop
        )
    resumed, report = train_sequence(
        histories, 96, config, content=content, names=names, start=start, checkpoint=checkpoint
    )
    assert report.resumed_after == 1
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name
    _, other = train_sequence(histories, 96, config, content=content, checkpoint=checkpoint)
    assert other.stale_checkpoint
