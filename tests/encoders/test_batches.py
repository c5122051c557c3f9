"""Batches against a forward that holds no more than so many rows, and against what torch really says."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from endcap.core.errors import ServiceError
from endcap.core.types import Float32Array
from endcap.encoders.batches import halving, in_batches

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."),
]


def holds(limit: int, error: Exception, asked: list[int]) -> Callable[[Sequence[int]], list[int]]:
    """A forward that doubles, and raises above `limit` rows; it remembers what it was asked."""

    def run(rows: Sequence[int]) -> list[int]:
        asked.append(len(rows))
        if len(rows) > limit:
            raise error
        return [2 * row for row in rows]

    return run


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_every_row_comes_once_and_in_order(error: Exception, limit: int) -> None:
    asked: list[int] = []
    notes: list[str] = []
    pairs = list(in_batches(holds(limit, error, asked), range(20), 8, notes.append))
    assert [row for batch, _ in pairs for row in batch] == list(range(20))
    assert [found for _, doubled in pairs for found in doubled] == [2 * row for row in range(20)]
    assert all(len(batch) <= min(limit, 8) for batch, _ in pairs)
    assert bool(notes) == (limit < 8)


def test_a_size_that_was_too_much_is_not_tried_again() -> None:
    asked: list[int] = []
    notes: list[str] = []
    list(in_batches(holds(2, MemoryError(), asked), range(16), 8, notes.append))
    assert asked == [8, 4, *[2] * 8]
    assert notes == [
        "Memory did not suffice for 8 contents at once, so 4 are taken.",
        "Memory did not suffice for 4 contents at once, so 2 are taken.",
    ]


def test_a_single_row_that_is_too_much_is_an_error_with_a_next_step() -> None:
    with pytest.raises(ServiceError, match=r"single content\..*smaller model"):
        list(in_batches(holds(0, MemoryError(), []), range(3), 2))


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("no")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    asked: list[int] = []
    with pytest.raises(type(error), match=str(error)):
        list(in_batches(holds(1, error, asked), range(3), 2))
    assert asked == [2]


def test_what_torch_raises_of_a_cpu_is_known() -> None:
    """A thousand terabytes, which no machine gives."""

    def run(rows: Sequence[int]) -> torch.Tensor:
        return torch.empty(10**15) if len(rows) > 1 else torch.ones(1)

    assert [list(batch) for batch, _ in in_batches(run, range(3), 3)] == [[0], [1], [2]]


def test_no_rows_give_no_batches() -> None:
    assert list(in_batches(holds(1, MemoryError(), []), [], 4)) == []


def _torch_refuses() -> None:
    import torch

    torch.empty(10**15)


def _numpy_refuses() -> None:
    np.empty(10**15, dtype=np.float64)


def _cuda_refuses() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _onnxruntime_refuses() -> None:
    raise RuntimeError("Failed to allocate memory for requested buffer of size 1099511627776")


@pytest.mark.parametrize("refuse", [_torch_refuses, _numpy_refuses, _cuda_refuses, _onnxruntime_refuses])
def test_rows_are_read_in_order_in_pieces_that_fit(refuse: Callable[[], None]) -> None:
    asked: list[list[int]] = []

    def run(rows: Sequence[int]) -> Float32Array:
        asked.append(list(rows))
        if len(rows) > 2:
            refuse()
        return np.array([[row, 2 * row] for row in rows], dtype=np.float32)

    noted: list[str] = []
    np.testing.assert_array_equal(halving(run, [1, 2, 3, 4, 5], noted.append), [[n, 2 * n] for n in range(1, 6)])
    assert asked == [[1, 2, 3, 4, 5], [1, 2, 3], [1, 2], [3, 4], [5]]
    assert [text.split()[-3] for text in noted] == ["3", "2"]
