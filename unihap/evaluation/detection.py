"""Pedestrian detection in crowds: AP, log-average miss rate, Jaccard index and recall.

AP and JI as the tools of CrowdHuman compute them (Shao et al. 2018, arXiv:1805.00123; JI: Chu et al. 2020,
arXiv:2003.09163, section 4.1); MR-2 after Dollar et al. 2012, TPAMI, section 3.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.optimize import linear_sum_assignment

from unihap.evaluation.checks import paired_rows
from unihap.evaluation.crowd import EPSILON, Scene, read_odgt, scenes
from unihap.structures import Dataset, DetectionLabel, Record

MAIN_METRIC = "AP"
IOU = 0.5
SCORES = tuple(i / 10 for i in range(1, 10))  # thresholds of JI
FPPI = (
    0.0100,
    0.0178,
    0.0316,
    0.0562,
    0.1000,
    0.1778,
    0.3162,
    0.5623,
    1.0000,
)  # Dollar's nine points, as rounded there


def crowd_metrics(ground_truth_odgt: str | Path, detections_odgt: str | Path) -> dict[str, float]:
    """``crowd_metrics_of`` two .odgt files: one JSON object a line, or one line with a JSON list of objects.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see ``crowd_metrics_of``.
    """
    return crowd_metrics_of(read_odgt(ground_truth_odgt), read_odgt(detections_odgt))


def crowd_metrics_of(truth: list[dict], detections: list[dict]) -> dict[str, float]:
    """Scores detections against CrowdHuman annotations.

    Boxes are clipped to the image.  In the order of their scores detections take the free person of the largest IoU if
    it exceeds 0.5; an unmatched one counts as false unless an ignore region covers more than half of it.  Boxes whose
    tag is not ``person`` or whose ``extra.ignore`` is set are ignore regions.  False detections in images without
    people count (UniHCP's evaluator leaves such images out).  Equal scores are ordered by image (order of the
    ground truth), then by the detections' order.

    Args:
        truth: ``{"ID", "width", "height", "gtboxes": [{"tag", "fbox": [x, y, w, h], "extra": {"ignore": 0 or 1}}]}``.
        detections: ``{"ID", "dtboxes": [{"box": [x, y, w, h], "score": 0-1}]}``, with the image's ``width`` and
            ``height`` where the truth lacks them.  Images left out have no detections.

    Returns:
        ``AP`` (trapezoids under precision over recall from the first detection on, so that N people found without a
        mistake score 1 - 1/N), ``MR-2`` (geometric mean of the
        miss rate at nine rates of false detections per image, 0.01-1; lower is better), ``JI`` (the best over score
        thresholds 0.1-0.9 of the mean over *all* images; UniHCP divides by 4370 whatever the dataset) and ``recall``,
        in percent.

    Raises:
        ValueError: no person to find, IDs that do not fit, missing image sizes, impossible boxes or scores.
    """
    num_people, jaccard = 0, np.zeros(len(SCORES))
    scores, hits = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for image in scenes(truth, detections):
        flags = _greedy_matches(image)
        scores.append(image.scores[flags >= 0])
        hits.append(flags[flags >= 0])
        num_people += image.iou.shape[1]
        jaccard += _jaccard_ratios(image)
    if not num_people:
        raise ValueError(f"the ground truth of {len(truth)} images holds no person that counts")

    hit = np.concatenate(hits)[np.argsort(-np.concatenate(scores), kind="stable")]
    true, false = np.cumsum(hit), np.cumsum(1 - hit)
    metrics = {"AP": 0.0, "MR-2": 1.0, "JI": jaccard.max() / len(truth), "recall": 0.0}
    if len(hit):
        recall = true / num_people
        metrics["AP"] = trapezoid(true / (true + false), recall)
        metrics["MR-2"] = _log_average_miss_rate(1 - recall, false / len(truth))
        metrics["recall"] = recall[-1]
    return {name: 100 * float(value) for name, value in metrics.items()}


def row(result: dict, record: Record, dataset: Dataset, threshold: float = 0.05) -> dict:
    """A detection record of CrowdHuman's format for one image.

    Args:
        result: ``boxes`` (Q, 4) xyxy pixels of the source image, ``scores`` (Q,), ``size`` (height, width) of it.
        record: the image.
        dataset: its split.
        threshold: lowest score kept; UniHCP's value for CrowdHuman (0 for Caltech).

    Returns:
        ``id``, ``ID``, ``height``, ``width`` and ``dtboxes``, a list of ``{"box": [x, y, w, h], "score", "tag": 1}``.
    """
    boxes, scores = np.array(result["boxes"], dtype=np.float64), np.asarray(result["scores"], dtype=np.float64)
    if boxes.shape != (len(scores), 4):
        raise ValueError(f"{record.id}: boxes of shape {boxes.shape} and scores of shape {scores.shape} do not fit")
    keep = scores >= threshold
    boxes, scores = boxes[keep], scores[keep]
    boxes[:, 2:] -= boxes[:, :2]
    found = [{"box": box, "score": s, "tag": 1} for box, s in zip(boxes.tolist(), scores.tolist(), strict=True)]
    height, width = (int(side) for side in result["size"])
    return {"id": record.id, "ID": record.id, "height": height, "width": width, "dtboxes": found}


def summary(rows: list[dict], dataset: Dataset) -> dict[str, float]:
    """``crowd_metrics_of`` the rows against the boxes of all the dataset's records; without a row nobody was found."""
    pairs = paired_rows(rows, dataset)
    return crowd_metrics_of([_truth(record) for record in dataset.records], [row for _, row in pairs])


def scores(rows: list[dict], dataset: Dataset) -> list[float | None]:
    """Jaccard index of each image, percent, mean over the score thresholds 0.1-0.9.

    ``None`` where nobody is and nobody was found outside ignored regions; who is found where nobody is scores 0.
    """
    pairs = paired_rows(rows, dataset)
    found: list[float | None] = []
    for image in scenes([_truth(record) for record, _ in pairs], [row for _, row in pairs]):
        empty = not image.iou.shape[1] and not ((image.scores >= SCORES[0]) & ~image.covered).any()
        found.append(None if empty else 100 * float(np.mean(_jaccard_ratios(image))))
    return found


def conventions(dataset: Dataset, threshold: float = 0.05) -> dict[str, Any]:
    """See ``unihap.evaluation``; ``threshold`` as in ``row``."""
    return {
        "metrics": "AP, JI, recall and MR-2 as CrowdHuman's tools define them, over all images",
        "iou": IOU,
        "lowest_score": threshold,
        "suppression": None,
        "score": "Jaccard index of the image, mean over score thresholds 0.1-0.9, %",
    }


def chance(dataset: Dataset) -> dict[str, float]:
    """AP of a detector that sees nothing: 0, whatever the dataset."""
    return {MAIN_METRIC: 0.0}


def _truth(record: Record) -> dict:
    """CrowdHuman's annotation of one image."""
    assert isinstance(record.label, DetectionLabel)
    boxes: list[dict] = [{"tag": "person", "fbox": box} for box in _xywh(record.label.boxes)]
    boxes += [{"tag": "mask", "fbox": box, "extra": {"ignore": 1}} for box in _xywh(record.label.ignore)]
    return {"ID": record.id, "gtboxes": boxes}


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    """(N, 4) xyxy -> lists x, y, w, h."""
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()


def _greedy_matches(image: Scene) -> np.ndarray:
    """(D,) ints: 1 detection of a person, 0 false, -1 not counted (covered by an ignore region)."""
    flags = np.where(image.covered, -1, 0)
    iou = np.where(image.iou > IOU, image.iou, 0)
    num_free = np.count_nonzero(iou, axis=1)  # free people that a detection overlaps
    d = 0
    while (left := np.flatnonzero(num_free[d:])).size:  # a turn for every person found, not for every detection
        d += left[0]
        person = np.argmax(iou[d])
        flags[d] = 1
        num_free -= iou[:, person] > 0
        iou[:, person] = 0  # taken
        d += 1
    return flags


def _log_average_miss_rate(miss_rate: np.ndarray, fppi: np.ndarray) -> float:
    """Geometric mean of the miss rate where the curve first reaches each rate of false detections (else its end)."""
    points = np.minimum(np.searchsorted(fppi, FPPI, "left"), len(fppi) - 1)
    with np.errstate(divide="ignore"):  # a miss rate of 0 makes the mean 0
        return float(np.exp(np.log(miss_rate[points]).mean()))


def _jaccard_ratios(image: Scene) -> list[float]:
    """Jaccard ratio of one image and its detections above each threshold of ``SCORES``; without any it is 0."""
    num_above = np.searchsorted(-image.scores, [-score for score in SCORES], "left").tolist()
    ratio = {n: _jaccard_ratio(image, n) if n else 0.0 for n in set(num_above)}
    return [ratio[n] for n in num_above]


def _jaccard_ratio(image: Scene, n: int) -> float:
    """Of one image and its ``n`` best detections: k / (detections + people - k) with k matched pairs.

    Pairs maximise the sum of IoUs of at least 0.5.  Unmatched boxes that an ignore region covers do not count.
    """
    iou = image.iou[:n]
    possible = iou >= IOU
    detections, people = np.flatnonzero(possible.any(axis=1)), np.flatnonzero(possible.any(axis=0))
    gain = np.where(possible, iou, 0)[np.ix_(detections, people)]
    row, column = linear_sum_assignment(gain, maximize=True)
    real = gain[row, column] > 0
    matched, found = detections[row[real]], people[column[real]]
    k = len(matched)
    num_detections = n - np.count_nonzero(np.delete(image.covered[:n], matched))
    num_people = iou.shape[1] - np.count_nonzero(np.delete(image.person_covered, found))
    return k / (num_detections + num_people - k + EPSILON)
