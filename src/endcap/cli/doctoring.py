"""What is wrong with an installation, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from endcap.cli.terminal import HERE, JsonOption, ShopOption, print_json, stdout

if TYPE_CHECKING:
    from endcap.app.findings import Finding

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    shop: ShopOption = HERE,
    url: Annotated[str | None, typer.Option(help="A running server to ask as well.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte of the store and the releases.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with the installation and how to mend it. Exit code 1 where there is a problem."""
    from endcap.app.doctor import examine

    findings = []
    for finding in examine(shop, url=url, deep=deep):
        findings.append(finding)
        if not as_json:
            _print(finding)
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if as_json:
        print_json({"problems": problems, "warnings": warnings, "findings": findings})
    else:
        stdout().print(
            f"{problems} problems, {warnings} warnings, {len(findings) - problems - warnings} checks are well."
        )
    if problems:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    line = Text(f"{finding.level:8}", style=COLOURS[finding.level])
    line.append(f"{finding.check:12} {finding.said}", style="default")
    stdout().print(line, soft_wrap=True)
    if finding.next_step:
        stdout().print(Text(f"{'':21}{finding.next_step}"), soft_wrap=True)
