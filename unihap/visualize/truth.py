"""A contact sheet of a dataset alone: some of its images with their labels drawn on."""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

import cv2
import numpy as np

from unihap.data.images import read_image
from unihap.structures import AttributesLabel, Dataset, DetectionLabel, ParsingLabel, PoseLabel, Record, ReIDLabel
from unihap.visualize.draw import class_colours, draw_boxes, draw_label_map, draw_pose
from unihap.visualize.sheet import (
    BACKGROUND,
    IGNORED,
    INK,
    PANEL,
    RIGHT_ANSWER,
    UNKNOWN,
    Cell,
    _beside,
    _fit,
    _legend,
    _padded,
    _text,
    lay_out,
)

CROP = (300, 160)  # height and width of a field for a person
SCENE = (300, 420)  # for a picture of several
IMAGES_OF_PERSON = 6


def draw_truth(dataset: Dataset, num_cells: int = 24, texts: Sequence[str] = ()) -> np.ndarray:
    """A sheet of records spread evenly over a dataset; of people for ReID, of images for pose.

    Args:
        dataset: any; a kind that ``CELLS`` does not know is drawn as its images with ``texts``.
        num_cells: how many.
        texts: one for each record, written below its image.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: an image that cannot be read (``BadImageError``), or no record.
    """
    if not len(dataset.records):
        raise ValueError(f"{dataset.name} has no record to draw")
    make_cells, explanation = CELLS.get(dataset.kind, (None, ""))
    cells = make_cells(dataset, num_cells) if make_cells else _text_cells(dataset, num_cells, texts)
    return lay_out(cells, f"{dataset.name}: {len(dataset.records)} records", explanation)


def _spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` numbers, spread evenly over 0 ... count - 1."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def _spread_records(dataset: Dataset, wanted: int) -> list[Record]:
    return [dataset.records[i] for i in _spread(len(dataset.records), wanted)]


def _reid_cells(dataset: Dataset, wanted: int) -> list[Cell]:
    """Some images of each person."""
    people: dict[int, list[Record]] = defaultdict(list)
    for record in dataset.records:
        people[cast(ReIDLabel, record.label).identity].append(record)
    height, width = 200, 104
    cells = []
    for number in [sorted(people)[i] for i in _spread(len(people), wanted)]:
        fields = []
        for record in people[number][:IMAGES_OF_PERSON]:
            label = cast(ReIDLabel, record.label)
            picture = _padded(_fit(read_image(record.image), height, width)[0], height, width, PANEL)
            fields.append(np.concatenate([picture, _text([(f"{label.role} c{label.camera}", INK)], width)]))
        cells.append((f"person {number}", _beside(fields, width)))
    return cells


def _attributes_cells(dataset: Dataset, wanted: int) -> list[Cell]:
    height, width = CROP
    cells = []
    for record in _spread_records(dataset, wanted):
        values = cast(AttributesLabel, record.label).values
        lines = [(name, RIGHT_ANSWER) for name, value in zip(dataset.classes, values, strict=True) if value == 1]
        image = _padded(_fit(read_image(record.image), height, width)[0], height, width, PANEL)
        gap = np.full((height, 6, 3), BACKGROUND, np.uint8)
        cells.append((record.id, np.concatenate([image, gap, _text(lines, width, height)], axis=1)))
    return cells


def _parsing_cells(dataset: Dataset, wanted: int) -> list[Cell]:
    height, width = CROP
    assert dataset.read_label_map is not None
    colours = class_colours(len(dataset.classes))
    cells = []
    for record in _spread_records(dataset, wanted):
        image, _ = _fit(read_image(record.image), height, width)
        label_map = dataset.read_label_map(cast(ParsingLabel, record.label).path)
        label_map = cv2.resize(label_map, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        numbers = [n for n in np.unique(label_map).tolist() if n not in (0, IGNORED)]
        pair = _beside([image, draw_label_map(image, label_map, colours, opacity=0.75)], width)
        legend = _legend([dataset.classes[n] for n in numbers], [colours[n] for n in numbers], pair.shape[1])
        cells.append((record.id, np.concatenate([pair, legend])))
    return cells


def _pose_cells(dataset: Dataset, wanted: int) -> list[Cell]:
    """Everybody of an image, with their boxes."""
    images: dict[str, list[Record]] = defaultdict(list)
    for record in dataset.records:
        images[record.image].append(record)
    cells = []
    for path in [list(images)[i] for i in _spread(len(images), wanted)]:
        image = read_image(path)
        field = SCENE if image.shape[1] > image.shape[0] else CROP
        picture, factors = _fit(image, *field)
        labels = [cast(PoseLabel, record.label) for record in images[path]]
        picture = draw_boxes(picture, np.stack([label.box for label in labels]) * np.tile(factors, 2), UNKNOWN)
        for label in labels:
            places = (label.keypoints[:, :2] + 0.5) * factors - 0.5
            picture = draw_pose(picture, np.column_stack([places, label.keypoints[:, 2]]), dataset.classes, size=3)
        cells.append((images[path][0].id, _padded(picture, *field, PANEL)))
    return cells


def _detection_cells(dataset: Dataset, wanted: int) -> list[Cell]:
    cells = []
    for record in _spread_records(dataset, wanted):
        image, factors = _fit(read_image(record.image), *SCENE)
        label, scale = cast(DetectionLabel, record.label), np.tile(factors, 2)
        image = draw_boxes(image, label.ignore * scale, UNKNOWN)
        cells.append((f"{record.id}: {len(label.boxes)} people", draw_boxes(image, label.boxes * scale, RIGHT_ANSWER)))
    return cells


def _text_cells(dataset: Dataset, wanted: int, texts: Sequence[str]) -> list[Cell]:
    height, width = CROP[0], 300
    cells = []
    for i in _spread(len(dataset.records), wanted):
        record = dataset.records[i]
        picture = _padded(_fit(read_image(record.image), height, width)[0], height, width, PANEL)
        lines = [
            (line, INK)
            for sentence in (texts[i].splitlines() if texts else ())
            for line in textwrap.wrap(sentence, width // 7)
        ]
        cells.append((record.id, np.concatenate([picture, _text(lines or [("", INK)], width)])))
    return cells


CELLS: dict[str, tuple[Callable[[Dataset, int], list[Cell]], str]] = {
    "reid": (_reid_cells, "some images of each person, with role and camera"),
    "attributes": (_attributes_cells, "the attributes that are labelled present"),
    "parsing": (_parsing_cells, "image and label map"),
    "pose": (_pose_cells, "orange: the person's left, blue: right, rings: labelled as unsure; grey: boxes"),
    "detection": (_detection_cells, "full-body boxes; grey: ignored"),
}
