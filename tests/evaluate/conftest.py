from collections.abc import Sequence

import polars as pl
import pytest

from endcap.core.tables import EVENTS, conform


@pytest.fixture
def log():
    """Builds a canonical events frame of purchases from rows (user, ts_ms, item, session)."""

    def build(rows: Sequence[tuple[str, int, str | None, str | None]], event_type: str = "purchase") -> pl.DataFrame:
        columns = {"user_id": pl.String, "ts_ms": pl.Int64, "item_id": pl.String, "session_id": pl.String}
        frame = pl.DataFrame(rows, schema=columns, orient="row")
        return conform(frame.with_columns(event_type=pl.lit(event_type)), EVENTS)

    return build
