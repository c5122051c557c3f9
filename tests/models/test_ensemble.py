"""Several seeds of the sequence model as one source."""

import numpy as np
import pytest
import torch

from endcap.core.types import EventType, Placement
from endcap.features.sequences import History
from endcap.features.state import context
from endcap.index.exact import ExactIndex
from endcap.models.config import SequenceConfig
from endcap.models.loop import Progress
from endcap.models.sequence_fit import fit_sequence, train_sequence
from endcap.models.sequence_source import SequenceSource
from endcap.models.sequence_weights import Names, load_members
from endcap.models.windows import Sequences

N_ITEMS = 12
CONFIG = SequenceConfig(dim=8, heads=2, max_len=6, lr=0.02, batch_size=16, epochs=2, seed=3)
NAMES = Names([f"item{n}" for n in range(N_ITEMS)])
HISTORIES = Sequences(
    np.random.default_rng(0).integers(0, N_ITEMS, 300).astype(np.int32), np.arange(0, 301, 10, dtype=np.int64)
)


def shopper(items):
    n = len(items)
    kinds, times = np.full(n, EventType.PURCHASE.code, np.int8), np.arange(n, dtype=np.int64)
    return context(History(np.array(items, np.int32), kinds, times, times.astype(np.uint64)), n, Placement.HOME)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    config = CONFIG.model_copy(update={"ensemble": 2})
    return folder, fit_sequence(HISTORIES, N_ITEMS, config, folder, names=NAMES)


def test_a_score_is_the_mean_of_the_models(exported):
    folder, trained = exported
    source = SequenceSource.load(folder, ExactIndex)
    everything = np.arange(N_ITEMS, dtype=np.int32)
    with torch.inference_mode():
        products = [(model(torch.tensor([[1, 2, 3]])) @ model.all_item_vectors().T)[0] for model in trained.models]
    expected = torch.stack(products).mean(dim=0).numpy()
    found = source.weigh(shopper([1, 2, 3])).at(everything)
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-5)
    assert not torch.equal(*(model.all_item_vectors() for model in trained.models))


def test_the_first_is_the_model_alone(exported):
    alone, _ = train_sequence(HISTORIES, N_ITEMS, CONFIG)
    for name, weights in alone.state_dict().items():
        assert torch.equal(weights, exported[1].models[0].state_dict()[name]), name


def test_saved_with_its_weights_it_can_be_gone_on_with(exported, tmp_path):
    folder, trained = exported
    SequenceSource.load(folder, ExactIndex, with_weights=True).save(tmp_path)
    for model, weights in zip(trained.models, load_members(tmp_path), strict=True):
        np.testing.assert_array_equal(weights.item_vectors, model.all_item_vectors().numpy())
    bare = tmp_path / "bare"
    bare.mkdir()
    SequenceSource.load(folder, ExactIndex).save(bare)
    assert {path.name for path in bare.iterdir()} == {"user_tower.onnx", "item_vectors.npy", "sequence.json"}


def test_interrupted_between_members_it_goes_on(exported, tmp_path):
    config = CONFIG.model_copy(update={"ensemble": 2})
    told = []

    def stop(progress: Progress) -> None:
        told.append((progress.epoch, progress.epochs))
        if progress.epoch == 4:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit_sequence(HISTORIES, N_ITEMS, config, tmp_path, names=NAMES, checkpoint=checkpoint, progress=stop)
    assert sorted(set(told)) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = fit_sequence(HISTORIES, N_ITEMS, config, tmp_path, names=NAMES, checkpoint=checkpoint)
    for ours, theirs in zip(again.models, exported[1].models, strict=True):
        assert torch.equal(ours.all_item_vectors(), theirs.all_item_vectors())
    assert not list(tmp_path.glob("run*"))
