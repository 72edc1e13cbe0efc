"""The adapter of MPII Human Pose: one record per person."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unihap.data.coco import CocoImages
from unihap.data.files import MissingDataError, existing_folder, log_skipped, need, number_array, read_json, read_mat
from unihap.data.people import PeopleRecords, in_skeleton, pose_dataset
from unihap.data.skeletons import SKELETONS
from unihap.structures import Dataset

MPII_PIXELS = 200.0  # MPII's ``scale`` is the height of the person in units of 200 pixels
MPII_SHIFT = 15.0  # pixels per unit of scale by which the centre is lowered, to reach the feet (HRNet)
SC_BIAS = 0.6  # share of the head box's diagonal that PCKh measures with (MPII's evaluation code)


def mpii(root: Path, split: str) -> Dataset:
    """MPII Human Pose (Andriluka et al. 2014) in the JSON of HRNet, with head sizes where ``mpii_gt_val.mat`` is.

    The file counts pixels from 1; here they count from 0.  Its centre and scale become the square box of side
    200 * scale whose centre is 15 * scale pixels below the labelled one, as in HRNet and mmpose; the crop transform
    pads it by 1.25 and widens it to its own aspect, so a 3:4 crop shows 250 * scale by 333 * scale pixels, with the
    square 250 * scale of HRNet's 256x256 input in the middle.  ``head_size`` is SC_BIAS * diagonal of the head box.

    Args:
        root: datasets root.
        split: train | val.

    Raises:
        FileNotFoundError: missing or empty file or folder, or nobody left.
        ValueError: a broken entry, named by its position, or head boxes for another number of people.
    """
    title, name = "MPII", f"mpii_{split}"
    path = root / "mpii" / "annotations" / f"mpii_{split}.json"
    entries = read_json(path, title)
    folder = existing_folder(root / "mpii" / "images", title)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of people (the JSON of HRNet), got {type(entries).__name__}")
    heads = _mpii_heads(root / "mpii" / "annotations" / f"mpii_gt_{split}.mat", title, len(entries))
    skipped: Counter[str] = Counter()
    image_rows: dict[str, int] = {}
    rows, ids, keypoints, boxes = [], [], [], []
    for i, entry in enumerate(entries):
        points, box = _mpii_person(entry, partial("{}: entry {}".format, path, i))
        if not points[:, 2].any():
            skipped["no labelled keypoint"] += 1
            continue
        rows.append(image_rows.setdefault(str(entry["image"]), len(image_rows)))
        ids.append(i)
        keypoints.append(points)
        boxes.append(box)
    if not rows:
        raise MissingDataError(path, title, "the file labels nobody")
    table = CocoImages(folder, np.arange(len(image_rows)), list(image_rows))  # the file numbers no images
    records = PeopleRecords(
        table, np.array(rows), np.array(ids), np.stack(keypoints), np.stack(boxes), head_sizes=heads[ids]
    )
    return pose_dataset(name, SKELETONS["mpii"], records, metric="pckh", skipped=log_skipped(name, skipped))


def mpii_coco_keypoints(root: Path, split: str) -> Dataset:
    """MPII with COCO's keypoints, to evaluate models of COCO's keypoints on.

    The 12 of shoulders, elbows, wrists, hips, knees and ankles are shared; nose, eyes and ears are not labelled.
    ``PCK@0.2`` is the metric to read.  MPII has no areas and its boxes are squares, larger than the people in them,
    so that OKS, and AP with it, is more lenient than on COCO.  No set to train on: the model would learn that nobody
    has a face.

    Args:
        root: datasets root.
        split: train | val.

    Raises:
        FileNotFoundError: missing or empty file or folder, or nobody left.
        ValueError: see ``mpii``, or nobody has a shared keypoint.
    """
    people = mpii(root, split)
    return in_skeleton(people, f"mpii_coco_keypoints_{split}", SKELETONS["coco"], metric="keypoint_ap", use_area=False)


def _mpii_person(entry: Any, where: Callable[[], str]) -> tuple[np.ndarray, np.ndarray]:
    """(16, 3) keypoints and (4,) box of an entry."""
    need(entry, "image", where)
    centre = number_array(need(entry, "center", where), 2, where)
    scale = float(number_array([need(entry, "scale", where)], 1, where)[0])
    if scale <= 0:
        raise ValueError(f"{where()}: scale must be positive, got {scale}")
    joints = np.asarray(need(entry, "joints", where), dtype=object).ravel().tolist()
    points = np.zeros((16, 3), dtype=np.float32)
    points[:, :2] = number_array(joints, 32, where).reshape(16, 2) - 1
    points[:, 2] = number_array(need(entry, "joints_vis", where), 16, where).clip(0, 1)
    centre = centre + np.array([-1.0, MPII_SHIFT * scale - 1.0])
    half = MPII_PIXELS * scale / 2
    return points, np.concatenate([centre - half, centre + half])


def _mpii_heads(path: Path, title: str, count: int) -> np.ndarray:
    """(count,) PCKh reference lengths; zeros when the file is not there (it exists for val only)."""
    if not path.exists():
        return np.zeros(count)
    boxes = read_mat(path, title, ("headboxes_src",))["headboxes_src"].astype(np.float64)  # (2 corners, xy, people)
    if boxes.shape != (2, 2, count):
        raise ValueError(f"{path} holds {boxes.shape[-1]} head boxes for {count} people; it belongs to another json")
    return SC_BIAS * np.linalg.norm(boxes[1] - boxes[0], axis=0)
