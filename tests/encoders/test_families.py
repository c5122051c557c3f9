import json
from pathlib import Path
from typing import Any

import pytest

from endcap.core.errors import CallerError
from endcap.encoders.families import Family, Said, family_of, write_family

NOTHING = Said()


def _sentence_transformers(folder: Path, pooling: dict[str, Any], prompts: dict[str, Any] | None = None) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    names = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in names.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8} | pooling))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("intfloat/multilingual-e5-small", Family("mean", "query: ", "passage: ")),
        ("intfloat/e5-base-v2", Family("mean", "query: ", "passage: ")),
        ("BAAI/bge-small-en-v1.5", Family("cls", "Represent this sentence for searching relevant passages: ")),
        ("BAAI/bge-large-zh-v1.5", Family("cls", "为这个句子生成表示以用于检索相关文章：")),
        ("BAAI/bge-m3", Family("cls")),
        ("thenlper/gte-small", Family("mean")),
        ("Alibaba-NLP/gte-modernbert-base", Family("cls")),
        ("sentence-transformers/all-MiniLM-L6-v2", Family("mean")),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", Family("cls", "query: ")),
        ("nomic-ai/nomic-embed-text-v1.5", Family("mean", "search_query: ", "search_document: ")),
        ("somebody/unheard-of", Family("mean")),
    ],
)
def test_families_are_known_by_name(tmp_path: Path, name: str, family: Family) -> None:
    assert family_of([name], tmp_path, {"model_type": "bert"}, NOTHING) == family


def test_what_weights_were_tuned_from_is_known_too(tmp_path: Path) -> None:
    assert family_of(["ours", "intfloat/e5-small"], tmp_path, {}, NOTHING).passage_prefix == "passage: "


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("gpt2", "last"), ("llama", "last"), ("qwen3", "last"), ("t5", "mean"), ("xlm-roberta", "mean")],
)
def test_models_that_only_look_back_have_read_a_text_by_its_last_token(tmp_path: Path, kind: str, pooling: str) -> None:
    assert family_of(["ours"], tmp_path, {"model_type": kind}, NOTHING).pooling == pooling


@pytest.mark.parametrize(
    ("given", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_sentence_transformers_say_how_they_pool(tmp_path: Path, given: dict[str, Any], pooling: str) -> None:
    folder = _sentence_transformers(tmp_path / "model", given)
    assert family_of(["ours"], folder, {"model_type": "gpt2"}, NOTHING).pooling == pooling


@pytest.mark.parametrize(
    ("given", "query", "passage"),
    [
        ({"prompts": {"query": "ask: ", "document": "told: "}}, "ask: ", "told: "),
        ({"prompts": {"query": "ask: "}}, "ask: ", "passage: "),
        ({"prompts": {"both": "text: "}, "default_prompt_name": "both"}, "text: ", "text: "),
        ({"prompts": {}, "default_prompt_name": None}, "query: ", "passage: "),
    ],
)
def test_their_prompts_come_before_the_names(tmp_path: Path, given: dict[str, Any], query: str, passage: str) -> None:
    folder = _sentence_transformers(tmp_path / "model", {"pooling_mode_mean_tokens": True}, given)
    family = family_of(["e5-small"], folder, {}, NOTHING)
    assert (family.query_prefix, family.passage_prefix) == (query, passage)


def test_the_surest_word_is_the_users_then_our_own_file(tmp_path: Path) -> None:
    folder = _sentence_transformers(tmp_path / "e5", {"pooling_mode_cls_token": True}, {"prompts": {"query": "ask: "}})
    tuned = Family("last", "q ", "p ", 48)
    write_family(folder, tuned)
    assert json.loads((folder / "encoder.json").read_text()) == {
        "format": 1,
        "pooling": "last",
        "query_prefix": "q ",
        "passage_prefix": "p ",
        "max_length": 48,
        "normalise": True,
    }
    assert family_of(["e5-small"], folder, {}, NOTHING) == tuned
    assert family_of(["e5-small"], folder, {}, Said("mean", "", None, 12)) == Family("mean", "", "p ", 12)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2, "pooling": "mean", "query_prefix": "", "passage_prefix": "", "max_length": 9}', "format"),
        ('{"format": 1, "pooling": "max", "query_prefix": "", "passage_prefix": "", "max_length": 9}', "pooling"),
        (
            '{"pooling": "mean", "query_prefix": "", "passage_prefix": "", "max_length": 9, "normalise": false}',
            "length",
        ),
        ("{", "encoder.json"),
    ],
)
def test_an_own_file_that_asks_for_something_else_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "encoder.json").write_text(content)
    with pytest.raises(CallerError, match=said):
        family_of(["ours"], tmp_path, {}, NOTHING)


@pytest.mark.parametrize(
    ("given", "prompts", "said"),
    [
        ({"pooling_mode_max_tokens": True}, None, "max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None, "cls_token and mean_tokens"),
        (
            {"pooling_mode_mean_tokens": True, "include_prompt": False},
            {"prompts": {"query": "ask: "}},
            "out of the mean",
        ),
        ({"pooling_mode_mean_tokens": True}, {"prompts": ["ask: "]}, "prompts"),
    ],
)
def test_what_is_not_supported_is_refused(
    tmp_path: Path, given: dict[str, Any], prompts: dict[str, Any] | None, said: str
) -> None:
    folder = _sentence_transformers(tmp_path / "model", given, prompts)
    with pytest.raises(CallerError, match=said):
        family_of(["ours"], folder, {}, NOTHING)


def test_a_step_that_would_be_left_out_is_refused(tmp_path: Path) -> None:
    folder = _sentence_transformers(tmp_path / "model", {"pooling_mode_mean_tokens": True})
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CallerError, match="Dense"):
        family_of(["ours"], folder, {}, NOTHING)


def test_the_packaged_model_says_what_it_is(tmp_path: Path) -> None:
    from endcap.encoders.weights import PACKAGED_MODEL, source_of

    folder = Path(source_of(PACKAGED_MODEL))
    assert family_of(["ours"], folder, {"model_type": "gpt2"}, NOTHING) == Family("mean")
