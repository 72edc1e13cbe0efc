"""Evaluation: every process judges its share of the images, the rows are gathered and summarised once."""

import json
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from unihap.engine.checkpoint import write_atomically
from unihap.engine.groups import gather
from unihap.engine.train import move
from unihap.models.unihap import UniHAP
from unihap.structures import Batch, Dataset, Prediction, Record
from unihap.tasks.task import Result, Row, Task
from unihap.visualize import draw_sheet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationJob:
    """One dataset to evaluate.

    Attributes:
        task: with its evaluator.
        dataset: what to evaluate on.
        batches: this process's share of it.
        flip: average with the mirrored image where the task can.
    """

    task: Task
    dataset: Dataset
    batches: Iterable[Batch]
    flip: bool


TABLE_HEAD = f"{'dataset':<26} {'task':<22} {'metric':<6} {'value':>7} {'chance':>7}  other metrics (chance)"


@torch.inference_mode()
def predict_batch(model: UniHAP, task: Task, batch: Batch, flip: bool, autocast: torch.dtype | None) -> list[Result]:
    """Results of one batch in source-image pixels."""
    device = next(model.parameters()).device
    moved = move(batch, device)
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        prediction = model(moved.images, task.spec.name, moved.sizes)[-1]
        if flip and task.unflip is not None:
            mirrored = task.unflip(model(moved.images.flip(-1), task.spec.name)[-1])
            prediction = _mean(prediction, mirrored)
    return task.decode(prediction, moved)


def _mean(a: Prediction, b: Prediction) -> Prediction:
    """Mean of two predictions, unit by unit."""
    pairs = {name: (getattr(a, name), getattr(b, name)) for name in vars(a)}
    return Prediction(**{name: (x + y) / 2 for name, (x, y) in pairs.items() if x is not None and y is not None})


def evaluate(
    model: UniHAP,
    jobs: Sequence[EvaluationJob],
    output: Path,
    *,
    autocast: torch.dtype | None = None,
    num_pictures: int = 0,
) -> dict[str, dict[str, float]]:
    """Evaluates every job and writes ``results.json``.

    Args:
        model: on its device.
        jobs: what to evaluate.
        output: ``OUTPUT_DIR``.
        autocast: dtype of the model's matrix products, or ``None``.
        num_pictures: results of each dataset to draw beside the truth; 0 draws none.

    Returns:
        Dataset name to metrics on process 0, ``{}`` on the others.
    """
    model.eval()
    results: dict[str, dict[str, float]] = {}
    table = [TABLE_HEAD]
    first = not dist.is_initialized() or dist.get_rank() == 0
    for job in jobs:
        rows: list[Row] = []
        shown: list[tuple[Record, Result]] = []
        failed: list[str] = []
        name = job.dataset.name
        chosen = _spread(job.dataset, num_pictures)
        for batch in tqdm(job.batches, desc=f"evaluating {name}", disable=None if first else True):
            failed += batch.skipped
            if not len(batch):
                continue
            for record, result in zip(
                batch.records, predict_batch(model, job.task, batch, job.flip, autocast), strict=True
            ):
                rows.append(job.task.evaluator.row(result, record, job.dataset))
                if record.id in chosen:
                    shown.append((record, result))
        gathered = gather((rows, failed, shown))
        if gathered is None:
            continue
        results[name] = _summarise(job, [part[:2] for part in gathered])
        pictures = {record.id: (record, result) for *_, part in gathered for record, result in part}
        if pictures:
            draw_sheet(job.task, job.dataset, list(pictures.values()), output / "visualizations" / f"{name}.jpg")
        table.append(_table_line(job, results[name], {failed for _, names, _ in gathered for failed in names}))
        write_results(output, results)
    if first:
        logger.info("results, beside what a blind guess scores\n%s", "\n".join(table))
    return results


def _spread(dataset: Dataset, number: int) -> set[str]:
    """Ids of ``number`` records spread evenly over a dataset, whose neighbours are often alike (ReID: all queries)."""
    total = len(dataset.records)
    number = min(number, total)
    return {dataset.records[i * total // number].id for i in range(number)}


def _summarise(job: EvaluationJob, gathered: Sequence[tuple[list[Row], list[str]]]) -> dict[str, float]:
    """Judges the rows of all processes: a record that two processes saw counts once, one nobody saw is reported."""
    unique = {row["id"]: row for rows, _ in gathered for row in rows}
    unreadable = sorted({record for _, failed in gathered for record in failed})
    missing = len(job.dataset.records) - len(unique)
    if unreadable:
        logger.warning(
            "%s: %d of %d records have no result because their image could not be read: %s",
            job.dataset.name,
            len(unreadable),
            len(job.dataset.records),
            ", ".join(unreadable[:5]),
        )
    if missing != len(unreadable):
        raise RuntimeError(f"{job.dataset.name}: {missing} records have no result, {len(unreadable)} of them known")
    order = {record.id: i for i, record in enumerate(job.dataset.records)}
    rows = sorted(unique.values(), key=lambda row: order[row["id"]])
    return job.task.evaluator.summary(rows, job.dataset)


def _table_line(job: EvaluationJob, metrics: Mapping[str, float], unreadable: Collection[str]) -> str:
    """Main metric and its value by chance, then the other metrics, with theirs in brackets where a blind guess has one.

    The many metrics of single classes stay out.
    """
    main = job.task.main_metric
    dataset = job.dataset
    if unreadable:  # a blind guess needs the truth, which may be what could not be read (label maps)
        dataset = replace(dataset, records=[record for record in dataset.records if record.id not in unreadable])
    chance = job.task.evaluator.chance(dataset)
    value = metrics.get(main, math.nan)  # a metric without a value is not among the metrics
    others = ", ".join(
        f"{name} {metrics[name]:.2f}" + (f" ({chance[name]:.2f})" if name in chance else "")
        for name in metrics
        if name != main and "/" not in name
    )
    guess = chance.get(main, math.nan)
    return f"{job.dataset.name:<26} {job.task.spec.name:<22} {main:<6} {value:>7.2f} {guess:>7.2f}  {others}"


def write_results(output: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes ``results.json``, keeping the datasets that an earlier evaluation wrote."""
    path = output / "results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_atomically(path, json.dumps({**known, **results}, indent=1) + "\n")
