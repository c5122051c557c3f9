"""How much is taken at once, and how often."""

from __future__ import annotations

from pydantic import Field

from endcap.app.events import MAX_BATCH
from endcap.core.section import Section


class LimitsConfig(Section):
    """Rates hold for each key, or for each address where there are no keys, and in each process of its own."""

    reads_per_s: float = Field(0, ge=0, description="Answers a second that a key may ask for, over time; 0: no limit.")
    read_burst: int = Field(50, ge=1, description="Answers that a key may ask for at once, after a pause.")
    events_per_s: float = Field(
        0, ge=0, description="Events, items and users a second that a key may write, over time; 0: no limit."
    )
    event_burst: int = Field(
        1000,
        ge=1,
        description="Events that a key may write at once, after a pause. A batch is taken as a whole and paid for "
        "after: the next one waits.",
    )
    in_flight: int = Field(
        256, ge=0, description="Requests that one process works on at a time; more get 503 at once. 0: no limit."
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest body of a request.")
    max_media_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Largest picture or clip, here some four minutes of sound."
    )
    body_timeout_s: float = Field(15.0, gt=0, description="Time in which a body has to be complete.")
    max_batch: int = Field(1000, ge=1, le=MAX_BATCH, description="Events in a batch, over HTTP.")
