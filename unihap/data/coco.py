"""Files in the formats of COCO: annotations and detector results."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unihap.data.files import need, number_array, read_json


class CocoImages:
    """The images of an annotation file.

    A name costs as many bytes as it has letters, and the arrays are shared with forked workers untouched.

    Args:
        folder: folder of the image files.
        ids: (I,) int64 image numbers.
        names: I file names under ``folder``.
    """

    def __init__(self, folder: Path, ids: np.ndarray, names: list[str]) -> None:
        self.folder = folder
        self.ids = ids
        self.names = np.array([name.encode() for name in names]) if names else np.empty(0, dtype="S1")
        self.row = {int(image_id): i for i, image_id in enumerate(ids)}

    def path(self, row: int) -> str:
        """Path of the image at position ``row``."""
        return str(self.folder / bytes(self.names[row]).decode())


def read_coco(path: Path, title: str) -> dict[str, Any]:
    """An annotation file without its polygons.

    Raises:
        FileNotFoundError: no such file, or an empty one.
        ValueError: not JSON, or without the lists ``images`` and ``annotations``.
    """
    content = read_json(path, title, drop=("segmentation",))
    for key in ("images", "annotations"):
        if not isinstance(need(content, key, lambda: str(path)), list):
            raise ValueError(f"{path}: {key!r} must be a list")
    return dict(content)


def read_images(content: dict[str, Any], path: Path, folder: Path) -> tuple[CocoImages, np.ndarray]:
    """The image table of ``read_coco`` and (I, 2) int32 (width, height).

    Raises:
        ValueError: a missing key, a size that is not positive, or an image number that occurs twice.
    """
    ids, names, sizes = [], [], []
    for i, image in enumerate(content["images"]):
        where = _place(path, "images", i)
        ids.append(integer(need(image, "id", where), "id", where))
        names.append(str(need(image, "file_name", where)))
        size = number_array([need(image, "width", where), need(image, "height", where)], 2, where)
        if size.min() < 1:
            raise ValueError(f"{where()}: width and height must be positive, got {size.tolist()}")
        sizes.append(size)
    table = CocoImages(folder, np.array(ids, dtype=np.int64), names)
    if len(table.row) < len(ids):
        number = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"{path}: two images have the id {number}; image ids must be unique")
    return table, np.array(sizes, dtype=np.int32).reshape(-1, 2)


def image_row(annotation: Any, images: CocoImages, where: Callable[[], str]) -> int:
    """Position of an annotation's image in the image table.

    Raises:
        ValueError: no whole number, or no such image.
    """
    number = integer(need(annotation, "image_id", where), "image_id", where)
    if number not in images.row:
        raise ValueError(f"{where()}: image_id {number!r} is not among the images")
    return images.row[number]


def annotation_place(path: Path, index: int, annotation: Any) -> Callable[[], str]:
    """Names an annotation in an error message, by its id where it has one."""
    if isinstance(annotation, dict) and "id" in annotation:
        return lambda: f"{path}: annotation {annotation['id']}"
    return _place(path, "annotations", index)


def annotation_id(annotation: Any, where: Callable[[], str]) -> int:
    """The annotation's number.

    Raises:
        ValueError: missing, or no whole number.
    """
    return integer(need(annotation, "id", where), "id", where)


def person_category(content: dict[str, Any], path: Path) -> int:
    """Number of the category ``person``.

    Raises:
        ValueError: there is none.
    """
    for category in content.get("categories", []):
        if isinstance(category, dict) and category.get("name") == "person" and "id" in category:
            return int(category["id"])
    raise ValueError(f"{path}: no category is named 'person'; is this the right annotation file?")


def box_fault(box: np.ndarray, width: float, height: float) -> str:
    """Why a box (x, y, w, h) of an image cannot be used, or an empty string."""
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "box of zero area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "box outside the image"
    return ""


def _place(path: Path, key: str, index: int) -> Callable[[], str]:
    return lambda: f"{path}: {key}[{index}]"


def integer(value: Any, key: str, where: Callable[[], str]) -> int:
    """``value``, if it is a whole number.

    Raises:
        ValueError: it is not; ``key`` and ``where()`` name the place.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where()}: {key} must be a whole number, got {value!r}")
    return value
