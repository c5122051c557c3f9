"""From nothing to a shop that answers, on a year of real purchases at a grocer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from endcap.cli.ingesting import print_ingested
from endcap.cli.recommending import print_slate
from endcap.cli.terminal import PortOption, progress, stdout
from endcap.cli.training import print_trained
from endcap.core.errors import CallerError

if TYPE_CHECKING:
    from endcap.app.runtime import Shop

DATASET = "complete-journey"
SETTINGS = """# The Complete Journey: a year of a grocer's till receipts

[clean]
unknown_item = "keep"       # 0.3 % of what was sold is not in the catalogue; it was sold all the same

[train]
content_dim = 32            # the texts are short

[sequence]
dim = 32
epochs = 1                  # the order within a basket says little, so a short training is enough
"""


def demo(
    folder: Annotated[Path, typer.Option(help="The workspace to make or to go on with.")] = Path("demo-shop"),
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve at the end.")] = True,
    port: PortOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the workspace first.")] = False,
    dataset: Annotated[str, typer.Option(help="Another data set.", hidden=True)] = DATASET,
) -> None:
    """Ingest The Complete Journey, train, compare with baselines, publish, recommend, and serve."""
    from endcap.app.runtime import Shop

    if fresh:
        Shop.delete(folder)
    Shop.init(folder, SETTINGS)
    with Shop.open(folder) as shop:
        host = shop.config.serve.host
        wanted = shop.config.serve.port if port is None else port
        is_keyed = bool(shop.keys.known())
        place = _free_port(host, wanted, is_keyed) if serve else wanted
        _ingest(shop, dataset)
        with progress() as tell:
            trained = shop.train(progress=tell)
        print_trained(trained, True, folder)
        user, item = _show_recommendations(shop)
    if not serve:
        stdout().print(f"Next: endcap serve --shop {folder}", soft_wrap=True)
        return
    command = ["endcap", "serve", "--shop", str(folder), "--port", str(place)]
    _free_port(host, place, is_keyed, f"The release is published. Once the port is free: {' '.join(command)}")
    _show_requests(f"http://{host}:{place}", user, item)
    # The server takes this process's place: what training loaded is gone, and Ctrl-C goes straight to it.
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606


def _free_port(host: str, port: int, is_keyed: bool, next_step: str = "") -> int:
    """The port that can be had now, asked for before minutes of training as well as after. next_step: in place of the
    error's own."""
    from endcap.web.server import free_port

    try:
        return free_port(host, port, is_keyed=is_keyed)
    except CallerError as error:
        raise CallerError(error.what, where=error.where, next_step=next_step or error.next_step) from error


def _ingest(shop: Shop, dataset: str) -> None:
    events = shop.store.last_seq()
    if events:
        stdout().print(f"{shop.folder} holds {events:,} events already and is used as it is; --fresh starts over.")
        return
    with progress() as tell:
        ingested = shop.ingest_dataset(dataset, progress=tell)
    print_ingested(shop, ingested)


def _show_recommendations(shop: Shop) -> tuple[str, str]:
    """Five items for a household, and again with something new in the cart; returns that household and item."""
    from endcap.core.types import Placement

    user = str(shop.store.users()["user_id"][0])
    print_slate(shop, shop.recommend(user, 5), f"Five for household {user}")
    unbought = shop.recommend(user, 1, placement=Placement.DISCOVERY)
    item = unbought.items[0].item_id
    cart = (*shop.user(user).cart, item)
    print_slate(shop, shop.recommend(user, 5, cart=cart), f"The same with {shop.titles([item])[item]} in the cart")
    return user, item


def _show_requests(url: str, user: str, item: str) -> None:
    lists = f"{url}/v1/recommendations?user_id={quote(user)}&n=5"
    event = json.dumps({"event_type": "add_to_cart", "user_id": user, "item_id": item})
    send = f"curl -s {url}/v1/events -H 'Content-Type: application/json' -d '{event}' -w '\\n'"
    get = f"curl -s '{lists}' -w '\\n'"
    console = stdout()
    console.print("\nTo try:")
    for line in (lists, f"{url}/v1/items/{quote(item)}/similar?n=5", f"{url}/v1/users/{quote(user)}"):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print("The list before an event, the event, and the list after it:")
    console.print(f"  {get}; {send}; {get}\n", markup=False, soft_wrap=True)
