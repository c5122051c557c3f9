"""Found by hashes or by comparing: the same rows."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from endcap.data.repeats import is_first, is_shared


@given(st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(0, 9).map(str)), max_size=30))
def test_the_first_of_each(values):
    series = pl.Series(values, dtype=pl.String)
    assert is_first(series).to_list() == [value not in values[:at] for at, value in enumerate(values)]


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=30))
def test_what_is_shared(values):
    series = pl.Series(values, dtype=pl.UInt64)
    assert is_shared(series).to_list() == [values.count(value) > 1 for value in values]
