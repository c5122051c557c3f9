"""`endcap finetune` and `endcap predict`, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from endcap.cli.main import run
from endcap.models.finetune.tasks import TuneTask

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def quick(tiny_bert: Path) -> list[str]:
    """Settings of a short tuning of the tiny BERT, as options."""
    settings = ("base.max_length=16", "train.lr=1e-2", "train.batch_size=16", "train.threads=1")
    more = ("train.precision=float32", "track.tensorboard=false")
    return ["--base", str(tiny_bert), *(f"--set={setting}" for setting in (*settings, *more))]


@pytest.fixture
def table(colours: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "colours.csv"
    colours.write_csv(path)
    return path


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a command that is typed."""
    monkeypatch.setattr(sys, "argv", ["endcap", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run()
    return stopped.value.code or 0


def test_from_a_table_to_answers(endcap, endcap_json, table, quick, tmp_path):
    folder = tmp_path / "runs" / "colours"
    result = endcap("finetune", table, "--run", folder, "--task", "classification", "--epochs", 4, *quick)
    for said in ("Measured", "f1_macro", "test: typos", "of 23,522 parameters learned", str(folder)):
        assert said in result.stdout
    assert "part 4 of 4" in result.stderr
    assert "encoder" not in result.stdout
    found = endcap_json("predict", folder, "red shoes", "navy boots")
    assert [(answer["text"], answer["answer"]) for answer in found] == [("red shoes", "warm"), ("navy boots", "cold")]
    assert "warm" in endcap("predict", folder, "red shoes").stdout


def test_json_is_all_that_is_printed(endcap_json, colours, quick, tmp_path):
    rows = colours.select(query="text", title="text", label=pl.lit("unused"))
    rows.write_parquet(tmp_path / "pairs.parquet")
    settings = tmp_path / "finetune.toml"
    settings.write_text('[task]\nkind = "pairs"\n[columns]\nanchor = "query"\ncandidate = "title"\n')
    options = ["--config", settings, "--method", "lora", "--epochs", 1, *quick]
    found = endcap_json("finetune", tmp_path / "pairs.parquet", "--run", tmp_path / "run", *options)
    assert found["run"] == str(tmp_path / "run")
    assert found["metrics"]["test"]["mrr@10"] > 0.3
    assert found["rows"] == {"train": 58, "valid": 19, "test": 19, "refused": 0}
    assert found["encoder"]
    assert (tmp_path / "run" / "encoder" / "encoder.json").is_file()
    assert found["learns"] < found["parameters"]


def test_rows_left_out_and_the_encoder_are_told(endcap, colours, quick, tmp_path):
    rows = pl.concat(
        [colours.select(anchor="text", candidate="text"), pl.DataFrame({"anchor": [""], "candidate": "x"})]
    )
    rows.write_ndjson(tmp_path / "pairs.jsonl")
    options = ["--task", "pairs", "--epochs", 1, *quick]
    said = endcap("finetune", tmp_path / "pairs.jsonl", "--run", tmp_path / "[run]", *options).stdout
    assert "1 rows were left out" in said
    assert f'model = "{tmp_path / "[run]" / "encoder"}"' in said
    answers = endcap("predict", tmp_path / "[run]", "red shoes", "--candidate", "navy milk", "--candidate", "red shoes")
    assert answers.stdout.index("1.000") < answers.stdout.index("navy milk")


def test_from_a_shop(endcap, folder, quick, tmp_path):
    options = ["--shop", folder, "--task", "masked", "--epochs", 1, *quick]
    said = endcap("finetune", "--run", tmp_path / "language", *options).stdout
    assert "perplexity" in said


def test_a_shop_that_goes_on_selling_is_gone_on_with(monkeypatch, endcap, planted, folder, quick, tmp_path):
    evaluate, calls = TuneTask.metric, []

    def interrupted(task: TuneTask) -> float | None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(task)

    monkeypatch.setattr(TuneTask, "metric", interrupted)
    command = ["finetune", "--shop", folder, "--task", "pairs", "--run", tmp_path / "run", "--epochs", 2, *quick]
    assert ended(monkeypatch, *command) == 130
    sold = planted.dataset.events.select("event_type", "user_id", "item_id", pl.col("ts_ms") + 86_400_000 * 90)
    sold.collect().head(60).write_csv(tmp_path / "sold.csv")
    endcap("ingest", tmp_path / "sold.csv", "--shop", folder)
    assert ended(monkeypatch, *command) == 0
    assert len(calls) == 3  # the one that was done is not done again
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["data"] == str(folder)
    kept = pl.read_parquet(tmp_path / "run" / "examples.parquet")
    assert kept["ts_ms"].max() < planted.now_ms
    assert sum(facts["rows"].values()) == kept.height


def test_the_second_of_two_texts_is_asked_with(monkeypatch, capsys, endcap, endcap_json, colours, quick, tmp_path):
    colours.select("label", text=pl.lit("lamp"), other="text").write_csv(tmp_path / "pairs.csv")
    endcap("finetune", tmp_path / "pairs.csv", "--run", tmp_path / "run", "--epochs", 4, *quick)
    ask = ["predict", tmp_path / "run", "lamp", "lamp", "--other", "red shoes", "--other", "navy rope"]
    assert [answer["answer"] for answer in endcap_json(*ask)] == ["warm", "cold"]
    assert ended(monkeypatch, *ask[:-4]) == 2
    assert "Give --other once for each text" in capsys.readouterr().err


def test_a_search_tells_of_trials_that_failed(endcap, endcap_json, colours, quick, tmp_path):
    colours.select(anchor="text", candidate="text").write_parquet(tmp_path / "pairs.parquet")
    settings = [*quick, "--task", "pairs", "--epochs", 1]
    space = ["--space", "method.kind=frozen|lora", "--space", "method.rank=2|4", "--trials", 4]
    command = ["finetune-search", tmp_path / "pairs.parquet", "--run", tmp_path / "search", *space, *settings]
    found = endcap_json(*command)
    assert len(found["values"]) == 4
    assert found["failed"]
    said = endcap(*command).stdout
    assert f"4 trials, of which 0 were ended early and {len(found['failed'])} failed." in said
    assert "failed: method.kind: Nothing is left to learn" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.csv"], 2, "missing.csv: There is no such file."),
        (["colours.xlsx"], 2, "is no kind of table"),
        (["colours.csv", "--set", "columns.label=class"], 2, "columns.label: The table has no column 'class'"),
        (["colours.csv", "--task", "rating"], 3, "The table lacks rating; it has text, label."),
        (["colours.csv", "--set", "train.metric=f2"], 2, "There is no metric 'f2' for classification"),
        (["colours.csv", "--method", "qlora"], 2, "method.kind: Input should be 'full', 'frozen', 'lora'"),
        (["colours.csv", "--task", "sorting"], 2, "task.kind"),
        (["colours.csv", "--set", "train.speed=9"], 2, "train.speed: Extra inputs are not permitted"),
        (["colours.csv", "--set", "train=5", "--set", "train.lr=1"], 2, "train: Input should be"),
        (["colours.csv", "--set", "train.lr"], 2, "Write section.key=value"),
        (["colours.csv", "--config", "missing.toml"], 2, "missing.toml"),
        (["colours.csv", "--config", "colours.csv"], 2, "The settings cannot be read"),
        (["colours.csv", "--base", "nothing-here"], 2, "The text model 'nothing-here' cannot be loaded"),
        (["colours.csv", "--epochs", "0"], 2, "--epochs"),
        (["few.csv"], 3, "Only 3 of 3 rows can be learned from"),
        ([], 2, "Name a table of them, or a workspace after --shop."),
        (["colours.csv", "--shop", "."], 2, "one source of examples"),
        (["--shop", "nothing", "--task", "pairs"], 2, "endcap init"),
    ],
)
def test_what_is_wrong_is_a_sentence(monkeypatch, capsys, table, tmp_path, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("few.csv").write_text("text,label\na,x\nb,y\nc,x\n")
    assert ended(monkeypatch, "finetune", *arguments, "--run", "run") == code
    out, err = capsys.readouterr()
    assert said in err.replace("\n", " ").replace("│", "")
    assert "Traceback" not in out + err
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_question_to_no_run_is_a_sentence(monkeypatch, capsys, tmp_path):
    assert ended(monkeypatch, "predict", tmp_path, "red") == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_ctrl_c_leaves_what_the_same_command_goes_on_with(monkeypatch, capsys, table, quick, tmp_path):
    evaluate, calls = TuneTask.metric, []

    def interrupted(task: TuneTask) -> float | None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(task)

    monkeypatch.setattr(TuneTask, "metric", interrupted)
    command = ["finetune", table, "--run", tmp_path / "run", "--epochs", 4, *quick]
    assert ended(monkeypatch, *command) == 130
    assert "Run it again" in capsys.readouterr().err
    assert ended(monkeypatch, *command) == 0
    assert len(calls) == 3 + 2  # the two that were done are not done again
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(facts["evaluations"][0]) == 4
    assert ended(monkeypatch, *command) == 2
    assert "holds a finished run" in capsys.readouterr().err


def test_two_processes_tune_as_one(endcap_json, liked, quick, tmp_path):
    """They share the model's weights and the rows of each batch; the first one alone measures, writes and prints."""
    part = pl.Series(["train"] * 112 + ["valid"] * 40 + ["test"] * 40)
    liked.with_columns(part=part).write_parquet(tmp_path / "liked.parquet")
    options = [*quick, "--task", "interest", "--epochs", "3", "--set=base.dropout=0.0", "--set=train.lr=5e-3", "--json"]
    command = ["finetune", str(tmp_path / "liked.parquet"), *options, "--set=train.batch_size=8"]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "endcap"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *several, *command, "-r", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = endcap_json(*command[:-1], "--set=train.batch_size=16", "--run", tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    lines = [(tmp_path / name / "curves.jsonl").read_text().count("valid/auc") for name in ("one", "two")]
    assert lines == [3, 3]
    for name, value in one["metrics"]["test"].items():
        assert two["metrics"]["test"][name] == pytest.approx(value, abs=0.01)
    said = [pl.read_parquet(tmp_path / name / "predictions.parquet")["predicted"] for name in ("one", "two")]
    np.testing.assert_allclose(said[0], said[1], atol=1e-3)
    ask = ["red shoes", "--candidate", "cyan milk", "--candidate", "navy milk"]
    found = [endcap_json("predict", tmp_path / name, *ask) for name in ("one", "two")]
    assert found[1][0]["answer"] == "navy milk"
    assert found[0][0]["score"] == pytest.approx(found[1][0]["score"], abs=1e-3)
