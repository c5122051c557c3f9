import gc
import multiprocessing
import os
from pathlib import Path

import pytest

from endcap.app.parallel import in_order, one_by_one, side_by_side
from endcap.core.errors import CallerError, MissingExtraError, ServiceError


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


@pytest.mark.parametrize("run", [side_by_side, one_by_one])
def test_few_large_works_return_in_order_and_tell_how_far_they_are(run):
    def work(n):
        def done(tell):
            for step in range(4):
                tell((step + 1) / 4)
            return n * 10, os.getpid()

        return done

    told = []
    found = run([work(1), work(2)], told.append)
    assert [value for value, _ in found] == [10, 20]
    assert len({process for _, process in found}) == (2 if run is side_by_side else 1)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_refusal_of_one_work_is_raised_as_it_was_and_stops_the_others():
    def refuse(tell):
        raise CallerError("No such setting.", where="[sequence]", next_step="Mend it.")

    def wait_for_ever(tell):
        multiprocessing.get_context("fork").Event().wait()

    with pytest.raises(CallerError, match="No such setting") as refused:
        side_by_side([wait_for_ever, refuse], lambda share: None)
    assert (refused.value.where, refused.value.next_step) == ("[sequence]", "Mend it.")
    assert not multiprocessing.active_children()


def test_an_error_of_two_parts_arrives_as_it_was():
    def refuse(tell):
        raise MissingExtraError("transformers", "text")

    with pytest.raises(MissingExtraError, match="'transformers' is not installed") as refused:
        side_by_side([refuse], lambda share: None)
    assert refused.value.next_step == "Install it with: pip install 'endcap[text]'"


def test_an_interruption_leaves_no_process_behind():
    def tell_and_wait(tell):
        tell(0.5)
        multiprocessing.get_context("fork").Event().wait()

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([tell_and_wait, tell_and_wait], stop)
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_told_of():
    with pytest.raises(ServiceError, match="ended before its work was done"):
        in_order(lambda piece: os._exit(9), 500, 2, lambda share: None)
    with pytest.raises(ServiceError, match="ended before its work was done"):
        side_by_side([lambda tell: os._exit(9)], lambda share: None)


class Leftover:
    """What a parent left in a cycle; when it is tidied up, it writes down by whom."""

    def __init__(self, told: Path) -> None:
        self.told, self.itself = told, self

    def __del__(self) -> None:
        with self.told.open("a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.mark.parametrize("way", ["works", "pieces"])
def test_a_forked_process_does_not_tidy_up_after_its_parent(tmp_path: Path, way: str) -> None:
    """A model with threads of its own would wait at its end for threads that are not there."""
    told = tmp_path / "told"
    gc.collect()
    gc.disable()
    try:
        Leftover(told)
        if way == "works":
            side_by_side([lambda tell: gc.collect(), lambda tell: gc.collect()], lambda share: None)
        else:
            in_order(lambda piece: [gc.collect() * (place == piece[0]) for place in piece], 500, 2, lambda share: None)
    finally:
        gc.enable()
        gc.collect()
    assert told.read_text().split() == [str(os.getpid())]
