"""The error tree: sentences, and who has to act."""

from __future__ import annotations

import pytest

from endcap.core import errors
from endcap.core.errors import (
    ArtifactError,
    CallerError,
    DataError,
    EndcapError,
    MissingExtraError,
    NotFoundError,
    ServiceError,
    TooManyError,
)


def test_the_sentence_says_where_what_and_what_next() -> None:
    error = DataError("The price is negative.", where="events.csv:7", next_step="Mend the row.")
    assert str(error) == "events.csv:7: The price is negative. Mend the row."
    assert (error.what, error.where, error.next_step) == ("The price is negative.", "events.csv:7", "Mend the row.")


def test_the_parts_may_be_missing() -> None:
    assert str(EndcapError("Wrong.")) == "Wrong."
    assert str(EndcapError("Wrong.", where="here")) == "here: Wrong."
    assert str(EndcapError("Wrong.", next_step="Try again.")) == "Wrong. Try again."


@pytest.mark.parametrize(
    ("kind", "exit_code", "http_status"),
    [
        (CallerError, 2, 422),
        (NotFoundError, 2, 404),
        (TooManyError, 2, 429),
        (DataError, 3, 422),
        (ServiceError, 1, 503),
        (ArtifactError, 1, 503),
        (MissingExtraError, 1, 503),
    ],
)
def test_who_has_to_act(kind: type[EndcapError], exit_code: int, http_status: int) -> None:
    assert (kind.exit_code, kind.http_status) == (exit_code, http_status)


def test_every_error_has_one_of_three_parents() -> None:
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EndcapError)]
    parents = (CallerError, DataError, ServiceError)
    assert len(ours) == 8
    assert all(sum(issubclass(kind, parent) for parent in parents) == 1 for kind in ours if kind is not EndcapError)


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtraError("torch", "train")
    assert str(error) == "The package 'torch' is not installed. Install it with: pip install 'endcap[train]'"
