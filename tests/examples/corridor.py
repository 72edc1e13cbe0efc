"""A new dataset of a known kind: person crops listed in a CSV file, ``corridor/<split>.csv``."""

from functools import partial
from pathlib import Path

from unihap.data.files import existing_folder, read_lines
from unihap.structures import Dataset, Record, ReIDLabel

TITLE = "Corridor"  # its heading in datasets/README.md


def corridor(root: Path, split: str) -> Dataset:
    """Lines ``file,person,camera``; the crops are in ``corridor/crops``.

    Raises:
        FileNotFoundError: missing or empty file or folder.
        ValueError: a line that is not ``file,person,camera``.
    """
    images = existing_folder(root / "corridor" / "crops", TITLE)
    listing = root / "corridor" / f"{split}.csv"
    records = []
    for number, line in read_lines(listing, TITLE):
        parts = line.split(",")
        if len(parts) != 3 or not (parts[1] + parts[2]).isdecimal():
            raise ValueError(f"{listing} line {number}: expected 'file,person,camera', got {line!r}")
        label = ReIDLabel(identity=int(parts[1]), camera=int(parts[2]), role=split)
        records.append(Record(parts[0], str(images / parts[0]), label))
    return Dataset(f"corridor_{split}", "reid", records)


DATASETS = {"corridor_train": partial(corridor, split="train")}
