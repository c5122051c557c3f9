"""The documents name everything there is: settings, commands, routes, plug points, errors; and their links lead
somewhere, and their snippets are Python."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from benchmarks import readme
from endcap.core import errors, protocols

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)|^\[[^\]^]+\]:\s*(\S+)", re.MULTILINE
)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


@cache
def documents() -> dict[Path, str]:
    """README.md and everything under docs/: where a reader looks."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {path: path.read_text(encoding="utf-8") for path in paths}


def every_markdown() -> dict[Path, str]:
    """The documents, and the other Markdown that is published: the change log, notes by benchmarks and examples."""
    beside = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return documents() | {path: path.read_text(encoding="utf-8") for path in sorted(beside)}


def everything_said() -> str:
    return "\n".join(documents().values())


def unsaid(names: typing.Iterable[str]) -> list[str]:
    """Those of the names that no document holds as a word of its own."""
    text = everything_said()
    return [name for name in names if not re.search(rf"(?<![\w/{{}}.-]){re.escape(name)}(?![\w/{{}}])", text)]


def fences(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each fenced block of a language."""
    for found in FENCE.finditer(text):
        if found[2] == language:
            yield text.count("\n", 0, found.start()) + 1, inspect.cleandoc("\n" + found[3])


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a config section and of the sections inside it, dotted; `*` for the names of a mapping."""
    for name, field in model.model_fields.items():
        inner = list(sections(field.annotation))
        if not inner:
            yield f"{prefix}{name}"
        for section, step in inner:
            yield from settings(section, f"{prefix}{name}.{step}")


def sections(annotation: object) -> Iterator[tuple[type[BaseModel], str]]:
    """The config sections an annotation may hold (in a list, a mapping, a union), and the step that leads to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    step = "*." if typing.get_origin(annotation) is dict else ""
    for inside in typing.get_args(annotation):
        yield from ((section, step + more) for section, more in sections(inside))


def said_settings(text: str) -> set[str]:
    """The settings a text names: `section.key` in code, keys of TOML blocks, and tables under a `[section]` heading."""
    plain = FENCE.sub("", text)
    named = {code.split("=")[0].strip() for code in re.findall(r"`([^`\n]+)`", plain)}
    for _, block in fences(text, "toml"):
        named |= set(flat(tomllib.loads(block)))
    for part in re.split(r"^(?=#{1,6}\s)", plain, flags=re.MULTILINE):
        heading = re.match(r"#{1,6}[^\n]*\[([\w.]+)\]", part)
        if heading:
            named |= {f"{heading[1]}.{key}" for key in re.findall(r"^\|\s*`([\w.]+)`\s*\|", part, re.MULTILINE)}
    return named


def flat(table: dict[str, typing.Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        rows = value if isinstance(value, list) else [value]
        yield f"{prefix}{key}"
        for row in rows:
            if isinstance(row, dict):
                yield from flat(row, f"{prefix}{key}.")


def commands(command: typing.Any, path: str) -> Iterator[str]:
    """Every command of a click group that is not hidden, with the words that lead to it."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path
        return
    for name, sub in inside.items():
        if not sub.hidden:
            yield from commands(sub, f"{path} {name}")


def anchors(text: str) -> set[str]:
    """The anchors GitHub gives the headings of a text."""
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        for title in HEADING.findall(FENCE.sub("", text))
    }


def broken_links(path: Path, text: str) -> Iterator[str]:
    for link, reference in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        target = link or reference
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        aim = path.parent / name if name else path
        if not aim.exists():
            yield f"{path.relative_to(ROOT)}: {target} is not there"
        elif anchor and aim.suffix == ".md" and anchor not in anchors(aim.read_text(encoding="utf-8")):
            yield f"{path.relative_to(ROOT)}: {target} names no heading"


def test_every_setting_is_documented():
    from endcap.app.config import Config

    named = set().union(*map(said_settings, documents().values()))
    patterns = {key: re.compile(re.escape(key).replace(r"\*", r"[^.]+")) for key in settings(Config)}
    assert patterns
    assert [key for key, pattern in patterns.items() if not any(map(pattern.fullmatch, named))] == []


def test_every_command_is_documented():
    import typer

    from endcap.cli.main import app

    asked = list(commands(typer.main.get_command(app), "endcap"))
    assert asked
    assert unsaid(asked) == []


def test_the_table_of_commands_has_each_once():
    import typer

    from endcap.cli.main import app

    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(endcap [\w -]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(commands(typer.main.get_command(app), "endcap"))


def test_every_route_is_documented(tmp_path):
    from endcap.app.runtime import Shop
    from endcap.web.server import create_app

    with Shop.open(tmp_path / "shop") as shop:
        routes = create_app(shop).openapi()["paths"]
    assert routes
    assert unsaid(routes) == []


def test_every_plug_point_is_documented():
    points = [name for name, value in vars(protocols).items() if _is_own(value, protocols)]
    assert "VectorIndex" in points
    assert unsaid(points) == []


def test_every_error_is_documented():
    tree = [name for name, value in vars(errors).items() if _is_own(value, errors)]
    assert "EndcapError" in tree
    assert unsaid(tree) == []


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_readme_says_how_to_begin(command):
    assert command in documents()[ROOT / "README.md"]


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_pages_say_what_was_measured(page):
    text, blocks = page.read_text("utf-8"), readme.PAGES[page]
    assert readme.written(text, blocks) == text, "run: python -m benchmarks.readme"
    assert all(f"<!-- {name} -->" in text for name in blocks)


def test_links_lead_somewhere():
    assert [broken for path, text in every_markdown().items() for broken in broken_links(path, text)] == []


def test_python_snippets_compile():
    for path, text in every_markdown().items():
        for line, snippet in fences(text, "python"):
            where = f"{path.relative_to(ROOT)}:{line}"
            compile(snippet, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def _is_own(value: object, module: object) -> bool:
    return isinstance(value, type) and value.__module__ == getattr(module, "__name__", None)


class TestTheChecksThemselves:
    def test_settings_are_found_at_every_depth(self):
        class Leaf(BaseModel):
            n: int = 1

        class Root(BaseModel):
            name: str = ""
            one: Leaf = Leaf()
            many: list[Leaf] = []
            named: dict[str, Leaf] = {}
            perhaps: Leaf | None = None

        assert list(settings(Root)) == ["name", "one.n", "many.n", "named.*.n", "perhaps.n"]

    def test_settings_are_read_where_they_are_said(self):
        text = "Set `a.b = 2` or `c.d`.\n\n```toml\n[e]\nf = 1\n[[g]]\nh = 2\n```\n\n"
        text += "## `[i]`\n\n| Key |\n|---|\n| `j` | x |\n\n## k\n\n| `l` |\n"
        named = said_settings(text)
        assert {"a.b", "c.d", "e.f", "g.h", "i.j"} <= named
        assert "i.l" not in named

    def test_commands_are_found_in_groups(self):
        import typer

        app, group = typer.Typer(), typer.Typer()
        app.add_typer(group, name="release")
        app.command("train")(lambda: None)
        app.command("secret", hidden=True)(lambda: None)
        group.command("list")(lambda: None)
        assert sorted(commands(typer.main.get_command(app), "endcap")) == ["endcap release list", "endcap train"]

    def test_names_are_whole_words(self, monkeypatch):
        monkeypatch.setitem(globals(), "everything_said", lambda: "`GET /v1/items/{id}`, `endcap trainer`, DataErrors")
        assert unsaid(["/v1/items/{id}", "/v1/items", "endcap train", "DataError", "endcap trainer"]) == [
            "/v1/items",
            "endcap train",
            "DataError",
        ]

    def test_broken_links_are_found(self, tmp_path, monkeypatch):
        monkeypatch.setitem(globals(), "ROOT", tmp_path)
        (tmp_path / "there.md").write_text("# A `title`, of sorts\n")
        page = tmp_path / "page.md"
        text = (
            "# Top\n[a](there.md) [b](there.md#a-title-of-sorts) [c](#top) [d](https://example.org/x) ![e](gone.png)\n"
            "[f](there.md#nowhere) `[g](code.md)`\n\n```\n[h](fenced.md)\n```\n[i]: lost.md\n"
        )
        page.write_text(text)
        assert list(broken_links(page, text)) == [
            "page.md: gone.png is not there",
            "page.md: there.md#nowhere names no heading",
            "page.md: lost.md is not there",
        ]

    def test_snippets_are_found_with_their_lines(self):
        text = "text\n\n```python\nawait shop.close()\n```\n\n"
        text += "- item\n\n  ```python\n  x = 1\n  if x:\n      y = 2\n  ```\n"
        assert list(fences(text, "python")) == [(3, "await shop.close()"), (9, "x = 1\nif x:\n    y = 2")]


def test_the_reference_of_settings_is_current():
    """After changing a setting: make docs."""
    from endcap.app.config import reference

    assert (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8") == reference()


def test_the_reference_of_tuning_is_current():
    """After changing a setting: make docs."""
    from endcap.app.finetune_settings import reference

    assert (ROOT / "docs" / "reference" / "finetuning.md").read_text(encoding="utf-8") == reference()
