"""Backups, and whether everything is as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, stdout
from endcap.core.errors import ServiceError

if TYPE_CHECKING:
    from endcap.app.keeping import Backup


def backup(
    out: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")],
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write everything the shop has into a folder, of one moment, also while a server records events."""
    from endcap.app.keeping import back_up
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        made = back_up(opened, out)
    if as_json:
        print_json(_facts(made))
    else:
        stdout().print(f"{_sentence(made)} Restore it with: endcap restore {out} --shop FOLDER", soft_wrap=True)


def restore(
    backup: Annotated[Path, typer.Argument(help="Folder that `endcap backup` wrote.", exists=True, file_okay=False)],
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace from a backup, verified first. What is there already is never overwritten."""
    from endcap.app import keeping

    found = keeping.restore(backup, shop)
    if as_json:
        print_json(_facts(found))
    else:
        stdout().print(f"{_sentence(found)} The workspace is {shop.resolve()}.", soft_wrap=True)


def verify(shop: ShopOption = HERE, as_json: JsonOption = False) -> None:
    """Read every byte of a workspace or a backup, and say what is not as it was written."""
    from endcap.app import keeping

    problems = keeping.verify(shop)
    if as_json:
        print_json({"sound": not problems, "problems": problems})
    else:
        for problem in problems or ["Everything is as it was written."]:
            stdout().print(problem, soft_wrap=True, markup=False)
    if problems:
        raise ServiceError(
            f"{len(problems)} things are damaged.", where=str(shop), next_step="Restore them from a backup."
        )


def _facts(backup: Backup) -> dict[str, object]:
    names = ("created_ms", "last_seq", "events", "items", "users", "quarantined", "releases", "release")
    facts: dict[str, object] = {name: getattr(backup, name) for name in names}
    return facts | {"bytes": sum(entry.bytes for entry in backup.files.values())}


def _sentence(backup: Backup) -> str:
    return (
        f"The backup holds {backup.events:,} events, {backup.items:,} items, {backup.users:,} users,"
        f" {backup.quarantined:,} refused rows and {backup.releases:,} releases."
    )
