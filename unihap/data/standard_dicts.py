"""A dataset in detectron2's standard format: plain dictionaries, an entry per image."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from PIL import Image

from unihap.data.images import PNG_GREY, PNG_SIGNATURE
from unihap.data.label_maps import LabelMapReader
from unihap.data.people import PeopleRecords
from unihap.lookup import lookup
from unihap.structures import AttributesLabel, Dataset, DetectionLabel, ParsingLabel, PoseLabel, Record, ReIDLabel

logger = logging.getLogger(__name__)

XYXY_ABS = 0  # the value of detectron2.structures.BoxMode.XYXY_ABS
LABELLED = 2  # COCO's v; whether a labelled keypoint is hidden is not known here

Dict = dict[str, Any]


def dataset_dicts(dataset: Dataset) -> list[Dict]:
    """A dataset in detectron2's standard format, an entry per image; needs no detectron2.

    Pose: the people of an image together, and the images without labelled people too, with no annotations.
    Detection: ignored regions are annotations with ``iscrowd``.  Parsing: ``sem_seg_file_name`` only where
    detectron2's reader gets class numbers from the file; elsewhere ``label_map_file_name``, for the
    ``read_label_map`` of the metadata.  Attributes and ReID: their labels under their own names.  Unlabelled: none.
    """
    return lookup(_DICTS, dataset.kind, "kind of dataset")(dataset)


def _image_dict(image: str, image_id: int | str) -> Dict:
    with Image.open(image) as opened:  # reads the header alone
        width, height = opened.size
    return {"file_name": image, "height": height, "width": width, "image_id": image_id}


def _annotation(box: np.ndarray, **rest: Any) -> Dict:
    return {"bbox": np.asarray(box, float).tolist(), "bbox_mode": XYXY_ABS, "category_id": 0, "iscrowd": 0, **rest}


def _pose_dicts(dataset: Dataset) -> list[Dict]:
    dicts: dict[str, Dict] = {}
    if isinstance(dataset.records, PeopleRecords):
        images = dataset.records.images
        for row, image_id in enumerate(images.ids.tolist()):
            dicts[images.path(row)] = _image_dict(images.path(row), image_id) | {"annotations": []}
    for record in dataset.records:
        label = cast(PoseLabel, record.label)
        if record.image not in dicts:
            dicts[record.image] = _image_dict(record.image, label.image_id) | {"annotations": []}
        labelled = label.keypoints[:, 2:] > 0
        points = np.concatenate([label.keypoints[:, :2] + 0.5, np.full_like(labelled, LABELLED, dtype=float)], axis=1)
        keypoints = np.where(labelled, points, 0).astype(float).ravel().tolist()
        dicts[record.image]["annotations"].append(_annotation(label.box, keypoints=keypoints))
    return list(dicts.values())


def _detection_dict(record: Record) -> Dict:
    label = cast(DetectionLabel, record.label)
    people = [_annotation(box) for box in label.boxes]
    ignored = [_annotation(box, iscrowd=1) for box in label.ignore]
    # COCO's own image numbers are whole numbers, by which its evaluation finds them
    image_id = int(record.id) if record.id.isdecimal() and str(int(record.id)) == record.id else record.id
    return _image_dict(record.image, image_id) | {"annotations": people + ignored}


def _parsing_dicts(dataset: Dataset) -> list[Dict]:
    paths = [cast(ParsingLabel, record.label).path for record in dataset.records]
    reader = dataset.read_label_map
    as_it_is = reader == LabelMapReader(tuple(range(len(dataset.classes))))
    key = "sem_seg_file_name" if as_it_is and all(map(_is_grey, paths)) else "label_map_file_name"
    if key == "label_map_file_name":
        logger.warning(
            "%s: its label maps do not hold class numbers as grey values; read label_map_file_name with the "
            "read_label_map of its metadata",
            dataset.name,
        )
    return [_image_dict(r.image, r.id) | {key: path} for r, path in zip(dataset.records, paths, strict=True)]


def _is_grey(path: str) -> bool:
    """Whether a label map is a PNG with 8 bits of grey; Pillow changes the numbers of palettes and of fewer bits."""
    with open(path, "rb") as file:
        header = file.read(26)
    return header[:8] == PNG_SIGNATURE and tuple(header[24:]) == (8, PNG_GREY)


def _attributes_dict(record: Record) -> Dict:
    return _image_dict(record.image, record.id) | {"attributes": cast(AttributesLabel, record.label).values.tolist()}


def _reid_dict(record: Record) -> Dict:
    label = cast(ReIDLabel, record.label)
    return _image_dict(record.image, record.id) | {
        "identity": label.identity,
        "camera": label.camera,
        "role": label.role,
    }


_DICTS: Mapping[str, Callable[[Dataset], list[Dict]]] = {
    "pose": _pose_dicts,
    "parsing": _parsing_dicts,
    "detection": lambda dataset: [_detection_dict(record) for record in dataset.records],
    "attributes": lambda dataset: [_attributes_dict(record) for record in dataset.records],
    "reid": lambda dataset: [_reid_dict(record) for record in dataset.records],
    "unlabelled": lambda dataset: [_image_dict(record.image, record.id) for record in dataset.records],
}
