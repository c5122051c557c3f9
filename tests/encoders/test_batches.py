from collections.abc import Callable, Sequence

import numpy as np
import pytest

from endcap.core.types import Float32Array
from endcap.encoders.batches import halving


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

    noted: list[int] = []
    np.testing.assert_array_equal(halving(run, [1, 2, 3, 4, 5], noted.append), [[n, 2 * n] for n in range(1, 6)])
    assert asked == [[1, 2, 3, 4, 5], [1, 2, 3], [1, 2], [3], [4, 5]]
    assert noted == [3, 2]


def test_a_row_that_fits_nowhere_is_an_error() -> None:
    def run(rows: Sequence[int]) -> Float32Array:
        raise MemoryError

    with pytest.raises(MemoryError):
        halving(run, [1, 2, 3], lambda rows: None)


def test_other_errors_are_not_tried_again() -> None:
    asked: list[int] = []

    def run(rows: Sequence[int]) -> Float32Array:
        asked.append(len(rows))
        raise RuntimeError("the shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        halving(run, [1, 2, 3], lambda rows: None)
    assert asked == [3]
