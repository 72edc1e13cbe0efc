"""Pedestrian attributes: label-based mA and instance-based accuracy, precision, recall and F1.

Definitions of Li et al. 2016 (RAP, arXiv:1603.07054), section IV-C, computed as "Rethinking of PAR" does
(Jia et al. 2021, arXiv:2107.03576).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unihap.evaluation.checks import finite, integers, paired_rows, same_shape
from unihap.structures import AttributesLabel, Dataset, Record

MAIN_METRIC = "mA"
THRESHOLD = 0.5


def attribute_metrics(labels: np.ndarray, probabilities: np.ndarray, threshold: float = THRESHOLD) -> dict[str, float]:
    """How well thresholded probabilities agree with the labels.

    An attribute is predicted when its probability is above the threshold.  Unknown labels (-1) are left out of every
    count, where UniHCP's evaluator turns them into 0.  0/0 counts as 0: an attribute that nobody has gets a true
    positive rate of 0.  Attributes, and people, without a single known label are left out of the means.  ``F1`` is the
    harmonic mean of mean precision and mean recall (Rethinking of PAR); UniHCP averages the F1 of each person instead.

    Args:
        labels: (N, A), 1 present, 0 absent, -1 unknown.
        probabilities: (N, A) within 0-1.
        threshold: within 0-1.

    Returns:
        ``mA`` = mean over attributes of (true positive rate + true negative rate) / 2; ``accuracy`` (intersection over
        union of true and predicted attributes), ``precision`` and ``recall`` = means over people; ``F1``; in percent.

    Raises:
        ValueError: shapes that differ, nothing known, NaN, labels or probabilities outside their range.
    """
    truth, probability = integers("labels", labels, 2), finite("probabilities", probabilities, 2)
    same_shape(labels=truth, probabilities=probability)
    strange = np.setdiff1d(truth, [-1, 0, 1])
    if strange.size:
        raise ValueError(f"labels hold {int(strange[0])}; known are 1 present, 0 absent, -1 unknown")
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(f"probabilities span {probability.min()} to {probability.max()}; expected values within 0-1")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold} is outside 0-1")
    known = truth >= 0
    if not known.any():
        raise ValueError(f"all {truth.size} labels are -1 (unknown); nothing can be measured")

    chosen = (probability > threshold) & known
    present, absent = truth == 1, truth == 0
    hit = chosen & present
    by_attribute = (_ratio(hit, present, 0) + _ratio(absent & ~chosen, absent, 0)) / 2
    some = known.any(axis=1)
    precision = _ratio(hit, chosen, 1)[some].mean()
    recall = _ratio(hit, present, 1)[some].mean()
    metrics = {
        "mA": by_attribute[known.any(axis=0)].mean(),
        "accuracy": _ratio(hit, chosen | present, 1)[some].mean(),
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }
    return {name: 100 * float(value) for name, value in metrics.items()}


def row(result: dict, record: Record, dataset: Dataset) -> dict:
    """What ``summary`` keeps of one person: ``id`` and ``probability``, a list of A numbers."""
    probability = np.asarray(result["probability"], dtype=np.float64)
    if probability.shape != (len(dataset.classes),):
        raise ValueError(f"{record.id}: {probability.shape} probabilities for {len(dataset.classes)} attributes")
    return {"id": record.id, "probability": probability.tolist()}


def summary(rows: list[dict], dataset: Dataset) -> dict[str, float]:
    """``attribute_metrics`` of all rows against the records' labels; records without a row are left out."""
    pairs = paired_rows(rows, dataset)
    labels = _labels([record for record, _ in pairs])
    return attribute_metrics(labels, np.array([row["probability"] for _, row in pairs]))


def scores(rows: list[dict], dataset: Dataset) -> list[float | None]:
    """Percentage of a person's known attributes that are predicted right; ``None`` where none is known."""
    pairs = paired_rows(rows, dataset)
    labels = _labels([record for record, _ in pairs])
    known = labels >= 0
    chosen = np.array([row["probability"] for _, row in pairs]) > THRESHOLD
    right = ((chosen == (labels == 1)) & known).sum(axis=1)
    return [100 * int(r) / int(k) if k else None for r, k in zip(right, known.sum(axis=1), strict=True)]


def conventions(dataset: Dataset) -> dict[str, Any]:
    """See ``unihap.evaluation``."""
    return {
        "metrics": "mA, mean over attributes; accuracy, precision, recall, means over people; F1 of the two means",
        "threshold": THRESHOLD,
        "unknown_labels": "left out",
        "score": "attributes predicted right, %",
    }


def chance(dataset: Dataset) -> dict[str, float]:
    """The mA of one constant answer per attribute: 50.

    Always "present" has a true positive rate of 1 and a true negative rate of 0, always "absent" the reverse.
    """
    if not (_labels(dataset.records) >= 0).any():
        raise ValueError(f"{dataset.name} has no known label")
    return {MAIN_METRIC: 50.0}


def _labels(records: Sequence[Record]) -> np.ndarray:
    """(N, A) labels in record order."""
    labels = []
    for record in records:
        assert isinstance(record.label, AttributesLabel)
        labels.append(record.label.values)
    return np.array(labels)


def _ratio(part: np.ndarray, whole: np.ndarray, axis: int) -> np.ndarray:
    """Share of true entries along an axis; 0/0 = 0."""
    return part.sum(axis=axis) / np.maximum(whole.sum(axis=axis), 1)
