#!/usr/bin/env python
"""Fills the keypoint index of a folder of person crops, from which pre-training draws its masks.

Examples:
  by a pose task of a checkpoint of ours
    python tools/extract_keypoints.py /data/crops --weights output/checkpoints/iteration_00100000
  by RTMPose or ViTPose
    python tools/extract_keypoints.py /data/crops --onnx rtmpose-m_256x192.onnx
  LUPerson, whose released keypoints (one .npy for each image) become one file
    python tools/extract_keypoints.py luperson_train --legacy datasets/luperson/LUPerson-pose --float16

CROPS is a folder with all folders in it, a list (.txt or .pkl) of paths under its own folder, or a dataset for
pre-training.  The whole crop is taken as the person's box.  Crops that the index has already are left alone: the same
command goes on after a kill.  Exit status: 0 done, 1 the run failed, 2 bad arguments, 130 stopped.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from unihap.checkpoints.files import WEIGHTS, sha256
from unihap.command_line import OneLineParser
from unihap.data.catalog import dataset_root
from unihap.data.keypoint_index import PRECISIONS, convert_legacy, write_index
from unihap.data.skeletons import SKELETONS
from unihap.data.unlabelled import find_place, read_names
from unihap.engine.allocator import keep_heap
from unihap.engine.checkpoint import load_model
from unihap.engine.extract import Detector, OtherDetectorError, TaskDetector, extract, summary
from unihap.engine.onnx_pose import MissingOnnxRuntimeError, OnnxDetector, open_session
from unihap.lookup import lookup
from unihap.tasks import TASKS, TaskOptions

DEFAULT_TASK = "coco_pose"
DIGITS = 12  # of a checksum in the index, where it names the detector


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="extract_keypoints.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crops", metavar="CROPS", help="folder, list, or name of a dataset")
    detector = parser.add_mutually_exclusive_group(required=True)
    detector.add_argument("--weights", type=Path, metavar="W", help="checkpoint of ours with a pose task")
    detector.add_argument("--onnx", type=Path, metavar="M", help="RTMPose (SimCC) or ViTPose (heatmaps)")
    detector.add_argument("--legacy", type=Path, metavar="DIR", help="LUPerson's released keypoints; no detector")
    parser.add_argument("--task", default=DEFAULT_TASK, help=f"pose task of --weights; default: {DEFAULT_TASK}")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored crop (--weights)")
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="of the detector; default: the task's or model's own",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="index; default: keypoints.npz beside the crops")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="datasets root; default: $UNIHAP_DATASETS or ./datasets"
    )
    parser.add_argument("--float16", action="store_true", help="half the size; rounds to 1/4 pixel from 256 on")
    parser.add_argument("--min-score", type=float, default=0.0, help="nobody is there below this; default: 0")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the crops, the first ones; default: 1")
    parser.add_argument("--batch-size", type=int, default=32, help="crops in a batch; default: 32")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read; default: none")
    parser.add_argument("--device", default="", help="default: cuda if there is one, else cpu (--weights)")
    parser.add_argument(
        "--on-bad-image", choices=("skip", "error"), default="skip", help="unreadable crops; default: skip and count"
    )
    parser.add_argument("--save-period", type=float, default=300.0, metavar="SECONDS", help="default: 300")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Refuses numbers that cannot be.

    Raises:
        ValueError: naming the option.
    """
    for name, lowest in (("batch_size", 1), ("workers", 0), ("save_period", 0)):
        if getattr(options, name) < lowest:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be at least {lowest}, got {getattr(options, name)}")
    if options.input_size and min(options.input_size) < 2:
        raise ValueError(f"--input-size must be two sizes in pixels, got {options.input_size}")


def task_detector(options: argparse.Namespace) -> Detector:
    """A pose task of a checkpoint of ours.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: not a whole model, no such task in it, or one with other keypoints.
    """
    make = lookup(TASKS, options.task, "task")
    skeleton = getattr(make, "keywords", {}).get("skeleton", "")
    if SKELETONS.get(skeleton) is not SKELETONS["coco"]:
        raise ValueError(
            f"task {options.task} does not predict COCO's keypoints, which the index holds; use {DEFAULT_TASK}"
        )
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = load_model(options.weights).to(device)
    size = tuple(options.input_size or ())
    task = make(options.task, TaskOptions(input_size=size, patch_size=model.shared.encoder.stride))
    file = options.weights / WEIGHTS if options.weights.is_dir() else options.weights
    source = f"{options.task} of {file.name}, sha256 {sha256(file)[:DIGITS]}{', flipped' if options.flip else ''}"
    return TaskDetector(model, task, flip=options.flip, source=source)


def onnx_detector(options: argparse.Namespace) -> Detector:
    """A model of others.

    Raises:
        MissingOnnxRuntimeError: onnxruntime is not installed.
        FileNotFoundError: no such file.
        ValueError: no pose model.
    """
    session = open_session(options.onnx)
    size = (options.input_size[0], options.input_size[1]) if options.input_size else None
    source = f"{options.onnx.name}, sha256 {sha256(options.onnx)[:DIGITS]}"
    return OnnxDetector(session, name=options.onnx.name, source=source, input_size=size)


def run(options: argparse.Namespace, folder: Path, names: Sequence[str], path: Path, detector: Detector) -> int:
    """Fills the index; returns the exit status."""
    done = extract(
        folder,
        names,
        path,
        detector,
        batch_size=options.batch_size,
        num_workers=options.workers,
        precision=PRECISIONS[0] if options.float16 else PRECISIONS[1],
        min_score=options.min_score,
        on_bad_image=options.on_bad_image,
        save_period=options.save_period,
    )
    for line in summary(done, path):
        print(line)
    return 1 if done.unreadable and not done.num_new and not done.num_known else 0


def convert(options: argparse.Namespace, names: Sequence[str], path: Path) -> int:
    """Makes the index of released keypoints; returns the exit status.

    Raises:
        FileNotFoundError: no such folder, or none of the keypoints.
        ValueError: the index is there, or a file holds anything but keypoints.
    """
    if path.exists():
        raise ValueError(f"{path} exists; give another --out")
    index = convert_legacy(options.legacy, names, PRECISIONS[0] if options.float16 else PRECISIONS[1])
    write_index(path, index)
    print(f"{path}: {int(index.has_person.sum())} of {len(index)} crops have keypoints")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line; returns the exit status."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    keep_heap()
    try:
        check(options)
        place = find_place(options.crops, options.root or dataset_root())
        names = read_names(place, options.fraction)
        path = options.out or place.index
        if options.legacy:
            return convert(options, names, path)
        detector = onnx_detector(options) if options.onnx else task_detector(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"extract_keypoints.py: {error}", file=sys.stderr)
        return 2
    except MissingOnnxRuntimeError as error:
        print(f"extract_keypoints.py: {error}", file=sys.stderr)
        return 1
    try:
        return run(options, place.images, names, path, detector)
    except OtherDetectorError as error:
        print(f"extract_keypoints.py: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError) as error:
        print(f"extract_keypoints.py: the run failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("extract_keypoints.py: stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
