#!/usr/bin/env python
r"""Converts released checkpoints to ours and back.

Examples:
  one model from UniHCP's per-task files
    python tools/convert_checkpoint.py --from unihcp --out unihcp.safetensors \
        --task coco_pose=ckpt_task0_iter_newest.pth.tar --task general_reid=ckpt_task2_iter_newest.pth.tar
  one task back to UniHCP's format
    python tools/convert_checkpoint.py --to unihcp --task coco_pose --out ckpt_task0.pth.tar unihcp.safetensors
  an encoder to start from, for MODEL.ENCODER.WEIGHTS
    python tools/convert_checkpoint.py --from mae --position-grid 16 8 --out mae.safetensors mae_pretrain_vit_base.pth
    python tools/convert_checkpoint.py --from vitpose --grid 16 12 --out vitpose.safetensors vitpose-b.pth
  HAP's encoder and decoder, and back
    python tools/convert_checkpoint.py --from hap --with-decoder --out hap.safetensors hap_vitb.pth
    python tools/convert_checkpoint.py --to hap --out hap.pth hap.safetensors
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from unihap.build import build_task
from unihap.checkpoints.encoder_names import Grid
from unihap.checkpoints.encoders import SOURCES, convert_encoder
from unihap.checkpoints.files import read_state, read_weights, save_weights, sha256
from unihap.checkpoints.hap import to_hap
from unihap.checkpoints.unihcp import from_unihcp, to_unihcp
from unihap.config import get_cfg
from unihap.engine.checkpoint import (
    CRITERION,
    architecture_of,
    base_card,
    load_into,
    spec_from_json,
    spec_to_json,
)
from unihap.models.unihap import Architecture
from unihap.structures import Unit

BOX_UNIT = "shared.interpreter.to_box."  # upstream stores it with detection alone
OF_ENCODERS = ("grid", "position_grid", "encoder", "with_decoder", "reset_final_norm", "expert", "mean", "std")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    direction = parser.add_mutually_exclusive_group(required=True)
    sources, targets = [*SOURCES, "unihcp"], ["hap", "unihcp"]
    direction.add_argument("--from", dest="source", choices=sources, help="format to read")
    direction.add_argument("--to", dest="target", choices=targets, help="format to write")
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="file to write; must not exist")
    parser.add_argument("src", nargs="?", type=Path, metavar="SRC", help="upstream encoder, or with --to ours")
    whole = parser.add_argument_group("unihcp")
    whole.add_argument("--task", action="append", default=[], metavar="NAME=CKPT", help="a task and its upstream file")
    alone = parser.add_argument_group("encoders")
    grid: dict[str, Any] = {"nargs": 2, "type": int, "metavar": ("H", "W")}
    alone.add_argument("--grid", **grid, help="tokens of the source's position table; hap 16 8, mae and cae 14 14")
    alone.add_argument("--position-grid", **grid, help="resize the position table to this grid; default: keep its own")
    alone.add_argument("--encoder", metavar="NAME", help="which encoder it is; default: by width and depth")
    alone.add_argument("--with-decoder", action="store_true", help="hap, mae: keep the decoder for pre-training")
    alone.add_argument("--reset-final-norm", action="store_true", help="leave the final norm at 1 and 0")
    alone.add_argument("--expert", type=int, metavar="K", help="vitpose: data set of a file that serves several")
    colour: dict[str, Any] = {"nargs": 3, "type": float, "metavar": ("R", "G", "B")}
    alone.add_argument("--mean", **colour, help="pixel mean the source subtracts, 0-1; default: ImageNet's, as here")
    alone.add_argument("--std", **colour, help="pixel deviation the source divides by, 0-1")
    return parser.parse_args(arguments)


def convert_from(arguments: argparse.Namespace) -> int:
    """Upstream files to one checkpoint of ours; 1 when a weight that must be filled is not."""
    pairs = [pair.partition("=") for pair in arguments.task]
    if not pairs or not all(separator for _, separator, _ in pairs):
        raise ValueError("name every upstream file as --task NAME=CKPT")
    tasks = {name: build_task(get_cfg(), name) for name, _, _ in pairs}
    if len(tasks) < len(pairs):
        raise ValueError("every --task must have a name of its own")
    weights, report = from_unihcp({name: read_state(Path(path), ["state_dict"]) for name, _, path in pairs})
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
    cards = {
        name: {"kind": task.kind, "spec": spec_to_json(task.spec), "classes": list(task.classes) or None}
        for name, task in tasks.items()
    }
    save_weights(arguments.out, merged, {**base_card(Architecture(), cards), "converted_from": "UniHCP"})
    print(f"wrote {arguments.out}")
    return 0


def convert_encoder_from(arguments: argparse.Namespace) -> int:
    """An upstream encoder to a file of ours; 1 when a weight that must be filled is not."""
    if arguments.src is None or arguments.task:
        raise ValueError(f"--from {arguments.source} takes the file to convert and no --task")
    if (arguments.mean is None) != (arguments.std is None):
        raise ValueError("--mean and --std go together")
    source = SOURCES[arguments.source]
    if not (arguments.grid or source.grid):
        raise ValueError(
            f"a {arguments.source} file does not say what grid its positions are for; give it with --grid H W, e.g. "
            f"--grid 14 14 for 224 x 224 pixels or --grid 16 12 for 256 x 192"
        )
    grid = pair(arguments.grid) or source.grid
    target = pair(arguments.position_grid) or grid
    assert grid is not None
    assert target is not None
    vit = source.translate(source.read(arguments.src))
    if arguments.mean:
        vit.fold_pixels(tuple(arguments.mean), tuple(arguments.std))
    converted = convert_encoder(
        vit,
        grid,
        target,
        encoder=arguments.encoder,
        expert=arguments.expert,
        with_decoder=arguments.with_decoder,
        final_norm=not arguments.reset_final_norm,
    )
    print_keys({key: ", ".join(names) for key, names in converted.used.items()}, converted.dropped, converted.unfilled)
    for what in converted.folded:
        print(f"folded    {what}")
    for note in converted.notes:
        print(f"note      {note}")
    if converted.unfilled:
        return 1
    card = converted.card(
        format=arguments.source, file=arguments.src.name, sha256=sha256(arguments.src), position_grid=list(grid)
    )
    save_weights(arguments.out, converted.weights, card)
    size = " x ".join(map(str, target))
    print(f"wrote {converted.encoder['name']} with a {size} position table to {arguments.out}")
    return 0


def convert_to_hap(arguments: argparse.Namespace) -> int:
    """A checkpoint of ours to a file of HAP; 1 when a weight that HAP needs is not there."""
    if arguments.src is None or arguments.task:
        raise ValueError("--to hap takes the checkpoint to convert and no --task")
    weights, _ = read_weights(arguments.src)
    file = to_hap(weights, pair(arguments.position_grid))
    print_keys(file.used, file.dropped, file.unfilled)
    for note in file.notes:
        print(f"note      {note}")
    if file.unfilled:
        return 1
    torch.save({"model": file.state}, arguments.out)  # without "arch", which HAP takes for a run to resume
    print(f"wrote {len(file.state)} keys to {arguments.out}")
    return 0


def pair(grid: list[int] | None) -> Grid | None:
    """A grid of the command line."""
    if grid is None:
        return None
    if min(grid) < 1:
        raise ValueError(f"a grid has at least one row and one column, got {grid[0]} x {grid[1]}")
    return grid[0], grid[1]


def print_keys(used: dict[str, str], dropped: dict[str, str], unfilled: list[str]) -> None:
    """One line a key, then their numbers."""
    lines = [f"used      {key} -> {name}" for key, name in used.items()]
    lines += [f"dropped   {key} ({why})" for key, why in dropped.items()]
    lines += [f"unfilled  {name}" for name in unfilled]
    print("\n".join([*lines, f"{len(used)} keys used, {len(dropped)} dropped, {len(unfilled)} unfilled"]))


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
        whole = "unihcp" in (parsed.source, parsed.target)
        if whole and any(getattr(parsed, name) not in (None, False) for name in OF_ENCODERS):
            raise ValueError(f"unihcp files hold whole models; {', '.join(OF_ENCODERS)} are for encoders")
        if parsed.source in SOURCES:
            return convert_encoder_from(parsed)
        if parsed.target == "hap":
            return convert_to_hap(parsed)
        return convert_from(parsed) if parsed.source else convert_to(parsed)
    except (ValueError, FileNotFoundError) as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
