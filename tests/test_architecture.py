"""The shape of the source, read from the source: who imports whom, how long things are, what is never done."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = "endcap"

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "features": {"core", "data"},
    "encoders": {"core", "data"},
    "models": {"core", "features", "encoders"},
    "index": {"core"},
    "recommend": {"core", "features", "index"},
    "profiles": {"core", "features"},
    "ads": {"core"},
    "assistant": {"core"},
    "monitor": {"core"},
    "sentiment": {"core"},
    "evaluate": {"core", "data"},
}
MAY_IMPORT["app"] = set(MAY_IMPORT)
MAY_IMPORT |= {room: {"core", "app"} for room in ("web", "scale")} | {"cli": {"core", "app", "web"}}
MAY_IMPORT |= {room: {"core"} for room in ("testing", "client")}

# The package's own modules: `__init__` gives out public names, `__main__` starts the command line.
ROOT_MAY_IMPORT = {"endcap": {"core", "app"}, "endcap.__main__": {"cli"}}

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PROTOCOL_METHODS = 3
# "endcap.room.module.function": to be emptied, never to be added to.
LONG_FUNCTIONS: frozenset[str] = frozenset()
LONG_FILES: frozenset[str] = frozenset()

VAGUE_NAMES = {"utils", "common", "helpers", "components", "manager"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "builtins.eval", "builtins.exec"),
    *("os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "subprocess.getoutput", "subprocess.getstatusoutput"),
}
TORCH = {"torch", "transformers"}
TORCH_ROOMS = {"models", "encoders"}


class Import(NamedTuple):
    target: str
    line: int


class Module(NamedTuple):
    """One source file. name: dotted; a package has the name of its folder."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder below the package, or "" for the package's own modules."""
        parts = self.path.relative_to(SOURCE / PACKAGE).parts
        return parts[0] if len(parts) > 1 else ""

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def read(path: Path) -> Module:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


@cache
def modules() -> dict[str, Module]:
    return {module.name: module for path in sorted((SOURCE / PACKAGE).rglob("*.py")) for module in [read(path)]}


def imports(module: Module) -> Iterator[Import]:
    """Everything the module imports, wherever in it, as absolute dotted names. `from a import b` gives `a.b`."""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(f"{origin}.{alias.name}", node.lineno) for alias in node.names)


def imported_modules(module: Module) -> Iterator[Import]:
    """The modules of ours that are imported: `endcap.core.types.Event` is the module `endcap.core.types`."""
    version_only = set(re.findall(rf"\b{PACKAGE}\.(\w+)", _without_imports(module))) == {"__version__"}
    for target, line in imports(module):
        of_version = target == f"{PACKAGE}.__version__" or (target == PACKAGE and version_only)
        if target.split(".")[0] != PACKAGE or of_version:
            continue
        name = target
        while name not in modules() and "." in name:
            name = name.rpartition(".")[0]
        yield Import(name, line)


def lines_for_types(module: Module) -> set[int]:
    """The lines under `if TYPE_CHECKING:`. What they import is never loaded, so it closes no cycle."""
    return {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for part in node.body
        for line in range(part.lineno, (part.end_lineno or part.lineno) + 1)
    }


def _without_imports(module: Module) -> str:
    """The names that the module's own code reads, dotted; neither imports nor texts."""
    return "\n".join(ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute))


def called(node: ast.Call) -> str:
    """The dotted name of what is called, as written; empty where it is no plain name."""
    parts: list[str] = []
    function: ast.expr = node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    return ".".join([function.id, *reversed(parts)]) if isinstance(function, ast.Name) else ""


def calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the full name of what it calls, the module's import aliases undone."""
    aliases: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            first, _, rest = called(node).partition(".")
            yield node, ".".join(filter(None, [aliases.get(first, first), rest]))


def functions(module: Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    def inside(node: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            named = f"{name}.{child.name}" if hasattr(child, "name") and isinstance(child, ast.stmt) else name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield named, child
            yield from inside(child, named)

    return inside(module.tree, module.name)


def room_table(text: str) -> dict[str, set[str]]:
    """The table "| Room | may import |" of a Markdown text: room -> rooms."""
    lines = iter(text.splitlines())
    for line in lines:
        if re.fullmatch(r"\|\s*Room\s*\|\s*may import\s*\|", line.strip(), re.IGNORECASE):
            break
    next(lines, None)
    table: dict[str, set[str]] = {}
    for line in lines:
        cells = [re.sub(r"\(.*?\)|`", "", cell).strip() for cell in line.strip().strip("|").split("|")]
        if not line.strip().startswith("|") or len(cells) != 2:
            break
        allowed = {"nothing of ours": set(), "all of the above": set(table)}.get(cells[1])
        for room in cells[0].split(","):
            table[room.strip()] = {name.strip() for name in cells[1].split(",")} if allowed is None else set(allowed)
    return table


def everywhere(check: Callable[[Module], list[str]]) -> str:
    """What the check says of every module, a line each."""
    return "\n".join(line for module in modules().values() for line in check(module))


def wrong_imports(module: Module) -> list[str]:
    allowed = MAY_IMPORT[module.room] | {module.room} if module.room else ROOT_MAY_IMPORT[module.name]
    return [
        f"{module.at(line)}: {module.room or module.name} may not import {target}"
        for target, line in imported_modules(module)
        if [*target.split("."), ""][1] not in allowed
    ]


def long_functions(module: Module) -> list[str]:
    return [
        f"{module.at(node.lineno)}: {name} has {length} lines"
        for name, node in functions(module)
        if (length := lines_of(node)) > MAX_FUNCTION_LINES and name not in LONG_FUNCTIONS
    ]


def pickles(module: Module) -> list[str]:
    found = [f"{module.at(line)}: {target}" for target, line in imports(module) if target.split(".")[0] in PICKLES]
    for node, name in calls(module):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if given.get("allow_pickle", "False") != "False":
            found.append(f"{module.at(node.lineno)}: {name} must be told allow_pickle=False")
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append(f"{module.at(node.lineno)}: torch.load must be told weights_only=True")
    return found


def run_texts(module: Module) -> list[str]:
    found = [f"{module.at(node.lineno)}: {name}" for node, name in calls(module) if name in FORBIDDEN_CALLS]
    for node, name in calls(module):
        if any(keyword.arg == "shell" and ast.unparse(keyword.value) != "False" for keyword in node.keywords):
            found.append(f"{module.at(node.lineno)}: {name} through a shell")
    return found


def prints(module: Module) -> list[str]:
    if module.room == "cli":
        return []
    return [module.at(node.lineno) for node, name in calls(module) if name in {"print", "builtins.print"}]


def stray_torch(module: Module) -> list[str]:
    if module.room in TORCH_ROOMS:
        return []
    return [
        f"{module.at(line)}: {target}"
        for target, line in imports(module)
        if target.split(".")[0] in TORCH or target.startswith("safetensors.torch")
    ]


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def file_lengths() -> dict[str, int]:
    return {name: len(module.path.read_text(encoding="utf-8").splitlines()) for name, module in modules().items()}


def test_table_of_rooms_is_the_documented_one():
    assert room_table((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")) == MAY_IMPORT


def test_every_room_is_in_the_table():
    rooms = {path.name for path in (SOURCE / PACKAGE).iterdir() if any(path.rglob("*.py"))}
    assert rooms <= set(MAY_IMPORT)


def test_rooms_import_as_the_table_says():
    assert not (wrong := everywhere(wrong_imports)), wrong


def test_no_import_cycles():
    graph = {
        name: {target for target, line in imported_modules(module) if line not in lines_for_types(module)} - {name}
        for name, module in modules().items()
    }
    while leaves := {name for name, targets in graph.items() if not targets & set(graph)}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    # what remains leads into a cycle; strip what nothing of it imports, and the cycles themselves are left
    while roots := set(graph) - set().union(*graph.values()):
        graph = {name: targets for name, targets in graph.items() if name not in roots}
    assert not graph, f"these modules import each other in a circle: {sorted(graph)}"


def test_files_are_short():
    long = {name: n for name, n in file_lengths().items() if n > MAX_FILE_LINES and name not in LONG_FILES}
    assert not long


def test_functions_are_short():
    assert not (wrong := everywhere(long_functions)), wrong


def test_exceptions_are_still_needed():
    lengths = {name: lines_of(node) for module in modules().values() for name, node in functions(module)}
    assert [name for name in LONG_FUNCTIONS if lengths.get(name, 0) <= MAX_FUNCTION_LINES] == []
    assert [name for name in LONG_FILES if file_lengths().get(name, 0) <= MAX_FILE_LINES] == []


def test_no_name_is_vague():
    assert not [name for name in modules() if VAGUE_NAMES.intersection(name.split("."))]


def test_plug_points_are_small():
    protocols = [
        node
        for node in modules()["endcap.core.protocols"].tree.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases)
    ]
    assert protocols
    for protocol in protocols:
        methods = [part.name for part in protocol.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert 1 <= len(methods) <= MAX_PROTOCOL_METHODS, f"{protocol.name} has the methods {methods}"


def test_nothing_is_pickled():
    assert not (wrong := everywhere(pickles)), wrong


def test_nothing_runs_text_as_code():
    assert not (wrong := everywhere(run_texts)), wrong


def test_only_the_command_line_prints():
    assert not (wrong := everywhere(prints)), wrong


def test_torch_stays_in_its_rooms():
    assert not (wrong := everywhere(stray_torch)), wrong


@pytest.mark.parametrize("served", ["endcap.app.runtime", "endcap.web.server", "endcap.recommend"])
def test_server_imports_neither_torch_nor_transformers(served):
    path = SOURCE.joinpath(*served.split("."))
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        pytest.skip(f"{served} does not exist yet")
    asked = f"import sys, {served}; print(sorted({TORCH!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=False, env=_environment()
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]", f"importing {served} also imports {answer.stdout.strip()}"


def _environment() -> dict[str, str]:
    """This process's environment, with the checkout's source first on the path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))}


class TestTheChecksThemselves:
    """Each check is shown a file that breaks it."""

    @pytest.fixture
    def source(self):
        """Makes a module of the given text, as if it were endcap/<room>/made.py."""

        def make(text: str, room: str = "recommend") -> Module:
            path = SOURCE / PACKAGE / room / "made.py"
            return Module(f"{PACKAGE}.{room}.made", path, ast.parse(text))

        return make

    @pytest.mark.parametrize(
        "text",
        [
            "from endcap.models import evidence",
            "import endcap.models.evidence",
            "def f():\n    from endcap.models.evidence import best",
            "from ..models import evidence",
            "from .. import models",
            "from endcap import models",
            "from endcap.app import config",
            "import endcap",
            "import endcap\nendcap.Shop(endcap.__version__)",
        ],
    )
    def test_wrong_import_is_found(self, source, text):
        assert wrong_imports(source(text))

    @pytest.mark.parametrize(
        "text",
        [
            "from endcap.core.types import Query",
            "from .score import x",
            "from endcap import __version__",
            "import endcap\nsaid = endcap.__version__",
        ],
    )
    def test_right_import_is_left_alone(self, source, text):
        assert not wrong_imports(source(text))

    @pytest.mark.parametrize(
        "text",
        [
            "import pickle",
            "def f():\n    from joblib import load",
            "import numpy as np\nnp.load(path, allow_pickle=True)",
            "from numpy import load\nload(path, allow_pickle=trusted)",
            "import torch\ntorch.load(path)",
        ],
    )
    def test_pickle_is_found(self, source, text):
        assert pickles(source(text))

    @pytest.mark.parametrize(
        "text",
        [
            "eval('1')",
            "exec(text)",
            "import os as o\no.system('ls')",
            "from os import system\nsystem('ls')",
            "import subprocess\nsubprocess.run('ls', shell=True)",
            "import yaml\nyaml.load(text)",
        ],
    )
    def test_running_text_is_found(self, source, text):
        assert run_texts(source(text))

    def test_turning_a_network_to_evaluation_is_left_alone(self, source):
        assert not run_texts(source("model.eval()", "models"))

    @pytest.mark.parametrize(
        "text", ["import torch", "def f():\n    import torch.nn", "from transformers import AutoModel"]
    )
    def test_torch_is_found(self, source, text):
        assert stray_torch(source(text))
        assert not stray_torch(source(text, "encoders"))

    def test_print_is_found(self, source):
        assert prints(source("def f():\n    print(1)"))

    def test_long_function_is_found(self, source):
        body = "    x = 1\n" * MAX_FUNCTION_LINES
        assert long_functions(source("class A:\n  def f(self):\n" + body))
        assert not long_functions(source("def f():\n" + body[: -len("    x = 1\n")]))

    def test_cycle_is_found(self, monkeypatch):
        texts = {
            "a": "import endcap.core.b",
            "b": "from endcap.core import c",
            "c": "from .a import x",
            "d": "from . import a",
            "e": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import endcap.core.f",
            "f": "import endcap.core.e",
        }
        made = {
            f"endcap.core.{name}": Module(
                f"endcap.core.{name}", SOURCE / PACKAGE / "core" / f"{name}.py", ast.parse(text)
            )
            for name, text in texts.items()
        }
        monkeypatch.setitem(globals(), "modules", lambda: made)
        with pytest.raises(AssertionError, match=r"\['endcap\.core\.a', 'endcap\.core\.b', 'endcap\.core\.c'\]"):
            test_no_import_cycles()

    def test_table_is_read_from_markdown(self):
        text = "x\n\n| Room | may import |\n|---|---|\n| core | nothing of ours |\n| a, b | core (not each other) |\n"
        text += "| app | all of the above |\n\n| other | table |\n"
        assert room_table(text) == {"core": set(), "a": {"core"}, "b": {"core"}, "app": {"core", "a", "b"}}
        assert room_table("nothing") == {}
