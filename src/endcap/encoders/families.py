"""How a family of text models pools what it has read, and which words it wants before a text.

Each of these is taken from the first that says it: the settings; `encoder.json`, which fine-tuning writes beside its
weights; the files of sentence-transformers; the family's name; the kind of model, of which those that only look back
have read a text by its last token.

    encoder.json    {"format": 1, "pooling": "mean", "query_prefix": "query: ", "passage_prefix": "passage: ",
                     "max_length": 64, "normalise": true}
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import CallerError

Pooling = Literal["mean", "cls", "last"]
ENCODER_FILE = "encoder.json"
GET_AGAIN = "Get the model's folder again, whole."
DEFAULT_MAX_LENGTH = 64
SEARCH = "Represent this sentence for searching relevant passages: "
SEARCH_ZH = "为这个句子生成表示以用于检索相关文章："
INSTRUCTION = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
# Kinds of models (`model_type` in config.json) whose tokens see only what came before them.
CAUSAL = frozenset(
    (
        *("bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2"),
        *("gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "llama", "ministral", "mistral", "mixtral"),
        *("olmo", "olmo2", "olmo3", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3"),
        *("stablelm", "starcoder2", "xglm"),
    )
)
ST_MODE = "pooling_mode_"
# How sentence-transformers names them, in its older files and its newer ones. The mean by the root of the length is
# the mean at another length, and every row is scaled to unit length.
ST_POOLING: dict[str, Pooling] = {
    "cls_token": "cls",
    "cls": "cls",
    "mean_tokens": "mean",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean",
    "lasttoken": "last",
}


@dataclass(frozen=True, slots=True)
class Family:
    """pooling: of the last hidden states: their mean over the text's tokens, the first token's, or the last's.
    query_prefix, passage_prefix: put before a text as they are. max_length: tokens read of each text, prefix and
    special tokens among them.
    """

    pooling: Pooling
    query_prefix: str = ""
    passage_prefix: str = ""
    max_length: int = DEFAULT_MAX_LENGTH


@dataclass(frozen=True, slots=True)
class Said:
    """What one place says of a family; None where it is silent."""

    pooling: Pooling | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    max_length: int | None = None


# The first pattern that is found in a model's name, lower case.
KNOWN: tuple[tuple[str, Said], ...] = (
    (r"\be5-mistral|\bsfr-embedding|\blinq-embed", Said("last", f"{INSTRUCTION} ", "")),
    (r"\be5-.*instruct", Said("mean", f"{INSTRUCTION} ", "")),
    (r"\be5-", Said("mean", "query: ", "passage: ")),
    (r"\bbge-(small|base|large)-en", Said("cls", SEARCH, "")),
    (r"\bbge-(small|base|large)-zh", Said("cls", SEARCH_ZH, "")),
    (r"\bbge-m3", Said("cls", "", "")),
    (r"\bgte-qwen", Said("last", f"{INSTRUCTION} ", "")),
    (r"\bgte-(multilingual|modernbert)|\bgte-.*(-zh|-v1\.5)", Said("cls", "", "")),
    (r"\bgte-(small|base|large)", Said("mean", "", "")),
    (r"\bqwen3-embedding", Said("last", INSTRUCTION, "")),
    (r"\barctic-embed-.*v2", Said("cls", "query: ", "")),
    (r"\barctic-embed|\bmxbai-embed", Said("cls", SEARCH, "")),
    (r"\bnomic-embed|\bmodernbert-embed", Said("mean", "search_query: ", "search_document: ")),
    (r"\bgranite-embedding", Said("cls", "", "")),
    (r"\bmulti-qa-mpnet-base-dot|\bmsmarco-.*-dot|simcse", Said("cls", "", "")),
    (r"\ball-|\bparaphrase-|\bmulti-qa-|\bm3e-|\btext2vec-|\bjina-embeddings-v2", Said("mean", "", "")),
)


class EncoderFile(msgspec.Struct, frozen=True, kw_only=True):
    """`encoder.json`."""

    format: Literal[1] = 1
    pooling: Pooling
    query_prefix: str
    passage_prefix: str
    max_length: int
    normalise: bool = True


def family_of(names: Sequence[str], folder: Path, settings: dict[str, Any], said: Said) -> Family:
    """names: what the model is called, the surest first. folder: of its files. settings: its config.json. said: what
    the user says of it.

    Raises CallerError where the folder's files cannot be read or ask for what is not supported.
    """
    pooling: Pooling = "last" if settings.get("model_type") in CAUSAL else "mean"
    found = Said(pooling, "", "", DEFAULT_MAX_LENGTH)
    for place in (*_known(names), *_sentence_transformers(folder)[::-1], _own(folder), said):
        found = replace(found, **{name: value for name, value in asdict(place).items() if value is not None})
    return Family(**asdict(found))


def write_family(folder: Path, family: Family) -> None:
    """`encoder.json`, beside weights in an existing folder."""
    entry = EncoderFile(**asdict(family))
    replace_atomically(folder / ENCODER_FILE, msgspec.json.format(msgspec.json.encode(entry), indent=1))


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds an object, empty where there is no file; CallerError where it cannot be read."""
    found = _parsed(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise CallerError("The file holds no JSON object.", where=str(path), next_step=GET_AGAIN)
    return found


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CallerError(f"The file is no JSON: {error}.", where=str(path), next_step=GET_AGAIN) from error


def _own(folder: Path) -> Said:
    path = folder / ENCODER_FILE
    if not path.is_file():
        return Said()
    try:
        entry = msgspec.json.decode(path.read_bytes(), type=EncoderFile)
    except msgspec.MsgspecError as error:
        raise CallerError(f"The file cannot be read: {error}.", where=str(path), next_step=GET_AGAIN) from error
    if not entry.normalise:
        raise CallerError(
            "Vectors that are not of unit length are asked for, and all of Endcap's are.",
            where=str(path),
            next_step='Write "normalise": true.',
        )
    return Said(entry.pooling, entry.query_prefix, entry.passage_prefix, entry.max_length)


def _sentence_transformers(folder: Path) -> list[Said]:
    """What `modules.json` leads to, and the prompts."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return []
    try:
        listed = {str(module["type"]).rsplit(".", 1)[-1]: folder / module["path"] for module in _parsed(modules)}
    except (KeyError, TypeError) as error:
        raise CallerError("A module has no type or no path.", where=str(modules), next_step=GET_AGAIN) from error
    if unknown := listed.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise CallerError(
            f"The model has a step that Endcap does not take: {', '.join(sorted(unknown))}.",
            where=str(modules),
            next_step="Choose a model whose vectors are its pooled hidden states.",
        )
    prompts = _prompts(folder)
    return [_st_pooling(listed["Pooling"] / "config.json", prompts) if "Pooling" in listed else Said(), prompts]


def _prompts(folder: Path) -> Said:
    """Prefixes by the names that models give them; one prompt that is always used stands for both."""
    path = folder / "config_sentence_transformers.json"
    settings = read_json(path)
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise CallerError("The prompts are no texts by name.", where=str(path), next_step=GET_AGAIN)
    always = prompts.get(settings.get("default_prompt_name"))
    passage = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), always)
    return Said(query_prefix=prompts.get("query", always), passage_prefix=passage)


def _st_pooling(path: Path, prompts: Said) -> Said:
    settings = read_json(path)
    modes = [
        name.removeprefix(ST_MODE) for name, is_on in settings.items() if name.startswith(ST_MODE) and is_on is True
    ]
    if isinstance(named := settings.get("pooling_mode"), str):
        modes = [named]
    known = [ST_POOLING[mode] for mode in modes if mode in ST_POOLING]
    if len(modes) != 1 or not known:
        raise CallerError(
            f"The model pools by {' and '.join(modes) or 'nothing that is named'}; Endcap pools by one of mean, cls "
            "and last.",
            where=str(path),
            next_step="Choose another model, or delete modules.json and set text.pooling.",
        )
    if settings.get("include_prompt") is False and (prompts.query_prefix or prompts.passage_prefix):
        raise CallerError(
            "The model leaves its prompts' tokens out of the mean, which Endcap does not.",
            where=str(path),
            next_step="Choose another model.",
        )
    return Said(known[0])


def _known(names: Sequence[str]) -> list[Said]:
    found = (said for name in names for pattern, said in KNOWN if re.search(pattern, name.lower()))
    return [next(found, Said())]
