"""Checks datasets before a long run trusts them."""

import argparse
import contextlib
import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from unihap.command_line import OneLineParser
from unihap.data.catalog import DATASETS, dataset_root, load_dataset
from unihap.data.files import MissingDataError
from unihap.data.images import BadImageError, decode_image, read_bytes
from unihap.data.label_maps import check_size
from unihap.lookup import lookup
from unihap.structures import Dataset, ParsingLabel

SHOWN = 5  # faults of a kind that are printed; the table counts all
TRAIN_SPLITS = ("train", "trainval")
COLUMNS = ("dataset", "status", "folder", "records", "images", "unreadable", "duplicates", "leaked", "skipped")
EPILOG = """
examples:
  everything whose folder exists under the datasets root
    python tools/check_datasets.py
  one dataset; naming both splits also looks for images that are in both
    python tools/check_datasets.py market1501_train market1501_test
  without decoding the pictures
    python tools/check_datasets.py coco_keypoints_train coco_keypoints_val --fast

exit status: 0 fine, 1 problems found, 2 bad arguments
"""


@dataclass
class Report:
    """What was found in a dataset.

    Attributes:
        name: the dataset.
        status: ``ok``, ``absent`` or ``problems``.
        num_records: records.
        hashes: content hash to the image files with this content.
        unreadable: one sentence per unreadable image or label map.
        leaked: one sentence per image that is also in a split of the other kind.
        skipped: annotations left out, by reason.
        fault: why the dataset could not be loaded.
        folder: its folder under the root, where it is known.
    """

    name: str
    status: str = "ok"
    num_records: int = 0
    hashes: dict[bytes, list[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    fault: str = ""
    folder: str = ""

    @property
    def duplicates(self) -> list[str]:
        """One sentence per set of files with the same content."""
        return [" = ".join(sorted(files)) for files in self.hashes.values() if len(files) > 1]

    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        images = sum(len(files) for files in self.hashes.values())
        counts = (self.num_records, images, len(self.unreadable), len(self.duplicates), len(self.leaked))
        return (
            self.name,
            self.status,
            self.folder or "-",
            *(str(count) for count in counts),
            str(sum(self.skipped.values())),
        )


def read_one(dataset: Dataset, image: str, label: str, fast: bool) -> tuple[bytes, list[str]]:
    """Content hash of an image and what is wrong with it and its label map ("" where there is none)."""
    faults = []
    digest = b""
    size: tuple[int, int] | None = None
    try:
        data = read_bytes(image)
        digest = hashlib.blake2b(data.tobytes(), digest_size=16).digest()
        if not fast:
            height, width, _ = decode_image(data, image).shape
            size = height, width
    except BadImageError as error:
        faults.append(str(error))
    if label and not fast and dataset.read_label_map is not None:
        try:
            label_map = dataset.read_label_map(label)
            if size is not None:
                check_size(label_map, *size, label)
        except BadImageError as error:
            faults.append(str(error))
    return digest, faults


def read_images(dataset: Dataset, report: Report, fast: bool) -> None:
    """Reads every image once and notes hashes and faults."""
    files: dict[str, str] = {}
    for record in dataset.records:
        files[record.image] = record.label.path if isinstance(record.label, ParsingLabel) else ""
    hashes: dict[bytes, list[str]] = defaultdict(list)
    remaining: Iterator[tuple[str, str]] = iter(files.items())
    with (
        ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
        tqdm(total=len(files), desc=dataset.name, unit="image", disable=None, leave=False) as progress,
    ):
        # a few hundred at a time: a queue of all of COCO would hold every result until its turn came
        while chunk := list(islice(remaining, 256)):
            results = pool.map(lambda item: (item[0], *read_one(dataset, item[0], item[1], fast)), chunk)
            for image, digest, faults in results:
                hashes[digest or image.encode()].append(image)  # what cannot be read equals nothing
                report.unreadable += faults
                progress.update()
    report.hashes = dict(hashes)


def check(name: str, root: Path, fast: bool) -> Report:
    """Loads a dataset and reads its images."""
    report = Report(name)
    try:
        dataset = load_dataset(name, root)
    except FileNotFoundError as error:
        report.status, report.fault = "absent", str(error)
        if isinstance(error, MissingDataError):
            with contextlib.suppress(ValueError):
                report.folder = error.path.relative_to(root).parts[0]
        return report
    except ValueError as error:
        report.status, report.fault = "problems", str(error)
        return report
    report.num_records, report.skipped = len(dataset.records), dataset.skipped
    if dataset.records:
        with contextlib.suppress(ValueError):
            report.folder = Path(dataset.records[0].image).relative_to(root).parts[0]
    repeated = [number for number, count in Counter(r.id for r in dataset.records).items() if count > 1]
    report.unreadable += [f"record id {number} occurs twice" for number in repeated]
    read_images(dataset, report, fast)
    return report


def find_leaks(reports: list[Report]) -> None:
    """Notes in every test split the images that a training split holds too."""
    for test in reports:
        family, _, split = test.name.rpartition("_")
        if split in TRAIN_SPLITS:
            continue
        for train in reports:
            train_family, _, train_split = train.name.rpartition("_")
            if train_split not in TRAIN_SPLITS:
                continue
            if (train_family, train_split, split) == (family, "trainval", "val"):
                continue  # trainval holds val on purpose
            for digest in test.hashes.keys() & train.hashes.keys():
                test.leaked.append(f"{test.hashes[digest][0]} = {train.hashes[digest][0]} ({train.name})")


def print_table(reports: list[Report]) -> None:
    """One line a dataset, columns aligned."""
    rows = [COLUMNS, *(report.row() for report in reports)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        texts = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        counts = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        print("  ".join(texts + counts))


def print_details(report: Report) -> None:
    """The faults of a dataset, at most ``SHOWN`` of a kind."""
    if report.fault:
        print(f"{report.name}: {report.fault}")
    for reason, count in report.skipped.items():
        print(f"{report.name}: left out {count} x {reason}")
    for kind, sentences in (
        ("unreadable", report.unreadable),
        ("duplicate", report.duplicates),
        ("leaked", report.leaked),
    ):
        for sentence in sentences[:SHOWN]:
            print(f"{report.name}: {kind}: {sentence}")
        if len(sentences) > SHOWN:
            print(f"{report.name}: {kind}: and {len(sentences) - SHOWN} more")


def run(names: list[str], root: Path, fast: bool) -> int:
    """Checks the datasets and returns the exit status."""
    reports = [check(name, root, fast) for name in names or DATASETS]
    if not names:
        reports = [report for report in reports if report.status != "absent" or (root / report.folder).is_dir()]
        if not reports:
            print(f"no dataset found in {root}; see datasets/README.md")
            return 1
    find_leaks(reports)
    loaded = {report.folder for report in reports if report.status == "ok"}
    for report in reports:
        # without names, a split that was not fetched is no problem as long as another one of its folder was
        wanted = bool(names) or report.folder not in loaded
        if (report.status == "absent" and wanted) or report.unreadable or report.duplicates or report.leaked:
            report.status = "problems"
        print_details(report)
    print_table(reports)
    num_problems = sum(report.status == "problems" for report in reports)
    print(f"{num_problems} of {len(reports)} datasets have problems" if num_problems else "no problems found")
    return 1 if num_problems else 0


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line; returns the exit status."""
    parser = OneLineParser(
        description="Checks layout, counts, unreadable files, duplicates and leakage between train and test.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="datasets, e.g. coco_keypoints_val; default: all whose folder exists"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="datasets root; default: $UNIHAP_DATASETS or ./datasets"
    )
    parser.add_argument("--fast", action="store_true", help="compare file contents but do not decode the images")
    options = parser.parse_args(arguments)
    root = options.root or dataset_root()
    try:
        for name in options.names:
            lookup(DATASETS, name, "dataset")
        if not root.is_dir():
            raise ValueError(f"no datasets folder {root}; set UNIHAP_DATASETS or --root")
    except ValueError as error:
        print(f"check_datasets.py: {error}", file=sys.stderr)
        return 2
    return run(list(dict.fromkeys(options.names)), root, options.fast)


if __name__ == "__main__":
    sys.exit(main())
