"""Names of an encoder's and of MAE's decoder's weights: timm's, MAE's and HAP's on one side, ours on the other."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from unihap.checkpoints.encoder_file import ENCODER, PRETRAIN, TABLE
from unihap.models.position import resize_table

Grid = tuple[int, int]

LEAVES = ("weight", "bias")
BLOCK_PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
# Beside the encoder, HAP's name -> ours (a module ``decoder`` of the pre-training model).
DECODER_PREFIXES = {
    "decoder_embed.": "decoder.embed.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.predict.",
    "decoder_pos_embed": "decoder.position",
    "mask_token": "decoder.mask_token",
}


def our_name(name: str) -> str:
    """Full name in a file of ours of a weight that timm, MAE and HAP call ``name``."""
    if name == "pos_embed":
        return ENCODER + TABLE
    if name == "cls_token":
        return PRETRAIN + name
    for theirs, ours in DECODER_PREFIXES.items():
        if name.startswith(theirs):
            return PRETRAIN + ours + name.removeprefix(theirs)
    return ENCODER + name


def their_name(name: str) -> str | None:
    """The inverse of ``our_name``; None for what HAP's file has not."""
    if name == ENCODER + TABLE:
        return "pos_embed"
    if name == f"{PRETRAIN}cls_token":
        return "cls_token"
    for theirs, ours in DECODER_PREFIXES.items():
        if name.startswith(PRETRAIN + ours):
            return theirs + name.removeprefix(PRETRAIN + ours)
    return name.removeprefix(ENCODER) if name.startswith(ENCODER) else None


def depth_of(names: Iterable[str], blocks: str = "blocks") -> int:
    """Number of blocks among HAP's names."""
    numbers = (re.match(rf"{blocks}\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def encoder_names(names: Iterable[str]) -> list[str]:
    """Everything that HAP's encoder has, as many blocks as ``names`` show."""
    blocks = [f"blocks.{i}.{part}" for i in range(depth_of(names)) for part in BLOCK_PARTS]
    pairs = [f"{part}.{leaf}" for part in ("patch_embed.proj", *blocks, "norm") for leaf in LEAVES]
    return ["cls_token", "pos_embed", *pairs]


def decoder_names(names: Iterable[str]) -> list[str]:
    """Everything that HAP's decoder has, as many blocks as ``names`` show."""
    blocks = [f"decoder_blocks.{i}.{part}" for i in range(depth_of(names, "decoder_blocks")) for part in BLOCK_PARTS]
    pairs = [f"{part}.{leaf}" for part in ("decoder_embed", *blocks, "decoder_norm", "decoder_pred") for leaf in LEAVES]
    return ["mask_token", "decoder_pos_embed", *pairs]


def resize_tokens(table: Tensor, source_grid: Grid, grid: Grid) -> Tensor:
    """A (1, 1 + h0 w0, D) table onto another grid, slot 0 as it is.

    Raises:
        ValueError: the table is not of ``source_grid``.
    """
    if table.ndim != 3 or table.shape[1] != 1 + source_grid[0] * source_grid[1]:
        raise ValueError(
            f"decoder_pos_embed has shape {tuple(table.shape)}, and a {source_grid[0]} x {source_grid[1]} grid makes "
            f"{1 + source_grid[0] * source_grid[1]} tokens; give the grid the source was trained with: --grid H W"
        )
    patches = table[:, 1:].transpose(1, 2).unflatten(2, source_grid)
    return torch.cat([table[:, :1], resize_table(patches, grid).flatten(2).transpose(1, 2)], dim=1)
