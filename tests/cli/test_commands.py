"""Every command, on a shop whose right answers are known."""

from __future__ import annotations

import json

import pytest

from endcap.app.runtime import Shop
from endcap.core.errors import CallerError, NotFoundError


def test_init_makes_a_workspace_once(endcap, tmp_path):
    endcap("init", tmp_path / "new")
    config = tmp_path / "new" / "endcap.toml"
    config.write_text("[serve]\nport = 9000\n")
    endcap("init", "--shop", tmp_path / "new")
    assert config.read_text() == "[serve]\nport = 9000\n"


def test_ingest_says_what_became_of_every_row(endcap, endcap_json, files, tmp_path):
    events, items = files
    shop = tmp_path / "new"
    report = endcap_json("ingest", events, "--items", items, "--shop", shop)
    assert report["items"]["rows_out"] == 16
    assert report["users"] is None
    assert report["events"]["rows_in"] == report["events"]["rows_out"] + 1
    assert sum(report["events"]["quarantined"].values()) == 1
    assert report["last_seq"] == report["events"]["rows_out"]
    again = endcap("ingest", events, "--shop", shop)
    assert "rows in" in again.stdout
    assert "quarantined: already_recorded" in again.stdout
    assert str(shop / "store" / "quarantine") in again.stdout


def test_ingest_takes_a_data_set_by_name(endcap_json, tmp_path):
    assert endcap_json("ingest", "--dataset", "cycle-shop", "--shop", tmp_path / "new")["last_seq"] > 2000


def test_ingest_wants_files_or_a_data_set(endcap, files, tmp_path):
    with pytest.raises(CallerError, match="at once"):
        endcap("ingest", files[0], "--dataset", "cycle-shop", "--shop", tmp_path)
    with pytest.raises(CallerError, match="nothing to ingest"):
        endcap("ingest", "--shop", tmp_path)


def test_train_publishes_and_shows_the_comparison(endcap, folder, tmp_path):
    before = _current(folder)
    result = endcap("train", "--shop", folder, "--markdown", tmp_path / "evaluation.md")
    assert _current(folder) != before
    assert f"{_current(folder)} is published" in result.stdout
    assert "ndcg@10" in result.stdout
    assert "transitions" in result.stdout
    assert "seconds" in result.stdout
    assert "read the log" in result.stderr
    assert (tmp_path / "evaluation.md").read_text().startswith("### all (")


@pytest.mark.parametrize(
    "command", [("train", "--shop", "shop"), ("evaluate", "--shop", "shop"), ("benchmark", "sequences")]
)
def test_where_no_markdown_can_be_written_nothing_is_begun(endcap, folder, monkeypatch, command):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CallerError, match=r"^missing: There is no such folder.*--markdown"):
        endcap(*command, "--markdown", "missing/found.md")
    with pytest.raises(CallerError, match=r"^shop: This is a folder"):
        endcap(*command, "--markdown", "shop")
    assert len(list((folder / "releases").glob("*/manifest.json"))) == 1


def test_train_can_leave_things_out(endcap_json, folder):
    before = _current(folder)
    summary = endcap_json("train", "--no-publish", "--no-evaluate", "--shop", folder)
    assert summary["release"] != before
    assert summary["published"] is False
    assert summary["evaluation"] is None
    assert summary["seconds"]
    assert _current(folder) == before


def test_train_goes_on_while_another_process_holds_the_store(endcap_json, folder):
    with Shop.open(folder) as writer:
        assert endcap_json("train", "--no-evaluate", "--shop", folder)["published"]
        assert endcap_json("recommend", "--shop", folder)["release"] == writer.recommend().release


def test_refit_makes_a_release_of_the_published_one(endcap, endcap_json, folder):
    before = _current(folder)
    summary = endcap_json("refit", "--no-publish", "--shop", folder)
    assert (summary["refit_of"], summary["published"], summary["new_events"]) == (before, False, 0)
    assert _current(folder) == before
    result = endcap("refit", "--shop", folder)
    assert _current(folder) != before
    assert f"{_current(folder)} is published" in result.stdout
    assert f"0 events more than in release {before}" in result.stdout


def test_evaluate_shows_what_training_measured(endcap, endcap_json, folder, tmp_path):
    stored = endcap_json("evaluate", "--shop", folder)
    assert stored["ours"] == "endcap"
    figure = stored["tasks"]["discovery"]["models"]["transitions"]["metrics"]["ndcg@10"]["mean"]
    assert figure == 1.0
    path = tmp_path / "evaluation.md"
    shown = endcap("evaluate", _current(folder), "--shop", folder, "--markdown", path).stdout
    for text in (shown, path.read_text()):
        assert "discovery (" in text
        assert "1.0000 [1.0000, 1.0000]" in text
        assert "against" in text
    assert r"endcap \*" in path.read_text()


def test_evaluation_looks_like_the_one_training_printed(endcap, folder, tmp_path):
    endcap("train", "--shop", folder, "--markdown", tmp_path / "a.md")
    endcap("evaluate", "--shop", folder, "--markdown", tmp_path / "b.md")
    trained, stored = ((tmp_path / name).read_text() for name in ("a.md", "b.md"))
    assert _figures(trained) == _figures(stored)


def test_tables_keep_to_the_width_of_the_terminal(endcap, folder, monkeypatch):
    monkeypatch.setattr("endcap.cli.terminal.WIDE", 60)
    monkeypatch.setenv("COLUMNS", "60")
    narrow = endcap("evaluate", "--shop", folder).stdout
    assert max(map(len, narrow.splitlines())) <= 60
    assert "1.0000 [1.0000, 1.0000]" in narrow
    assert "Too wide to show here: " in narrow


def test_evaluate_of_a_release_without_evaluation(endcap, endcap_json, folder):
    release = endcap_json("train", "--no-evaluate", "--no-publish", "--shop", folder)["release"]
    with pytest.raises(NotFoundError, match="without evaluation"):
        endcap("evaluate", release, "--shop", folder)


def test_publish_rollback_and_releases(endcap, endcap_json, folder):
    first = _current(folder)
    second = endcap_json("train", "--no-publish", "--shop", folder)["release"]
    listed = endcap_json("releases", "--shop", folder)
    assert [entry["release"] for entry in listed if entry["published"]] == [first]
    assert {entry["release"] for entry in listed} == {first, second}
    endcap("publish", "--shop", folder)
    assert _current(folder) == second
    assert f"{first} is published again" in endcap("rollback", "--shop", folder).stdout
    assert _current(folder) == first
    endcap("publish", second, "--shop", folder)
    table = endcap("releases", "--shop", folder).stdout
    assert first in table
    assert "ndcg@10 discovery" in table
    assert [line for line in table.splitlines() if second in line and "yes" in line]
    with pytest.raises(NotFoundError):
        endcap("publish", "nothing", "--shop", folder)


def test_releases_of_a_new_workspace(endcap, endcap_json, tmp_path):
    endcap("init", tmp_path)
    assert "endcap train" in endcap("releases", "--shop", tmp_path).stdout
    assert endcap_json("releases", "--shop", tmp_path) == []


def test_recommend(endcap, endcap_json, folder, planted):
    user, item = next(iter(planted.answers.items()))
    asked = ("recommend", "--user", user, "-n", 3, "--placement", "discovery", "--shop", folder)
    slate = endcap_json(*asked)
    assert slate["items"][0]["item_id"] == item
    assert slate["items"][0]["title"] != item
    assert len(slate["items"]) == 3
    table = endcap(*asked).stdout
    assert item in table
    assert "Often bought after" in table
    assert slate["items"][0]["title"] in table


def test_recommend_takes_lists(endcap_json, folder):
    whole = endcap_json("recommend", "-n", 16, "--shop", folder)["items"]
    left = endcap_json(
        "recommend", "-n", 16, "--exclude", f"{whole[0]['item_id']}, {whole[1]['item_id']}", "--shop", folder
    )["items"]
    assert {entry["item_id"] for entry in left} == {entry["item_id"] for entry in whole[2:]}
    dairy = endcap_json("recommend", "--category", "Dairy", "--shop", folder)["items"]
    assert {entry["item_id"] for entry in dairy} == {"dairy-000", "dairy-001"}
    cart = endcap_json("recommend", "--placement", "cart", "--cart", "dairy-000,dairy-001", "-n", 1, "--shop", folder)
    assert cart["placement"] == "cart"
    assert cart["items"][0]["source"] == "transitions"


def test_unknown_placement(endcap, folder):
    with pytest.raises(CallerError, match="home, discovery"):
        endcap("recommend", "--placement", "roof", "--shop", folder)


def test_shop_is_named_by_the_environment(endcap_json, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("ENDCAP_SHOP", str(folder))
    assert len(endcap_json("releases")) == 1
    monkeypatch.delenv("ENDCAP_SHOP")
    monkeypatch.chdir(folder)
    assert len(endcap_json("releases")) == 1


@pytest.mark.parametrize(
    "command", [("train",), ("evaluate",), ("publish",), ("rollback",), ("releases",), ("recommend",), ("serve",)]
)
def test_what_reads_makes_no_workspace(endcap, tmp_path, command):
    with pytest.raises(NotFoundError, match="endcap init"):
        endcap(*command, "--shop", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_output_is_json_and_nothing_else(endcap, folder):
    for command in (("train",), ("evaluate",), ("releases",), ("recommend",)):
        json.loads(endcap(*command, "--json", "--shop", folder).stdout)


def _current(folder):
    return Shop.open(folder, read_only=True).releases.current()


def _figures(markdown):
    """Model -> headline cell, by task; the looks left out."""
    rows = [line.replace("*", "").replace("\\", "") for line in markdown.splitlines()]
    return [[cell.strip() for cell in row.split("|")[1:4]] for row in rows if row.startswith("| ") and "[" in row]
