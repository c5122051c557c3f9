"""From a tuned cross-encoder to what `judge.OnnxJudge` serves, as int8 where that says the same, else as float32.

Dimension legend: n pairs, t tokens, d width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from msgspec import structs
from torch import Tensor, nn

from endcap.core.errors import CallerError, ServiceError
from endcap.core.types import Float32Array
from endcap.encoders.lengths import closing_token
from endcap.encoders.onnx_graph import graph_of
from endcap.models.finetune.backbone import Backbone
from endcap.models.finetune.heads import CrossModel
from endcap.models.finetune.methods import merged
from endcap.models.finetune.tuned import Tuned, load_tuned
from endcap.models.judge import LOGITS, READ_FROM, JudgeSettings, OnnxJudge, joined

TASKS = ("interest", "ranking")
TOLERANCE = 1e-3
MIN_CORRELATION, MIN_AGREEMENT = 0.98, 0.9
PRODUCTS = ["MatMul", "Gemm"]
List = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """difference: the largest between the logits of the float32 graph and of torch. correlation, agreement: of int8
    with torch, the mean rank correlation over the sampled lists and the share of them with the same best candidate;
    NaN where int8 failed. told: a sentence."""

    judge: OnnxJudge
    difference: float
    correlation: float
    agreement: float
    told: str


def export_judge(run: Path, lists: Sequence[List]) -> Exported:
    """A run of task `interest` or `ranking`, tuned as a cross-encoder; of an ensemble, its first model.

    lists: histories with a few candidates each, at least one, by which int8 is compared with torch. int8 is kept where
    the mean rank correlation reaches 0.98 and the best candidate is the same in 9 of 10 lists. Raises CallerError where
    the run is of another kind, ServiceError where the float32 graph differs from torch by 1e-3 or more.
    """
    tuned = load_cross(run)
    net = tuned.net
    assert isinstance(net, CrossModel)
    expected = _by_torch(net, lists)
    settings, vocabulary = _settings(net.backbone, run), _vocabulary(net.backbone)
    graph = _graph(net, settings)
    whole = OnnxJudge(graph, vocabulary, settings)
    difference = _difference(whole, lists, expected)
    if not difference < TOLERANCE:
        raise ServiceError(
            f"The exported cross-encoder differs from the tuned one by {difference:.2g}, {TOLERANCE:.0e} or more.",
            where=str(run),
            next_step="Please report this with the versions of torch, transformers, onnxscript and onnxruntime.",
        )
    try:
        small = OnnxJudge(quantised(graph), vocabulary, structs.replace(settings, precision="int8"))
        correlation, agreement = likeness(small, lists, expected)
    except Exception as error:  # whatever the quantiser cannot do with a graph, the graph itself can be served
        why = f"int8 failed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        return Exported(whole, difference, float("nan"), float("nan"), f"It is served as float32: {why}.")
    found = f"rank correlation {correlation:.3f}, the same best candidate in {agreement:.0%} of {len(lists)} lists"
    if correlation >= MIN_CORRELATION and agreement >= MIN_AGREEMENT:
        return Exported(small, difference, correlation, agreement, f"It is served as int8: {found}.")
    told = f"It is served as float32, for int8 says something else: {found}."
    return Exported(whole, difference, correlation, agreement, told)


def load_cross(run: Path) -> Tuned:
    """The model of a run's folder, or the folder of a model itself. CallerError where it is no cross-encoder that puts
    candidates into order, or its method cannot be exported."""
    tuned = load_tuned(run / "model" if (run / "model").is_dir() else run)
    task, method = tuned.config.task, tuned.config.method.kind
    if task.kind not in TASKS or not isinstance(tuned.net, CrossModel):
        raise CallerError(
            f"The run is a {task.architecture}-encoder tuned for {task.kind}.",
            where=str(run),
            next_step="Tune one: endcap finetune --task interest --set task.architecture=cross",
        )
    if method == "prefix":
        raise CallerError(
            "What prefix tuning learned cannot be exported.",
            where=str(run),
            next_step="Tune by full, frozen, lora, adalora, ia3 or adapter.",
        )
    return tuned


def quantised(graph: bytes) -> bytes:
    """The graph with the matrices of its products as int8 by channel, activations quantised as they come. Embeddings
    stay as they are: looking them up takes no time, and rounding them costs precision."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as place, _without_advice():
        before, after = Path(place) / "float32.onnx", Path(place) / "int8.onnx"
        before.write_bytes(graph)
        quantize_dynamic(before, after, op_types_to_quantize=PRODUCTS, weight_type=QuantType.QInt8, per_channel=True)
        return after.read_bytes()


def likeness(judge: OnnxJudge, lists: Sequence[List], expected: Sequence[Float32Array]) -> tuple[float, float]:
    """(mean rank correlation, share with the same best) of a judge with the expected logits, list by list."""
    from scipy.stats import rankdata

    correlations, same = [], []
    for (history, candidates), truth in zip(lists, expected, strict=True):
        found = judge.judge(history, candidates)
        same.append(float(found.argmax() == truth.argmax()))
        if len(truth) > 1 and np.ptp(truth) > 0:
            ours, theirs = rankdata(found), rankdata(truth)
            correlations.append(float(np.corrcoef(ours, theirs)[0, 1]) if np.ptp(found) > 0 else 0.0)
    return float(np.mean(correlations)) if correlations else 1.0, float(np.mean(same))


class _Read(nn.Module):
    """Token ids to logits, padding and cutting left to whoever calls."""

    def __init__(self, net: CrossModel) -> None:
        super().__init__()
        backbone = net.backbone
        self.body = backbone.body if backbone.method == "adapter" else merged(backbone)
        self.head, self.pooling = net.head, backbone.pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """[n, t] each -> [n]"""
        body: Any = self.body
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = body(
            input_ids=input_ids, attention_mask=attention_mask, **kinds
        ).last_hidden_state.float()  # [n, t, d]
        out: Tensor = self.head(self._pool(hidden, attention_mask))[:, 0]
        return out

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """As `Backbone` does: [n, t, d] -> [n, d]."""
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            places = (mask * torch.arange(mask.shape[1])).argmax(dim=1)
            return hidden.gather(1, places[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        weights = mask.unsqueeze(-1).float()
        return (hidden * weights).sum(1) / weights.sum(1)


def _graph(net: CrossModel, settings: JudgeSettings) -> bytes:
    """float32, both axes free. What a method learned is folded into the body: the model is of no use afterwards."""
    axes = {0: torch.export.Dim("pairs", min=1), 1: torch.export.Dim("tokens", min=1, max=settings.max_length)}
    ids = torch.ones(3, min(7, settings.max_length), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    example = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    inputs = {name: example[name] for name in settings.inputs}
    return bytes(graph_of(_Read(net), inputs, LOGITS, [axes] * len(inputs)).SerializeToString())


def _settings(backbone: Backbone, run: Path) -> JudgeSettings:
    """inputs: in the order in which `_Read` takes them."""
    tokeniser = backbone.tokeniser
    given = tokeniser("a", "b")
    inputs = tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in given)
    if set(given) - set(READ_FROM):
        raise CallerError(f"The tokeniser gives {sorted(set(given) - set(READ_FROM))} besides.", where=str(run))
    pad = {"input_ids": tokeniser.pad_token_id, "attention_mask": 0, "token_type_ids": tokeniser.pad_token_type_id}
    return JudgeSettings(
        inputs,
        backbone.max_length,
        tokeniser.truncation_side,
        tokeniser.padding_side,
        {name: int(pad[name]) for name in inputs},
        "float32",
        source=run.name,
        prefix=backbone.prefix,
        closing=closing_token(tokeniser, backbone.pooling),
    )


def _vocabulary(backbone: Backbone) -> bytes:
    """CallerError where the tokeniser is not one of the `tokenizers` library."""
    fast = getattr(backbone.tokeniser, "backend_tokenizer", None)
    if fast is None or not hasattr(fast, "to_str"):
        raise CallerError(
            "The model's tokeniser has no form that can be served without transformers.",
            where=type(backbone.tokeniser).__name__,
            next_step="Tune a model that brings a tokenizer.json.",
        )
    return json.dumps(json.loads(fast.to_str()), ensure_ascii=False).encode()


def _by_torch(net: CrossModel, lists: Sequence[List]) -> list[Float32Array]:
    with torch.inference_mode():
        return [
            net([joined(history)] * len(candidates), list(candidates))[:, 0].float().cpu().numpy()
            for history, candidates in lists
        ]


def _difference(judge: OnnxJudge, lists: Sequence[List], expected: Sequence[Float32Array]) -> float:
    gaps = [np.abs(judge.judge(*one) - truth).max() for one, truth in zip(lists, expected, strict=True)]
    return float(max(gaps))


@contextmanager
def _without_advice() -> Iterator[None]:
    """The quantiser advises a preparation that these graphs do not need, on the root logger."""
    root = logging.getLogger()

    def wanted(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
