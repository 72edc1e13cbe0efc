"""Adapters of the pedestrian attribute datasets: one record per crop, one query per attribute."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from unihap.data.files import MissingDataError, existing_folder, image_names, log_skipped, read_mat
from unihap.data.reid import MARKET_FOLDERS, market_name
from unihap.data.rendered import RENDERED, TITLE
from unihap.structures import AttributesLabel, Dataset, Record

# The order in which UniHCP's release asks for the 26 attributes of PA-100K (grouped as in "Rethinking of PAR"); the
# weights it published answer in this order.  ``in_order`` brings the records of a dataset into it.
PA100K_RELEASE_ORDER = (
    "Hat", "Glasses", "ShortSleeve", "LongSleeve", "UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice",
    "LowerStripe", "LowerPattern", "LongCoat", "Trousers", "Shorts", "Skirt&Dress", "boots", "HandBag", "ShoulderBag",
    "Backpack", "HoldObjectsInFront", "AgeOver60", "Age18-60", "AgeLess18", "Female", "Front", "Side", "Back",
)  # fmt: skip
PA100K_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}

# Field of market_attribute.mat and what its value 2 means (1 is the opposite).  The fields stand in the order of the
# file's training part; its testing part has another, so columns are found by name.
MARKET_BINARY = {
    "backpack": "backpack", "bag": "bag", "handbag": "handbag",
    "downblack": "lower_black", "downblue": "lower_blue", "downbrown": "lower_brown", "downgray": "lower_gray",
    "downgreen": "lower_green", "downpink": "lower_pink", "downpurple": "lower_purple", "downwhite": "lower_white",
    "downyellow": "lower_yellow",
    "upblack": "upper_black", "upblue": "upper_blue", "upgreen": "upper_green", "upgray": "upper_gray",
    "uppurple": "upper_purple", "upred": "upper_red", "upwhite": "upper_white", "upyellow": "upper_yellow",
    "clothes": "pants", "down": "short_lower_clothes", "up": "short_sleeve", "hair": "long_hair", "hat": "hat",
    "gender": "female",
}  # fmt: skip
MARKET_AGES = ("age_young", "age_teenager", "age_adult", "age_old")  # values 1-4 of the field age
MARKET_CLASSES = (*MARKET_BINARY.values(), *MARKET_AGES)


def in_order(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The dataset with its columns in the order of ``classes``.

    Raises:
        ValueError: ``classes`` are not the dataset's own in another order.
    """
    if sorted(classes) != sorted(dataset.classes):
        different = sorted(set(classes) ^ set(dataset.classes))
        raise ValueError(f"{dataset.name}: the orders must hold the same attributes; they differ in {different}")
    columns = [dataset.classes.index(name) for name in classes]
    records = [
        replace(record, label=AttributesLabel(cast(AttributesLabel, record.label).values[columns]))
        for record in dataset.records
    ]
    return replace(dataset, classes=tuple(classes), records=records)


def _strings(cells: np.ndarray) -> list[str]:
    """The texts of a MATLAB cell array."""
    return [str(np.ravel(cell)[0]) for cell in cells.ravel()]


def pa100k(root: Path, split: str, folder: str = "PA-100K", name: str = "pa100k", title: str = "PA-100K") -> Dataset:
    """PA-100K (Liu et al. 2017) and every dataset in its layout; attributes in the order of ``annotation.mat``.

    Args:
        root: datasets root.
        split: train | val | trainval | test.
        folder: folder under ``root``.
        name: the dataset's name without its split.
        title: the dataset's heading in ``datasets/README.md``.

    Raises:
        FileNotFoundError: missing file or folder, or a split without images.
        ValueError: names and labels that do not fit each other, or a label other than 0 and 1.
    """
    path = root / folder / "annotation.mat"
    parts = PA100K_PARTS[split]
    keys = ("attributes", *(f"{p}_{suffix}" for p in parts for suffix in ("images_name", "label")))
    content = read_mat(path, title, keys)
    images = existing_folder(root / folder / "data", title)
    classes = tuple(_strings(content["attributes"]))

    records: list[Record] = []
    for part in parts:
        files, labels = _strings(content[f"{part}_images_name"]), content[f"{part}_label"]
        if labels.shape != (len(files), len(classes)):
            raise ValueError(
                f"{path}: {part}_label is {labels.shape} but {part}_images_name and attributes "
                f"ask for {(len(files), len(classes))}; fetch it again"
            )
        if not np.isin(labels, (0, 1)).all():
            wrong = np.argwhere(~np.isin(labels, (0, 1)))[0]
            raise ValueError(f"{path}: {part}_label of {files[wrong[0]]} holds {labels[tuple(wrong)]}, not 0 or 1")
        values = labels.astype(np.int8)
        records += [
            Record(Path(file).stem, str(images / file), AttributesLabel(row))
            for file, row in zip(files, values, strict=True)
        ]
    if not records:
        raise MissingDataError(path, title, f"the file lists no images for {split}")
    return Dataset(f"{name}_{split}", "attributes", records, classes)


def read_market_attributes(path: Path, split: str, title: str) -> dict[int, np.ndarray]:
    """Attributes of every identity of a part of ``market_attribute.mat``.

    Args:
        path: the file.
        split: train | test.
        title: the dataset's heading in ``datasets/README.md``.

    Returns:
        Identity to (30,) int8 in the order of ``MARKET_CLASSES``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a field is missing or holds a value that the dataset does not define.
    """
    part: Any = read_mat(path, title, ("market_attribute",))["market_attribute"]
    try:
        fields = part[split][0, 0][0, 0]
        people = [int(text) for text in _strings(fields["image_index"])]
        table = {key: np.ravel(fields[key]).astype(np.int64) for key in (*MARKET_BINARY, "age")}
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: the part {split!r} is not as published ({error}); fetch it again") from None
    for key, column in table.items():
        allowed = len(MARKET_AGES) if key == "age" else 2
        if len(column) != len(people) or column.min() < 1 or column.max() > allowed:
            raise ValueError(f"{path}: {split}.{key} must hold {len(people)} numbers from 1 to {allowed}")
    binary = np.stack([table[key] == 2 for key in MARKET_BINARY], axis=1)
    ages = table["age"][:, None] == np.arange(1, len(MARKET_AGES) + 1)
    return dict(zip(people, np.hstack([binary, ages]).astype(np.int8), strict=True))


def market1501_attributes(
    root: Path,
    split: str,
    images: str = "Market-1501-v15.09.15",
    annotation: str = "Market-1501_Attribute/market_attribute.mat",
) -> Dataset:
    """Attributes of the people of Market-1501 (Lin et al. 2019): every crop has those of its identity.

    The 27 fields of the file become 30 queries: 26 with two values, where 2 is present, and ``age`` with four, each
    a query of its own, at the end.  UniHCP's positive ratios have the same 30 entries in the same order.

    Args:
        root: datasets root.
        split: ``train`` (training crops) or ``test`` (gallery crops of known people, as the authors evaluate).
        images: folder of the crops under ``root``.
        annotation: the attribute file under ``root``.

    Raises:
        FileNotFoundError: missing file or folder, or no crop of a person with attributes.
        ValueError: damaged attribute file, or a crop's name that tells no person.
    """
    title = "Market-1501 attributes"
    known = read_market_attributes(root / annotation, split, title)
    folder = root / images / MARKET_FOLDERS["train" if split == "train" else "gallery"]
    skipped: Counter[str] = Counter()
    records = []
    for file in image_names(folder, title):
        identity, _ = market_name(file, folder)
        if identity in known:
            records.append(Record(Path(file).stem, str(folder / file), AttributesLabel(known[identity])))
        else:
            skipped["junk or distractor" if identity <= 0 else "person without attributes"] += 1
    if not records:
        raise MissingDataError(folder, title, f"no crop shows a person of {annotation} in the folder")
    name = f"market1501_attributes_{split}"
    return Dataset(name, "attributes", records, MARKET_CLASSES, skipped=log_skipped(name, skipped))


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{f"pa100k_{split}": partial(pa100k, split=split) for split in PA100K_PARTS},
    **{
        f"ccp_as_pa100k_{split}": partial(
            pa100k, split=split, folder="ccp_as_pa100k", name="ccp_as_pa100k", title="CCP as PA-100K"
        )
        for split in PA100K_PARTS
    },
    **{f"market1501_attributes_{split}": partial(market1501_attributes, split=split) for split in ("train", "test")},
    **{
        f"{r.start}_pa100k_{split}": partial(
            pa100k, split=split, folder=f"{r.folder}/PA-100K", name=f"{r.start}_pa100k", title=TITLE
        )
        for r in RENDERED
        for split in PA100K_PARTS
    },
}
