"""Reading CrowdHuman annotations and detections, and their overlaps (Shao et al. 2018, arXiv:1805.00123)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EPSILON = 1e-6  # square pixels; CrowdHuman's tools add it to every area they divide by


@dataclass(frozen=True)
class Scene:
    """One image: detections by descending score, and how they overlap the truth.

    Attributes:
        scores: (D,) descending; equal scores keep the order of the detections.
        iou: (D, N) with the people.
        covered: (D,) bool, more than half of the detection lies in one ignore region.
        person_covered: (N,) bool, the same for the people.
    """

    scores: np.ndarray
    iou: np.ndarray
    covered: np.ndarray
    person_covered: np.ndarray


def read_odgt(path: str | Path) -> list[dict]:
    """Records of an .odgt file: one JSON object a line, or a JSON list of them on one line (UniHCP's form).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no JSON object or list of objects.
    """
    records: list[dict] = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
            content = content if isinstance(content, list) else [content]
            if not all(isinstance(record, dict) for record in content):
                raise ValueError(f"{path}, line {number} holds something else than JSON objects")
            records.extend(content)
    return records


def scenes(truth: list[dict], detections: list[dict]) -> Iterator[Scene]:
    """Pairs the records of both sides by ``ID``, clips their boxes to the image and measures the overlaps.

    Scenes come in the order of the truth; an image without a detection record has no detections.

    Raises:
        ValueError: IDs that repeat or do not fit, missing keys or image sizes, impossible boxes or scores.
    """
    people, found = _by_id("ground truth", truth), _by_id("detections", detections)
    strangers = [name for name in found if name not in people]
    if strangers:
        raise ValueError(f"{len(strangers)} detection records name no ground-truth image, e.g. ID {strangers[0]!r}")
    for name, record in people.items():
        yield _scene(name, record, found.get(name, {"dtboxes": []}))


def _by_id(side: str, records: list[dict]) -> dict[str, dict]:
    """Records by their ``ID``, in their order."""
    table: dict[str, dict] = {}
    for record in records:
        if "ID" not in record:
            raise ValueError(f"a record of the {side} has no 'ID'; its keys are {sorted(record)}")
        if record["ID"] in table:
            raise ValueError(f"ID {record['ID']!r} occurs twice in the {side}")
        table[record["ID"]] = record
    return table


def _scene(name: str, truth: dict, found: dict) -> Scene:
    """Boxes and overlaps of one image."""
    try:
        people = [b["fbox"] for b in truth["gtboxes"] if not _is_ignored(b)]
        ignore = [b["fbox"] for b in truth["gtboxes"] if _is_ignored(b)]
        boxes = [(*b["box"], b["score"]) for b in found["dtboxes"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"image {name!r} does not follow CrowdHuman's format: {error!r}") from error
    persons, regions, table = _numbers(name, people, 4), _numbers(name, ignore, 4), _numbers(name, boxes, 5)
    scores = table[:, 4]
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(f"image {name!r} has scores from {scores.min()} to {scores.max()}; expected values within 0-1")
    if not len(scores):
        return Scene(scores, np.empty((0, len(persons))), np.empty(0, dtype=bool), np.zeros(len(persons), dtype=bool))

    width, height = (truth.get(side, found.get(side)) for side in ("width", "height"))
    if not width or not height or width < 0 or height < 0:
        raise ValueError(
            f"image {name!r} has width {width} and height {height}; boxes are clipped to the image, so its size must "
            "stand in the ground truth or in the detections"
        )
    order = np.argsort(-scores, kind="stable")
    clipped = _clip(table[order, :4], width, height)
    persons, regions = _clip(persons, width, height), _clip(regions, width, height)
    return Scene(
        scores=scores[order],
        iou=_overlap(clipped, persons),
        covered=_covered(clipped, regions),
        person_covered=_covered(persons, regions),
    )


def _is_ignored(box: dict) -> bool:
    """Whether an annotated box counts neither for nor against a detector."""
    return box["tag"] != "person" or bool(box.get("extra", {}).get("ignore", 0))


def _numbers(name: str, boxes: list, width: int) -> np.ndarray:
    """(len(boxes), width) float64, checked."""
    if not boxes:
        return np.empty((0, width))
    try:
        table = np.array(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"image {name!r} has a box that is not {width} numbers: {error}") from error
    if table.shape != (len(boxes), width):
        raise ValueError(f"image {name!r} has boxes of shape {table.shape}; expected x, y, width, height")
    if not np.isfinite(table).all() or table[:, 2:4].min() < 0:
        wrong = table[~np.isfinite(table).all(axis=1) | (table[:, 2:4] < 0).any(axis=1)][0]
        raise ValueError(f"image {name!r} has the impossible box {wrong[:4].tolist()} (x, y, width, height, score)")
    return table


def _clip(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes xywh -> xyxy inside the image; x1, y1 end one pixel earlier than x2, y2, as in CrowdHuman's tools."""
    corner = np.clip(boxes[:, :2], 0, (width - 1, height - 1))
    return np.hstack([corner, np.clip(boxes[:, :2] + boxes[:, 2:], 0, (width, height))])


def _covered(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(N,) bool, whether more than half of a box lies in one region."""
    return np.asarray((_overlap(boxes, regions, union=False) > 0.5).any(axis=1))


def _overlap(a: np.ndarray, b: np.ndarray, union: bool = True) -> np.ndarray:
    """(len(a), len(b)) intersection over union, or over the area of ``a``."""
    inter = np.ones((len(a), len(b)))
    for axis in (0, 1):
        sides = np.minimum(a[:, None, axis + 2], b[:, axis + 2]) - np.maximum(a[:, None, axis], b[:, axis])
        inter *= np.maximum(sides, 0, out=sides)
    area_a, area_b = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b))
    whole = area_a[:, None] + area_b - inter if union else area_a[:, None]
    return inter / (whole + EPSILON)
