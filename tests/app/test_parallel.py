import pytest

from endcap.app.parallel import in_order


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (3, 2), (500, 1), (500, 2)])
def test_results_come_in_order_whoever_did_the_work(count, workers):
    offset, told = 7, []
    found = in_order(lambda piece: [place + offset for place in piece], count, workers, told.append)
    assert found == [n + offset for n in range(count)]
    assert told == sorted(told)
    assert told[-1:] == ([1.0] if count else [])


def test_an_error_in_a_worker_is_raised_here():
    def work(piece):
        if 300 in piece:
            raise ValueError("no such place")
        return piece

    with pytest.raises(ValueError, match="no such place"):
        in_order(work, 500, 2, lambda share: None)
