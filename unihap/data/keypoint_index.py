"""The keypoints of a folder of person crops, packed into one file.

The file is an ``.npz`` of arrays, M crops long: ``names`` (paths under the folder, UTF-8 bytes), ``keypoints``
(M, 17, 3) float16 or float32, ``has_person`` (M,) bool; and the text ``source``, what found them.  Keypoints are
x, y, score in COCO's order, in pixels of the stored image; a crop in which the detector found nobody has -1, -1, 0.
``has_person`` (everybody is there) and ``source`` may be missing and ``names`` may be text, as in the rendered people.
Reading it runs nothing: numpy is told to refuse pickles.

The released keypoints of LUPerson are instead one ``.npy`` of pickled objects for each image, which ``numpy.load`` can
only read by running whatever the pickle says.  ``read_legacy`` parses their header with ``numpy.lib.format`` and the
rest with ``unihap.data.restricted_pickle``: lists, dictionaries, numbers and arrays of numbers come out, any other name
in the pickle is an error before anything is imported.
"""

import logging
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unihap.data.restricted_pickle import BadPickleError, read_object_array

logger = logging.getLogger(__name__)

NUM_KEYPOINTS = 17
ABSENT = (-1.0, -1.0, 0.0)  # of a crop without a person
PRECISIONS = ("float16", "float32")


@dataclass(frozen=True)
class KeypointIndex:
    """Keypoints by name of the crop.

    Attributes:
        names: (M,) bytes, paths under the folder of the crops with ``/``, UTF-8; each once.
        keypoints: (M, 17, 3) float16 or float32: x, y, score in pixels of the stored image.
        has_person: (M,) bool.
        source: what found them, in words; "" when nobody said.
    """

    names: np.ndarray
    keypoints: np.ndarray
    has_person: np.ndarray
    source: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, names: np.ndarray) -> np.ndarray:
        """(N,) int64: where each of ``names``, (N,) bytes, is in the index; -1 where it is not."""
        if not len(self):
            return np.full(len(names), -1, dtype=np.int64)
        if np.array_equal(names, self.names):
            return np.arange(len(self), dtype=np.int64)
        order = np.argsort(self.names, kind="stable")
        place = np.minimum(np.searchsorted(self.names, names, sorter=order), len(self) - 1)
        found = order[place]
        return np.where(self.names[found] == names, found, -1)

    def extended(self, other: "KeypointIndex") -> "KeypointIndex":
        """Both, in this one's precision; the other's names must be new."""
        keypoints = other.keypoints.astype(self.keypoints.dtype)
        return KeypointIndex(
            np.concatenate([self.names, other.names]),
            np.concatenate([self.keypoints, keypoints]),
            np.concatenate([self.has_person, other.has_person]),
            self.source,
        )


def as_names(names: Sequence[str]) -> np.ndarray:
    """(N,) bytes of paths under a folder."""
    return np.array([name.encode() for name in names], dtype=np.bytes_) if len(names) else np.empty(0, "S1")


def make_index(
    names: Sequence[str], people: Sequence[np.ndarray | None], precision: str = "float32", source: str = ""
) -> KeypointIndex:
    """An index from a list of (17, 3) keypoints, ``None`` where there is nobody.

    Args:
        names: paths under the folder of the crops.
        people: as many.
        precision: one of ``PRECISIONS``; float16 is half of the bytes and rounds to 1/4 pixel from 256 on, 1/2 from
            512 on, 1 from 1024 on.
        source: see ``KeypointIndex``.

    Raises:
        ValueError: another precision or shape, or a name that occurs twice.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    keypoints = np.empty((len(names), NUM_KEYPOINTS, 3), dtype=precision)
    keypoints[:] = ABSENT
    for row, person in enumerate(people):
        if person is not None:
            keypoints[row] = person
    has_person = np.array([person is not None for person in people], dtype=bool)
    return checked(KeypointIndex(as_names(names), keypoints, has_person, source), "the index")


def checked(index: KeypointIndex, where: str) -> KeypointIndex:
    """The index, if its arrays fit together.

    Raises:
        ValueError: they do not; ``where`` begins the message.
    """
    count = len(index.names)
    if index.keypoints.shape != (count, NUM_KEYPOINTS, 3) or index.keypoints.dtype.name not in PRECISIONS:
        raise ValueError(
            f"{where}: keypoints must be ({count}, {NUM_KEYPOINTS}, 3) of {' or '.join(PRECISIONS)}, one for each "
            f"name, not {index.keypoints.shape} of {index.keypoints.dtype}"
        )
    if index.has_person.shape != (count,) or index.has_person.dtype != bool:
        raise ValueError(f"{where}: has_person must be ({count},) bool, not {index.has_person.shape}")
    if len(np.unique(index.names)) < count:
        repeated = Counter(index.names.tolist()).most_common(1)[0][0]
        raise ValueError(f"{where}: {repeated.decode()} occurs twice; every crop has one entry")
    return index


def write_index(path: Path, index: KeypointIndex) -> None:
    """Writes an index; whatever kills the process, the file is then the old one or the new one.

    Raises:
        ValueError: its arrays do not fit together.
    """
    checked(index, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(
            file,
            names=index.names,
            keypoints=index.keypoints,
            has_person=index.has_person,
            source=np.array(index.source),
        )
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_index(path: Path) -> KeypointIndex:
    """Reads an index.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an index.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no keypoint index {path}; make it with tools/extract_keypoints.py")
    try:
        with np.load(path, allow_pickle=False) as content:
            names, keypoints = content["names"], content["keypoints"]
            has_person = content["has_person"] if "has_person" in content else np.ones(len(names), dtype=bool)
            source = str(content["source"]) if "source" in content else ""
    # a file that is no zip, is cut off, or holds other arrays
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no keypoint index ({error}); make it again with tools/extract_keypoints.py"
        ) from None
    if names.dtype.kind == "U":
        names = as_names(names.tolist())
    if names.ndim != 1 or names.dtype.kind != "S":
        raise ValueError(f"{path}: names must be a list of paths, not {names.shape} of {names.dtype}")
    return checked(KeypointIndex(names, keypoints, has_person, source), str(path))


# --------------------------------------------------------------------------------- one .npy for each image


def read_legacy(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The first person in a file of LUPerson's released keypoints.

    The files hold what mmpose returns for an image, a list of people among other things; in them
    ``content[0][0]["keypoints"]`` is the array that the released code reads.

    Returns:
        (17, 3) float32 x, y, score in pixels of the stored image, or ``None``: an empty file or nobody found.

    Raises:
        FileNotFoundError: no such file.
        BadPickleError: it holds anything else; see ``unihap.data.restricted_pickle``.
    """
    if os.path.getsize(path) == 0:
        return None
    value: Any = read_object_array(path)
    while isinstance(value, list):
        if not value:
            return None
        value = value[0]
    if isinstance(value, dict):
        value = value.get("keypoints")
    if not isinstance(value, np.ndarray) or value.shape != (NUM_KEYPOINTS, 3) or value.dtype.kind not in "fiu":
        raise BadPickleError(
            f"{os.fspath(path)} holds no keypoints ({NUM_KEYPOINTS}, 3) of a person; fetch it again, or delete it to "
            "go on without them"
        )
    return value.astype(np.float32)


@dataclass(frozen=True)
class LegacyKeypoints:
    """The released keypoints of LUPerson: ``<folder>/<path of the image>.npy``, or all files flat in the folder."""

    folder: Path

    def find(self, name: str) -> np.ndarray | None:
        """(17, 3) float32 keypoints of a crop by its path, or ``None``: no file, an empty one, or nobody found.

        Raises:
            BadPickleError: a file that holds anything else.
        """
        relative = Path(name).with_suffix(".npy")
        for candidate in (self.folder / relative, self.folder / relative.name):
            if candidate.is_file():
                return read_legacy(candidate)
        return None


def convert_legacy(folder: Path, names: Sequence[str], precision: str = "float32") -> KeypointIndex:
    """An index from a folder of LUPerson's released keypoints.

    Args:
        folder: of the ``.npy`` files.
        names: paths of the crops under theirs.
        precision: see ``make_index``.

    Returns:
        An entry for every name; those without keypoints are counted in the log.

    Raises:
        FileNotFoundError: no such folder, or keypoints for none of the names.
        BadPickleError: a file that holds anything but keypoints.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder of keypoints {folder}; see "LUPerson" in datasets/README.md')
    legacy = LegacyKeypoints(folder)
    people = [legacy.find(name) for name in tqdm(names, desc="reading keypoints", unit="crop", disable=None)]
    missing = sum(person is None for person in people)
    if missing == len(people):
        raise FileNotFoundError(f"{folder} has keypoints for none of the {len(people)} crops, e.g. {names[0]}")
    if missing:
        logger.warning("%d of %d crops have no keypoints in %s", missing, len(people), folder)
    return make_index(names, people, precision, f"LUPerson's released keypoints in {folder.name}")
