"""Queries that come together are answered together, and each gets its own."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
import uvloop

from endcap.core.errors import CallerError
from endcap.core.types import Query
from endcap.web.answers import TOGETHER, Queries, answer_threads


class Counting:
    """A shop that says how many queries each turn had, and whose first turn waits until it may go on. What it answers
    by is never at hand."""

    def __init__(self, shop) -> None:
        self.shop, self.turns, self.go_on = shop, list[int](), threading.Event()

    def is_at_hand(self):
        return False

    def answer_many(self, queries):
        self.turns.append(len(queries))
        if len(self.turns) == 1:
            assert self.go_on.wait(30)
        return self.shop.answer_many(queries)


@pytest.fixture
def threads():
    with answer_threads() as pool:
        yield pool


def ids(content: bytes) -> list[str]:
    return [item["item_id"] for item in json.loads(content)["items"]]


def test_those_that_wait_are_answered_together_and_as_alone(shop, threads, planted, monkeypatch):
    monkeypatch.setattr("endcap.web.answers.SLOW_S", 60.0)
    users, counting = list(planted.answers)[:12], Counting(shop)

    async def ask():
        queries = Queries(threads)
        first = asyncio.create_task(queries.answer(counting, Query(n=1)))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(queries.answer(counting, Query(user_id=user, n=3))) for user in users]
        await asyncio.sleep(0.1)
        counting.go_on.set()
        return await asyncio.gather(first, *rest)

    _, *answers = asyncio.run(ask())
    assert counting.turns == [1, TOGETHER, 12 - TOGETHER]
    alone = [[item.item_id for item in shop.recommend(user, n=3).items] for user in users]
    assert [ids(answer) for answer in answers] == alone


class Sleeping:
    """A shop that takes its time, and answers nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.turns = seconds, list[int]()

    def is_at_hand(self):
        return False

    def answer_many(self, queries):
        self.turns.append(len(queries))
        time.sleep(self.seconds)
        return [CallerError("No.", where="n") for _ in queries]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("seconds", [0.002, 0.012, 0.08])
def test_one_that_comes_back_without_the_others_is_answered(threads, loop, seconds):
    sleeping = Sleeping(seconds)

    async def ask(queries: Queries) -> None:
        with pytest.raises(CallerError):
            await queries.answer(sleeping, Query(n=1))

    async def visit() -> None:
        queries = Queries(threads)
        for _ in range(6):
            await asyncio.gather(*(ask(queries) for _ in range(3)))
            await asyncio.wait_for(ask(queries), 20)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(visit())
    assert sum(sleeping.turns) == 6 * 4


def test_those_who_ask_again_at_once_are_answered_together_again(threads):
    sleeping = Sleeping(0.03)

    async def client(queries: Queries) -> None:
        for _ in range(12):
            with pytest.raises(CallerError):
                await queries.answer(sleeping, Query(n=1))

    async def visit() -> None:
        queries = Queries(threads)
        await asyncio.gather(*(client(queries) for _ in range(6)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(visit())
    assert sum(sleeping.turns) == 6 * 12
    assert max(sleeping.turns) == 6


def test_a_budget_of_ones_own_binds_nobody_else(shop, threads, monkeypatch):
    monkeypatch.setattr("endcap.web.answers.SLOW_S", 60.0)
    counting = Counting(shop)

    async def ask():
        queries = Queries(threads)
        first = asyncio.create_task(queries.answer(counting, Query(n=1)))
        await asyncio.sleep(0.05)
        asked = [Query(n=1), Query(n=2), Query(n=3, budget_ms=0.001), Query(n=4)]
        rest = [asyncio.create_task(queries.answer(counting, query)) for query in asked]
        await asyncio.sleep(0.05)
        counting.go_on.set()
        await asyncio.gather(first, *rest)

    asyncio.run(ask())
    assert counting.turns == [1, 2, 1, 1]


def test_one_that_is_wrong_fails_alone(shop):
    good, wrong, also = shop.answer_many([Query(n=2), Query(n=0), Query(n=1)])
    assert isinstance(wrong, CallerError)
    assert (len(good.items), len(also.items)) == (2, 1)
    assert good.recommendation_id != also.recommendation_id


def test_a_slow_turn_does_not_hold_up_the_next(shop, threads):
    counting = Counting(shop)

    async def ask():
        queries = Queries(threads)
        slow = asyncio.create_task(queries.answer(counting, Query(n=1)))
        await asyncio.sleep(0.01)
        quick = await asyncio.wait_for(queries.answer(counting, Query(n=2)), 30)
        assert not slow.done()
        counting.go_on.set()
        return quick, await slow

    quick, slow = asyncio.run(ask())
    assert (len(ids(quick)), len(ids(slow))) == (2, 1)


def test_whoever_is_gone_is_passed_over(shop, threads, monkeypatch):
    monkeypatch.setattr("endcap.web.answers.SLOW_S", 60.0)
    counting = Counting(shop)

    async def ask():
        queries = Queries(threads)
        first = asyncio.create_task(queries.answer(counting, Query(n=1)))
        await asyncio.sleep(0.05)
        gone, stays = (asyncio.create_task(queries.answer(counting, Query(n=2))) for _ in range(2))
        await asyncio.sleep(0.05)
        gone.cancel()
        counting.go_on.set()
        return await asyncio.gather(first, stays)

    assert [len(ids(answer)) for answer in asyncio.run(ask())] == [1, 2]


def test_what_fails_together_is_tried_alone(shop, monkeypatch):
    pipeline = shop._serving.current()[0].pipeline
    answers = pipeline.answers

    def fails(asked, stages):
        if any(query.n == 3 for query, _ in asked):
            raise RuntimeError("this one")
        return answers(asked, stages)

    monkeypatch.setattr(pipeline, "answers", fails)
    good, wrong = shop.answer_many([Query(n=2), Query(n=3)])
    assert len(good.items) == 2
    assert str(wrong) == "this one"


class Noting:
    """A shop that notes the thread of each turn, and how many queries it had."""

    def __init__(self, shop) -> None:
        self.shop, self.turns, self.at_hand, self.takes_s = shop, list[tuple[str, int]](), True, 0.0

    def is_at_hand(self):
        return self.at_hand

    def answer_many(self, queries):
        self.turns.append((threading.current_thread().name.rpartition("_")[0] or "loop", len(queries)))
        time.sleep(self.takes_s)
        return self.shop.answer_many(queries)


class Quick(dict):
    """Every shop has been quick, as long as nothing else was learned."""

    def get(self, shop, _default):
        return super().get(shop, 0.001)


@pytest.fixture
def queries(threads):
    """Of a server that has found its answers to be quick."""
    made = Queries(threads)
    made._needed_s = Quick()
    return made


async def _ask(queries, noting, count):
    asked = [queries.answer(noting, Query(n=number + 1)) for number in range(count)]
    return [len(ids(answer)) for answer in await asyncio.gather(*asked)]


def test_one_alone_is_answered_where_it_was_read_and_several_are_not(shop, queries):
    noting = Noting(shop)
    assert asyncio.run(_ask(queries, noting, 1)) == [1]
    assert asyncio.run(_ask(queries, noting, 3)) == [1, 2, 3]
    assert noting.turns == [("loop", 1), ("endcap-answer", 3)]


def test_what_may_wait_for_others_goes_to_a_thread(shop, queries):
    noting = Noting(shop)
    noting.at_hand = False
    assert asyncio.run(_ask(queries, noting, 1)) == [1]
    assert noting.turns == [("endcap-answer", 1)]


def test_answers_that_turn_slow_go_to_a_thread_until_they_are_quick_again(shop, queries):
    noting = Noting(shop)
    noting.takes_s = 0.2
    asyncio.run(_ask(queries, noting, 1))
    noting.takes_s = 0.0
    asyncio.run(_ask(queries, noting, 1))
    assert [thread for thread, _ in noting.turns] == ["loop", "endcap-answer"]

    async def go_on():
        for _ in range(200):
            await queries.answer(noting, Query(n=1))

    asyncio.run(go_on())
    assert noting.turns[-1] == ("loop", 1)


def test_what_is_refused_at_once_makes_no_shop_quick(shop, queries):
    noting = Noting(shop)
    noting.takes_s = 0.2
    asyncio.run(_ask(queries, noting, 1))
    noting.takes_s = 0.0

    async def refused():
        for _ in range(100):
            with pytest.raises(CallerError):
                await queries.answer(noting, Query(n=0))

    asyncio.run(refused())
    asyncio.run(_ask(queries, noting, 1))
    assert noting.turns[-1] == ("endcap-answer", 1)


def test_one_shop_is_not_taken_for_another(shop, queries):
    slow, quick = Noting(shop), Noting(shop)
    slow.takes_s = 0.2
    for noting in (slow, quick, quick, slow):
        asyncio.run(_ask(queries, noting, 1))
    assert [thread for thread, _ in slow.turns] == ["loop", "endcap-answer"]
    assert [thread for thread, _ in quick.turns] == ["loop", "loop"]


def test_where_no_thread_can_be_had_everybody_is_told(shop, threads):
    queries = Queries(threads)
    threads.shutdown()

    async def ask():
        asked = [queries.answer(Noting(shop), Query(n=1)) for _ in range(3)]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)

    assert [type(one) for one in asyncio.run(ask())] == [RuntimeError] * 3


def test_an_error_reaches_whoever_asked(shop, queries, monkeypatch):
    noting = Noting(shop)
    monkeypatch.setattr(noting, "answer_many", lambda queries: 1 // 0)
    for is_there in (lambda: True, lambda: 1 // 0):
        monkeypatch.setattr(noting, "is_at_hand", is_there)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(asyncio.wait_for(queries.answer(noting, Query(n=1)), 30))
    with pytest.raises(CallerError):
        asyncio.run(asyncio.wait_for(queries.answer(Noting(shop), Query(n=0)), 30))
