"""The records of hundreds of thousands of people in a few arrays."""

from collections import Counter
from typing import Any

import numpy as np

from unihap.data.coco import CocoImages
from unihap.data.files import log_skipped
from unihap.data.made_records import MadeRecords
from unihap.data.skeletons import Skeleton
from unihap.structures import Dataset, PoseLabel, Record


class PeopleRecords(MadeRecords):
    """Pose records, made when they are asked for.

    AI Challenger has 378,352 training people.  As Python objects they would fill half a gigabyte, which every
    worker process copies bit by bit as it counts references; arrays are smaller and stay shared.

    Args:
        images: the images of the annotation file.
        image_rows: (N,) position of each person's image in ``images``.
        person_ids: (N,) number of each person within the file; with the image number it makes ``Record.id``.
        keypoints: (N, K, 3) x, y, visible.
        boxes: (N, 4) xyxy.
        scores: (N,) detector confidence, or one number for all.
        areas: (N,) OKS area, or one number for all.
        head_sizes: (N,) PCKh reference length, or one number for all.
    """

    def __init__(
        self,
        images: CocoImages,
        image_rows: np.ndarray,
        person_ids: np.ndarray,
        keypoints: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray | float = 1.0,
        areas: np.ndarray | float = 0.0,
        head_sizes: np.ndarray | float = 0.0,
    ) -> None:
        count = len(keypoints)
        self.images = images
        self.image_rows = np.asarray(image_rows, dtype=np.int32)
        self.person_ids = np.asarray(person_ids, dtype=np.int64)
        self.keypoints = np.asarray(keypoints, dtype=np.float32)
        self.boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        self.scores, self.areas, self.head_sizes = (
            np.broadcast_to(np.asarray(values, dtype=np.float64), (count,)) for values in (scores, areas, head_sizes)
        )
        assert len(self.image_rows) == len(self.person_ids) == len(self.boxes) == count

    def __len__(self) -> int:
        return len(self.keypoints)

    def _record(self, row: int) -> Record:
        image = int(self.image_rows[row])
        image_id = int(self.images.ids[image])
        label = PoseLabel(
            keypoints=self.keypoints[row].copy(),
            box=self.boxes[row].copy(),
            image_id=image_id,
            box_score=float(self.scores[row]),
            area=float(self.areas[row]),
            head_size=float(self.head_sizes[row]),
        )
        return Record(f"{image_id}_{self.person_ids[row]}", self.images.path(image), label)


def in_skeleton(dataset: Dataset, name: str, body: Skeleton, **rest: Any) -> Dataset:
    """The people of a pose dataset with the keypoints of another skeleton, matched by their names.

    Keypoints that the dataset does not have are not labelled; people who keep no labelled one are left out.

    Args:
        dataset: its records are ``PeopleRecords``.
        name: of the new dataset.
        body: the other skeleton.
        rest: further fields of ``Dataset``; none but ``skipped`` is taken over.

    Raises:
        ValueError: nobody is left.
    """
    people = dataset.records
    assert isinstance(people, PeopleRecords)
    shared = [keypoint for keypoint in body.names if keypoint in dataset.classes]
    keypoints = np.zeros((len(people), len(body.names), 3), dtype=np.float32)
    keypoints[:, [body.names.index(n) for n in shared]] = people.keypoints[
        :, [dataset.classes.index(n) for n in shared]
    ]
    kept = keypoints[..., 2].any(axis=1)
    if not kept.any():
        raise ValueError(f"nobody in {dataset.name} has a labelled keypoint that {name} has; shared are {shared}")
    records = PeopleRecords(
        people.images,
        people.image_rows[kept],
        people.person_ids[kept],
        keypoints[kept],
        people.boxes[kept],
        people.scores[kept],
        people.areas[kept],
        people.head_sizes[kept],
    )
    skipped = Counter(dataset.skipped) + Counter({"no labelled keypoint": int((~kept).sum())})
    return pose_dataset(name, body, records, skipped=log_skipped(name, skipped), **rest)


def pose_dataset(name: str, body: Skeleton, records: PeopleRecords, **rest: Any) -> Dataset:
    """A pose dataset with the names and constants of a skeleton; ``rest`` are further fields of ``Dataset``."""
    return Dataset(
        name, "pose", records, body.names, body.mirror, sigmas=body.sigmas, upper_body=body.upper_body, **rest
    )
