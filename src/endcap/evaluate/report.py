"""Models side by side: means with intervals, and the gap to the best baseline, task by task.

All models of a task are measured on the same queries in the same order, so that gaps are resampled in pairs. The best
baseline is chosen for each metric apart: ours is held against whichever of the others does best at that metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from endcap.core.errors import CallerError
from endcap.evaluate.intervals import (
    RESAMPLES,
    Difference,
    Float64Array,
    Interval,
    difference_of,
    interval_of,
    resampled_means,
)

HEADLINE = "ndcg@10"
SHOWN = ("recall@10", "hit_rate@10", "mrr@10", "map@10", "auc")
MARK = "*"


@dataclass(frozen=True, slots=True)
class Gap:
    """Ours minus the best baseline, on one metric."""

    baseline: str
    difference: Difference


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One model on one task. values: metric -> float64 [q]. totals: metric -> one number for the whole task."""

    model: str
    values: Mapping[str, Float64Array]
    totals: Mapping[str, float]
    intervals: Mapping[str, Interval]


class Comparison:
    """Collects measured models and renders them. `ours` is the model the others are baselines to."""

    def __init__(
        self,
        ours: str,
        *,
        headline: str = HEADLINE,
        shown: Sequence[str] = SHOWN,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> None:
        self.ours, self.headline, self.shown = ours, headline, tuple(shown)
        self.seed, self.resamples = seed, resamples
        self._tasks: dict[str, dict[str, Row]] = {}
        self._gaps: dict[str, dict[str, Gap]] = {}

    def add(
        self, task: str, model: str, values: Mapping[str, Float64Array], totals: Mapping[str, float] | None = None
    ) -> None:
        """One model's measured task. values: metric -> float64 [q], as from `metrics.measure`; the headline must be
        there. totals: further figures that have no value per query (coverage, seconds)."""
        self._check(task, model, values, self._tasks.get(task, {}))
        columns = np.stack(list(values.values()), axis=1)
        means = resampled_means(columns, seed=self.seed, resamples=self.resamples)
        intervals = {
            metric: interval_of(float(vector.mean()), means[:, column])
            for column, (metric, vector) in enumerate(values.items())
        }
        self._tasks.setdefault(task, {})[model] = Row(model, dict(values), dict(totals or {}), intervals)
        self._gaps.pop(task, None)

    @property
    def tasks(self) -> list[str]:
        return list(self._tasks)

    def rows(self, task: str) -> list[Row]:
        """The task's models, the best headline first; equal ones by name."""
        if task not in self._tasks:
            raise CallerError(f"No task is called {task!r}.", next_step=f"Known: {', '.join(self._tasks)}.")
        return sorted(self._tasks[task].values(), key=lambda row: (-row.intervals[self.headline].mean, row.model))

    def gaps(self, task: str) -> dict[str, Gap]:
        """metric -> ours against the best baseline of that metric; empty without ours or without baselines."""
        if task not in self._gaps:
            self._gaps[task] = self._find_gaps(task)
        return self._gaps[task]

    def tables(self) -> list[Table]:
        """One rich table per task; ours is marked and bold."""
        return [self._table(task) for task in self._tasks]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values per query, ready for JSON."""
        return {
            "headline": self.headline,
            "ours": self.ours,
            "seed": self.seed,
            "resamples": self.resamples,
            "tasks": {
                task: {
                    "queries": self._queries(task),
                    "models": {
                        row.model: {
                            "metrics": {metric: asdict(inside) for metric, inside in row.intervals.items()},
                            "totals": dict(row.totals),
                        }
                        for row in self.rows(task)
                    },
                    "gaps": {metric: asdict(gap) for metric, gap in self.gaps(task).items()},
                }
                for task in self._tasks
            },
        }

    def to_markdown(self) -> str:
        """One heading and table per task; ours is marked and bold."""
        return "\n\n".join(self._markdown(task) for task in self._tasks) + "\n"

    def figures(self) -> dict[str, float]:
        """A flat view for benchmarks, e.g. for task `all`: ours as `ndcg@10_all`, `ndcg@10_all_lo`, `ndcg@10_all_hi`;
        its gap to the best baseline as `ndcg@10_all_gain`, `_gain_lo`, `_gain_hi`, `_gain_p`; any other model as
        `ndcg@10_all__<model>`; the queries as `queries_all`. Totals follow the same names, without bounds."""
        flat: dict[str, float] = {}
        for task in self._tasks:
            flat[f"queries_{task}"] = self._queries(task)
            for row in self.rows(task):
                flat |= self._figures_of(row, task)
            for metric, gap in self.gaps(task).items():
                flat[f"{metric}_{task}_gain"] = gap.difference.mean
                flat[f"{metric}_{task}_gain_lo"] = gap.difference.lo
                flat[f"{metric}_{task}_gain_hi"] = gap.difference.hi
                flat[f"{metric}_{task}_gain_p"] = gap.difference.p
        return flat

    def _find_gaps(self, task: str) -> dict[str, Gap]:
        others = [row for row in self.rows(task) if row.model != self.ours]
        ours = self._tasks[task].get(self.ours)
        if ours is None:
            return {}
        best = {
            metric: max(rivals, key=lambda row: row.intervals[metric].mean)
            for metric in ours.values
            if (rivals := [row for row in others if metric in row.values])
        }
        if not best:
            return {}
        gaps = np.stack([ours.values[metric] - rival.values[metric] for metric, rival in best.items()], axis=1)
        means = resampled_means(gaps, seed=self.seed, resamples=self.resamples)
        return {
            metric: Gap(rival.model, difference_of(float(gaps[:, column].mean()), means[:, column]))
            for column, (metric, rival) in enumerate(best.items())
        }

    def _figures_of(self, row: Row, task: str) -> dict[str, float]:
        if row.model != self.ours:
            means = {metric: inside.mean for metric, inside in row.intervals.items()}
            return {f"{metric}_{task}__{row.model}": mean for metric, mean in {**means, **row.totals}.items()}
        flat = {f"{metric}_{task}": total for metric, total in row.totals.items()}
        for metric, inside in row.intervals.items():
            flat[f"{metric}_{task}"] = inside.mean
            flat[f"{metric}_{task}_lo"] = inside.lo
            flat[f"{metric}_{task}_hi"] = inside.hi
        return flat

    def _table(self, task: str) -> Table:
        header, *lines = self._cells(task)
        table = Table(
            title=Text(self._title(task)), caption=Text(caption) if (caption := self._caption(task)) else None
        )
        for place, name in enumerate(header):
            table.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
        for row, line in zip(self.rows(task), lines, strict=True):
            style = "bold" if row.model == self.ours else ""
            table.add_row(*(Text(cell, style=style) for cell in line))
        return table

    def _markdown(self, task: str) -> str:
        header, *lines = self._cells(task)
        body = [
            [f"**{cell}**" if row.model == self.ours and cell else cell for cell in map(_escaped, line)]
            for row, line in zip(self.rows(task), lines, strict=True)
        ]
        rule = ["---", *["---:"] * (len(header) - 1)]
        rows = "\n".join(f"| {' | '.join(line)} |" for line in [list(map(_escaped, header)), rule, *body])
        caption = _escaped(self._caption(task))
        return f"### {self._title(task)}\n\n{rows}" + (f"\n\n{caption}" if caption else "")

    def _cells(self, task: str) -> list[list[str]]:
        """The header and one line per model, as text: the headline with its interval, the shown metrics' means and
        whatever totals there are."""
        rows = self.rows(task)
        metrics = [name for name in self.shown if name != self.headline and any(name in row.values for row in rows)]
        totals = list(dict.fromkeys(name for row in rows for name in row.totals))
        header = ["model", f"{self.headline} [95 %]", *metrics, *totals]
        return [header, *(self._line(row, metrics, totals) for row in rows)]

    def _line(self, row: Row, metrics: Sequence[str], totals: Sequence[str]) -> list[str]:
        inside = row.intervals[self.headline]
        return [
            f"{row.model} {MARK}" if row.model == self.ours else row.model,
            f"{_short(inside.mean)} [{_short(inside.lo)}, {_short(inside.hi)}]",
            *(_short(row.intervals[name].mean) if name in row.intervals else "" for name in metrics),
            *(_short(row.totals[name]) if name in row.totals else "" for name in totals),
        ]

    def _title(self, task: str) -> str:
        return f"{task} ({self._queries(task):,} queries)"

    def _caption(self, task: str) -> str:
        gap = self.gaps(task).get(self.headline)
        if gap is None:
            return ""
        by = gap.difference
        return (
            f"{MARK} ours. {self.headline}: {by.mean:+.4f} [{by.lo:+.4f}, {by.hi:+.4f}] against {gap.baseline},"
            " paired bootstrap over queries."
        )

    def _queries(self, task: str) -> int:
        return len(next(iter(self._tasks[task].values())).values[self.headline])

    def _check(self, task: str, model: str, values: Mapping[str, Float64Array], rows: Mapping[str, Row]) -> None:
        where = f"Comparison.add({task!r}, {model!r})"
        if model in rows:
            raise CallerError("The model was added to the task already.", where=where, next_step="Name it otherwise.")
        if self.headline not in values:
            raise CallerError(f"The headline metric {self.headline} is missing.", where=where, next_step="Measure it.")
        expected = self._queries(task) if rows else len(values[self.headline])
        for metric, vector in values.items():
            if vector.shape != (expected,):
                raise CallerError(
                    f"{metric} has the shape {list(vector.shape)}; the task has {expected} queries.",
                    where=where,
                    next_step="Measure every model on the same queries, in the same order.",
                )
            if not np.isfinite(vector).all():
                raise CallerError(f"{metric} holds NaN or infinity.", where=where, next_step="Mend its measurement.")


def _short(value: float) -> str:
    """Four decimals below ten, one below ten thousand, none above."""
    if abs(value) < 10:
        return f"{value:.4f}"
    return f"{value:,.1f}" if abs(value) < 10_000 else f"{value:,.0f}"


def _escaped(text: str) -> str:
    """Markdown's own signs, as text."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("__", "\\_\\_")
