"""Adapters of the person re-identification datasets: one record per crop."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from unihap.data.files import MissingDataError, existing_folder, image_names, log_skipped, read_lines
from unihap.data.rendered import RENDERED, TITLE
from unihap.structures import Dataset, Record, ReIDLabel

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_NAME = re.compile(r"(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg: person 2, camera 1
JUNK = -1  # boxes that show no whole person: they count neither for nor against a ranking
MSMT17_NAME = re.compile(r"\d+_\d+_(\d+)_")  # 0000/0000_000_01_0303morning_0015_0.jpg: camera 1
SENSEREID_FOLDERS = {"query": "test_probe", "gallery": "test_gallery"}
SENSEREID_NAME = re.compile(r"(\d+)_(\d+)$")  # 00001_00.jpg: person 1, camera 0
PRCC_CAMERAS = "ABC"  # cameras 1, 2 and 3
PRCC_NAME = re.compile(f"[{PRCC_CAMERAS}](?=_)")  # A_cropped_rgb001.jpg: camera A
SPLITS = ("train", "query", "gallery", "test")


def roles_of(split: str) -> tuple[str, ...]:
    """The roles whose records make up a split: ``test`` is query and gallery together."""
    return ("query", "gallery") if split == "test" else (split,)


def market_name(name: str, folder: Path) -> tuple[int, int]:
    """Identity and camera written in the name of a Market-1501 crop.

    Raises:
        ValueError: another kind of name.
    """
    match = MARKET_NAME.match(name)
    if match is None:
        raise ValueError(
            f"{folder / name}: expected a name like 0002_c1s1_000451_03.jpg (person 2, camera 1); "
            "rename the file or take it out of the folder"
        )
    return int(match[1]), int(match[2])


def market1501(
    root: Path,
    split: str,
    folder: str = "Market-1501-v15.09.15",
    name: str = "market1501",
    title: str = "Market-1501",
) -> Dataset:
    """Market-1501 (Zheng et al. 2015) and every dataset in its layout.

    Junk boxes (identity -1) are left out and counted; distractors (identity 0) stay in the gallery, where they can
    only be wrong answers.  People with a single image stay.

    Args:
        root: datasets root.
        split: train | query | gallery | test (query and gallery).
        folder: folder under ``root``.
        name: the dataset's name without its split.
        title: the dataset's heading in ``datasets/README.md``.

    Raises:
        FileNotFoundError: missing or empty folder.
        ValueError: a file name that tells no person and camera.
    """
    skipped: Counter[str] = Counter()
    records = []
    for role in roles_of(split):
        images = root / folder / MARKET_FOLDERS[role]
        for file in image_names(images, title):
            identity, camera = market_name(file, images)
            if identity == JUNK:
                skipped["junk (identity -1)"] += 1
                continue
            # crops of query and gallery may share a name, so the role is part of the id
            records.append(Record(f"{role}/{Path(file).stem}", str(images / file), ReIDLabel(identity, camera, role)))
    dataset = f"{name}_{split}"
    return Dataset(dataset, "reid", records, skipped=log_skipped(dataset, skipped))


def msmt17(root: Path, split: str, folder: str = "MSMT17_V1") -> Dataset:
    """MSMT17 (Wei et al. 2018), version 1, in its official lists.

    ``train`` is ``list_train.txt`` without the validation list, as UniHCP trains.  The lists count people from 0 in
    training and again in testing; identities here are one more, because 0 means distractor.

    Args:
        root: datasets root.
        split: train | query | gallery | test (query and gallery).
        folder: folder under ``root``.

    Raises:
        FileNotFoundError: missing or empty folder or list.
        ValueError: a line that is not ``path identity``, or a path that names no camera.
    """
    records = []
    for role in roles_of(split):
        images = existing_folder(root / folder / ("train" if role == "train" else "test"), "MSMT17")
        listing = root / folder / f"list_{role}.txt"
        for number, line in read_lines(listing, "MSMT17"):
            path, _, identity = line.rpartition(" ")
            camera = MSMT17_NAME.match(Path(path).name)
            if camera is None or not identity.isdecimal():
                raise ValueError(
                    f"{listing} line {number}: expected '0000/0000_000_01_0303morning_0015_0.jpg 0', got {line!r}"
                )
            label = ReIDLabel(int(identity) + 1, int(camera[1]), role)
            records.append(Record(f"{role}/{Path(path).stem}", str(images / path), label))
    return Dataset(f"msmt17_{split}", "reid", records)


def sensereid(root: Path, split: str, folder: str = "SenseReID") -> Dataset:
    """SenseReID (Zhao et al. 2017, Spindle Net), which is for testing alone.

    Args:
        root: datasets root.
        split: query | gallery | test (query and gallery).
        folder: folder under ``root``.

    Raises:
        FileNotFoundError: missing or empty folder.
        ValueError: a file name that tells no person and camera.
    """
    records = []
    for role in roles_of(split):
        images = root / folder / SENSEREID_FOLDERS[role]
        for file in image_names(images, "SenseReID"):
            match = SENSEREID_NAME.match(Path(file).stem)
            if match is None:
                raise ValueError(
                    f"{images / file}: expected a name like 00001_00.jpg (person 1, camera 0); "
                    "rename the file or take it out of the folder"
                )
            label = ReIDLabel(int(match[1]), int(match[2]), role)
            records.append(Record(f"{role}/{Path(file).stem}", str(images / file), label))
    return Dataset(f"sensereid_{split}", "reid", records)


def prcc_crops(people: Path, title: str, camera: str = "") -> Iterator[tuple[int, str, Path]]:
    """Identity, camera (A, B or C) and file of the crops in a folder with one folder a person.

    Args:
        people: the folder.
        title: the dataset's heading in ``datasets/README.md``.
        camera: of all crops; "" when their names tell it.

    Raises:
        FileNotFoundError: missing or empty folder.
        ValueError: a folder's name that is no person, or a file's name that tells no camera.
    """
    folders = sorted(path for path in existing_folder(people, title).iterdir() if path.is_dir())
    if not folders:
        raise MissingDataError(people, title, "no folder of a person in the folder")
    for person in folders:
        if not person.name.isdecimal():
            raise ValueError(
                f"{person}: expected a folder named by a person's number, like 001; rename it or take it out"
            )
        for file in image_names(person, title):
            named = camera or PRCC_NAME.match(file)
            if named is None:
                raise ValueError(
                    f"{person / file}: expected a name like A_cropped_rgb001.jpg (camera A); "
                    "rename the file or take it out of the folder"
                )
            yield int(person.name), named[0], person / file


def prcc(
    root: Path,
    split: str,
    folder: str = "prcc",
    name: str = "prcc",
    title: str = "PRCC",
    query: str = "C",
) -> Dataset:
    """PRCC (Yang et al. 2021), photographs only: people whom camera C sees in other clothes than A and B.

    ``train`` holds every crop.  In ``val`` and ``test`` camera A is the gallery, all of it (the authors draw one image
    a person, ten times), and the crops by the third camera are left out.

    Args:
        root: datasets root.
        split: train | val | test.
        folder: folder under ``root``.
        name: the dataset's name without its split.
        title: the dataset's heading in ``datasets/README.md``.
        query: camera of the queries: C asks for people in other clothes, B in the same.

    Raises:
        FileNotFoundError: missing or empty folder.
        ValueError: a folder's name that is no person, or a file's name that tells no camera.
    """
    roles = dict.fromkeys(PRCC_CAMERAS, "train") if split == "train" else {query: "query", "A": "gallery"}
    base = root / folder / "rgb" / split
    if split == "test":  # test/A/001/cropped_rgb001.jpg, elsewhere train/001/A_cropped_rgb001.jpg
        crops = [crop for camera in roles for crop in prcc_crops(base / camera, title, camera)]
    else:
        crops = [crop for crop in prcc_crops(base, title) if crop[1] in roles]
    records = [
        Record(
            path.relative_to(base).with_suffix("").as_posix(),
            str(path),
            ReIDLabel(identity, PRCC_CAMERAS.index(camera) + 1, roles[camera]),
        )
        for identity, camera, path in crops
    ]
    return Dataset(f"{name}_{split}", "reid", records)


PRCC_FOLDERS = {"prcc": ("prcc", "PRCC"), **{f"{r.start}_prcc": (f"{r.folder}/prcc", TITLE) for r in RENDERED}}

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{f"market1501_{split}": partial(market1501, split=split) for split in SPLITS},
    **{
        f"cuhk03_{split}": partial(market1501, split=split, folder="cuhk03-np/detected", name="cuhk03", title="CUHK03")
        for split in SPLITS
    },
    **{
        f"cuhk01_as_market_{split}": partial(
            market1501,
            split=split,
            folder="cuhk01_as_market/Market-1501-v15.09.15",
            name="cuhk01_as_market",
            title="CUHK01 as Market-1501",
        )
        for split in SPLITS
    },
    **{f"msmt17_{split}": partial(msmt17, split=split) for split in SPLITS},
    **{f"sensereid_{split}": partial(sensereid, split=split) for split in ("query", "gallery", "test")},
    **{
        f"{r.start}_market1501_{split}": partial(
            market1501,
            split=split,
            folder=f"{r.folder}/Market-1501-v15.09.15",
            name=f"{r.start}_market1501",
            title=TITLE,
        )
        for r in RENDERED
        for split in SPLITS
    },
    **{
        f"{name}_{split}": partial(prcc, split=split, folder=folder, name=name, title=title)
        for name, (folder, title) in PRCC_FOLDERS.items()
        for split in ("train", "val", "test")
    },
    **{
        f"{name}_same_clothes_test": partial(
            prcc, split="test", folder=folder, name=f"{name}_same_clothes", title=title, query="B"
        )
        for name, (folder, title) in PRCC_FOLDERS.items()
    },
}
