"""A few-shot comparison: mean and spread of every method over its seeds, and what separates it from another one."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unihap.engine.ladder import spread

REFERENCE = "finetune"  # the method whose results are taken from those of the others


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        task: what is learned.
        name: how.
        config: its file.
        metric: the metric to quote.
        blind: what a blind guess scores, by metric.
        results: of every finished seed: ``metrics``, ``records`` (number of training records, ``None`` for all),
            ``trainable`` and ``parameters`` (numbers of weights), ``seconds`` and ``iterations`` of training,
            ``memory_mb`` or ``None``.
    """

    task: str
    name: str
    config: str
    metric: str
    blind: Mapping[str, float]
    results: Mapping[int, Mapping[str, Any]]

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, of the seeds that have it."""
        return {seed: r["metrics"][metric] for seed, r in self.results.items() if metric in r["metrics"]}


def tabulate(methods: Sequence[Method]) -> list[dict[str, Any]]:
    """The rows of the table as plain values of JSON, in order.

    The difference from ``REFERENCE`` is taken between runs of the same seed, which have the same training records;
    its mean and deviation are over the seeds that both have.
    """
    rows = []
    for method in methods:
        names = dict.fromkeys(name for result in method.results.values() for name in result["metrics"])
        row: dict[str, Any] = {
            "task": method.task,
            "method": method.name,
            "config": method.config,
            "metric": method.metric,
            "blind_guess": dict(method.blind),
            "metrics": {name: spread(list(method.values(name).values())) for name in names if "/" not in name},
            "runs": [{"seed": seed, **result} for seed, result in method.results.items()],
        }
        other = next((m for m in methods if (m.task, m.name) == (method.task, REFERENCE)), None)
        if other is not None and other is not method:
            row["difference"] = spread(_differences(method, other))
        for name in ("records", "trainable", "parameters", "seconds", "iterations", "memory_mb"):
            known = [result[name] for result in method.results.values() if result[name] is not None]
            row[name] = statistics.median(known) if known else None  # one slow or cold run must not decide
        rows.append(row)
    return rows


def _differences(method: Method, other: Method) -> list[float]:
    mine, theirs = method.values(method.metric), other.values(method.metric)
    return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of ``tabulate`` for people."""
    blocks = [
        "Mean ± standard deviation over seeds; the difference is the mean of those between equal seeds, with equal "
        "records. Trained weights are given in thousands and as a share of the model; records, time of training and "
        "the memory it adds to the process are medians."
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        metric = mine[0]["metric"]
        lines = [
            f"| {task} | seeds | records | {metric} | − {REFERENCE} | trained (k) | share | iterations | time (s) | "
            f"memory (MiB) |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        if metric in mine[0]["blind_guess"]:
            lines.append(f"| blind guess | | | {mine[0]['blind_guess'][metric]:.2f} | | | | | | |")
        blocks.append("\n".join([*lines, *map(_line, mine)]))
    return "\n\n".join(blocks) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    share = row["trainable"] / row["parameters"] if row["parameters"] else None
    thousands = None if row["trainable"] is None else row["trainable"] / 1000
    cells = [
        row["method"],
        str(len(row["runs"])),
        "all" if row["records"] is None else f"{row['records']:.0f}",
        _spread(row["metrics"].get(row["metric"]), ""),
        _spread(row.get("difference"), "+"),
        _number(thousands, ",.1f"),
        _number(share, ".2%"),
        _number(row["iterations"], ".0f"),
        _number(row["seconds"], ".1f"),
        _number(row["memory_mb"], ".0f"),
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(values: Mapping[str, Any] | None, sign: str) -> str:
    """``12.34 ± 0.56``."""
    if values is None or values["mean"] is None:
        return "-"
    shown = f"{values['mean']:{sign}.2f}"
    return shown if values["std"] is None else f"{shown} ± {values['std']:.2f}"
