"""The entry point: help, version, and errors as sentences with exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from endcap import __version__
from endcap.cli.main import app, run

COMMANDS = typer.main.get_command(app).commands


def test_commands_are_the_ones_there_are():
    assert list(COMMANDS) == [
        *(
            "init",
            "ingest",
            "train",
            "refit",
            "pretrain",
            "finetune",
            "finetune-search",
            "predict",
            "evaluate",
            "publish",
            "rollback",
            "releases",
            "backup",
            "restore",
            "verify",
            "recommend",
            "search",
            "serve",
            "effects",
            "doctor",
            "audit",
            "demo",
        ),
        "benchmark",
        "keys",
    ]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_has_an_example(endcap, name):
    text = endcap(name, "--help").stdout
    assert f"Example: endcap {name}" in text
    assert COMMANDS[name].help


@pytest.mark.parametrize("name", ["create", "list", "revoke"])
def test_help_on_keys_has_an_example(endcap, name):
    assert f"Example: endcap keys {name}" in endcap("keys", name, "--help").stdout


def test_version(endcap):
    assert endcap("--version").stdout.strip() == f"endcap {__version__}"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["releases", "--shop", "nothing"], 2, "endcap init"),
        (["publish", "--shop", "empty"], 2, "endcap train"),
        (["train", "--shop", "empty"], 3, "endcap ingest"),
        (["pretrain", "--shop", "empty", "--out", "weights"], 3, "endcap ingest"),
        (["refit", "--shop", "empty"], 2, "endcap train --shop empty"),
        (["recommend", "--shop", "empty"], 2, "endcap train --shop empty"),
        (["ingest", "missing.csv", "--shop", "empty"], 2, "missing.csv"),
        (["recommend", "--nothing"], 2, "--nothing"),
        (["evaluate", "--shop", "empty"], 2, "endcap train --shop empty"),
        (["serve", "--shop", "empty", "--port", "99999"], 2, "65535"),
        (["demo", "--port", "70000"], 2, "65535"),
        (["init", "file"], 2, "File exists"),
        (["ingest", "file", "--shop", "file/shop"], 2, "Not a directory"),
    ],
)
def test_errors_are_sentences(monkeypatch, capsys, tmp_path, arguments, code, said):
    from endcap.app.runtime import Shop

    monkeypatch.chdir(tmp_path)
    Shop.init("empty")
    Path("file").touch()
    monkeypatch.setattr(sys, "argv", ["endcap", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == code
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in out + err


def test_signs_of_markup_are_printed_as_they_are(monkeypatch, capsys, tmp_path):
    place = tmp_path / "[bold]shop[nothing]"
    monkeypatch.setattr(sys, "argv", ["endcap", "releases", "--shop", str(place)])
    with pytest.raises(SystemExit):
        run()
    assert str(place) in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("loaded", "absent"),
    [
        ("endcap.cli.main", {"torch", "transformers", "numpy", "polars", "fastapi"}),
        ("endcap.cli.main, endcap.web.server", {"torch", "transformers", "lightgbm", "onnx", "sklearn", "pandas"}),
    ],
)
def test_what_is_not_imported(loaded, absent):
    asked = f"import sys, {loaded}; print(sorted({absent!r} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    answer = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert answer.stdout.strip() == "[]"


def test_a_full_disk_is_a_sentence():
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "endcap", "--version"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=environment
        )
    assert done.returncode == 1
    assert done.stderr.startswith("A file cannot be written or read: No space left")


INTERRUPTED = """
import sys
from endcap.cli.main import run
from endcap.data.datasets import DATASETS

def interrupt():
    raise KeyboardInterrupt

DATASETS.add("interrupted", interrupt)
sys.argv = ["endcap", "ingest", "--dataset", "interrupted", "--shop", sys.argv[1]]
run()
"""


def test_ctrl_c_is_one_line(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "shop")]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert stopped.returncode == 130
    assert stopped.stderr.strip() == "Stopped. Run it again; what was recorded is kept."
    assert not stopped.stdout
