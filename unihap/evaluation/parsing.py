"""Human parsing: mean intersection over union from one confusion table of all pixels.

Definitions of Long et al. 2015 (arXiv:1411.4038), section 5; which classes enter the means follows detectron2.
"""

from typing import Any

import numpy as np

from unihap.evaluation.checks import defined, integers, paired_rows, same_shape
from unihap.structures import Dataset, ParsingLabel, Record

MAIN_METRIC = "mIoU"


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore: int = 255) -> np.ndarray:
    """Counts pixels by true and by predicted class.

    Args:
        truth: (H, W) integers; ``ignore`` marks pixels that do not count.
        prediction: (H, W) integers; what it says on ignored pixels does not matter.
        num_classes: C.
        ignore: the value to leave out.

    Returns:
        (C, C) int64, rows truth, columns prediction.

    Raises:
        ValueError: shapes that differ, or a class outside 0 ... C - 1 on a pixel that counts.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    same_shape(truth=truth, prediction=prediction)
    counted = truth != ignore
    truth, prediction = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, values in (("truth", truth), ("prediction", prediction)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            outside = values[(values < 0) | (values >= num_classes)]
            raise ValueError(
                f"{name} holds class {outside[0]} on {outside.size} pixels; classes are 0-{num_classes - 1}"
            )
    return np.bincount(truth * num_classes + prediction, minlength=num_classes**2).reshape(num_classes, num_classes)


def segmentation_metrics(confusion: np.ndarray) -> dict[str, float | list[float]]:
    """Segmentation scores of one confusion table over all images.

    Means are over the classes that occur in the truth.  A class that is only predicted has no IoU of its own, but its
    pixels are missing from the classes they belong to (detectron2's rule; UniHCP averages it as 0).  Accuracies divide
    by *truth* counts; UniHCP's divide by predicted counts by mistake.

    Args:
        confusion: (C, C) counts, rows truth, columns prediction.

    Returns:
        ``mIoU``, ``pixel_accuracy``, ``mean_accuracy`` in percent, and ``IoU``, a list of C percentages, NaN for
        classes that do not occur in the truth.

    Raises:
        ValueError: not a square table of counts, or no pixel in it.
    """
    table = integers("confusion counts", confusion, 2)
    if table.shape[0] != table.shape[1]:
        raise ValueError(f"the confusion table has shape {table.shape}; expected a square")
    if table.min() < 0:
        raise ValueError(f"the confusion table holds the count {table.min()}")
    if not table.any():
        raise ValueError(f"the confusion table of {len(table)} classes holds no pixel")
    hit, true, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    occurs = true > 0
    iou = np.full(len(table), np.nan)
    iou[occurs] = hit[occurs] / (true + predicted - hit)[occurs]
    return {
        "mIoU": 100 * float(iou[occurs].mean()),
        "pixel_accuracy": 100 * float(hit.sum() / true.sum()),
        "mean_accuracy": 100 * float(np.mean(hit[occurs] / true[occurs])),
        "IoU": (100 * iou).tolist(),
    }


def row(result: dict, record: Record, dataset: Dataset) -> dict:
    """What ``summary`` keeps of one image: ``id`` and the non-zero ``cells`` of its confusion table with ``counts``.

    Raises:
        ValueError: the result and the truth differ in size, or hold an unknown class.
    """
    try:
        table = confusion_matrix(_truth(record, dataset), result["label_map"], len(dataset.classes))
    except ValueError as error:
        raise ValueError(f"{dataset.name}, record {record.id}: {error}") from error
    cells = np.flatnonzero(table)
    return {"id": record.id, "cells": cells.tolist(), "counts": table.ravel()[cells].tolist()}


def summary(rows: list[dict], dataset: Dataset) -> dict[str, float]:
    """``segmentation_metrics`` of the summed tables; the IoU of class c is called ``IoU/c``.

    Records without a row are left out, and so are classes that do not occur in the truth.
    """
    metrics = segmentation_metrics(_table([row for _, row in paired_rows(rows, dataset)], len(dataset.classes)))
    by_class = metrics.pop("IoU")
    assert isinstance(by_class, list)
    flat = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return defined(flat | {f"IoU/{name}": iou for name, iou in zip(dataset.classes, by_class, strict=True)})


def scores(rows: list[dict], dataset: Dataset) -> list[float | None]:
    """The mIoU of each image, over the classes that occur in its truth; ``None`` where every pixel is ignored."""
    tables = [_table([row], len(dataset.classes)) for _, row in paired_rows(rows, dataset)]
    found: list[float | None] = []
    for table in tables:
        mean = segmentation_metrics(table)["mIoU"] if table.any() else None
        assert not isinstance(mean, list)
        found.append(mean)
    return found


def conventions(dataset: Dataset) -> dict[str, Any]:
    """See ``unihap.evaluation``."""
    return {
        "metrics": "of one confusion table of all pixels of all images; means over the classes in the truth",
        "ignored_value": 255,
        "score": "mIoU of the image, %",
    }


def chance(dataset: Dataset) -> dict[str, float]:
    """The mIoU of calling every pixel background (class 0); reads every label map once."""
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for record in dataset.records:
        truth = _truth(record, dataset)
        counts += np.bincount(truth[truth != 255], minlength=len(counts))[: len(counts)]
    if not counts.any():
        raise ValueError(f"{dataset.name} has no pixel with a class")
    return {MAIN_METRIC: 100 * float(counts[0] / counts.sum() / np.count_nonzero(counts))}


def _table(rows: list[dict], num_classes: int) -> np.ndarray:
    """(C, C) confusion counts of some rows together."""
    table = np.zeros(num_classes**2, dtype=np.int64)
    for row in rows:
        table[row["cells"]] += np.array(row["counts"], dtype=np.int64)
    return table.reshape(num_classes, num_classes)


def _truth(record: Record, dataset: Dataset) -> np.ndarray:
    """(H, W) classes of the record's pixels."""
    assert isinstance(record.label, ParsingLabel)
    if record.label.label_map is not None:
        return record.label.label_map
    assert dataset.read_label_map is not None, f"{dataset.name} does not say how to read a label map"
    return dataset.read_label_map(record.label.path)
