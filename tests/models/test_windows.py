import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.core.errors import CallerError
from endcap.models.windows import PADDING, EpochBatches, Sequences, cut_windows, reorder_groups


def _histories(lengths: list[int], groups: bool = False) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    items = np.arange(offsets[-1], dtype=np.int32)
    return Sequences(items, offsets, np.arange(offsets[-1], dtype=np.int64) // 3 if groups else None)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 9), st.integers(0, 5))
def test_every_transition_is_in_exactly_one_window(lengths: list[int], max_len: int, seed: int) -> None:
    histories = _histories(lengths)
    starts, sizes = cut_windows(histories.offsets, max_len, np.random.default_rng(seed))
    covered = sorted(place for start, size in zip(starts, sizes, strict=True) for place in range(start, start + size))
    bounds = histories.offsets
    wanted = [place for i in range(len(lengths)) for place in range(bounds[i], max(bounds[i], bounds[i + 1] - 1))]
    assert covered == wanted
    assert all(1 <= size <= max_len for size in sizes)


def test_batches_hold_next_items_and_padding() -> None:
    histories = _histories([6, 1, 3])
    batches = EpochBatches(histories, 10, 8, np.random.default_rng(0))
    (batch,) = list(batches)
    assert len(batches) == 1
    rows = {tuple(row) for row in np.concatenate([batch.inputs, batch.targets], axis=1).tolist()}
    assert rows == {
        (0, 1, 2, 3, 4, 1, 2, 3, 4, 5),
        (7, 8, PADDING, PADDING, PADDING, 8, 9, PADDING, PADDING, PADDING),
    }


def test_windows_differ_between_epochs_and_repeat_with_the_seed() -> None:
    histories = _histories([500])
    cuts = [cut_windows(histories.offsets, 10, np.random.default_rng(seed))[0].tolist() for seed in (0, 0, 1, 2, 3)]
    assert cuts[0] == cuts[1]
    assert len({tuple(cut) for cut in cuts}) > 1


def test_groups_are_reshuffled_within_themselves_and_within_users() -> None:
    histories = _histories([4, 8], groups=True)  # groups 000|1 and 11|222|333
    seen = [reorder_groups(histories, np.random.default_rng(seed)) for seed in range(30)]
    for items in seen:
        assert sorted(items[:3]) == [0, 1, 2]
        assert items[3] == 3
        assert sorted(items[4:6]) == [4, 5]
        assert sorted(items[6:9]) == [6, 7, 8]
    assert len({tuple(items) for items in seen}) > 15


def test_last_items_of_each_history() -> None:
    assert _histories([4, 0, 2]).last(3).tolist() == [[1, 2, 3], [PADDING] * 3, [4, 5, PADDING]]


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 4, 3], []])
def test_wrong_offsets_are_refused(offsets: list[int]) -> None:
    with pytest.raises(CallerError, match="ffsets"):
        Sequences(np.zeros(3, dtype=np.int32), np.array(offsets, dtype=np.int64))


def test_selected_users_keep_their_events_and_groups() -> None:
    chosen = _histories([4, 2, 3], groups=True).select(np.array([2, 0, 2]))
    assert chosen.items.tolist() == [6, 7, 8, 0, 1, 2, 3, 6, 7, 8]
    assert chosen.offsets.tolist() == [0, 3, 7, 10]
    assert chosen.groups is not None
    assert chosen.groups.tolist() == [2, 2, 2, 0, 0, 0, 1, 2, 2, 2]
