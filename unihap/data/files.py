"""Opening a dataset's files, with errors that say what is missing and where to read about it."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class MissingDataError(FileNotFoundError):
    """A dataset's file or folder is not there.

    Args:
        path: what was looked for.
        title: the dataset's heading in ``datasets/README.md``.
        problem: what is wrong with it.
    """

    def __init__(self, path: Path, title: str, problem: str) -> None:
        super().__init__(f'{problem}: {path}; see "{title}" in datasets/README.md')
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:  # FileNotFoundError would be rebuilt from its one message
        return FileNotFoundError, self.args


def existing_file(path: Path, title: str) -> Path:
    """``path``, if it is a file that holds anything.

    Raises:
        MissingDataError: it is not there, or empty.
    """
    if not path.is_file():
        raise MissingDataError(path, title, "no such file")
    if path.stat().st_size == 0:
        raise MissingDataError(path, title, "the file is empty")
    return path


def existing_folder(path: Path, title: str) -> Path:
    """``path``, if it is a folder that holds anything.

    Raises:
        MissingDataError: it is not there, or empty.
    """
    if not path.is_dir():
        raise MissingDataError(path, title, "no such folder")
    with os.scandir(path) as entries:
        if next(entries, None) is None:
            raise MissingDataError(path, title, "the folder is empty")
    return path


def image_names(folder: Path, title: str) -> list[str]:
    """Names of the image files in ``folder``, sorted.

    Raises:
        MissingDataError: no such folder, or no image in it.
    """
    existing_folder(folder, title)
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES))
    if not names:
        raise MissingDataError(folder, title, "no images in the folder")
    return names


def read_lines(path: Path, title: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file without surrounding space; blank ones are left out.

    Raises:
        MissingDataError: no such file, or an empty one.
        ValueError: it is not UTF-8 text.
    """
    try:
        with existing_file(path, title).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); fetch it again") from None


def read_json(path: Path, title: str, drop: tuple[str, ...] = ()) -> Any:
    """The value a JSON file holds.

    Args:
        path: the file.
        title: the dataset's heading in ``datasets/README.md``.
        drop: keys to forget at once: the polygons are most of COCO's annotations and nothing here reads them.

    Raises:
        MissingDataError: no such file, or an empty one.
        ValueError: it is not JSON.
    """

    def without(value: dict[str, Any]) -> dict[str, Any]:
        for key in drop:
            value.pop(key, None)
        return value

    try:
        with existing_file(path, title).open(encoding="utf-8") as file:
            return json.load(file, object_hook=without if drop else None)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again") from None


def read_mat(path: Path, title: str, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file.

    Raises:
        MissingDataError: no such file, or an empty one.
        ValueError: it is not a MATLAB file, or lacks one of ``keys``.
    """
    existing_file(path, title)
    try:
        content = scipy.io.loadmat(str(path), variable_names=keys)
    # a damaged file surfaces as whichever of these its first wrong byte provokes
    except (ValueError, TypeError, KeyError, OSError, EOFError, NotImplementedError, IndexError) as error:
        raise ValueError(f"{path} is not a readable MATLAB file ({error}); fetch it again") from None
    for key in keys:
        if key not in content:
            raise ValueError(f"{path} has no variable {key!r}; fetch it again")
    return content


def log_skipped(name: str, skipped: Mapping[str, int]) -> dict[str, int]:
    """Says once what was left out, and returns it as a plain dictionary."""
    if skipped:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(skipped.items()))
        logger.info("%s: left out %s", name, reasons)
    return dict(sorted(skipped.items()))


def need(entry: Any, key: str, where: Callable[[], str]) -> Any:
    """``entry[key]``.

    Raises:
        ValueError: ``entry`` is no dictionary or lacks ``key``; ``where()`` names the file and place.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where()}: expected an object, got {type(entry).__name__}")
    if key not in entry:
        raise ValueError(f"{where()}: no key {key!r}")
    return entry[key]


def number_array(value: Any, count: int, where: Callable[[], str]) -> np.ndarray:
    """``value`` as (count,) float64.

    Raises:
        ValueError: it is not ``count`` finite numbers; ``where()`` names the file and place.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (count,) or not np.isfinite(array).all():
        shown = repr(value)
        raise ValueError(f"{where()}: expected {count} finite numbers, got {shown[:80]}{'...' * (len(shown) > 80)}")
    return array
