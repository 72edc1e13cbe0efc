#!/usr/bin/env python
"""Renders people with all labels, in the layouts of the real datasets.

Examples:
  everything, scaled to 200 people of Market-1501
    python tools/synthesize_people.py --out /data/rendered --people 200 --seed 1 --workers 8
  two datasets, one of them with numbers of its own, in the look of the other domain
    python tools/synthesize_people.py --out /data/rendered_b --people 200 --datasets market1501 pa100k \
        --count pa100k=3000,1000 --domain b
  go on after a kill or a full disk
    python tools/synthesize_people.py --out /data/rendered --people 200 --seed 1 --workers 8 --resume
  look whether a folder is as it was rendered
    python tools/synthesize_people.py --out /data/rendered --verify

Needs the extra synth: pip install "unihap[synth]".  Exit status: 0 done, 1 a run that failed or a changed folder,
2 bad arguments, 130 stopped.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import json
import logging
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unihap.command_line import OneLineParser
from unihap.data.catalog import load_dataset
from unihap.data.pose import coco_pose
from unihap.data.rendered import TITLE
from unihap.data.skeletons import SKELETONS
from unihap.structures import Dataset, Label, PoseLabel, Record
from unihap.synth.amounts import ALL, PER_100_PEOPLE, PRESETS, amounts
from unihap.synth.body import MissingExtraError
from unihap.synth.generate import generate
from unihap.synth.layouts import LAYOUTS
from unihap.synth.layouts.extra import LEVELS
from unihap.synth.layouts.scenes import SKELETON_OF
from unihap.synth.manifest import UNLISTED, manifest_faults
from unihap.synth.request import DOMAINS, Request
from unihap.synth.staging import STAGINGS
from unihap.synth.workers import StudioFactory

logger = logging.getLogger("unihap")

SHEETS = UNLISTED[0]
Labelled = tuple[Dataset, Sequence[str]]


def ratios() -> str:
    """What 100 people give, for the help."""
    rows = [
        f"  {name:15} {', '.join(f'{split} {count}' for split, count in amount.counts.items()):32} {LAYOUTS[name].unit}"
        for name, amount in PER_100_PEOPLE.items()
    ]
    return "\n".join(["datasets, and what --people 100 gives of each:", *rows])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="synthesize_people.py",
        description=__doc__,
        epilog=ratios(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder, new or empty")
    parser.add_argument("--people", type=int, metavar="N", help="training people; scales every dataset")
    parser.add_argument("--preset", default="", metavar="NAME", help=f"fixed amounts: {', '.join(PRESETS)}")
    parser.add_argument("--datasets", nargs="+", default=[ALL], metavar="NAME", help=f"default: {ALL}")
    parser.add_argument(
        "--count",
        action="append",
        default=[],
        metavar="NAME=TRAIN,TEST",
        help="amounts of one dataset, or one number for each of its splits; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--domain", default="a", help=f"look, attributes and keypoints: {', '.join(DOMAINS)}")
    parser.add_argument(
        "--staging", help=f"how people stand: {', '.join(STAGINGS)}; default: street, of a preset catalogue"
    )
    parser.add_argument(
        "--extra", help=f"labels in extra.jsonl.gz: {', '.join(LEVELS)}; default: full, of a preset brief"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes; default: all cores"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run of the same options")
    parser.add_argument("--sheets", type=int, default=24, metavar="N", help="pictures on a contact sheet, 0 for none")
    parser.add_argument("--verify", action="store_true", help="compare a finished folder with its manifest and stop")
    return parser.parse_args(arguments)


def parse_counts(texts: Sequence[str]) -> dict[str, list[int]]:
    """``NAME=TRAIN,TEST`` as numbers.

    Raises:
        ValueError: not of this form.
    """
    counts = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            counts[name] = [int(number) for number in numbers.split(",")]
        except ValueError:
            raise ValueError(f"--count {text}: expected NAME=TRAIN,TEST, e.g. pa100k=700,200") from None
    return counts


def verify(folder: Path) -> int:
    """Prints what differs from the manifest; returns the exit status."""
    faults = manifest_faults(folder)
    for fault in faults:
        print(fault)
    print(f"{len(faults)} files differ from the manifest" if faults else "every file is as it was rendered")
    return 1 if faults else 0


# contact sheets: each returns datasets and a text for each of their records


def adapted(root: Path, *names: str) -> list[Labelled]:
    """What the adapters of the real datasets read in the folder."""
    return [(load_dataset(name, root), ()) for name in names]


def keypoints(root: Path, domain: str) -> list[Labelled]:
    """COCO's adapter with the domain's order of keypoints."""
    return [
        (
            coco_pose(
                root,
                f"coco/annotations/person_keypoints_{split}2017.json",
                f"coco/{split}2017",
                name=f"coco_keypoints_{split}",
                title=TITLE,
                skeleton=SKELETON_OF[domain],
            ),
            (),
        )
        for split in LAYOUTS["coco_keypoints"].splits
    ]


def luperson(root: Path, domain: str) -> list[Labelled]:
    """Crops with their keypoints."""
    content = np.load(root / "LUPerson/keypoints.npz")
    pairs = enumerate(zip(content["names"].tolist(), content["keypoints"], strict=True))
    box = np.zeros(4)
    records = [Record(name, str(root / "LUPerson" / name), PoseLabel(points, box, i)) for i, (name, points) in pairs]
    return [(Dataset("luperson", "pose", records, SKELETONS["coco"].names), ())]


def cuhkpedes(root: Path, domain: str) -> list[Labelled]:
    """Crops with their sentences."""
    entries = json.loads((root / "CUHK-PEDES/reid_raw.json").read_text(encoding="utf-8"))
    texts = [f"{entry['split']}, person {entry['id']}\n" + "\n".join(entry["captions"]) for entry in entries]
    files = [entry["file_path"] for entry in entries]
    records = [Record(file, str(root / "CUHK-PEDES/imgs" / file), Label()) for file in files]
    return [(Dataset("cuhkpedes", "captions", records), texts)]


def threedpw(root: Path, domain: str) -> list[Labelled]:
    """Frames with the 2D keypoints of everybody."""
    records = []
    for path in sorted((root / "3DPW/sequenceFiles").rglob("*.pkl")):
        sequence = pickle.loads(path.read_bytes())  # this tool wrote it
        for frame in sequence["img_frame_ids"].tolist():
            image = root / "3DPW/imageFiles" / path.stem / f"image_{frame:05d}.jpg"
            for points in sequence["poses2d"]:
                label = PoseLabel(points[frame].T, np.zeros(4), frame)
                records.append(Record(f"{path.stem} {frame}", str(image), label))
    return [(Dataset("threedpw", "pose", records, SKELETONS["threedpw"].names), ())]


SHEET_OF: dict[str, Callable[[Path, str], list[Labelled]]] = {
    "market1501": lambda root, domain: adapted(root, "market1501_train", "market1501_test"),
    "pa100k": lambda root, domain: adapted(root, "pa100k_train", "pa100k_test"),
    "lip": lambda root, domain: adapted(root, "lip_train", "lip_val"),
    "coco_keypoints": keypoints,
    "crowdhuman": lambda root, domain: adapted(root, "crowdhuman_train", "crowdhuman_val"),
    "prcc": lambda root, domain: adapted(root, "prcc_train", "prcc_test"),
    "luperson": luperson,
    "cuhkpedes": cuhkpedes,
    "threedpw": threedpw,
}


def draw_sheets(name: str, folder: Path, domain: str, num_cells: int) -> None:
    """Draws contact sheets of a dataset into the folder ``sheets``, which the manifest leaves out."""
    from unihap.visualize.truth import draw_truth  # loads every kind of task, which rendering processes do not need

    (folder / SHEETS).mkdir(exist_ok=True)
    for dataset, texts in SHEET_OF[name](folder, domain):
        path = folder / SHEETS / f"{dataset.name}.png"
        Image.fromarray(draw_truth(dataset, num_cells, texts)).save(path)
        logger.info("drew %s", path)


def run(options: argparse.Namespace, studio: StudioFactory | None) -> int:
    """Renders, then draws the sheets; returns the exit status."""
    datasets = amounts(options.people, options.datasets, parse_counts(options.count), options.preset)
    extra = options.extra or ("brief" if options.preset else "full")
    staging = options.staging or ("catalogue" if options.preset else "street")
    request = Request(datasets, options.seed, options.domain, staging, extra)
    generate(options.out, request, workers=options.workers, resume=options.resume, studio=studio)
    if options.sheets > 0:
        for name in datasets:
            draw_sheets(name, options.out, options.domain, options.sheets)
    return 0


def main(arguments: Sequence[str] | None = None, studio: StudioFactory | None = None) -> int:
    """Parses the command line; returns the exit status."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    try:
        return verify(options.out) if options.verify else run(options, studio)
    except (ValueError, FileNotFoundError) as error:
        print(f"synthesize_people.py: {error}", file=sys.stderr)
        return 2
    except (MissingExtraError, OSError, RuntimeError) as error:
        print(f"synthesize_people.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("synthesize_people.py: stopped; the same command with --resume goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
