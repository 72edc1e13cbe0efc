"""Person crops without labels, for pre-training: folders of images, LUPerson, and the rendered crops in its layout."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from unihap.data.crop_records import CropRecords, JoinedRecords
from unihap.data.files import IMAGE_SUFFIXES, MissingDataError, existing_file, existing_folder, read_lines
from unihap.data.keypoint_index import KeypointIndex, LegacyKeypoints, read_index
from unihap.data.rendered import RENDERED, TITLE
from unihap.data.restricted_pickle import read_plain
from unihap.data.skeletons import SKELETONS
from unihap.lookup import did_you_mean
from unihap.structures import Dataset

T = TypeVar("T")

logger = logging.getLogger(__name__)

FOLDERS_TITLE = "Folders of crops"  # heading in datasets/README.md
INDEX = "keypoints.npz"
LISTS = ("cfs_list.pkl", "list.txt")


# ----------------------------------------------------------------------------------------- which images


def find_images(folder: Path, title: str = FOLDERS_TITLE) -> list[str]:
    """Paths of all images under a folder and its folders, sorted; symbolic links are followed, each folder once.

    Raises:
        MissingDataError: no such folder, or no image in it.
    """
    existing_folder(folder, title)
    names, seen = [], set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        start = Path(base).relative_to(folder).as_posix()
        prefix = "" if start == "." else f"{start}/"
        names += [prefix + name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise MissingDataError(folder, title, "no images in the folder")
    return sorted(names)


def read_list(path: Path, title: str = FOLDERS_TITLE) -> list[str]:
    """Paths of images, in the order of a list.

    Args:
        path: text, one path a line; or, by its suffix ``.pkl``, a pickled list of texts such as LUPerson's
            ``cfs_list.pkl``, which is read without looking up any name (``unihap.data.restricted_pickle``).
        title: heading in ``datasets/README.md``.

    Raises:
        MissingDataError: no such file, or nothing in it.
        ValueError: another kind of file.
    """
    existing_file(path, title)
    if path.suffix != ".pkl":
        names = [line for _, line in read_lines(path, title)]
    else:
        names = read_plain(path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path} is no list of paths; fetch it again")
    if not names:
        raise MissingDataError(path, title, "the list is empty")
    return names


def take(names: Sequence[T], fraction: float = 1.0, num_samples: int = 0, where: str = "") -> Sequence[T]:
    """The first int(n * fraction) of n names, or records.

    LUPerson's list begins with the best images, so that a fraction is a choice and not a random sample.

    Args:
        names: n of them.
        fraction: above 0, at most 1.
        num_samples: take this many instead; 0 takes ``fraction``.
        where: their dataset, for messages.

    Raises:
        ValueError: no such share, or nothing left.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction of {where} must be above 0 and at most 1, got {fraction}")
    if not 0 <= num_samples <= len(names):
        raise ValueError(f"cannot take {num_samples} of the {len(names)} images of {where}")
    count = num_samples or int(len(names) * fraction)
    if not count:
        raise ValueError(f"fraction {fraction} of the {len(names)} images of {where} is not one image")
    return names[:count]


# --------------------------------------------------------------------------------------------- datasets


@dataclass(frozen=True)
class Place:
    """Where a dataset of crops has its files.

    Attributes:
        name: of the dataset.
        title: its heading in ``datasets/README.md``.
        images: folder of the images.
        listing: file that lists them; ``None`` takes all under ``images``.
        index: file of their keypoints, which need not be there.
        legacy: folder of LUPerson's released keypoints, read when there is no ``index``.
    """

    name: str
    title: str
    images: Path
    listing: Path | None
    index: Path
    legacy: Path | None = None


def read_names(place: Place, fraction: float = 1.0, num_samples: int = 0) -> Sequence[str]:
    """Paths of a place's images under their folder.

    Raises:
        MissingDataError: a folder or list is missing or empty.
        ValueError: a broken list, or an impossible share, see ``take``.
    """
    existing_folder(place.images, place.title)
    if place.listing is None:
        names = find_images(place.images, place.title)
    else:
        names = read_list(place.listing, place.title)
    return take(names, fraction, num_samples, place.name)


def read_place(place: Place, fraction: float = 1.0, num_samples: int = 0) -> Dataset:
    """The dataset in a place, see ``load_unlabelled``."""
    names = read_names(place, fraction, num_samples)
    keypoints: KeypointIndex | LegacyKeypoints | None = None
    if place.index.is_file():
        keypoints = read_index(place.index)
    elif place.legacy is not None and place.legacy.is_dir():
        keypoints = LegacyKeypoints(place.legacy)
    records = CropRecords(place.images, names, keypoints)
    if records.num_without_keypoints:
        logger.warning(
            "%s: %d of %d crops have no keypoints (index %s, filled by tools/extract_keypoints.py)",
            place.name,
            records.num_without_keypoints,
            len(names),
            place.index,
        )
    coco = SKELETONS["coco"]
    return Dataset(place.name, "unlabelled", records, classes=coco.names, mirror=coco.mirror)


def luperson(root: Path, *, folder: str = "luperson") -> Place:
    """LUPerson (Fu et al. 2021, arXiv:2012.03753) as HAP lays it out: ``LUPerson-data``, ``LUPerson-pose``, a list."""
    base = existing_folder(root / folder, "LUPerson")
    lists = [base / name for name in LISTS if (base / name).is_file()]
    if not lists:
        raise MissingDataError(base, "LUPerson", f"neither {' nor '.join(LISTS)} in the folder")
    return Place(
        "luperson_train", "LUPerson", base / "LUPerson-data", lists[0], base / INDEX, legacy=base / "LUPerson-pose"
    )


def rendered(root: Path, *, start: str, folder: str) -> Place:
    """Rendered crops: ``LUPerson/list.txt`` and what it lists."""
    base = existing_folder(root / folder / "LUPerson", TITLE)
    return Place(f"{start}_luperson_train", TITLE, base, existing_file(base / "list.txt", TITLE), base / INDEX)


PLACES: dict[str, Callable[[Path], Place]] = {
    "luperson_train": luperson,
    **{f"{r.start}_luperson_train": partial(rendered, start=r.start, folder=r.folder) for r in RENDERED},
}


def find_place(source: str, root: Path) -> Place:
    """Where a source of crops has its files.

    Args:
        source: a key of ``PLACES``, a folder, or a list (``.txt``, ``.pkl``) of paths under the list's own folder;
            folders and lists as they are, else under ``root``.
        root: datasets root.

    Raises:
        FileNotFoundError: a folder or file of the dataset is missing.
        ValueError: nothing of this name.
    """
    if source in PLACES:
        return PLACES[source](root)
    for path in (Path(source).expanduser(), root / source):
        if path.is_dir():
            return Place(source, FOLDERS_TITLE, path, None, path / INDEX)
        if path.is_file() and path.suffix in (".txt", ".pkl"):
            return Place(source, FOLDERS_TITLE, path.parent, path, path.parent / INDEX)
    raise ValueError(
        f"no crops {source!r}: neither a dataset ({', '.join(PLACES)}) nor a folder or list, here or in {root}"
        f"{did_you_mean(source, PLACES)}"
    )


def load_unlabelled(
    source: str, root: Path, *, fraction: float = 1.0, num_samples: int = 0, index: str | Path = ""
) -> Dataset:
    """The crops of a dataset, a folder or a list, with keypoints where an index has them.

    Args:
        source: see ``find_place``.
        root: datasets root.
        fraction: the share taken, the first images; folders are sorted by path.
        num_samples: how many to take instead; 0 takes ``fraction``.
        index: file of keypoints; "" takes ``keypoints.npz`` of the folder if there is one.

    Returns:
        A dataset of kind ``unlabelled``, its records with ``CropLabel``.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: nothing of this name, a broken index or list, or an impossible share.
    """
    place = find_place(source, root)
    if index:
        place = replace(place, index=Path(index).expanduser())
        if not place.index.is_file():
            raise FileNotFoundError(f"no keypoint index {place.index}; make it with tools/extract_keypoints.py")
    return read_place(place, fraction, num_samples)


def join(datasets: Sequence[Dataset]) -> Dataset:
    """One dataset from several of any kind; only the images, and keypoints of ``CropLabel``, are of use.

    Raises:
        ValueError: no datasets, or two of the same name.
    """
    if not datasets:
        raise ValueError("no crops to train on; set PRETRAIN.DATASETS")
    if len(datasets) == 1:
        return datasets[0]
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise ValueError(f"the same crops are listed twice: {', '.join(names)}")
    coco = SKELETONS["coco"]
    return Dataset("+".join(names), "unlabelled", JoinedRecords(datasets), classes=coco.names, mirror=coco.mirror)


def _dataset(root: Path, *, name: str) -> Dataset:
    return read_place(PLACES[name](root))


DATASETS: dict[str, Callable[[Path], Dataset]] = {name: partial(_dataset, name=name) for name in PLACES}
