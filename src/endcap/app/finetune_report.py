"""A run for a reader: its curves, how far its probabilities can be trusted, and a model card (Mitchell et al. 2019)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from endcap.core.artifacts import replace_atomically
from endcap.core.errors import MissingExtraError
from endcap.core.types import Float32Array
from endcap.evaluate.predictions import Reliability, reliability
from endcap.models.finetune.config import LOWER_IS_BETTER, FinetuneConfig
from endcap.models.finetune.examples import Examples, stratified_by
from endcap.models.finetune.heads import BiModel
from endcap.models.finetune.labels import label_tensor
from endcap.models.finetune.methods import APART

if TYPE_CHECKING:
    from endcap.app.finetune import Run
    from endcap.app.finetune_measure import Measures

USES = {
    "classification": "to sort texts into the classes below",
    "rating": "to estimate the rating a text would go with",
    "interest": "to estimate whether a shopper with such a history will act on a product",
    "ranking": "to put candidates into order for what was asked",
    "pairs": "to find products by a text or by what was looked at before, and as content vectors of a catalogue",
    "masked": "as the base of a further tuning",
    "imitate": "in the place of the larger model it learned from, where that is too slow",
}


def write_report(run: Run, examples: Examples, predicted: Float32Array, measures: Measures) -> None:
    """`curves.svg`, `reliability.svg` where there are probabilities, and `card.md`."""
    draw_curves(run.folder / "curves.svg", run)
    trust = _trust(examples.test, predicted, measures)
    if trust is not None:
        draw_reliability(run.folder / "reliability.svg", trust)
    replace_atomically(run.folder / "card.md", card(run, examples, trust is not None).encode())


def card(run: Run, examples: Examples, calibrated: bool) -> str:
    """The model card, written from the run."""
    config, facts = run.config, run.facts
    share = 100 * facts["learns"] / max(1, facts["parameters"])
    lines = [
        f"# {run.folder.name}",
        "",
        f"{config.base.name}, tuned for {config.task.kind} by {_method(config)}: {facts['learns']:,} of "
        f"{facts['parameters']:,} parameters learn ({share:.3g} %).",
        "",
        "## Use",
        "",
        f"Meant {USES[config.task.kind]}, on texts like those it was tuned on. Not meant to decide about people.",
        "",
        "## Data",
        "",
        f"{facts['data']}: {examples.train.height:,} rows to learn from, {examples.valid.height:,} by which weights "
        f"were chosen, {examples.test.height:,} measured once at the end; {_split(config, examples)}. "
        f"{examples.refused.height:,} rows were left out (`refused.jsonl` says why).",
        "",
        *_labels(examples, config),
        "## Figures",
        "",
        *_table(run.metrics, config),
        "",
        "![Curves](curves.svg)",
        *(["", "![Reliability](reliability.svg)"] if calibrated else []),
        "",
        "## Limits",
        "",
        *_limits(run, examples),
        "",
        "## To repeat it",
        "",
        f"`{_command(facts)}`, with the settings in `finetune.toml` and these versions: "
        f"{', '.join(f'{name} {number}' for name, number in facts['versions'].items())}. It took "
        f"{facts['seconds']:,.0f} s with `train.threads` = {config.train.threads}, on {facts['device']}, products in "
        f"{facts['precision']}. By `digests` in `run.json`, rows and models can be told to be the same.",
        "",
    ]
    return "\n".join(lines)


def draw_curves(path: Path, run: Run) -> None:
    """Loss of training and the deciding metric of validation, over evaluations."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for place, outcome in enumerate(run.outcomes):
        seen = range(1, len(outcome.report.epochs) + 1)
        left.plot(seen, [record.loss for record in outcome.report.epochs], marker="o", label=f"model {place + 1}")
        chosen = [metrics[run.config.metric] for metrics in outcome.metrics]
        if chosen:
            last = range(len(seen) - len(chosen) + 1, len(seen) + 1)
            right.plot(last, chosen, marker="o")
            right.axvline(outcome.report.best_epoch, color="0.7", linestyle=":", zorder=0)
    left.set(xlabel="evaluation", ylabel="loss", title="training")
    right.set(xlabel="evaluation", ylabel=run.config.metric, title="validation (dotted: kept)")
    save_figure(figure, path)


def draw_reliability(path: Path, trust: Reliability) -> None:
    """What is said to be sure by how much, and how often it is so."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(3.6, 3.6))
    axis.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    sizes = 20 + 180 * trust.count / trust.count.max()
    axis.scatter(trust.confidence, trust.right, s=sizes)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="said", ylabel="found", title=f"calibration error {trust.ece:.3f}")
    save_figure(figure, path)


def pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("matplotlib", "finetune") from error
    mpl.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "endcap"
    return plt


def save_figure(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot().close(figure)


def _trust(test: pl.DataFrame, predicted: Float32Array, measures: Measures) -> Reliability | None:
    """Of the test part, where the task gives probabilities."""
    kind = measures.config.task.kind
    if not test.height:
        return None
    if kind == "interest":
        return reliability(predicted, test["label"].to_numpy())
    if kind == "classification" and not measures.config.task.several:
        guess = [measures.labels[place] for place in predicted.argmax(1)]
        return reliability(predicted.max(1), (np.array(guess) == test["label"].to_numpy()).astype(float))
    if kind == "classification":
        truth = label_tensor(test, measures.labels, several=True).numpy()
        return reliability(predicted.ravel(), truth.ravel())
    return None


def _table(metrics: dict[str, dict[str, float]], config: FinetuneConfig) -> list[str]:
    """Parts down, metrics across, the deciding one first."""
    if not metrics:
        return ["Nothing was held out, so nothing was measured."]
    names: list[str] = list(dict.fromkeys([config.metric, *(name for found in metrics.values() for name in found)]))
    rows = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for part, found in metrics.items():
        rows.append(f"| {part} | {' | '.join(f'{found[name]:.4f}' if name in found else '' for name in names)} |")
    return rows


def _limits(run: Run, examples: Examples) -> list[str]:
    """What the run itself says against its model."""
    metric, found = run.config.metric, run.metrics
    lines = [f"- Texts are read up to {run.config.base.max_length} tokens."]
    if run.config.method.kind in APART and isinstance(run.outcomes[0].tuned.net, BiModel):
        lines.append(
            f"- What {run.config.method.kind} learned cannot become part of the model's own weights, so there is no "
            "`encoder/` to read a catalogue with; full, lora, adalora and ia3 write one."
        )
    lines += [f"- {note}" for note in run.facts["notes"]]
    if "test" in found:
        worst = _weakest({part: m for part, m in found.items() if part.startswith("test: ")}, metric, found["test"])
        lines += [
            f"- Weakest against {part.removeprefix('test: ')}: {metric} {value:.4f} there." for part, value in worst
        ]
        worst = _weakest({part: m for part, m in found.items() if part.startswith("segment: ")}, metric, found["test"])
        lines += [
            f"- Weakest segment: {part.removeprefix('segment: ')}, {metric} {value:.4f}." for part, value in worst
        ]
    lines += _unmeasured(run, examples) + _repeated(examples)
    if 0 < examples.test.height < 500:
        rows = examples.test.height
        lines.append(f"- The test part has {rows} rows, so that a share among them may be off by {rows**-0.5:.2f}.")
    if any(outcome.report.stopped == "time" for outcome in run.outcomes):
        lines.append("- Training was ended by its time budget.")
    return lines


def _unmeasured(run: Run, examples: Examples) -> list[str]:
    """The classes that no test row has, so that no figure tells of them."""
    if run.config.task.kind != "classification" or run.config.task.several or not examples.test.height:
        return []
    missing = sorted(set(examples.train["label"]) - set(examples.test["label"]))
    return [f"- No test row has {', '.join(missing[:10])}: no figure tells of them."] if missing else []


def _repeated(examples: Examples) -> list[str]:
    """The test rows whose very text was trained on, which say little of texts to come."""
    read = [name for name in ("text", "other") if name in examples.test.columns]
    if not read or not examples.test.height:
        return []
    count = examples.test.join(examples.train.select(read), on=read, how="semi").height
    told = f"{count:,} of {examples.test.height:,} test rows have a text that was trained on too, word for word"
    return [f"- {told}: the figures flatter the model by them."] if count else []


def _weakest(found: dict[str, dict[str, float]], metric: str, test: dict[str, float]) -> Sequence[tuple[str, float]]:
    """The part that does worst by the metric, if it is worse than the whole test."""
    values = {part: metrics[metric] for part, metrics in found.items() if metric in metrics}
    if not values:
        return []
    sign = -1 if metric in LOWER_IS_BETTER else 1
    part = min(values, key=lambda name: sign * values[name])
    return [(part, values[part])] if sign * values[part] < sign * test[metric] else []


def _labels(examples: Examples, config: FinetuneConfig) -> list[str]:
    if config.task.kind != "classification":
        return []
    column = examples.train["label"].explode() if config.task.several else examples.train["label"]
    counts = column.drop_nulls().value_counts(sort=True).rows()
    return ["Classes: " + ", ".join(f"{label} ({count:,})" for label, count in counts) + ".", ""]


def _command(facts: dict[str, Any]) -> str:
    """What repeats the run, typed in its folder."""
    said = f"finetune {shlex.quote(facts['table'])} --config finetune.toml"
    if facts["processes"] == 1:
        return f"endcap {said} --run FOLDER"
    return f"torchrun --nproc-per-node {facts['processes']} -m endcap {said} -r FOLDER"


def _method(config: FinetuneConfig) -> str:
    extras = [f"an ensemble of {config.ensemble}"] if config.ensemble > 1 else []
    extras += [config.adversarial.kind.upper()] if config.adversarial.kind != "none" else []
    extras += ["augmentation"] if config.augment.share else []
    extras += ["a teacher"] if config.distil.teacher else []
    return config.method.kind + (f" with {', '.join(extras)}" if extras else "")


def _split(config: FinetuneConfig, examples: Examples) -> str:
    if "part" in examples.train.columns:
        return "given by the data"
    by = stratified_by(examples.train, config.task) if config.split.by == "stratified" else ""
    how = f"stratified by {by}" if by else "by time" if config.split.by == "time" else "by lot"
    return f"parted {how}" + (", groups as a whole" if "group" in examples.train.columns else "")
