"""Ids of slates: what they say, and what they make of what is not theirs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endcap.core.slates import (
    HEAD_CHARS,
    MAX_SHOWN,
    MOST_IN_PAGE,
    PLACEMENTS,
    head_of,
    item_hashes,
    new_id,
    parse,
    release_hash,
)
from endcap.core.types import Placement

IDS = st.lists(st.text(min_size=1, max_size=12), max_size=40)


@given(placement=st.sampled_from(Placement), release=st.text(), first=IDS, second=IDS)
def test_an_id_says_what_it_was_made_of(placement, release, first, second):
    one = new_id(placement, release_hash(release), first)
    told = parse(one)
    assert (told.placement, told.release) == (placement, release_hash(release))
    assert told.shown.tolist() == item_hashes(first).tolist()
    more = parse(new_id(placement, release_hash(release), second, told.shown))
    assert more.shown.tolist() == item_hashes([*first, *second]).tolist()


def test_every_placement_has_a_code():
    assert set(PLACEMENTS) == set(Placement)


def test_the_id_of_the_last_page_can_be_read():
    first = parse(new_id(Placement.HOME, 1, map(str, range(MAX_SHOWN))))
    last = new_id(Placement.HOME, 1, (f"n{place}" for place in range(MOST_IN_PAGE)), first.shown)
    assert len(parse(last).shown) == MAX_SHOWN + MOST_IN_PAGE
    assert parse(head_of(last)) is not None


def test_two_ids_differ():
    assert new_id(Placement.HOME, 1) != new_id(Placement.HOME, 1)


def test_the_head_is_short_and_says_all_but_the_memory():
    whole = new_id(Placement.CART, 7, ["a", "b"])
    head = head_of(whole)
    assert len(head) == HEAD_CHARS
    assert parse(head).placement is Placement.CART
    assert not len(parse(head).shown)
    assert head_of(head) == head
    assert head_of("of another system.1") == "of another system.1"


@pytest.mark.parametrize("text", ["", "r-", "r-abc", "s-" + "A" * 22, "r-" + "A" * 22 + ".A", "r-" + "_" * 22])
def test_what_is_not_ours_is_nobodys(text):
    assert parse(text) is None


@given(st.text(max_size=60))
def test_any_text_is_an_id_or_is_not(text):
    told = parse("r-" + text)
    assert told is None or told.shown.dtype == np.uint32
