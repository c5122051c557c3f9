"""What recommendations led to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, print_table, stdout

if TYPE_CHECKING:
    from endcap.app.effects import Effect, Rate

COUNTS = ("shown", "clicked", "carted", "bought")
COLUMNS = ("placement", "release", *COUNTS, "CTR", "conversion", "revenue", "unseen")


def effects(
    days: Annotated[float | None, typer.Option(help="Days to look back; without, the whole log.")] = None,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show what slates led to, by placement and release: clicks, carts, purchases, revenue, from the event log."""
    from endcap.app.effects import effects as measured
    from endcap.app.effects import hashes
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        releases = hashes([manifest.release_id for manifest in opened.releases.list()])
        found = measured(opened.store, releases, now_ms=opened.clock(), days=days)
    if as_json:
        print_json(found)
        return
    if not found.effects:
        stdout().print(
            "No event of this period quotes a slate. Send recommendation_id with the events that a slate leads to, and "
            "an impression for each item that is shown."
        )
    else:
        print_table("", COLUMNS, [_row(effect) for effect in found.effects], COLUMNS[2:])
        if not any(effect.shown for effect in found.effects):
            stdout().print("No impressions were sent, so that there is nothing to take a share of.")
    if found.foreign:
        stdout().print(f"{found.foreign:,} events quote recommendations that are not of Endcap; they are left out.")


def _row(effect: Effect) -> list[str]:
    return [
        effect.placement,
        effect.release,
        *(f"{getattr(effect, name):,}" for name in COUNTS),
        _share(effect.ctr),
        _share(effect.conversion),
        ", ".join(f"{amount:,.2f} {currency}".rstrip() for currency, amount in effect.revenue.items()),
        f"{effect.unseen:,}",
    ]


def _share(rate: Rate | None) -> str:
    return "" if rate is None else f"{rate.rate:.2%} ({rate.lo:.2%} to {rate.hi:.2%})"
