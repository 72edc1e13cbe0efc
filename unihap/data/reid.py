"""Adapters of the person re-identification datasets: one record per crop."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from unihap.data.files import existing_folder, image_names, log_skipped, read_lines
from unihap.data.rendered import RENDERED, TITLE
from unihap.structures import Dataset, Record, ReIDLabel

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_NAME = re.compile(r"(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg: person 2, camera 1
JUNK = -1  # boxes that show no whole person: they count neither for nor against a ranking
MSMT17_NAME = re.compile(r"\d+_\d+_(\d+)_")  # 0000/0000_000_01_0303morning_0015_0.jpg: camera 1
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
}
