"""Evaluation of 2D pose: from decoded people to keypoint AP, PCKh or end point error."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from unihap.evaluation.checks import defined, paired_rows
from unihap.evaluation.oks import COCO_SIGMAS, keypoint_similarity, oks_nms
from unihap.evaluation.pose_metrics import BOX_TO_BODY, end_point_error, keypoint_ap, pck, pckh
from unihap.structures import Dataset, PoseLabel, Record

__all__ = [
    "MAIN_METRIC",
    "MAIN_METRICS",
    "chance",
    "conventions",
    "end_point_error",
    "keypoint_ap",
    "pck",
    "pckh",
    "row",
    "scores",
    "summary",
]

MAIN_METRICS = {"keypoint_ap": "AP", "pckh": "PCKh", "end_point_error": "EPE"}  # by Dataset.metric
MAIN_METRIC = MAIN_METRICS["keypoint_ap"]
PEAK_THRESHOLD = 0.2  # the release's first pass
THRESHOLD = 0.05  # its second
NMS_THRESHOLD = 0.9
PCK = "PCK@0.2"
TORSO = ("left_shoulder", "right_hip")


def row(result: dict, record: Record, dataset: Dataset, rescore: str = "fixed") -> dict:
    """A COCO keypoint result of one person.

    The score is box score x mean of peak x probability over the joints where that product is above 0.05 ("fixed").
    The release computes this in a second pass from scores which a first pass has overwritten, so that its score is
    box score x mean of peaks above 0.2 x the mean above ("release").  A mean over no joints is 0.

    Args:
        result: ``keypoints`` (K, 3) x, y in source-image pixels and peak of the heatmap, ``probability`` (K,).
        record: the person.
        dataset: its split.
        rescore: ``fixed`` or ``release``.

    Returns:
        ``id``, ``image_id``, ``category_id``, ``keypoints`` (3 K numbers), ``score`` and ``area`` of the crop.

    Raises:
        ValueError: another rescore, or arrays that do not fit the dataset's keypoints.
    """
    assert isinstance(record.label, PoseLabel)
    if rescore not in ("fixed", "release"):
        raise ValueError(f"unknown rescore {rescore!r} (known: fixed, release)")
    keypoints = np.asarray(result["keypoints"], dtype=np.float64)
    probability = np.asarray(result["probability"], dtype=np.float64)
    num_keypoints = len(dataset.classes)
    if keypoints.shape != (num_keypoints, 3) or probability.shape != (num_keypoints,):
        raise ValueError(
            f"{record.id}: keypoints {keypoints.shape} and probabilities {probability.shape} do not fit "
            f"{num_keypoints} keypoints of {dataset.name}"
        )
    peak = keypoints[:, 2]
    score = record.label.box_score * _mean_above(peak * probability, THRESHOLD)
    if rescore == "release":
        score *= _mean_above(peak, PEAK_THRESHOLD)
    return _coco_result(record, keypoints, score)


def summary(rows: list[dict], dataset: Dataset) -> dict[str, float]:
    """The dataset's metric (``Dataset.metric``) of all rows.

    ``keypoint_ap``: repeated poses of an image are dropped (OKS above 0.9), the rest is compared with
    ``Dataset.annotation`` (or, if the dataset has none, with the records' labels) on the images of the records (or
    ``Dataset.image_ids``, where a detector's boxes may have left out an image); with it comes ``PCK@0.2`` of the
    torso's diameter, of everybody who has a row, where the dataset labels a torso.
    ``pckh`` and ``end_point_error`` (called ``EPE``, pixels): every person against the record's label; records without
    a row are left out, where they count as missed people in AP.
    A metric without a value (e.g. APM without people of medium size) is left out.

    Raises:
        ValueError: an unknown metric, rows that do not fit the records, or the metric's own refusals.
    """
    pairs = paired_rows(rows, dataset)
    if dataset.metric == "keypoint_ap":
        images = sorted(dataset.image_ids or {label.image_id for label in _labels(dataset.records)})
        truth = dataset.annotation or _annotation_of(dataset)
        kept = _without_repeats([row for _, row in pairs], dataset)
        metrics = keypoint_ap(truth, kept, dataset.sigmas or None, dataset.use_area, images)
        return defined(metrics | {PCK: _torso_pck(pairs, dataset)})
    labels = _labels([record for record, _ in pairs])
    true = np.stack([label.keypoints for label in labels])
    predicted = np.stack([np.reshape(row["keypoints"], (-1, 3)) for _, row in pairs])
    if dataset.metric == "pckh":
        sizes = np.array([label.head_size for label in labels])
        return defined(pckh(predicted[..., :2], true[..., :2], true[..., 2], sizes))
    if dataset.metric == "end_point_error":
        return {"EPE": end_point_error(predicted[..., :2], true[..., :2], true[..., 2])}
    raise ValueError(f"{dataset.name} asks for the metric {dataset.metric!r} (known: {', '.join(MAIN_METRICS)})")


def scores(rows: list[dict], dataset: Dataset) -> list[float | None]:
    """OKS of each person, percent, whatever the dataset's metric; ``None`` for who has no labelled keypoint.

    People without a labelled area, or with ``use_area`` off, have that of a body in their box.
    """
    sigmas = np.array(dataset.sigmas or COCO_SIGMAS, dtype=np.float64)
    found: list[float | None] = []
    for record, row in paired_rows(rows, dataset):
        (label,) = _labels([record])
        labelled = label.keypoints[:, 2] > 0
        if not labelled.any():
            found.append(None)
            continue
        width, height = (label.box[2:] - label.box[:2]).tolist()
        area = (dataset.use_area and label.area) or width * height * BOX_TO_BODY
        predicted = np.reshape(row["keypoints"], (-1, 3))[:, :2]
        found.append(100 * keypoint_similarity(predicted, label.keypoints[:, :2], labelled, area, sigmas))
    return found


def conventions(dataset: Dataset, rescore: str = "fixed") -> dict[str, Any]:
    """See ``unihap.evaluation``; ``rescore`` as in ``row``."""
    if dataset.metric != "keypoint_ap":
        return {"metrics": MAIN_METRICS[dataset.metric], "score": "OKS of the person, %"}
    return {
        "metrics": f"COCOeval of pycocotools {version('pycocotools')}, on all images of the split; {PCK} of the torso",
        "truth": "annotation file" if dataset.annotation else "labels of the records",
        "area": "labelled" if dataset.use_area else f"{BOX_TO_BODY} x box",
        "suppression": f"OKS above {NMS_THRESHOLD}",
        "rescore": rescore,
        "score": "OKS of the person, %",
    }


def chance(dataset: Dataset) -> dict[str, float]:
    """The main metric (and PCK) of one pose for everybody: the mean labelled pose, stretched to each person's box.

    This guess sees the boxes but no pixel.  A keypoint that is never labelled sits in the middle of the box.  Where
    the records carry no keypoints (boxes of a detector) the mean pose is unknown and the guess is nothing at all: 0.
    """
    labels = _labels(dataset.records)
    keypoints = np.stack([label.keypoints for label in labels]).astype(np.float64)
    boxes = np.stack([label.box for label in labels]).astype(np.float64)[:, None]  # (N, 1, 4)
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 1)
    main = MAIN_METRICS.get(dataset.metric, MAIN_METRIC)
    weight = keypoints[..., 2:] > 0
    if not weight.any():
        return {main: 0.0}
    total = np.where(weight, (keypoints[..., :2] - boxes[..., :2]) / size, 0).sum(axis=0)
    mean = np.where(weight.any(axis=0), total / np.maximum(weight.sum(axis=0), 1), 0.5)  # (K, 2) of the box
    guess = np.concatenate([boxes[..., :2] + mean * size, np.ones_like(keypoints[..., :1])], axis=-1)
    rows = [
        _coco_result(record, pose, label.box_score)
        for record, label, pose in zip(dataset.records, labels, guess, strict=True)
    ]
    guessed = summary(rows, dataset)
    return {name: guessed[name] for name in (main, PCK) if name in guessed}


def _torso_pck(pairs: list[tuple[Record, dict]], dataset: Dataset) -> float:
    """PCK@0.2; NaN for a dataset whose keypoints have no torso."""
    if not pairs or not set(TORSO) <= set(dataset.classes):
        return np.nan
    true = np.stack([label.keypoints for label in _labels([record for record, _ in pairs])])
    predicted = np.stack([np.reshape(row["keypoints"], (-1, 3)) for _, row in pairs])
    shoulder, hip = (dataset.classes.index(name) for name in TORSO)
    return pck(predicted[..., :2], true[..., :2], true[..., 2], (shoulder, hip))


def _coco_result(record: Record, keypoints: np.ndarray, score: float) -> dict:
    """The JSON form of a person."""
    assert isinstance(record.label, PoseLabel)
    return {
        "id": record.id,
        "image_id": int(record.label.image_id),
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "score": float(score),
        "area": _crop_area(record.label.box),
    }


def _crop_area(box: np.ndarray) -> float:
    """Square pixels of the person crop, which the release takes for the area in OKS suppression.

    The box is widened to UniHCP's 3:4 and enlarged 1.25 times.
    """
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    width = max(width, 0.75 * height)
    return 1.25**2 * width * width / 0.75


def _mean_above(values: np.ndarray, threshold: float) -> float:
    """Mean of the values above a threshold; 0 if there are none."""
    above = values[values > threshold]
    return float(above.mean()) if above.size else 0.0


def _without_repeats(rows: list[dict], dataset: Dataset) -> list[dict]:
    """The rows that survive suppression in their image, in their order."""
    by_image: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_image.setdefault(row["image_id"], []).append(number)
    kept: list[int] = []
    for numbers in by_image.values():
        keypoints = np.array([np.reshape(rows[n]["keypoints"], (-1, 3)) for n in numbers])
        scores, areas = (np.array([rows[n][key] for n in numbers]) for key in ("score", "area"))
        kept += [numbers[i] for i in oks_nms(keypoints, scores, areas, dataset.sigmas or None, NMS_THRESHOLD)]
    return [rows[n] for n in sorted(kept)]


def _labels(records: Sequence[Record]) -> list[PoseLabel]:
    """Labels in record order."""
    labels = [record.label for record in records if isinstance(record.label, PoseLabel)]
    assert len(labels) == len(records)
    return labels


def _annotation_of(dataset: Dataset) -> dict:
    """COCO annotations made of the records' labels."""
    people = []
    for label in _labels(dataset.records):
        x1, y1, x2, y2 = (float(side) for side in label.box)
        keypoints = np.array(label.keypoints, dtype=np.float64)
        keypoints[:, 2] *= 2
        people.append(
            {
                "image_id": int(label.image_id),
                "category_id": 1,
                "keypoints": keypoints.ravel().tolist(),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(label.area) or (x2 - x1) * (y2 - y1) * BOX_TO_BODY,
            }
        )
    images = [{"id": i} for i in sorted({label.image_id for label in _labels(dataset.records)})]
    return {"images": images, "annotations": people}
