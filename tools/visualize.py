#!/usr/bin/env python
"""Draws what a pre-training run has learned and how it masks: sheets of crops as PNG.

Examples:
  original, masked and reconstructed crops (Figure 5 of HAP)
    python tools/visualize.py hap reconstruct /data/crops --weights output/pretrain_cpu --out triplets.png
  body parts, and the masks that follow from them (Figure 7); needs no weights
    python tools/visualize.py hap mask /data/crops --config configs/quick/pretrain_cpu.yaml --out masks.png
  what the patch of the left wrist attends to (Figure 6)
    python tools/visualize.py hap attention /data/crops --weights output/pretrain_cpu --out maps.png

CROPS are datasets, folders, lists or image files.  Keypoints come from the index that tools/extract_keypoints.py writes
beside the crops.  The same command draws the same picture.  Exit status: 0 done, 1 the run failed, 2 bad arguments.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unihap.build.pretrain_pictures import (
    draw_selection,
    find_config,
    find_weights,
    gather_crops,
    is_image,
    load_autoencoder,
    load_pretrain_encoder,
    lowest_score,
    read_pretrain_config,
)
from unihap.command_line import OneLineParser
from unihap.config import CfgNode
from unihap.data.crop_records import CropLabel
from unihap.data.images import BadImageError
from unihap.data.skeletons import SKELETONS
from unihap.lookup import lookup
from unihap.pretrain.dataset import PersonCrops
from unihap.pretrain.parts import PARTS, keypoint_cells, part_rectangles
from unihap.pretrain.structures import PretrainSample
from unihap.visualize.pretrain import attention_cell, mask_cell, patch_attention, reconstruction_cell
from unihap.visualize.sheet import Cell, lay_out, write_picture

NUM_CROPS = 8
KEYPOINTS = SKELETONS["coco"].names
VARIANTS = {"pasted": ("pasted",), "whole": ("whole",), "both": ("pasted", "whole")}

Sheet = tuple[list[Cell], str, str]  # cells, title, explanation


def common_options() -> OneLineParser:
    """What all pictures of pre-training need to know."""
    parser = OneLineParser(add_help=False)
    parser.add_argument("crops", nargs="+", metavar="CROPS", help="datasets, folders, lists or image files")
    parser.add_argument("--weights", type=Path, metavar="W", help="folder of a run, checkpoint folder or .safetensors")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: config.yaml of the run of --weights")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys to change")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the sheet, .png")
    parser.add_argument("--num", type=int, metavar="N", help=f"crops to draw; default: {NUM_CROPS}, of image files all")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of crops and of the masks; default: 0")
    parser.add_argument(
        "--keypoints", default="", metavar="INDEX", help="default: keypoints.npz beside the crops, if there is one"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="datasets root; default: the config's")
    parser.add_argument("--device", default="", help="default: cuda if there is one, else cpu")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="visualize.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    hap = subjects.add_parser("hap", help="pre-training").add_subparsers(required=True, metavar="WHAT")
    common = common_options()
    masked = OneLineParser(add_help=False)
    masked.add_argument(
        "--parts", nargs="+", metavar="PART", help=f"mask these instead of a random choice: {', '.join(PARTS)}"
    )

    made = hap.add_parser("reconstruct", parents=[common, masked], help="original, masked, reconstructed")
    made.add_argument(
        "--variant",
        choices=VARIANTS,
        default="pasted",
        help="pasted: true pixels where they were visible; whole: the prediction everywhere; default: pasted",
    )
    made.set_defaults(draw=draw_reconstructions)
    made = hap.add_parser("mask", parents=[common, masked], help="body parts and a mask")
    made.set_defaults(draw=draw_masks)
    made = hap.add_parser("attention", parents=[common], help="attention of one patch to all")
    made.add_argument("--keypoint", default="left_wrist", help="whose patch asks; default: left_wrist")
    made.add_argument("--patch", nargs=2, type=int, metavar=("ROW", "COLUMN"), help="patch that asks instead, from 0")
    made.add_argument("--block", type=int, default=-1, help="number of the block, from 0; default: -1, the last")
    made.add_argument("--head", default="mean", help="number of the head, from 0, or mean; default: mean")
    made.set_defaults(draw=draw_attentions)
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Refuses what cannot be.

    Raises:
        ValueError: naming the option.
    """
    if options.out.suffix != ".png":
        raise ValueError(f"--out must be a .png file, got {options.out}")
    if options.num is not None and options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    if options.seed < 0:
        raise ValueError(f"--seed must not be negative, got {options.seed}")
    if options.weights is None and (options.draw is not draw_masks or options.config is None):
        raise ValueError("give --weights W" + (" or --config FILE" if options.draw is draw_masks else ""))
    if options.weights is not None and not options.weights.exists():
        raise FileNotFoundError(f"no weights at {options.weights}; give the folder of a run, or a checkpoint")


def choose(
    crops: PersonCrops, options: argparse.Namespace, fits: Callable[[PretrainSample], bool] | None = None
) -> Iterator[tuple[int, PretrainSample]]:
    """The crops to draw with their numbers: a random choice in the order of the dataset.

    Args:
        crops: all.
        options: how many.
        fits: refuses crops; it needs keypoints.
    """
    files_alone = all(is_image(source) for source in options.crops)
    wanted = options.num or (len(crops) if files_alone else NUM_CROPS)
    records = crops.samples.dataset.records
    found: dict[int, PretrainSample] = {}
    for index in np.random.default_rng(options.seed).permutation(len(crops)).tolist():
        if len(found) == wanted:
            break
        if fits is not None:
            label = records[index].label
            if not isinstance(label, CropLabel) or label.keypoints is None:
                continue
        sample = crops[index]
        if fits is None or fits(sample):
            found[index] = sample
    for index in sorted(found):
        yield index, found[index]


def picture(image: Tensor) -> np.ndarray:
    """(3, H, W) RGB 0-255 as (H, W, 3) uint8."""
    return np.ascontiguousarray(image.detach().cpu().float().round().byte().permute(1, 2, 0).numpy())


def draw_reconstructions(cfg: CfgNode, options: argparse.Namespace) -> Sheet:
    """Original, masked and reconstructed crops."""
    weights, device = find_weights(options.weights), device_of(options)
    model = load_autoencoder(cfg, weights).to(device)
    crops = gather_crops(cfg, options.crops, root=options.root, index=options.keypoints)
    variants, cells = VARIANTS[options.variant], []
    for index, sample in choose(crops, options):
        rng = np.random.default_rng([options.seed, index])
        selection = draw_selection(crops.masking, sample.keypoints.numpy(), options.parts, rng)
        images = sample.image[None].to(device)
        mask = torch.from_numpy(crops.masking.mask(selection, rng))[None].to(device)
        if model.guidance_by_attention and options.parts is None:
            mask = model.attention_guided(images, mask[:, None]).reshape(mask.shape)
        painted = {name: picture(model.reconstruct(images, mask, paste=name == "pasted")[0]) for name in variants}
        name = Path(sample.path).name
        cells.append(reconstruction_cell(name, picture(sample.image), mask[0].cpu().numpy(), painted))
    said = {"pasted": "pasted: true pixels where visible", "whole": "whole: prediction everywhere"}
    explanation = "; ".join(said[name] for name in variants)
    if model.normalize_target:
        explanation += "; mean and contrast of each patch are the true ones"
    return cells, f"{described(weights)}, {crops.masking.num_masked} of {model.num_tokens} patches masked", explanation


def draw_masks(cfg: CfgNode, options: argparse.Namespace) -> Sheet:
    """Body parts and the masks that follow from a draw of them."""
    crops = gather_crops(cfg, options.crops, root=options.root, index=options.keypoints)
    masking = crops.masking
    if cfg.PRETRAIN.MASK.GUIDANCE == "attention" and options.parts is None:
        raise ValueError("with PRETRAIN.MASK.GUIDANCE attention the model masks; draw hap reconstruct instead")
    cells = []
    for index, sample in choose(crops, options):
        rng, keypoints = np.random.default_rng([options.seed, index]), sample.keypoints.numpy()
        selection = draw_selection(masking, keypoints, options.parts, rng)
        mask = masking.mask(selection, rng)
        rectangles = part_rectangles(keypoints, masking.grid, masking.patch, lowest_score(masking))
        seen = keypoint_cells(keypoints, masking.grid, masking.patch, lowest_score(masking))
        there = keypoints[[cell is not None for cell in seen], :2]
        names = (KEYPOINTS[int(name)] if name.isdecimal() else name for name in selection.names)
        chosen = dict(zip(names, selection.patches, strict=True))
        name = Path(sample.path).name
        cells.append(mask_cell(name, picture(sample.image), there, rectangles, chosen, mask))
    rows, columns = masking.grid
    title = f"{masking.sampler} masks, guidance {masking.guidance}, {masking.compat}, {rows} x {columns} patches"
    return cells, title, "colour: hidden for a part (framed: given up), grey: added"


def draw_attentions(cfg: CfgNode, options: argparse.Namespace) -> Sheet:
    """What the patch of a keypoint attends to."""
    weights, device = find_weights(options.weights), device_of(options)
    model = load_pretrain_encoder(cfg, weights).to(device)
    number = lookup({name: i for i, name in enumerate(KEYPOINTS)}, options.keypoint, "keypoint")
    if options.head != "mean" and not options.head.isdecimal():
        raise ValueError(f"--head must be mean or a number from 0, got {options.head!r}")
    head = None if options.head == "mean" else int(options.head)
    crops = gather_crops(cfg, options.crops, root=options.root, index=options.keypoints)
    masking = crops.masking

    def asking(sample: PretrainSample) -> tuple[int, int] | None:
        if options.patch:
            return options.patch[0], options.patch[1]
        return keypoint_cells(sample.keypoints.numpy(), masking.grid, masking.patch, lowest_score(masking))[number]

    cells = []
    asked = "patch" if options.patch else options.keypoint
    for _, sample in choose(crops, options, None if options.patch else lambda sample: asking(sample) is not None):
        query = asking(sample)
        assert query is not None
        maps = model.attention(sample.image[None].to(device), options.block)[0].cpu().numpy()
        attention, class_share = patch_attention(maps, query, masking.grid, head)
        cells.append(
            attention_cell(Path(sample.path).name, picture(sample.image), attention, query, class_share, asked)
        )
    if not cells:
        raise ValueError(
            f"no crop has a {options.keypoint}; fill the index with tools/extract_keypoints.py, or give --patch"
        )
    block = options.block % len(model.encoder.blocks)
    heads = "mean of the heads" if head is None else f"head {head}"
    title = f"{described(weights)}: attention of block {block} (of 0 to {len(model.encoder.blocks) - 1}), {heads}"
    return cells, title, "each map from 0, blue, to its maximum, red; without the class token"


def described(weights: Path) -> str:
    """A checkpoint by the last words of its path."""
    parts = weights.absolute().parts
    return "/".join(parts[-3:] if "checkpoints" in parts[-3:] else parts[-2:])


def device_of(options: argparse.Namespace) -> torch.device:
    """Where to compute."""
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    options = parse(arguments)
    try:
        check(options)
        cfg = read_pretrain_config(options.config or find_config(options.weights), options.set)
        cells, title, explanation = options.draw(cfg, options)
        write_picture(lay_out(cells, title, explanation), options.out)
    except BadImageError as error:
        print(f"visualize.py: the run failed: {error}", file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError) as error:
        print(f"visualize.py: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"visualize.py: the run failed: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(cells)} crops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
