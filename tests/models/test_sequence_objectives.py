"""Objectives alone and summed, on sequences in which what they should learn is planted."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from endcap.models.augment import view
from endcap.models.config import SequenceConfig
from endcap.models.sequence import SequenceModel
from endcap.models.sequence_fit import fit_sequence, train_sequence
from endcap.models.sequence_task import SequenceTask
from endcap.models.sequence_validation import Validation, ndcg
from endcap.models.windows import PADDING, Batch, Sequences

N_ITEMS = 20
SMALL = SequenceConfig(dim=16, heads=2, dropout=0.0, max_len=8, lr=0.02, batch_size=32, epochs=12, patience=12)
MASKED = SMALL.model_copy(update={"next_item": 0.0, "masked_item": 1.0, "epochs": 25})
CONTRASTIVE = SMALL.model_copy(update={"next_item": 0.0, "contrastive": 1.0, "epochs": 6})


def _cycles(users: int, length: int, seed: int) -> Sequences:
    """Each user walks 0, 1, ..., 19, 0, ... from a start of their own."""
    starts = np.random.default_rng(seed).integers(0, N_ITEMS, users)
    items = (starts[:, None] + np.arange(length)) % N_ITEMS
    return Sequences(items.astype(np.int32).ravel(), np.arange(users + 1, dtype=np.int64) * length)


def _tastes(users: int, seed: int) -> Sequences:
    """Each user takes 9 things from five neighbouring items of their own taste, in any order."""
    random = np.random.default_rng(seed)
    items = random.integers(0, N_ITEMS // 5, (users, 1)) * 5 + random.integers(0, 5, (users, 9))
    return Sequences(items.astype(np.int32).ravel(), np.arange(users + 1, dtype=np.int64) * 9)


def _next_of(contexts: Sequences, length: int) -> Validation:
    ends = contexts.items.reshape(-1, length)[:, -1].astype(np.int64)
    return Validation(contexts, (ends + 1) % N_ITEMS, np.arange(contexts.users + 1, dtype=np.int64))


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_hidden_items_alone_teach_what_comes_next(positions: str, tmp_path: Path) -> None:
    """Served as it was taught: with a mask at the end, from both sides; through ONNX as well."""
    config = MASKED.model_copy(update={"positions": positions})
    found = fit_sequence(_cycles(150, 15, seed=0), N_ITEMS, config, tmp_path)
    assert ndcg(found.models[0], _next_of(_cycles(200, 6, seed=1), 6), k=1) >= 0.95
    assert found.onnx_difference < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "user_tower.onnx"))
    (vectors,) = session.run(None, {"items": np.array([[3, 4, 5, PADDING], [PADDING] * 4])})
    assert (vectors[0] @ np.load(tmp_path / "item_vectors.npy").T).argmax() == 6
    assert not vectors[1].any()


def test_a_hidden_item_is_known_from_what_comes_after_it() -> None:
    """The first item of a cycle has nothing before it."""
    model, _ = train_sequence(_cycles(150, 15, seed=0), N_ITEMS, MASKED)
    items = (torch.arange(N_ITEMS)[:, None] + torch.arange(5)) % N_ITEMS
    vectors = model.item_vectors(items)
    vectors[:, 0] = model.mask
    with torch.inference_mode():
        scores = model.read(vectors, torch.ones_like(items, dtype=torch.bool))[:, 0] @ model.all_item_vectors().T
    assert (scores.argmax(1) == items[:, 0]).float().mean() >= 0.9


def test_looking_both_ways_is_blind_to_padding() -> None:
    torch.manual_seed(0)
    model = SequenceModel(N_ITEMS, MASKED).eval()
    vectors = model.item_vectors(torch.tensor([[3, 1, 4]]))
    padded = torch.cat((vectors, torch.randn(1, 2, 16)), dim=1)
    real = torch.arange(5)[None] < 3
    torch.testing.assert_close(model.read(padded, real)[:, :3], model.read(vectors, real[:, :3]))
    changed = vectors.clone()
    changed[0, 2] = torch.randn(16)
    assert (model.read(changed, real[:, :3]) - model.read(vectors, real[:, :3]))[0, 0].abs().max() > 1e-3


def test_views_of_one_shopper_come_together() -> None:
    """Of 4 tastes: views of unseen shoppers lie nearer to their own taste's than they did before training."""
    trained, _ = train_sequence(_tastes(200, seed=0), N_ITEMS, CONTRASTIVE)
    torch.manual_seed(3)
    fresh = SequenceModel(N_ITEMS, CONTRASTIVE).eval()
    histories = torch.from_numpy(_tastes(100, seed=1).last(9))[:, :8]
    same = histories[:, :1] // 5 == histories[:, 0] // 5
    assert _nearest_share(trained, histories, same) >= 0.95
    assert _nearest_share(fresh, histories, same) < 0.9


def _nearest_share(model: SequenceModel, histories: torch.Tensor, same: torch.Tensor) -> float:
    """How many of each shopper's ten nearest others have the same taste, by vectors of one view each."""
    torch.manual_seed(5)
    views = view(histories)
    with torch.inference_mode():
        vectors = model.with_mask(views, model.item_vectors(views.clamp(min=0).flatten()).view(*views.shape, -1))
        users = torch.nn.functional.normalize(model.user_vectors(vectors, (views != PADDING).sum(1)), dim=1)
    near = (users @ users.T).fill_diagonal_(-2).topk(10).indices
    return same.gather(1, near).float().mean().item()


def test_the_loss_is_the_weighted_sum_of_the_objectives() -> None:
    histories = _cycles(40, 9, seed=0)
    weights = {"next_item": 1.0, "masked_item": 0.5, "contrastive": 0.25}
    torch.manual_seed(0)
    model = SequenceModel(N_ITEMS, SMALL.model_copy(update=weights))
    batch = next(iter(SequenceTask(model, histories, None).batches(0)))

    def loss(**only: float) -> torch.Tensor:
        model.config = SMALL.model_copy(update={"next_item": 0.0, "negatives": 5} | only)
        return SequenceTask(model, histories, None).loss(batch).detach()

    torch.manual_seed(1)
    parts = [weight * loss(**{name: 1.0}) for name, weight in weights.items()]
    torch.manual_seed(1)
    torch.testing.assert_close(loss(**weights), torch.stack(parts).sum())
    assert min(parts) > 0.1


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_histories_longer_than_a_window_do_for_every_objective(positions: str) -> None:
    """Hidden items and views without next_item are read with a last item and with a mask behind it."""
    for next_item in (0.0, 1.0):
        weights = {"next_item": next_item, "masked_item": 1.0, "contrastive": 0.5, "positions": positions, "epochs": 1}
        _, report = train_sequence(_cycles(40, 12, seed=0), N_ITEMS, SMALL.model_copy(update=weights))
        assert np.isfinite(report.epochs[0].loss)


def test_what_is_left_out_leaves_no_trace() -> None:
    """The default has no mask, and draws as many random numbers as next_item alone."""
    torch.manual_seed(0)
    model = SequenceModel(N_ITEMS, SMALL)
    assert "mask" not in model.state_dict()
    batch = Batch(np.array([[1, 2, 3]]), np.array([[2, 3, 4]]))
    state = torch.get_rng_state()
    SequenceTask(model, _cycles(3, 4, seed=0), None).loss(batch)
    assert torch.equal(torch.get_rng_state(), state)  # all items are negatives, and there is no dropout


def test_something_must_be_learned() -> None:
    with pytest.raises(ValidationError, match="must weigh more than 0"):
        SequenceConfig(next_item=0.0)
