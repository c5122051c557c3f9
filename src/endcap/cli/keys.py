"""Who may call, and what was done: API keys and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, print_table, stdout

if TYPE_CHECKING:
    from endcap.app.keys import Key

keys = typer.Typer(
    name="keys",
    help="API keys: make, list, revoke.",
    epilog="Example: endcap keys create --name till --scopes read,write --shop myshop",
    no_args_is_help=True,
)


@keys.command(epilog="Example: endcap keys create --name till --scopes read,write --shop myshop")
def create(
    name: Annotated[str, typer.Option(help="What will use it.")],
    scopes: Annotated[str, typer.Option(help="Of read, write and admin, separated by commas; none holds another.")],
    expires_days: Annotated[int | None, typer.Option(help="Days after which it ends; without, it lasts.")] = None,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and show it, this once. From the first key on every request needs one."""
    from endcap.app.keys import keys_of

    held = keys_of(shop)
    is_first = not held.known()
    key, token = held.create(name, scopes.split(","), expires_days)
    if as_json:
        print_json({"key": token, **_entry(key)})
        return
    stdout().print(token, markup=False, soft_wrap=True)
    stdout().print(f"Key {key.id} may {', '.join(key.scopes)}. It is not shown again; keep it where secrets are kept.")
    if is_first:
        stdout().print("It is the shop's first: from now on every request needs a key.")


@keys.command("list", epilog="Example: endcap keys list --shop myshop")
def list_keys(shop: ShopOption = HERE, as_json: JsonOption = False) -> None:
    """List the keys, those that are revoked or expired among them."""
    from endcap.app.keys import keys_of
    from endcap.core.determinism import system_clock

    found, now_ms = [*keys_of(shop).known().values()], system_clock()
    if as_json:
        print_json([_entry(key) for key in found])
        return
    if not found:
        hint = f"endcap keys create --shop {shop} --name NAME --scopes read,write"
        stdout().print(f"There is no key. Next: {hint}", soft_wrap=True)
        return
    columns = ["id", "name", "scopes", "created (UTC)", "expires (UTC)", "state"]
    print_table("", columns, [_row(key, now_ms) for key in found])


@keys.command(epilog="Example: endcap keys revoke 3fa9c15b20d1 --shop myshop")
def revoke(key: Annotated[str, typer.Argument(help="The key's id.")], shop: ShopOption = HERE) -> None:
    """Take a key back. Servers that run refuse it from their next request on."""
    from endcap.app.keys import keys_of

    stdout().print(f"Key {keys_of(shop).revoke(key).id} is revoked.")


def audit(
    shop: ShopOption = HERE,
    last: Annotated[int, typer.Option(min=1, help="How many acts, the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who published, rolled back, made and revoked keys, deleted and restored, oldest first."""
    from endcap.app.runtime import Shop

    with Shop.open(shop, read_only=True) as opened:
        acts = opened.audit.read()[-last:]
    if as_json:
        print_json([msgspec.structs.asdict(act) for act in acts])
        return
    if not acts:
        stdout().print("Nothing was done yet that the audit log keeps.")
        return
    rows = [(_time(act.ts_ms), act.who, act.what, act.on, act.outcome) for act in acts]
    print_table("", ["when (UTC)", "who", "what", "on", "outcome"], rows)


def _entry(key: Key) -> dict[str, Any]:
    """All of it but the hash."""
    return {name: value for name, value in msgspec.structs.asdict(key).items() if name != "sha256"}


def _row(key: Key, now_ms: int) -> list[str]:
    state = "revoked" if key.revoked_ms is not None else "valid" if key.is_in_force(now_ms) else "expired"
    expires = "" if key.expires_ms is None else _time(key.expires_ms)
    return [key.id, key.name, ", ".join(key.scopes), _time(key.created_ms), expires, state]


def _time(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
