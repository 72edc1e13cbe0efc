"""Adapters of the human parsing datasets: one record per image, one query per class."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from unihap.data.files import (
    MissingDataError,
    existing_folder,
    image_names,
    log_skipped,
    read_json,
    read_lines,
    read_mat,
)
from unihap.data.label_maps import IGNORED, LabelMapReader, MergedClasses
from unihap.data.parsing_classes import (
    ATR_CLASSES,
    CCP_TO_LIP,
    CIHP_CLASSES,
    DEEPFASHION2_CLASSES,
    H36M_CLASSES,
    H36M_VALUES,
    LIP_CLASSES,
    MODANET_CLASSES,
    NO_CLASS,
)
from unihap.data.rendered import RENDERED, TITLE
from unihap.data.skeletons import mirror_pairs
from unihap.structures import Dataset, ParsingLabel, Record

CCP_NAME = re.compile(r"(\d{4})\.jpg")


def _parsing_dataset(
    name: str,
    records: list[Record],
    classes: Sequence[str],
    *,
    values: Sequence[int] = (),
    unlisted: str = "ignore",
    skipped: Counter[str] | None = None,
) -> Dataset:
    return Dataset(
        name,
        "parsing",
        records,
        tuple(classes),
        mirror_pairs(classes),
        read_label_map=LabelMapReader(tuple(values or range(len(classes))), unlisted),
        skipped=log_skipped(name, skipped or {}),
    )


def _listed(
    listing: Path, title: str, image: Callable[[str], Path], label: Callable[[str], Path]
) -> tuple[list[Record], Counter[str]]:
    """The images that a list names, one a line, with or without their suffix.

    Raises:
        FileNotFoundError: no such list, or an empty one.
    """
    skipped: Counter[str] = Counter()
    records: dict[str, Record] = {}
    for _, line in read_lines(listing, title):
        number = line.removesuffix(".jpg").removesuffix(".png")
        if number in records:
            skipped["image listed twice"] += 1
        else:
            records[number] = Record(number, str(image(number)), ParsingLabel(str(label(number))))
    if not records:
        raise MissingDataError(listing, title, "the file lists no images")
    return list(records.values()), skipped


def _id_list(
    name: str, listing: Path, images: Path, labels: Path, title: str, classes: Sequence[str], unlisted: str
) -> Dataset:
    """A dataset of ``images/<id>.jpg`` and ``labels/<id>.png``."""
    records, skipped = _listed(
        listing,
        title,
        lambda number: images / f"{number}.jpg",
        lambda number: labels / f"{number}.png",
    )
    existing_folder(images, title)
    existing_folder(labels, title)
    return _parsing_dataset(name, records, classes, unlisted=unlisted, skipped=skipped)


def lip(
    root: Path, split: str, folder: str = "LIP", name: str = "lip", title: str = "LIP", unlisted: str = "ignore"
) -> Dataset:
    """LIP (Liang et al. 2018) and every dataset in its layout.

    The images and lists are in ``TrainVal_images`` (official) or ``data`` (UniHCP).  A file ``class_names.json``, a
    list in the order of the label values, replaces LIP's 20 classes.

    Args:
        root: datasets root.
        split: train | val.
        folder: folder under ``root``.
        name: the dataset's name without its split.
        title: the dataset's heading in ``datasets/README.md``.
        unlisted: see ``LabelMapReader``.

    Raises:
        FileNotFoundError: missing or empty file or folder.
    """
    base = root / folder
    images = base / "TrainVal_images"
    if not images.is_dir() and (base / "data").is_dir():
        images = base / "data"
    names = base / "class_names.json"
    classes = read_json(names, title) if names.is_file() else LIP_CLASSES
    if not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes):
        raise ValueError(f"{names} must hold a list of class names")
    labels = base / "TrainVal_parsing_annotations" / f"{split}_segmentations"
    return _id_list(
        f"{name}_{split}", images / f"{split}_id.txt", images / f"{split}_images", labels, title, classes, unlisted
    )


def cihp(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """CIHP (Gong et al. 2018), several people an image; split: train | val.

    Raises:
        FileNotFoundError: missing or empty file or folder.
    """
    base = root / "CIHP" / "instance-level_human_parsing" / {"train": "Training", "val": "Validation"}[split]
    return _id_list(
        f"cihp_{split}",
        base / f"{split}_id.txt",
        base / "Images",
        base / "Category_ids",
        "CIHP",
        CIHP_CLASSES,
        unlisted,
    )


def atr(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """ATR (Liang et al. 2015) in UniHCP's layout; split: train | val.

    Raises:
        FileNotFoundError: missing or empty file or folder.
    """
    base = root / "ATR"
    images, labels = base / "humanparsing" / "JPEGImages", base / "humanparsing" / "SegmentationClassAug"
    return _id_list(f"atr_{split}", base / f"{split}_id.txt", images, labels, "ATR", ATR_CLASSES, unlisted)


def vip(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """VIP (Zhou et al. 2018), frames of videos; split: train.

    Raises:
        FileNotFoundError: missing or empty file or folder.
    """
    base = root / "VIP"
    labels = base / "Annotations" / "Category_ids"
    return _id_list(f"vip_{split}", base / f"{split}_id.txt", base / "Images", labels, "VIP", CIHP_CLASSES, unlisted)


def modanet(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """ModaNet (Zheng et al. 2018) with its polygons drawn as label maps; split: train.

    Raises:
        FileNotFoundError: missing or empty file or folder.
    """
    base = root / "ModaNet"
    listing = base / f"{split}_id.txt"
    return _id_list(f"modanet_{split}", listing, base / "images", base / "seg", "ModaNet", MODANET_CLASSES, unlisted)


def deepfashion2(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """DeepFashion2 (Ge et al. 2019) with its polygons drawn as label maps; split: train.

    Raises:
        FileNotFoundError: missing or empty file or folder.
    """
    base = root / "DeepFashion2"
    images, labels = base / split / "image", base / split / "seg"
    return _id_list(
        f"deepfashion2_{split}",
        base / f"{split}_id.txt",
        images,
        labels,
        "DeepFashion2",
        DEEPFASHION2_CLASSES,
        unlisted,
    )


def h36m_parsing(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """Body parts of Human3.6M in UniHCP's lists; split: train | val (the list ``flist_2hz_eval.txt``).

    A line is the image's path; the first ``rgb`` in it is ``seg`` in the label map's.  The files number 25 parts
    with gaps from 0 to 58.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: a line without ``rgb``.
    """
    base, title = root / "h36m_parsing", "Human3.6M"
    listing = base / f"flist_2hz_{'train' if split == 'train' else 'eval'}.txt"
    records: dict[str, Record] = {}
    skipped: Counter[str] = Counter()
    for number, line in read_lines(listing, title):
        if "rgb" not in line:
            raise ValueError(f"{listing} line {number}: expected a path like protocol_1/rgb/..., got {line!r}")
        if line in records:
            skipped["image listed twice"] += 1
            continue
        label = line.replace("rgb", "seg", 1)
        records[line] = Record(line, str(base / line), ParsingLabel(str(base / label)))
    if not records:
        raise MissingDataError(listing, title, "the file lists no images")
    return _parsing_dataset(
        f"h36m_parsing_{split}",
        list(records.values()),
        H36M_CLASSES,
        values=H36M_VALUES,
        unlisted=unlisted,
        skipped=skipped,
    )


def ccp(root: Path, split: str, unlisted: str = "ignore") -> Dataset:
    """CCP (Yang et al. 2014), clothes of fashion photographs, the 1,004 photos with label maps.

    It has no official split.  Here every fifth hundred is ``val``, 0201-0300 and 0701-0800 (200 photos), because
    neighbours may show the same person; the others are ``train``.

    Args:
        root: datasets root.
        split: train | val.
        unlisted: see ``LabelMapReader``.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: a file name that is no number, or a damaged class list.
    """
    base, title = root / "ccp", "CCP"
    names = read_mat(base / "label_list.mat", title, ("label_list",))["label_list"]
    classes = [str(np.ravel(name)[0]) for name in names.ravel()]
    labels = existing_folder(base / "annotations" / "pixel-level", title)
    labelled = {name.removesuffix(".mat") for name in os.listdir(labels)}
    skipped: Counter[str] = Counter()
    records = []
    for file in image_names(base / "photos", title):
        match = CCP_NAME.fullmatch(file)
        if match is None:
            raise ValueError(f"{base / 'photos' / file}: expected a name like 0001.jpg; take it out of the folder")
        if ((int(match[1]) - 1) // 100 % 5 == 2) != (split == "val"):
            continue
        if match[1] not in labelled:  # half of the photos have tags only
            skipped["photo without a label map"] += 1
            continue
        label = ParsingLabel(str(labels / f"{match[1]}.mat"))
        records.append(Record(match[1], str(base / "photos" / file), label))
    if not records:
        raise MissingDataError(labels, title, f"the folder has no photo of the {split} part")
    return _parsing_dataset(f"ccp_{split}", records, classes, unlisted=unlisted, skipped=skipped)


def ccp_lip_classes(root: Path, split: str) -> Dataset:
    """CCP with LIP's classes by ``CCP_TO_LIP``, to evaluate models of LIP's classes on.

    Of LIP's 20 classes 13 occur: CCP does not tell face, arms and legs apart, nor left from right shoes.  Those and
    what LIP has no class for are ignored.  No set to train on: the model would learn that nobody has a face.

    Args:
        root: datasets root.
        split: train | val, as in ``ccp``.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: see ``ccp``, or a class list with other names.
    """
    own = ccp(root, split)
    unknown = sorted(set(own.classes) - set(CCP_TO_LIP))
    if unknown:
        raise ValueError(f"{root / 'ccp' / 'label_list.mat'} names {unknown[0]!r}, which is no class of CCP")
    assert own.read_label_map is not None
    number = {NO_CLASS: IGNORED} | {name: value for value, name in enumerate(LIP_CLASSES)}
    return replace(
        own,
        name=f"ccp_lip_classes_{split}",
        classes=LIP_CLASSES,
        mirror=mirror_pairs(LIP_CLASSES),
        read_label_map=MergedClasses(own.read_label_map, tuple(number[CCP_TO_LIP[name]] for name in own.classes)),
    )


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **{f"lip_{split}": partial(lip, split=split) for split in ("train", "val")},
    **{f"cihp_{split}": partial(cihp, split=split) for split in ("train", "val")},
    **{f"atr_{split}": partial(atr, split=split) for split in ("train", "val")},
    **{f"ccp_{split}": partial(ccp, split=split) for split in ("train", "val")},
    **{f"ccp_lip_classes_{split}": partial(ccp_lip_classes, split=split) for split in ("train", "val")},
    **{
        f"ccp_as_lip_{split}": partial(lip, split=split, folder="ccp_as_lip", name="ccp_as_lip", title="CCP as LIP")
        for split in ("train", "val")
    },
    **{
        f"{r.start}_lip_{split}": partial(
            lip, split=split, folder=f"{r.folder}/LIP", name=f"{r.start}_lip", title=TITLE
        )
        for r in RENDERED
        for split in ("train", "val")
    },
    **{f"h36m_parsing_{split}": partial(h36m_parsing, split=split) for split in ("train", "val")},
    "vip_train": partial(vip, split="train"),
    "modanet_train": partial(modanet, split="train"),
    "deepfashion2_train": partial(deepfashion2, split="train"),
}
