"""Adapters of the 2D pose datasets: one record per person."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unihap.data.coco import (
    annotation_id,
    annotation_place,
    box_fault,
    image_row,
    integer,
    read_coco,
    read_images,
)
from unihap.data.files import MissingDataError, existing_folder, log_skipped, need, number_array, read_json
from unihap.data.mpii import mpii, mpii_coco_keypoints
from unihap.data.people import PeopleRecords, pose_dataset
from unihap.data.rendered import RENDERED, TITLE, Rendered
from unihap.data.skeletons import SKELETONS
from unihap.structures import Dataset

PERSON = 1  # category of the results format


def clip_coco_box(box: np.ndarray, width: float, height: float) -> np.ndarray | None:
    """COCO's box (x, y, w, h) inside its image by the rule of HRNet and mmpose ("-1" rule).

    Corners are pixels: the last one is x + w - 1, and at most width - 1.

    Returns:
        (4,) xyxy, or ``None`` when less than two pixels remain in a direction.
    """
    x, y, w, h = box
    x1, y1 = max(0.0, x), max(0.0, y)
    x2, y2 = min(width - 1.0, x1 + max(0.0, w - 1)), min(height - 1.0, y1 + max(0.0, h - 1))
    return np.array([x1, y1, x2, y2]) if x2 > x1 and y2 > y1 else None


def coco_pose(
    root: Path,
    annotation: str,
    images: str,
    *,
    name: str,
    title: str,
    skeleton: str,
    keep: Sequence[int] | None = None,
    metric: str = "keypoint_ap",
    use_area: bool = True,
) -> Dataset:
    """A dataset in COCO's keypoint format.

    Left out and counted: crowds, people without a labelled keypoint, areas and boxes of nothing, boxes outside the
    image.  Boxes are clipped by ``clip_coco_box``.  Labelled but hidden keypoints (v = 1) count as labelled.

    Args:
        root: datasets root.
        annotation: the annotation file under ``root``.
        images: folder of the images under ``root``.
        name: ``<dataset>_<split>``.
        title: the dataset's heading in ``datasets/README.md``.
        skeleton: key of ``SKELETONS``.
        keep: positions of the file's keypoints that make up the skeleton; all of them by default.
        metric: see ``Dataset``.
        use_area: see ``Dataset``.

    Raises:
        FileNotFoundError: missing or empty file or folder, or nobody left.
        ValueError: a broken annotation, named by its id.
    """
    path = root / annotation
    content = read_coco(path, title)
    table, sizes = read_images(content, path, existing_folder(root / images, title))
    body = SKELETONS[skeleton]
    skipped: Counter[str] = Counter()
    rows, ids, keypoints, boxes, areas = [], [], [], [], []
    for i, entry in enumerate(content["annotations"]):
        where = annotation_place(path, i, entry)
        row = image_row(entry, table, where)
        person = _person(entry, sizes[row], len(body.names), keep, where)
        if isinstance(person, str):
            skipped[person] += 1
            continue
        rows.append(row)
        ids.append(annotation_id(entry, where))
        keypoints.append(person[0])
        boxes.append(person[1])
        areas.append(float(entry.get("area") or 0.0))
    if not rows:
        raise MissingDataError(path, title, "the file labels nobody")
    pairs = Counter(zip(rows, ids, strict=True)).most_common(1)[0]
    if pairs[1] > 1:
        raise ValueError(f"{path}: {pairs[1]} annotations have the id {pairs[0][1]}; annotation ids must be unique")
    records = PeopleRecords(
        table, np.array(rows), np.array(ids), np.stack(keypoints), np.stack(boxes), areas=np.array(areas)
    )
    # the official evaluation reads the file itself, which it can where the file has the keypoints of the skeleton
    official = str(path) if keep is None and metric == "keypoint_ap" else ""
    return pose_dataset(
        name,
        body,
        records,
        metric=metric,
        use_area=use_area,
        annotation=official,
        skipped=log_skipped(name, skipped),
    )


def _person(
    entry: Any, size: np.ndarray, num_keypoints: int, keep: Sequence[int] | None, where: Callable[[], str]
) -> tuple[np.ndarray, np.ndarray] | str:
    """(K, 3) float32 keypoints and (4,) box of an annotation, or why it is left out."""
    if entry.get("iscrowd"):
        return "crowd"
    if entry.get("num_keypoints") == 0:
        return "no labelled keypoint"
    values = need(entry, "keypoints", where)
    count = len(values) // 3 if isinstance(values, list) else 0
    if count != num_keypoints if keep is None else count <= max(keep):
        wanted = num_keypoints if keep is None else max(keep) + 1
        raise ValueError(f"{where()}: expected {wanted} keypoints (x, y, v), got {count}")
    points = number_array(values, 3 * count, where).reshape(count, 3).astype(np.float32)
    if keep is not None:
        points = points[list(keep)]
    points[:, 2] = points[:, 2].clip(0, 1)  # 1 hidden and 2 visible are both labelled
    if not points[:, 2].any():
        return "no labelled keypoint"
    area = entry.get("area")  # COCO's own; the converted datasets have none
    if area is not None and not isinstance(area, int | float):
        raise ValueError(f"{where()}: area must be a number, got {area!r}")
    if area is not None and area <= 0:
        return "area of zero"
    box = number_array(need(entry, "bbox", where), 4, where)
    fault = box_fault(box, *size)
    if fault:
        return fault
    clipped = clip_coco_box(box, *size)
    return (points, clipped) if clipped is not None else "box of one pixel"


def with_detector_boxes(dataset: Dataset, results: str | Path, threshold: float = 0.0) -> Dataset:
    """The images of a pose dataset with a detector's boxes in place of the labelled people.

    Boxes (x, y, w, h) become (x, y, x + w, y + h) as they are, without clipping (HRNet, mmpose).  No keypoint is
    labelled; ``Record.id`` is ``<image_id>_<position in the file>``.  All images of the dataset are evaluated
    (``Dataset.image_ids``), also those in which the detector found nobody.

    Args:
        dataset: a dataset of this module; its images, with and without people, are the ones looked at.
        results: file in COCO's results format: a list of {image_id, category_id, bbox, score}.
        threshold: lowest score that is kept.

    Raises:
        FileNotFoundError: no such file, or no box left.
        ValueError: not the results format, or a dataset without known images or without an annotation file.
    """
    if not isinstance(dataset.records, PeopleRecords):
        raise ValueError(f"{dataset.name} is no dataset of people in images; its kind is {dataset.kind}")
    if not dataset.annotation:
        raise ValueError(
            f"{dataset.name} cannot be evaluated with a detector's boxes: its truth is the labels of the very people "
            "whom they would replace; leave its boxes as they are"
        )
    images = dataset.records.images
    results = Path(results)
    entries = read_json(results, "Detector boxes")
    if not isinstance(entries, list):
        raise ValueError(f"{results}: expected a list of detections, got {type(entries).__name__}")
    skipped: Counter[str] = Counter()
    rows, ids, boxes, scores = [], [], [], []
    for i, entry in enumerate(entries):
        where = partial("{}: entry {}".format, results, i)
        box = number_array(need(entry, "bbox", where), 4, where)
        score = float(number_array([need(entry, "score", where)], 1, where)[0])
        image_id = integer(need(entry, "image_id", where), "image_id", where)
        if entry.get("category_id", PERSON) != PERSON:
            fault = "not a person"
        elif score < threshold:
            fault = "score below the threshold"
        elif image_id not in images.row:
            fault = "image not in the dataset"
        else:
            fault = "box of zero area" if box[2:].min() <= 0 else ""
        if fault:
            skipped[fault] += 1
            continue
        rows.append(images.row[image_id])
        ids.append(i)
        boxes.append([box[0], box[1], box[0] + box[2], box[1] + box[3]])
        scores.append(score)
    if not rows:
        raise MissingDataError(results, "Detector boxes", f"the file has no box for {dataset.name}")
    points = np.broadcast_to(np.float32(0), (len(rows), len(dataset.classes), 3))
    records = PeopleRecords(images, np.array(rows), np.array(ids), points, np.array(boxes), scores=np.array(scores))
    return replace(
        dataset,
        records=records,
        image_ids=tuple(images.ids.tolist()),
        skipped=log_skipped(f"{dataset.name} with detector boxes", skipped),
    )


AIC_FOLDERS = {
    "train": "aic/ai_challenger_keypoint_train_20170902/keypoint_train_images_20170902",
    "val": "aic/ai_challenger_keypoint_validation_20170911/keypoint_validation_images_20170911",
}
HALPE_FOLDERS = {"train": "halpe/hico_20160224_det/images/train2015", "val": "halpe/val2017"}
POSETRACK_KEEP = (0, 1, 2, *range(5, 17))  # without the ears


def _coco_keypoints(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"coco/annotations/person_keypoints_{split}2017.json",
        images=f"coco/{split}2017",
        name=f"coco_keypoints_{split}",
        title="COCO",
        skeleton="coco",
    )


def _rendered(source: Rendered, split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"{source.folder}/coco/annotations/person_keypoints_{split}2017.json",
        images=f"{source.folder}/coco/{split}2017",
        name=f"{source.start}_coco_keypoints_{split}",
        title=TITLE,
        skeleton=source.skeleton,
    )


def _ochuman(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"ochuman/annotations/ochuman_coco_format_{split}_range_0.00_1.00.json",
        images="ochuman/images",
        name=f"ochuman_{split}",
        title="OCHuman",
        skeleton="coco",
    )


def _aic(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"aic/annotations/aic_{split}.json",
        images=AIC_FOLDERS[split],
        name=f"aic_{split}",
        title="AI Challenger",
        skeleton="aic",
        use_area=False,
    )


def _posetrack18(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"posetrack18/annotations/posetrack18_{split}.json",
        images="posetrack18",  # the file names begin with images/
        name=f"posetrack18_{split}",
        title="PoseTrack18",
        skeleton="posetrack18",
        keep=POSETRACK_KEEP,
    )


def _h36m(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"h36m/annotation_body2d/h36m_coco_{split}.json",
        images="h36m/images",
        name=f"h36m_pose_{split}",
        title="Human3.6M",
        skeleton="h36m",
        metric="end_point_error",
    )


def _mhp(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"mhp/annotations/mhp_{split}.json",
        images=f"mhp/{split}/images",
        name=f"mhp_{split}",
        title="MHP v2",
        skeleton="mhp",
    )


def _halpe(split: str) -> partial[Dataset]:
    return partial(
        coco_pose,
        annotation=f"halpe/annotations/halpe_{split}_v1.json",
        images=HALPE_FOLDERS[split],
        name=f"halpe_{split}",
        title="Halpe",
        skeleton="halpe",
        keep=range(20),
    )


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{f"coco_keypoints_{split}": _coco_keypoints(split) for split in ("train", "val")},
    **{f"ochuman_{split}": _ochuman(split) for split in ("val", "test")},
    **{f"aic_{split}": _aic(split) for split in ("train", "val")},
    **{f"posetrack18_{split}": _posetrack18(split) for split in ("train", "val")},
    **{f"h36m_pose_{split}": _h36m(split) for split in ("train", "test")},
    **{f"mhp_{split}": _mhp(split) for split in ("train", "val")},
    **{f"halpe_{split}": _halpe(split) for split in ("train", "val")},
    **{f"mpii_{split}": partial(mpii, split=split) for split in ("train", "val")},
    **{f"mpii_coco_keypoints_{split}": partial(mpii_coco_keypoints, split=split) for split in ("train", "val")},
    **{f"{r.start}_coco_keypoints_{split}": _rendered(r, split) for r in RENDERED for split in ("train", "val")},
}
