"""Pretraining the sequence model, for this shop or another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, print_table, progress, stdout

if TYPE_CHECKING:
    from endcap.app.pretrain import Pretrained

WEIGHT = "Weight of this objective; default from endcap.toml."
WeightOption = Annotated[float | None, typer.Option(min=0, help=WEIGHT)]


def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the weights into.")],
    ids: Annotated[
        bool, typer.Option("--ids/--no-ids", help="Give items vectors of their own, which serve this catalogue alone.")
    ] = False,
    turned: Annotated[
        bool | None,
        typer.Option("--turned/--not-turned", help="Learn what holds in other catalogues too; default without ids."),
    ] = None,
    next_item: WeightOption = None,
    masked_item: WeightOption = None,
    contrastive: WeightOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; default from endcap.toml.")] = None,
    shop: ShopOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train the sequence model alone on everything recorded, and write weights that `endcap train` can start from."""
    from endcap.app.runtime import Shop

    weights = {"next_item": next_item, "masked_item": masked_item, "contrastive": contrastive}
    asked = {**weights, "turned": turned, "epochs": epochs}
    settings = {name: value for name, value in asked.items() if value is not None}
    with Shop.open(shop, read_only=True) as opened, progress() as tell:
        trained = opened.pretrain(out, progress=tell, ids=ids, **settings)
    if as_json:
        print_json(_summary(trained))
    else:
        _print(trained)


def _print(trained: Pretrained) -> None:
    rows = [
        (f"{number}{' *' if number == trained.report.best_epoch else ''}", f"{epoch.loss:.4f}", _shown(epoch.metric))
        for number, epoch in enumerate(trained.report.epochs, start=1)
    ]
    print_table("Epochs (* kept)", ("epoch", "loss", "ndcg@10"), rows, ("loss", "ndcg@10"))
    stdout().print(
        f"Weights of {trained.users:,} shoppers and {trained.items:,} items are in {trained.folder} "
        f"({trained.bytes / 1e6:.1f} MB). To start from them, under [sequence] in the other shop's endcap.toml:",
        markup=False,
        soft_wrap=True,
    )
    stdout().print(
        f"start = {msgspec.json.encode(str(trained.folder.resolve())).decode()}", markup=False, soft_wrap=True
    )


def _summary(trained: Pretrained) -> dict[str, Any]:
    return {
        "folder": str(trained.folder.resolve()),
        "users": trained.users,
        "items": trained.items,
        "bytes": trained.bytes,
        "best_epoch": trained.report.best_epoch,
        "ndcg@10": trained.report.best_metric,
        "epochs": [{"loss": epoch.loss, "ndcg@10": epoch.metric} for epoch in trained.report.epochs],
        "seconds": trained.report.seconds,
    }


def _shown(metric: float | None) -> str:
    return "" if metric is None else f"{metric:.4f}"
