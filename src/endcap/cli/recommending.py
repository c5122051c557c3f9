"""Asking the published release for a slate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, print_table, stdout
from endcap.core.errors import CallerError, DataError

if TYPE_CHECKING:
    from endcap.app.runtime import Shop
    from endcap.core.types import Placement, Slate

UserOption = Annotated[str | None, typer.Option(help="The shopper; a stranger where it is missing.")]
CountOption = Annotated[int, typer.Option("-n", help="How many items.")]
ExcludeOption = Annotated[str, typer.Option(metavar="A,B", help="Items that must not appear.")]
CategoryOption = Annotated[str, typer.Option(metavar="A,B", help="Only these categories.")]
LocaleOption = Annotated[str, typer.Option(help="Language of the reasons: en or zh.")]


def recommend(
    user: UserOption = None,
    n: CountOption = 10,
    placement: Annotated[str, typer.Option(help="home, discovery, item, cart, category or search.")] = "home",
    item: Annotated[str | None, typer.Option(help="The item looked at.")] = None,
    cart: Annotated[str, typer.Option(metavar="A,B", help="Items in the cart.")] = "",
    exclude: ExcludeOption = "",
    category: CategoryOption = "",
    locale: LocaleOption = "en",
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Ask for a slate. Works while a server runs, and records nothing."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        slate = opened.recommend(
            user,
            n,
            placement=_placement(placement),
            item_id=item,
            cart=_listed(cart),
            exclude=_listed(exclude),
            categories=_listed(category),
            locale=locale,
        )
        if as_json:
            print_json(_with_titles(opened, slate))
        else:
            print_slate(opened, slate, f"{placement} for {user or 'a stranger'}")


def search(
    text: Annotated[str, typer.Argument(help="What is searched for.")] = "",
    picture: Annotated[Path | None, typer.Option(help="A picture instead: what looks like it.")] = None,
    voice: Annotated[Path | None, typer.Option(help="A recording instead: what is said in it.")] = None,
    user: UserOption = None,
    n: CountOption = 10,
    exclude: ExcludeOption = "",
    category: CategoryOption = "",
    locale: LocaleOption = "en",
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Find items by what was meant and by the words themselves, by a picture, or by what is said in a recording. Works
    while a server runs, and records nothing."""
    from endcap.app.runtime import Shop

    if sum(given is not None for given in (text or None, picture, voice)) > 1:
        raise CallerError("More than one thing is searched for.", where="search", next_step="Give one of them.")
    rest = {"exclude": _listed(exclude), "categories": _listed(category), "locale": locale}
    with Shop.open(shop, read_only=True) as opened:
        if picture is not None:
            with _named(picture):
                slate = opened.search_picture(_content(picture), user, n, **rest)
            asked = f"What looks like {picture.name}"
        elif voice is not None:
            with _named(voice):
                slate, heard = opened.search_spoken(_content(voice), user, n, **rest)
            asked = f"{heard.text!r}, heard,"
        else:
            slate, asked = opened.search(text, user, n, **rest), repr(text)
        if as_json:
            print_json(_with_titles(opened, slate))
        else:
            print_slate(opened, slate, f"{asked} for {user or 'a stranger'}")


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """What cannot be read is called by its name."""
    try:
        yield
    except DataError as error:
        raise DataError(error.what, where=str(file), next_step="Name another file.") from error


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise CallerError(f"The file cannot be read: {said}.", where=str(file), next_step="Name one.") from error


def print_slate(shop: Shop, slate: Slate, title: str) -> None:
    titles = shop.titles([entry.item_id for entry in slate.items])
    rows = [
        (str(place), entry.item_id, titles[entry.item_id], entry.reason, entry.source, f"{entry.score:.3f}")
        for place, entry in enumerate(slate.items, 1)
    ]
    print_table(title, ("", "item", "title", "reason", "source", "score"), rows, ("", "score"))
    if slate.degraded:
        stdout().print(f"Stages that gave way to a fallback: {', '.join(slate.degraded)}")


def _placement(name: str) -> Placement:
    from endcap.core.types import Placement

    try:
        return Placement(name)
    except ValueError as error:
        known = ", ".join(Placement)
        raise CallerError(f"No placement is called {name!r}.", where="--placement", next_step=f"One of {known}.") from (
            error
        )


def _listed(text: str) -> tuple[str, ...]:
    """'a, b' -> ('a', 'b')."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _with_titles(shop: Shop, slate: Slate) -> dict[str, Any]:
    titles = shop.titles([entry.item_id for entry in slate.items])
    items = [
        {
            "item_id": entry.item_id,
            "title": titles[entry.item_id],
            "score": entry.score,
            "source": entry.source,
            "reason": entry.reason,
        }
        for entry in slate.items
    ]
    return {
        "recommendation_id": slate.recommendation_id,
        "release": slate.release,
        "placement": slate.placement,
        "items": items,
        "degraded": slate.degraded,
    }
