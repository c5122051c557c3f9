from pathlib import Path

import numpy as np
import pytest
import torch

from endcap.core.errors import CallerError
from endcap.models.config import SequenceConfig
from endcap.models.loop import Progress
from endcap.models.sequence import SequenceModel, centred
from endcap.models.sequence_fit import fit_sequence, train_sequence
from endcap.models.sequence_validation import Validation, ndcg
from endcap.models.windows import PADDING, Sequences

N_ITEMS = 20
SMALL = SequenceConfig(dim=16, heads=2, dropout=0.0, max_len=8, lr=0.02, batch_size=32, epochs=12, patience=12)


def _cycles(users: int, length: int, seed: int) -> Sequences:
    """Each user walks 0, 1, ..., 19, 0, ... from a start of their own."""
    starts = np.random.default_rng(seed).integers(0, N_ITEMS, users)
    items = (starts[:, None] + np.arange(length)) % N_ITEMS
    return Sequences(items.astype(np.int32).ravel(), np.arange(users + 1, dtype=np.int64) * length)


def _next_of(contexts: Sequences, length: int) -> Validation:
    ends = contexts.items.reshape(-1, length)[:, -1].astype(np.int64)
    return Validation(contexts, (ends + 1) % N_ITEMS, np.arange(contexts.users + 1, dtype=np.int64))


@pytest.mark.parametrize("changes", [{}, {"negatives": 12}, {"positions": "learned", "sampling": "log_uniform"}])
def test_learns_what_follows_in_a_cycle(changes: dict[str, object]) -> None:
    config = SMALL.model_copy(update=changes)
    model, report = train_sequence(_cycles(150, 15, seed=0), N_ITEMS, config)
    assert ndcg(model, _next_of(_cycles(200, 6, seed=1), 6), k=1) >= 0.99
    assert report.best_epoch == config.epochs


def test_interrupted_fit_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Through every source of randomness: dropout, negatives, cuts, and the order within baskets."""
    config = SMALL.model_copy(update={"epochs": 4, "dropout": 0.3, "negatives": 5})
    cycles = _cycles(60, 12, seed=0)
    histories = Sequences(cycles.items, cycles.offsets, np.arange(len(cycles.items), dtype=np.int64) // 2)
    validation = _next_of(_cycles(20, 6, seed=1), 6)
    checkpoint = tmp_path / "run.safetensors"

    def stop(progress: Progress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    whole, _ = train_sequence(histories, N_ITEMS, config, validation=validation)
    with pytest.raises(KeyboardInterrupt):
        fit_sequence(histories, N_ITEMS, config, tmp_path, validation=validation, checkpoint=checkpoint, progress=stop)
    assert checkpoint.exists()
    resumed = fit_sequence(histories, N_ITEMS, config, tmp_path, validation=validation, checkpoint=checkpoint)
    assert resumed.report.resumed_after == 2
    assert not checkpoint.exists()
    assert resumed.onnx_difference < 1e-4
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.models[0].state_dict()[name]), name


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_padding_and_the_future_change_nothing(positions: str) -> None:
    torch.manual_seed(0)
    model = SequenceModel(N_ITEMS, SMALL.model_copy(update={"positions": positions, "blocks": 2})).eval()
    items = torch.tensor([[3, 1, 4, 1, 5]])
    padded = torch.cat([items, torch.full((1, 3), PADDING)], dim=1)
    torch.testing.assert_close(model(items), model(padded))
    table = model.all_item_vectors()
    changed = items.clone()
    changed[0, 3] = 9
    before, after = model.read(table[items]), model.read(table[changed])
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().max() > 1e-3
    assert not model(items).equal(model(changed))


def test_an_empty_history_is_the_zero_vector() -> None:
    model = SequenceModel(N_ITEMS, SMALL).eval()
    assert model(torch.full((2, 3), PADDING)).abs().max() == 0


def test_content_places_items_never_seen() -> None:
    """Items 20..39 share the content of 0..19 and never occur: each must be predicted next after its twin."""
    content = np.tile(np.eye(N_ITEMS, dtype=np.float32), (2, 1))
    model, _ = train_sequence(_cycles(150, 15, seed=0), 2 * N_ITEMS, SMALL, content=content)
    with torch.inference_mode():
        scores = model(torch.tensor([[4, 5, 6]])) @ model.all_item_vectors().T
    assert scores[0, N_ITEMS:].argmax() == 7


def test_an_item_in_no_history_ends_as_its_content_alone() -> None:
    content = np.random.default_rng(0).normal(size=(N_ITEMS + 2, 6)).astype(np.float32)
    model, _ = train_sequence(_cycles(60, 10, seed=0), N_ITEMS + 2, SMALL, content=content)
    assert model.ids is not None
    assert model.project is not None
    assert model.content is not None
    own = model.ids.weight.detach()
    assert not own[N_ITEMS:].any()
    assert own[:N_ITEMS].any(dim=1).all()
    described = model.project(model.content[N_ITEMS:]).detach()
    assert torch.allclose(model.all_item_vectors()[N_ITEMS:], described, atol=1e-6)


def test_ndcg_of_a_known_ranking() -> None:
    """User vector (1, 0, ...): the ranking is the first coordinate's, 3 > 2 > 1 > 0 > the rest."""
    model = SequenceModel(6, SequenceConfig(dim=8, heads=1, max_len=4)).eval()
    with torch.no_grad():
        model.ids.weight.zero_()
        model.ids.weight[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0, -1.0, -2.0])
        model.norm.weight.zero_()
        model.norm.bias.copy_(torch.tensor([1.0] + [0.0] * 7))
    contexts = Sequences(np.array([3, 0], dtype=np.int32), np.array([0, 1, 1, 2]))
    targets, offsets = np.array([2, 4, 1]), np.array([0, 2, 2, 3])
    shown = ndcg(model, Validation(contexts, targets, offsets), k=3)
    ideal_of_two = 1 + 1 / np.log2(3)
    assert shown == pytest.approx(((1 / np.log2(3)) / ideal_of_two + 1 / np.log2(4)) / 2)
    hidden = ndcg(model, Validation(contexts, targets, offsets, hide_seen=True), k=3)
    assert hidden == pytest.approx((1 / ideal_of_two + 1 / np.log2(4)) / 2)


def test_centring_removes_what_is_shared_and_keeps_empty_rows_empty() -> None:
    vectors = centred(np.array([[5, 1], [5, -1], [0, 0]], dtype=np.float32))
    assert vectors.tolist() == [[0, 1], [0, -1], [0, 0]]


@pytest.mark.parametrize(
    ("items", "n_items", "content", "match"),
    [
        ([0, 5], 5, None, "Histories name item 5"),
        ([0, 1], 5, np.zeros((4, 2), dtype=np.float32), "Content must be 5 rows"),
        ([0, 1], 2, np.full((2, 2), np.nan, dtype=np.float32), "finite"),
        ([0], 5, None, "nothing to learn"),
    ],
)
def test_wrong_input_is_refused(items: list[int], n_items: int, content: np.ndarray | None, match: str) -> None:
    histories = Sequences(np.array(items, dtype=np.int32), np.array([0, len(items)]))
    with pytest.raises(CallerError, match=match):
        train_sequence(histories, n_items, SMALL, content=content)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(CallerError, match="heads"):
        SequenceModel(5, SequenceConfig(dim=12, heads=4))
