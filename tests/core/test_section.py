"""Config sections: complete by default, frozen, and strict about names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from endcap.core.section import Section


class Shelf(Section):
    width: int = 10


class Room(Section):
    name: str = "hall"
    shelf: Shelf = Shelf()


def test_an_empty_section_equals_the_defaults() -> None:
    assert Room.model_validate({}) == Room() == Room(name="hall", shelf=Shelf(width=10))


def test_a_section_inside_another_is_read() -> None:
    assert Room.model_validate({"shelf": {"width": 3}}).shelf.width == 3


@pytest.mark.parametrize("wrong", [{"nmae": "x"}, {"shelf": {"widht": 1}}, {"shelf": {"width": "wide"}}])
def test_a_misspelt_key_or_a_wrong_type_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Room.model_validate(wrong)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Shelf().width = 5  # type: ignore[misc]
