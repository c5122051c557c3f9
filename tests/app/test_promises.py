"""What a shop is promised, kept through any order of events: a model of the shop beside the shop, driven at random."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from endcap.app.runtime import Shop
from endcap.core.types import Availability, Event, EventType, Item, Placement, Query, Slate, session_user
from endcap.recommend.filters import HIDE_BOUGHT

USERS = ("shopper-0000", "shopper-0001", "newcomer")
SESSIONS = ("s1", "s2")
KINDS = ("Dairy", "Pets", "Garden")
NEW = tuple(f"new-{place}" for place in range(4))
ACTS = (EventType.VIEW, EventType.ADD_TO_CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)


class Promises(RuleBasedStateMachine):
    """trained: a workspace with a release; copied for each run. now_ms: the shop's clock."""

    trained: Path
    now_ms: int
    slates = Bundle("slates")

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp()) / "shop"
        shutil.copytree(self.trained, self.folder)
        self.shop = Shop.open(self.folder, clock=lambda: self.now_ms)
        rows = self.shop.store.items().to_dicts()
        self.items = {row["item_id"]: (row["categories"], row["price"], True) for row in rows}
        self.bought: dict[str, set[str]] = {}
        for event in self.shop.store.events().collect().iter_rows(named=True):
            self.bought.setdefault(event["user_id"], set()).add(event["item_id"])
        self.carts: dict[str, dict[str, None]] = {}
        self.owners: dict[str, str] = {}
        self.seq = self.shop.store.last_seq()

    def teardown(self):
        if hasattr(self, "shop"):
            self.shop.close()
            shutil.rmtree(self.folder.parent)

    def who(self, name: str) -> str:
        """The user that a session belongs to, or the name itself."""
        session = name.removeprefix("session:")
        return self.owners.get(session, name) if name.startswith("session:") else name

    @rule(name=st.sampled_from([*USERS, *map(session_user, SESSIONS)]), kind=st.sampled_from(ACTS), data=st.data())
    def act(self, name, kind, data):
        item = data.draw(st.sampled_from(sorted(self.items)))
        self.now_ms += 1000
        session = name.removeprefix("session:") if name.startswith("session:") else None
        event = Event(
            event_type=kind,
            user_id=name,
            session_id=session,
            ts_ms=self.now_ms,
            item_id=item,
            event_id=f"e{self.seq}",
        )
        assert self.shop.record(event).accepted == [f"e{self.seq}"]
        assert self.shop.record(event).duplicates == [f"e{self.seq}"]
        self.seq += 1
        owner = self.who(name)
        cart = self.carts.setdefault(owner, {})
        if kind is EventType.PURCHASE:
            self.bought.setdefault(owner, set()).add(item)
            cart.clear()
        elif kind is EventType.ADD_TO_CART:
            cart[item] = None
        elif kind is EventType.REMOVE_FROM_CART:
            cart.pop(item, None)

    @rule(user=st.sampled_from(USERS), session=st.sampled_from(SESSIONS))
    def log_in(self, user, session):
        self.now_ms += 1000
        event = Event(event_type=EventType.LOGIN, user_id=user, session_id=session, ts_ms=self.now_ms)
        self.shop.record(event)
        self.seq += 1
        name = session_user(session)
        if session not in self.owners:
            self.bought.setdefault(user, set()).update(self.bought.pop(name, set()))
            self.carts.pop(user, None)  # what was put where is told by the order of both, which is not modelled
            self.carts.pop(name, None)
            self.shop.record(
                Event(event_type=EventType.PURCHASE, user_id=user, ts_ms=self.now_ms + 1, item_id="dairy-000")
            )
            self.now_ms += 1000
            self.seq += 1
            self.bought.setdefault(user, set()).add("dairy-000")
        self.owners[session] = user

    @rule(item=st.sampled_from(NEW), kind=st.sampled_from(KINDS), price=st.floats(0.5, 20).map(lambda p: round(p, 2)))
    def put(self, item, kind, price):
        self.shop.store.put_items([Item(item_id=item, title=f"{kind} {item}", categories=(kind,), price=price)])
        self.items[item] = ([kind], price, True)

    @rule(data=st.data(), availability=st.sampled_from(Availability))
    def stock(self, data, availability):
        item = data.draw(st.sampled_from(sorted(self.items)))
        self.shop.store.patch_items([{"item_id": item, "availability": availability}])
        kinds, price, _ = self.items[item]
        self.items[item] = (kinds, price, availability.shown)

    @rule(data=st.data(), price=st.floats(0.5, 20).map(lambda p: round(p, 2)))
    def reprice(self, data, price):
        item = data.draw(st.sampled_from(sorted(self.items)))
        self.shop.store.patch_items([{"item_id": item, "price": price}])
        kinds, _, shown = self.items[item]
        self.items[item] = (kinds, price, shown)

    @rule()
    def restart(self):
        self.shop.close()
        self.shop = Shop.open(self.folder, clock=lambda: self.now_ms)

    @rule(
        target=slates,
        name=st.sampled_from([None, *USERS, *map(session_user, SESSIONS)]),
        placement=st.sampled_from([Placement.HOME, Placement.DISCOVERY, Placement.CART]),
        n=st.integers(1, 25),
        categories=st.sampled_from([(), ("Dairy",), ("Garden", "Pets")]),
        most=st.sampled_from([None, 3.0, 10.0]),
        data=st.data(),
    )
    def ask(self, name, placement, n, categories, most, data):
        exclude = tuple(data.draw(st.lists(st.sampled_from(sorted(self.items)), max_size=3)))
        session = name.removeprefix("session:") if name and name.startswith("session:") else None
        query = Query(
            user_id=None if session else name,
            session_id=session,
            placement=placement,
            n=n,
            exclude=exclude,
            categories=categories,
            max_price=most,
        )
        slate = self.shop.answer(query)
        self.check(query, slate, set())
        return query, slate, {item.item_id for item in slate.items}

    @rule(target=slates, before=slates)
    def ask_for_more(self, before):
        query, slate, shown = before
        following = Query(**{**_fields(query), "after": slate.recommendation_id})
        more = self.shop.answer(following)
        self.check(query, more, shown)
        return query, more, shown | {item.item_id for item in more.items}

    def check(self, query: Query, slate: Slate, shown: set[str]) -> None:
        name = query.user_id or (session_user(query.session_id) if query.session_id else "")
        owner = self.who(name)
        may = {
            item
            for item, (kinds, price, is_shown) in self.items.items()
            if is_shown
            and item not in query.exclude
            and item not in shown
            and (not query.categories or set(kinds) & set(query.categories))
            and (query.max_price is None or (price is not None and price <= query.max_price))
            and not (query.placement in HIDE_BOUGHT and item in self.bought.get(owner, set()))
            and item not in self.carts.get(owner, {})
        }
        got = [item.item_id for item in slate.items]
        assert len(got) == len(set(got))
        assert set(got) <= may, set(got) - may
        assert len(got) == min(query.n, len(may))
        assert slate.degraded == ()

    @invariant()
    def nothing_is_lost(self):
        if hasattr(self, "shop"):
            assert self.shop.store.last_seq() == self.seq


def _fields(query: Query) -> dict[str, object]:
    return {name: getattr(query, name) for name in Query.__slots__}


@pytest.fixture
def promised(trained, planted):
    Promises.trained, Promises.now_ms = trained, planted.now_ms


def test_promises_are_kept(promised):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Promises,
        settings=settings(
            max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
