"""Adapters of the person detection datasets: one record per image; images without people stay."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unihap.data.coco import annotation_place, box_fault, image_row, person_category, read_coco, read_images
from unihap.data.files import (
    MissingDataError,
    existing_file,
    existing_folder,
    image_names,
    log_skipped,
    need,
    number_array,
    read_json,
    read_lines,
)
from unihap.data.rendered import RENDERED, TITLE
from unihap.structures import Dataset, DetectionLabel, Record

PENN_FUDAN_BOX = re.compile(r"\(Xmin, Ymin\) - \(Xmax, Ymax\) : \((\d+), (\d+)\) - \((\d+), (\d+)\)")
PENN_FUDAN_COUNT = re.compile(r"Objects with ground truth : (\d+)")
PENN_FUDAN_NAME = re.compile(r"(FudanPed|PennPed)(\d{5})\.png")
PENN_FUDAN_LAST_TRAIN = {"FudanPed": 59, "PennPed": 77}


def _label(boxes: list[np.ndarray], ignore: list[np.ndarray]) -> DetectionLabel:
    """Boxes (x, y, w, h) to a label, whose boxes are (x, y, x + w, y + h)."""
    arrays = []
    for xywh in (boxes, ignore):
        array = np.array(xywh, dtype=np.float32).reshape(-1, 4)
        array[:, 2:] += array[:, :2]
        arrays.append(array)
    return DetectionLabel(*arrays)


def read_odgt(path: Path, title: str) -> Iterator[tuple[str, Any]]:
    """Entries of an annotation file of CrowdHuman and the place of each, for error messages.

    The file holds one JSON object a line, as published, or one JSON list, as UniHCP's evaluation reads it.

    Raises:
        FileNotFoundError: no such file, or an empty one.
        ValueError: a line that is not JSON.
    """
    with existing_file(path, title).open("rb") as file:
        is_list = file.read(64).lstrip().startswith(b"[")
    if is_list:
        for i, entry in enumerate(read_json(path, title)):
            yield f"{path}: entry {i}", entry
        return
    for number, line in read_lines(path, title):
        try:
            yield f"{path} line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number} is not valid JSON ({error}); fetch it again") from None


def crowdhuman(
    root: Path,
    split: str,
    folder: str = "CrowdHuman",
    name: str = "crowdhuman",
    title: str = "CrowdHuman",
    annotation: str = "annotation_{split}.odgt",
) -> Dataset:
    """CrowdHuman (Shao et al. 2018) and every dataset in its layout: full-body boxes.

    Every tag but ``person``, and every box marked ``ignore``, becomes an ignored region.  Boxes leave the image where
    the body does: transforms clip them.  The published file does not say how large the images are, so boxes wholly
    outside an image are found only where an entry has ``width`` and ``height``.

    Args:
        root: datasets root.
        split: train | val.
        folder: folder under ``root``.
        name: the dataset's name without its split.
        title: the dataset's heading in ``datasets/README.md``.
        annotation: the annotation file's name.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: a broken line, an image listed twice.
    """
    path = root / folder / annotation.format(split=split)
    entries = read_odgt(path, title)
    images = existing_folder(root / folder / "Images", title)
    skipped: Counter[str] = Counter()
    records: dict[str, Record] = {}
    for place, entry in entries:
        where = partial(str, place)
        number = str(need(entry, "ID", where))
        if number in records:
            raise ValueError(f"{place}: the image {number} was listed before")
        size = (entry.get("width", np.inf), entry.get("height", np.inf))
        boxes, ignore = [], []
        for person in need(entry, "gtboxes", where):
            box = number_array(need(person, "fbox", where), 4, where)
            fault = box_fault(box, *size)
            if fault:
                skipped[fault] += 1
            elif need(person, "tag", where) != "person" or (person.get("extra") or {}).get("ignore") == 1:
                ignore.append(box)
            else:
                boxes.append(box)
        records[number] = Record(number, str(images / f"{number}.jpg"), _label(boxes, ignore))
    if not records:
        raise MissingDataError(path, title, "the file lists no images")
    dataset = f"{name}_{split}"
    return Dataset(
        dataset,
        "detection",
        list(records.values()),
        ("person",),
        annotation=str(path),
        skipped=log_skipped(dataset, skipped),
    )


def coco_person(root: Path, split: str) -> Dataset:
    """The people of COCO 2017; crowds are ignored regions, other categories are nothing.

    Reads ``person_keypoints_<split>2017.json``, which holds every person box, or ``instances_<split>2017.json``.

    Args:
        root: datasets root.
        split: train | val.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: a broken annotation, named by its id.
    """
    title, name = "COCO", f"coco_person_{split}"
    files = [root / "coco" / "annotations" / f"{kind}_{split}2017.json" for kind in ("person_keypoints", "instances")]
    path = next((file for file in files if file.is_file()), files[0])
    content = read_coco(path, title)
    table, sizes = read_images(content, path, existing_folder(root / "coco" / f"{split}2017", title))
    person = person_category(content, path)
    skipped: Counter[str] = Counter()
    boxes: list[list[np.ndarray]] = [[] for _ in sizes]
    ignore: list[list[np.ndarray]] = [[] for _ in sizes]
    for i, entry in enumerate(content["annotations"]):
        where = annotation_place(path, i, entry)
        if need(entry, "category_id", where) != person:
            continue
        row = image_row(entry, table, where)
        box = number_array(need(entry, "bbox", where), 4, where)
        fault = box_fault(box, *sizes[row])
        if fault:
            skipped[fault] += 1
        else:
            (ignore if entry.get("iscrowd") else boxes)[row].append(box)
    records = [
        Record(str(image_id), table.path(row), _label(boxes[row], ignore[row]))
        for row, image_id in enumerate(table.ids.tolist())
    ]
    if not records:
        raise MissingDataError(path, title, "the file lists no images")
    return Dataset(name, "detection", records, ("person",), annotation=str(path), skipped=log_skipped(name, skipped))


def penn_fudan(root: Path, split: str) -> Dataset:
    """Penn-Fudan (Wang et al. 2007).

    It has no official split.  Here ``test`` is FudanPed00060 and later and PennPed00078 and later (34 of 170 images):
    the end of either series, because neighbours may show the same street.  The file's boxes count pixels from 1 and
    include the last one: (xmin, ymin) - (xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax).

    Args:
        root: datasets root.
        split: train | test.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: a file name outside the two series, or an annotation without the boxes it announces.
    """
    title, name = "Penn-Fudan", f"pennfudan_{split}"
    images = root / "PennFudanPed" / "PNGImages"
    skipped: Counter[str] = Counter()
    records = []
    for file in image_names(images, title):
        match = PENN_FUDAN_NAME.fullmatch(file)
        if match is None:
            raise ValueError(f"{images / file}: expected a name like FudanPed00001.png; take it out of the folder")
        if (int(match[2]) > PENN_FUDAN_LAST_TRAIN[match[1]]) != (split == "test"):
            continue
        stem = Path(file).stem
        path = existing_file(root / "PennFudanPed" / "Annotation" / f"{stem}.txt", title)
        text = path.read_text(encoding="utf-8", errors="replace")
        announced = PENN_FUDAN_COUNT.search(text)
        corners = [np.array(found, dtype=np.float64) for found in PENN_FUDAN_BOX.findall(text)]
        if announced is None or int(announced[1]) != len(corners):
            expected = "a line 'Objects with ground truth'" if announced is None else f"{announced[1]} boxes"
            raise ValueError(f"{path}: expected {expected}, found {len(corners)} boxes; fetch it again")
        boxes = []
        for x1, y1, x2, y2 in corners:
            if x2 < x1 or y2 < y1:
                skipped["box of zero area"] += 1
            else:
                boxes.append(np.array([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]))
        records.append(Record(stem, str(images / file), _label(boxes, [])))
    if not records:
        raise MissingDataError(images, title, f"the folder has no image of the {split} part")
    return Dataset(name, "detection", records, ("person",), skipped=log_skipped(name, skipped))


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{f"crowdhuman_{split}": partial(crowdhuman, split=split) for split in ("train", "val")},
    **{
        f"crowdhuman_mot17_{split}": partial(
            crowdhuman, split=split, folder="crowdhuman_mot17", name="crowdhuman_mot17", title="MOT17 as CrowdHuman"
        )
        for split in ("train", "val")
    },
    **{
        f"{r.start}_crowdhuman_{split}": partial(
            crowdhuman, split=split, folder=f"{r.folder}/CrowdHuman", name=f"{r.start}_crowdhuman", title=TITLE
        )
        for r in RENDERED
        for split in ("train", "val")
    },
    **{f"coco_person_{split}": partial(coco_person, split=split) for split in ("train", "val")},
    **{f"pennfudan_{split}": partial(penn_fudan, split=split) for split in ("train", "test")},
}
