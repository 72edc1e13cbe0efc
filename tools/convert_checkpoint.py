#!/usr/bin/env python
r"""Converts released checkpoints to ours and back.

Examples:
  one model from UniHCP's per-task files
    python tools/convert_checkpoint.py --from unihcp --out unihcp.safetensors \
        --task coco_pose=ckpt_task0_iter_newest.pth.tar --task general_reid=ckpt_task2_iter_newest.pth.tar
  one task back to UniHCP's format
    python tools/convert_checkpoint.py --to unihcp --task coco_pose --out ckpt_task0.pth.tar unihcp.safetensors
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import pickle
import sys
from pathlib import Path

import torch
from torch import Tensor

from unihap.build import build_task
from unihap.checkpoints.unihcp import from_unihcp, to_unihcp
from unihap.config import get_cfg
from unihap.engine.checkpoint import (
    CRITERION,
    architecture_of,
    base_card,
    load_into,
    read_weights,
    save_weights,
    spec_from_json,
    spec_to_json,
)
from unihap.models.unihap import Architecture
from unihap.structures import Unit

BOX_UNIT = "shared.interpreter.to_box."  # upstream stores it with detection alone


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--from", dest="source", choices=["unihcp"], help="format to read")
    direction.add_argument("--to", dest="target", choices=["unihcp"], help="format to write")
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="file to write; must not exist")
    parser.add_argument("--task", action="append", default=[], metavar="NAME=CKPT", help="a task and its upstream file")
    parser.add_argument("src", nargs="?", type=Path, metavar="SRC", help="checkpoint of ours, with --to")
    return parser.parse_args(arguments)


def read_upstream(path: Path) -> dict[str, Tensor]:
    """State dict of an upstream file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a torch checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("state_dict"), dict):
        raise ValueError(f"{path} has no state_dict; give a file that UniHCP's training wrote")
    return loaded["state_dict"]


def convert_from(arguments: argparse.Namespace) -> int:
    """Upstream files to one checkpoint of ours; 1 when a weight that must be filled is not."""
    pairs = [pair.partition("=") for pair in arguments.task]
    if not pairs or not all(separator for _, separator, _ in pairs):
        raise ValueError("name every upstream file as --task NAME=CKPT")
    tasks = {name: build_task(get_cfg(), name) for name, _, _ in pairs}
    if len(tasks) < len(pairs):
        raise ValueError("every --task must have a name of its own")
    weights, report = from_unihcp({name: read_upstream(Path(path)) for name, _, path in pairs})
    model = Architecture().make([task.spec for task in tasks.values()])
    missing = load_into(model, weights, "the upstream checkpoint", partial=True)
    report.unfilled = missing
    needs_box = any(Unit.BOX in task.spec.units for task in tasks.values())
    unneeded = [name for name in missing if name.startswith(BOX_UNIT) and not needs_box]

    for key, name in report.used.items():
        print(f"used      {key} -> {name}")
    for key in report.dropped:
        print(f"dropped   {key}")
    for name in missing:
        print(f"unfilled  {name}{' (no converted task opens the box unit)' if name in unneeded else ''}")
    print(f"{len(report.used)} keys used, {len(report.dropped)} dropped, {len(missing)} unfilled")
    if len(missing) > len(unneeded):
        return 1
    merged = dict(model.state_dict()) | {name: value for name, value in weights.items() if CRITERION in name}
    cards = {name: {"kind": task.kind, "spec": spec_to_json(task.spec)} for name, task in tasks.items()}
    save_weights(arguments.out, merged, {**base_card(Architecture(), cards), "converted_from": "UniHCP"})
    print(f"wrote {arguments.out}")
    return 0


def convert_to(arguments: argparse.Namespace) -> int:
    """One task of a checkpoint of ours to an upstream file."""
    if arguments.src is None or len(arguments.task) != 1:
        raise ValueError("--to unihcp takes one --task NAME and the checkpoint to convert")
    (name,) = arguments.task
    weights, card = read_weights(arguments.src)
    if name not in card.get("tasks", {}):
        raise ValueError(f"{arguments.src} has no task {name!r}; it has {', '.join(card.get('tasks', {}))}")
    spec = spec_from_json(name, card["tasks"][name]["spec"])
    if architecture_of(card) != Architecture(drop_path=architecture_of(card).drop_path):
        raise ValueError(f"{arguments.src} is not UniHCP's ViT-B architecture: {card['architecture']}")
    state = to_unihcp(weights, name, box_unit=Unit.BOX in spec.units)
    torch.save({"step": int(card.get("iteration", 0)), "state_dict": state, "optimizer": {}}, arguments.out)
    print(f"wrote {len(state)} keys to {arguments.out}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 done, 1 a weight is not filled, 2 bad arguments."""
    parsed = parse(arguments)
    try:
        if parsed.out.exists():
            raise ValueError(f"{parsed.out} exists; give another --out")
        return convert_from(parsed) if parsed.source else convert_to(parsed)
    except (ValueError, FileNotFoundError) as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
