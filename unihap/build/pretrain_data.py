"""From a config to the crops of a pre-training run and the masks drawn on them."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from unihap.build.data import datasets_root
from unihap.config import CfgNode
from unihap.data.catalog import DATASETS, load_dataset
from unihap.data.unlabelled import PLACES, join, load_unlabelled, take
from unihap.lookup import lookup
from unihap.models.encoder import build_vit
from unihap.pretrain.dataset import PersonCrops
from unihap.pretrain.part_masking import Masking
from unihap.pretrain.views import VIEWS
from unihap.structures import Dataset

CROPS = ("unlabelled", "reid", "attributes", "parsing")  # kinds of dataset whose images show one person each


def patch_size(cfg: CfgNode) -> int:
    """Edge of the encoder's patches in pixels."""
    return _patch_size(cfg.MODEL.ENCODER.NAME)


@cache
def _patch_size(encoder: str) -> int:
    with torch.device("meta"):
        return int(build_vit(encoder, 0.0).patch_embed.patch_size[0])


def token_grid(cfg: CfgNode) -> tuple[int, int]:
    """Rows and columns of patches of a crop.

    Raises:
        ValueError: a size that is no whole number of patches.
    """
    height, width = _pair(cfg, "INPUT_SIZE")
    patch = patch_size(cfg)
    if min(height, width) < patch or height % patch or width % patch:
        raise ValueError(f"PRETRAIN.INPUT_SIZE {[height, width]} must be multiples of the encoder's patch, {patch}")
    return height // patch, width // patch


def _pair(cfg: CfgNode, key: str) -> tuple[Any, Any]:
    """A key that holds a smallest and a largest value, or a height and a width."""
    value: Any = cfg.PRETRAIN
    for part in key.split("."):
        value = value[part]
    if len(value) != 2:
        raise ValueError(f"PRETRAIN.{key} must be two numbers, got {list(value)}")
    return value[0], value[1]


def build_masking(cfg: CfgNode) -> Masking:
    """How masks are drawn."""
    mask = cfg.PRETRAIN.MASK
    return Masking(
        grid=token_grid(cfg),
        patch=patch_size(cfg),
        ratio=mask.RATIO,
        sampler=mask.SAMPLER,
        guidance=mask.GUIDANCE,
        parts=_pair(cfg, "MASK.PARTS"),
        keypoints=_pair(cfg, "MASK.KEYPOINTS"),
        part_fraction=_pair(cfg, "MASK.PART_FRACTION") if mask.PART_FRACTION else None,
        min_score=mask.MIN_SCORE,
        compat=mask.COMPAT,
    )


def build_crops(cfg: CfgNode) -> PersonCrops:
    """The training images.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: no dataset, an unknown one, or a share that cannot be taken.
    """
    node = cfg.PRETRAIN
    sources = list(node.DATASETS)
    fractions = list(node.FRACTION) * (len(sources) if len(node.FRACTION) == 1 else 1)
    indices = list(node.KEYPOINTS) or [""] * len(sources)
    for key, values in (("FRACTION", fractions), ("KEYPOINTS", indices)):
        if len(values) != len(sources):
            raise ValueError(
                f"PRETRAIN.{key} has {len(values)} entries for {len(sources)} datasets; give one for each of DATASETS"
            )
    datasets = [
        read_crops(source, datasets_root(cfg), fraction, node.NUM_SAMPLES, index)
        for source, fraction, index in zip(sources, fractions, indices, strict=True)
    ]
    return PersonCrops(
        join(datasets),
        build_masking(cfg),
        size=_pair(cfg, "INPUT_SIZE"),
        num_views=lookup(VIEWS, node.ALIGN.VIEWS, "PRETRAIN.ALIGN.VIEWS"),
        crop_scale=_pair(cfg, "CROP_SCALE"),
        flip=node.FLIP,
        seed=cfg.SEED,
        on_bad_image=cfg.DATA.ON_BAD_IMAGE,
    )


def read_crops(source: str, root: Path, fraction: float, num_samples: int, index: str) -> Dataset:
    """Crops without labels, or the images of a labelled dataset of crops."""
    if source not in DATASETS or source in PLACES:
        return load_unlabelled(source, root, fraction=fraction, num_samples=num_samples, index=index)
    dataset = load_dataset(source, root)
    if dataset.kind not in CROPS:
        raise ValueError(f"PRETRAIN.DATASETS: {source} is for {dataset.kind}, its images are not crops of one person")
    if index:
        raise ValueError(f"PRETRAIN.KEYPOINTS: {source} has labels; name its folder of images to give it keypoints")
    return replace(dataset, records=take(dataset.records, fraction, num_samples, source))
