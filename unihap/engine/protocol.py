"""How an evaluation was done, written beside its results as ``protocols.json``.

A number without its protocol can be compared with nothing: the same model has another AP on a detector's boxes than on
labelled ones, and another mAP after re-ranking.  The protocol is a file of its own because ``results.json`` is a table
of numbers (``{dataset: {metric: number}}``) that tools read without asking what each entry means; both files have the
same keys and are written together, so that every result has its protocol.

Nothing in it depends on the machine, on the number of processes or on where the datasets lie, so that two evaluations
can be compared byte by byte.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unihap.checkpoints.files import WEIGHTS, sha256
from unihap.structures import Dataset
from unihap.tasks.task import Task

SHOWN = 8  # digits of a checksum that a table shows
LABELLED = "labelled"


def split_checksum(dataset: Dataset) -> str:
    """SHA-256 of a split: which records in which order, and their labels as far as annotation files tell.

    It covers the dataset's classes and, record by record, the id, the name of the image file and every field of the
    label; numbers and arrays by value, paths by their last part.  Images and label maps are not opened: it says that
    two evaluations had the same task, not that nobody touched a file.
    """
    digest = hashlib.sha256()
    digest.update(repr((dataset.kind, dataset.classes)).encode())
    for record in dataset.records:
        digest.update(repr((record.id, _name(record.image))).encode())
        for field in fields(record.label):
            value = getattr(record.label, field.name)
            if isinstance(value, np.ndarray):
                value = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
                digest.update(repr((field.name, value.dtype.str, value.shape)).encode())
                digest.update(value.tobytes())
            else:
                digest.update(repr((field.name, _name(value) if isinstance(value, str) else value)).encode())
    return digest.hexdigest()


def _name(path: str) -> str:
    """The last part of a path; a word that is no path stays as it is."""
    return PurePosixPath(path.replace("\\", "/")).name


def file_entry(path: str | Path) -> dict[str, str]:
    """Name and SHA-256 of a file.

    A checkpoint folder stands for its weights; their file is called alike in all checkpoints, so the folder is named
    with it.

    Raises:
        FileNotFoundError: no such file.
    """
    file = Path(path)
    if file.is_dir():
        file = file / WEIGHTS
    name = f"{file.parent.name}/{file.name}" if file.name == WEIGHTS else file.name
    return {"file": name, "sha256": sha256(file)}


def describe_protocol(
    task: Task,
    dataset: Dataset,
    *,
    boxes: str,
    flip: bool,
    batch_size: int | None,
    precision: str,
    num_unreadable: int,
    weights: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """The protocol of one dataset as plain values.

    Args:
        task: that was evaluated.
        dataset: on which.
        boxes: file of a detector's boxes; "" for what the dataset labels.
        flip: whether flip testing was asked for; it is done where the task can.
        batch_size: which the last digits depend on.
        precision: of the matrix products.
        num_unreadable: records without a result.
        weights: ``file_entry`` of what the model was loaded from.
    """
    conventions = getattr(task.evaluator, "conventions", None)
    return {
        "task": task.spec.name,
        "num_records": len(dataset.records),
        "num_unreadable": num_unreadable,
        "split": split_checksum(dataset),
        "annotation": file_entry(dataset.annotation) if dataset.annotation else None,
        "boxes": file_entry(boxes) if boxes else LABELLED if _has_boxes(dataset) else None,
        "input_size": list(task.input_size) or None,
        "flip": flip and task.unflip is not None,
        "batch_size": batch_size,
        "precision": precision,
        "weights": [dict(entry) for entry in weights],
        "conventions": conventions(dataset) if conventions else None,
    }


def _has_boxes(dataset: Dataset) -> bool:
    """Whether a box comes with every record, as a person's does in pose."""
    return len(dataset.records) > 0 and hasattr(dataset.records[0].label, "box")


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """The protocol in one line, for the table of results."""
    unreadable = protocol["num_unreadable"]
    boxes, size = protocol["boxes"], protocol["input_size"]
    rerank = (protocol["conventions"] or {}).get("rerank")
    parts = [
        f"{protocol['num_records']} records" + (f", {unreadable} unreadable" if unreadable else ""),
        f"split {protocol['split'][:SHOWN]}",
        f"boxes {boxes if boxes == LABELLED else boxes['file']}" if boxes else "",
        f"input {' x '.join(map(str, size))}" if size else "",
        "flip" if protocol["flip"] else "no flip",
        f"re-ranked {' '.join(f'{key}={value}' for key, value in rerank.items())}" if rerank else "",
        protocol["precision"],
        *(f"weights {entry['sha256'][:SHOWN]}" for entry in protocol["weights"]),
    ]
    return ", ".join(part for part in parts if part)
