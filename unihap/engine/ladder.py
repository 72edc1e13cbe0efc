"""A ladder of ablations: mean and spread of every rung over its seeds, and what each step to the next one brings."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unihap.engine.probe import METRICS

NONE = "none"  # the rung on which nothing is pre-trained
TITLES = {"reid_mAP": "ReID mAP", "attributes_mA": "attributes mA", "keypoints_PCK": "keypoints PCK@0.2"}


@dataclass(frozen=True)
class Rung:
    """One row of the table.

    Attributes:
        name: of the row.
        config: its file.
        results: of every finished seed, with ``metrics``, ``checkpoint`` and ``seconds``.
    """

    name: str
    config: str
    results: Mapping[int, Mapping[str, Any]]


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard deviation of a sample (n - 1) and number; ``None`` where too few values give no number."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "num": len(values),
    }


def tabulate(rungs: Sequence[Rung], blind: Mapping[str, float]) -> dict[str, Any]:
    """The table as plain values of JSON.

    A difference is taken between two runs of the same seed, so that what a seed does to both of them cancels, and its
    mean and deviation are over the seeds that both rungs have.

    Args:
        rungs: in order.
        blind: what a blind guess scores, by metric.
    """
    rows = []
    for before, rung in zip([None, *rungs], rungs, strict=False):
        row: dict[str, Any] = {"name": rung.name, "config": rung.config, "runs": []}
        for seed, result in rung.results.items():
            row["runs"].append({"seed": seed} | {k: result[k] for k in ("metrics", "checkpoint", "seconds")})
        row["metrics"] = {metric: spread(list(_values(rung, metric).values())) for metric in METRICS}
        if before is not None:
            row["difference"] = {metric: spread(_differences(before, rung, metric)) for metric in METRICS}
        rows.append(row)
    return {"metrics": list(METRICS), "blind_guess": dict(blind), "rows": rows}


def _values(rung: Rung, metric: str) -> dict[int, float]:
    """A metric by seed."""
    return {seed: result["metrics"][metric] for seed, result in rung.results.items()}


def _differences(before: Rung, rung: Rung, metric: str) -> list[float]:
    """Of the seeds that both have."""
    old, new = _values(before, metric), _values(rung, metric)
    return [new[seed] - old[seed] for seed in new if seed in old]


def markdown(table: Mapping[str, Any]) -> str:
    """The table of ``tabulate`` for people."""
    metrics = table["metrics"]
    head = " | ".join(TITLES[metric] for metric in metrics)
    rule = "|---|---:|" + "---:|" * len(metrics)
    lines = [f"| cell | seeds | {head} |", rule]
    guesses = [_cell({"mean": table["blind_guess"][metric], "std": None}, "") for metric in metrics]
    lines.append(f"| blind guess | | {' | '.join(guesses)} |")
    steps = [f"| step | seeds | {head} |", rule]
    for before, row in zip([None, *table["rows"]], table["rows"], strict=False):
        values = [_cell(row["metrics"][metric], "") for metric in metrics]
        lines.append(f"| {row['name']} | {len(row['runs'])} | {' | '.join(values)} |")
        if before is not None:
            values = [_cell(row["difference"][metric], "+") for metric in metrics]
            number = max(row["difference"][metric]["num"] for metric in metrics)
            steps.append(f"| {before['name']} -> {row['name']} | {number} | {' | '.join(values)} |")
    note = "Percent; mean ± standard deviation over seeds. A step is the mean of differences between equal seeds."
    blocks = [lines, steps] if len(steps) > 2 else [lines]
    return "\n\n".join("\n".join(block) for block in [[note], *blocks]) + "\n"


def _cell(values: Mapping[str, Any], sign: str) -> str:
    """``12.3 ± 0.4``."""
    if values["mean"] is None:
        return "-"
    shown = f"{values['mean']:{sign}.1f}"
    return shown if values["std"] is None else f"{shown} ± {values['std']:.1f}"
