"""Evaluation: every process judges its share of the images, the rows are gathered and summarised once."""

import json
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from unihap.engine.cases import Cases, choose_cases
from unihap.engine.checkpoint import write_atomically
from unihap.engine.groups import gather
from unihap.engine.protocol import describe_protocol, file_entry, protocol_line
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
        load: batches of some records, by their numbers; without it no pictures are drawn.
        batch_size: of all batches but the last.
        boxes: file of a detector's boxes that the records were made from; "" for labelled boxes.
    """

    task: Task
    dataset: Dataset
    batches: Iterable[Batch]
    flip: bool
    load: Callable[[Sequence[int]], Iterable[Batch]] | None = None
    batch_size: int | None = None
    boxes: str = ""


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
    weights: Sequence[str | Path] = (),
    num_threads: int = 0,
) -> dict[str, dict[str, float]]:
    """Evaluates every job and writes ``results.json``, ``protocols.json`` and the picture sheets.

    The files do not depend on the number of processes, to the last digit, as long as each has the same number of
    threads: batches are dealt out whole, and rows are judged in the order of the dataset.  No result is kept but its
    row; what is drawn is predicted again.

    Args:
        model: on its device.
        jobs: what to evaluate.
        output: ``OUTPUT_DIR``.
        autocast: dtype of the model's matrix products, or ``None``.
        num_pictures: records on each picture sheet of a dataset (a spread, the best, the worst); 0 draws none.
        weights: files or checkpoint folders that the model was loaded from, for the protocol.
        num_threads: threads of this process on a CPU meanwhile; 0 leaves them as they are.

    Returns:
        Dataset name to metrics on process 0, ``{}`` on the others.
    """
    model.eval()
    results: dict[str, dict[str, float]] = {}
    table = [TABLE_HEAD]
    first = not dist.is_initialized() or dist.get_rank() == 0
    loaded = [file_entry(path) for path in weights] if first else []
    with _threads(num_threads):
        for job in jobs:
            gathered = gather(_judge(model, job, autocast, show_progress=first))
            if gathered is None:
                continue
            name = job.dataset.name
            numbers, rows, unreadable = _merge(job.dataset, gathered)
            results[name] = job.task.evaluator.summary(rows, job.dataset)
            protocol = describe_protocol(
                job.task,
                job.dataset,
                boxes=job.boxes,
                flip=job.flip,
                batch_size=job.batch_size,
                precision=str(autocast or next(model.parameters()).dtype).removeprefix("torch."),
                num_unreadable=len(unreadable),
                weights=loaded,
            )
            table += [_table_line(job, results[name], unreadable), f"    {protocol_line(protocol)}"]
            write_merged(output / "results.json", {name: results[name]})
            write_merged(output / "protocols.json", {name: protocol})
            for cases in choose_cases(job.task, job.dataset, rows, numbers, num_pictures):
                _draw(model, job, cases, output / "visualizations" / f"{name}{cases.suffix}.jpg", autocast)
    if first:
        logger.info("results, beside what a blind guess scores\n%s", "\n".join(table))
    return results


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Sets torch's threads and puts them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _judge(
    model: UniHAP, job: EvaluationJob, autocast: torch.dtype | None, *, show_progress: bool
) -> tuple[list[Row], list[str]]:
    """The rows of this process's share, and the ids of records that could not be read."""
    rows: list[Row] = []
    failed: list[str] = []
    for batch in tqdm(job.batches, desc=f"evaluating {job.dataset.name}", disable=None if show_progress else True):
        failed += batch.skipped
        rows += [
            job.task.evaluator.row(result, record, job.dataset)
            for record, result in _results(model, job, batch, autocast)
        ]
    return rows, failed


def _results(
    model: UniHAP, job: EvaluationJob, batch: Batch, autocast: torch.dtype | None
) -> Iterable[tuple[Record, Result]]:
    """The records of a batch, which may have lost all of them, with their results."""
    found = predict_batch(model, job.task, batch, job.flip, autocast) if len(batch) else []
    return zip(batch.records, found, strict=True)


def _merge(
    dataset: Dataset, gathered: Sequence[tuple[list[Row], list[str]]]
) -> tuple[list[int], list[Row], frozenset[str]]:
    """The rows of all processes in the order of the dataset, once each, with their record numbers; unreadable ids.

    Raises:
        RuntimeError: a record that nobody judged or reported.
    """
    unique = {row["id"]: row for rows, _ in gathered for row in rows}
    unreadable = frozenset(record for _, failed in gathered for record in failed)
    missing = len(dataset.records) - len(unique)
    if unreadable:
        logger.warning(
            "%s: %d of %d records have no result because their image could not be read: %s",
            dataset.name,
            len(unreadable),
            len(dataset.records),
            ", ".join(sorted(unreadable)[:5]),
        )
    if missing != len(unreadable):
        raise RuntimeError(f"{dataset.name}: {missing} records have no result, {len(unreadable)} of them known")
    ordered = [(i, unique[record.id]) for i, record in enumerate(dataset.records) if record.id in unique]
    return [i for i, _ in ordered], [row for _, row in ordered], unreadable


def _draw(model: UniHAP, job: EvaluationJob, cases: Cases, path: Path, autocast: torch.dtype | None) -> None:
    """Predicts some records again and writes their sheet."""
    if job.load is None:
        return
    batches = job.load(list(dict.fromkeys([*cases.numbers, *cases.company])))
    found = {
        record.id: (record, result) for batch in batches for record, result in _results(model, job, batch, autocast)
    }
    shown, company = (
        [found[job.dataset.records[number].id] for number in numbers] for numbers in (cases.numbers, cases.company)
    )
    draw_sheet(job.task, job.dataset, shown, path, heading=cases.heading, scores=cases.scores, company=company)


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


def write_merged(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a JSON file of entries by dataset, keeping the datasets that an earlier evaluation wrote."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_atomically(path, json.dumps({**known, **entries}, indent=1) + "\n")
