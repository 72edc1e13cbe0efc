"""A picture of a few-shot comparison: methods side by side, a dot for every seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_few_shot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws every task's methods beside each other: dots are seeds, bars mean and standard deviation.

    Dots of the same seed, which have the same training records, stand at the same place within their methods.

    Args:
        rows: as ``unihap.engine.few_shot.tabulate`` makes them; methods without a result are left out.
        path: of the picture.
    """
    rows = [row for row in rows if row["metric"] in row["metrics"]]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(max(1, sum(1 + len([r for r in rows if r["task"] == t]) for t in tasks)) * 0.9, 4.2))
    FigureCanvasAgg(figure)
    for number, task in enumerate(tasks):
        mine = [row for row in rows if row["task"] == task]
        metric = mine[0]["metric"]
        seeds = sorted({run["seed"] for row in mine for run in row["runs"]})
        axes = figure.add_subplot(1, len(tasks), number + 1)
        for place, row in enumerate(mine):
            values = {run["seed"]: run["metrics"][metric] for run in row["runs"] if metric in run["metrics"]}
            places = [place + 0.5 * (seeds.index(seed) + 0.5) / len(seeds) - 0.25 for seed in values]
            axes.plot(places, list(values.values()), "o", alpha=0.6)
            summary = row["metrics"][metric]
            axes.errorbar(place, summary["mean"], summary["std"] or 0.0, fmt="_k", capsize=6, markersize=22, zorder=3)
        if metric in mine[0]["blind_guess"]:
            axes.axhline(mine[0]["blind_guess"][metric], color="0.6", linestyle=":", label="blind guess")
            axes.legend(loc="lower right", fontsize="small")
        names = [f"{row['method']}\n{row['trainable'] / row['parameters']:.1%}" for row in mine]
        axes.set_xticks(np.arange(len(mine)), names, rotation=30, ha="right")
        axes.set_title(task)
        axes.set_ylabel(metric)
        axes.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
