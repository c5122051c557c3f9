"""A text encoder -> files that are served without torch: its body, pooling and scaling to unit length as one graph.

Before anything is kept, it is measured: of the ten nearest neighbours that each of a sample of texts has among the
others by torch in float32, the share that the exported files find too.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.encoders.families import Pooling
from endcap.encoders.lengths import padded
from endcap.encoders.onnx import FILES, MODEL, SETTINGS, TOKENISER, OnnxSettings, OnnxTextEncoder
from endcap.encoders.onnx_files import beside, checksums, exported_once, keep
from endcap.encoders.onnx_graph import check_size, graph_of, quiet
from endcap.encoders.pooling import pooled
from endcap.encoders.text import TextEncoder
from endcap.encoders.weights import load

Precision = Literal["int8", "float32"]
NEIGHBOURS = 10
NEAR = 0.95  # overlap that is near enough
MEASURED = 2000  # texts; the more there are, the nearer neighbours lie, and the sterner the measure
FEWEST = 50
CALIBRATED = 128


@dataclass(frozen=True, slots=True)
class ExportReport:
    """precision: of what was kept. overlap: its share of the nearest neighbours. texts: that it was measured on.
    bytes: of all files. tried: overlaps by precision, in the order of trial."""

    precision: Precision
    overlap: float
    texts: int
    bytes: int
    tried: dict[Precision, float]


def export_text(
    encoder: TextEncoder,
    folder: Path,
    *,
    texts: Sequence[str],
    min_overlap: float = NEAR,
    quantise: bool | Literal["auto"] = True,
) -> ExportReport:
    """Write model.onnx, tokenizer.json and onnx.json into `folder`, made where missing.

    texts: such as will be encoded, 50 or more that differ; up to 2,000 of them are measured. quantise: to int8 or not;
    "auto": int8, or float32 where int8 is not near enough.

    Raises ArtifactError, and leaves nothing behind, where the neighbours overlap less than `min_overlap`; CallerError
    where there are too few texts, or the model is too large for a file; MissingExtraError without onnx or onnxscript.
    """
    sample = _sample(texts)
    exact = _exact(encoder)
    expected = exact.encode(sample)
    graph = _graph(exact)
    tried: dict[Precision, float] = {}
    for precision in _precisions(quantise):
        content = graph if precision == "float32" else _int8(graph, exact, sample)
        with beside(folder) as staged:
            settings = _write(staged, exact, content.SerializeToString(), precision)
            overlap = overlap_at(expected, OnnxTextEncoder(staged, torch.get_num_threads()).encode(sample))
            tried[precision] = overlap
            if overlap >= min_overlap:
                settings = msgspec.structs.replace(settings, overlap=round(overlap, 4), sample=_digest(sample))
                size = keep(staged, folder, FILES, SETTINGS, settings)
                return ExportReport(precision, overlap, len(sample), size, tried)
    raise _refused(tried, min_overlap, folder)


def exported_text(encoder: TextEncoder, texts: Sequence[str], *, min_overlap: float = NEAR) -> Path:
    """The folder of an export that is near enough on these texts, written once for all shops of this user: in int8
    where that is, else in float32. Raises what `export_text` and `exported_once` raise."""
    name = f"{encoder.name} {encoder.queries().name}"
    folder = exported_once(
        name,
        OnnxTextEncoder,
        lambda place: export_text(encoder, place, texts=texts, min_overlap=min_overlap, quantise="auto"),
    )
    if _measured(folder, encoder, _sample(texts)) >= min_overlap:
        return folder
    return exported_once(
        f"{name} float32",
        OnnxTextEncoder,
        lambda place: export_text(encoder, place, texts=texts, min_overlap=min_overlap, quantise=False),
    )


def _measured(folder: Path, encoder: TextEncoder, sample: Sequence[str]) -> float:
    """The overlap on a sample of this catalogue; kept beside the folder, so that it is found out once. What is in
    float32 was near enough on others, and does not depend on the texts."""
    served, digest = OnnxTextEncoder(folder, torch.get_num_threads()), _digest(sample)
    if served.settings.precision == "float32" or served.settings.sample == digest:
        return served.settings.overlap
    kept = folder.with_name(f"{folder.name}-measured") / _digest([served.name, digest])
    with contextlib.suppress(OSError, ValueError):
        return float(kept.read_text())
    overlap = overlap_at(_exact(encoder).encode(sample), served.encode(sample))
    with contextlib.suppress(OSError):  # where nothing can be kept, it is measured every time
        kept.parent.mkdir(exist_ok=True)
        replace_atomically(kept, repr(overlap).encode())
    return overlap


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def overlap_at(expected: Float32Array, found: Float32Array, k: int = NEIGHBOURS) -> float:
    """The share, over all rows of unit vectors [n, d], of each row's k nearest others that both agree on."""
    near = [_nearest(vectors, k) for vectors in (expected, found)]
    return float(np.mean([len(np.intersect1d(one, other)) / k for one, other in zip(*near, strict=True)]))


def _nearest(vectors: Float32Array, k: int) -> Any:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]


def _sample(texts: Sequence[str]) -> list[str]:
    distinct = sorted({text for text in texts if text.strip()})
    if len(distinct) < FEWEST:
        raise CallerError(
            f"{len(distinct)} texts that differ are too few to measure an export on; it takes {FEWEST}.",
            where="texts",
            next_step="Give the catalogue's titles.",
        )
    chosen = np.random.default_rng(0).permutation(len(distinct))[:MEASURED]
    return [distinct[place] for place in chosen]


def _exact(encoder: TextEncoder) -> TextEncoder:
    """The encoder in float32: itself, or a second one."""
    if encoder.precision == "float32":
        return encoder
    return TextEncoder(encoder.config.model_copy(update={"precision": "float32"}))


def _precisions(quantise: bool | Literal["auto"]) -> tuple[Precision, ...]:
    if quantise == "auto":
        return "int8", "float32"
    return ("int8",) if quantise else ("float32",)


class _Body(nn.Module):
    """tokens, mask int64 [b, t] -> float32 [b, d]."""

    def __init__(self, model: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return pooled(hidden, mask, self.pooling)


def _graph(encoder: TextEncoder) -> Any:
    """The ONNX model in float32, both axes free.

    From a second copy of the weights, which attends by plain products: those become plain nodes, without the guards
    against rows of padding alone that torch's fused attention brings along.
    """
    with quiet():
        _, model = load(encoder.weights)
    check_size(model, encoder.config.model)
    model.set_attn_implementation("eager")
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=1, max=encoder.max_length)}
    example = padded([[1, 2, 3], [1, 2], [1, 2, 3]], encoder.padding)
    inputs = {name: torch.from_numpy(array) for name, array in zip(("tokens", "mask"), example, strict=True)}
    return graph_of(_Body(model, encoder.family.pooling), inputs, "vectors", (axes, axes))


def _int8(graph: Any, encoder: TextEncoder, sample: Sequence[str]) -> Any:
    """The graph in whole numbers, fitted to how far its activations reach on some of the texts, read both ways."""
    from endcap.encoders.onnx_int8 import activations, quantise, reach

    names = activations(graph)
    session = _telling(graph, names)
    prefixes = (encoder.family.passage_prefix, encoder.family.query_prefix)
    read = encoder.tokens([prefixes[place % 2] + text for place, text in enumerate(sample[:CALIBRATED])])
    feeds = (dict(zip(("tokens", "mask"), padded([row], encoder.padding), strict=True)) for row in read)
    return quantise(graph, reach(dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds))


def _telling(graph: Any, names: Sequence[str]) -> Any:
    """A session of the graph that also gives what is known inside of it by these names."""
    import onnx
    import onnxruntime

    outputs = len(graph.graph.output)
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    content = graph.SerializeToString()
    del graph.graph.output[outputs:]
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def _write(folder: Path, encoder: TextEncoder, model: bytes, precision: Precision) -> OnnxSettings:
    tokeniser = getattr(encoder._tokeniser, "backend_tokenizer", None)
    if tokeniser is None:
        raise CallerError(
            "The model's tokeniser is not one that the tokenizers library reads.",
            where=encoder.config.model,
            next_step="Choose a model with a tokenizer.json.",
        )
    contents = {MODEL: model, TOKENISER: tokeniser.to_str().encode()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    settings = OnnxSettings(
        name=Path(encoder.config.model).name,
        dim=encoder.dim,
        precision=precision,
        query_prefix=encoder.family.query_prefix,
        passage_prefix=encoder.family.passage_prefix,
        max_length=encoder.max_length,
        padding=encoder.padding,
        closing=encoder.closing,
        overlap=0.0,
        sha256=checksums(contents),
    )
    (folder / SETTINGS).write_bytes(msgspec.json.encode(settings))
    return settings


def _refused(tried: dict[Precision, float], min_overlap: float, folder: Path) -> ArtifactError:
    measured = " and ".join(f"{overlap:.3f} in {precision}" for precision, overlap in tried.items())
    return ArtifactError(
        f"The exported model finds too few of the nearest neighbours that torch finds: {measured}, and "
        f"{min_overlap:g} is asked for.",
        where=str(folder),
        next_step="Please report this with the versions of torch, onnxscript and onnxruntime."
        if "float32" in tried
        else "Export it with quantise=False, or ask for less with min_overlap.",
    )
