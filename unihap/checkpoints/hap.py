"""Weights of ours in the form of HAP's released files."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unihap.checkpoints.encoder_file import ENCODER, PRETRAIN, TABLE
from unihap.checkpoints.encoder_names import (
    DECODER_PREFIXES,
    Grid,
    decoder_names,
    encoder_names,
    resize_tokens,
    their_name,
)
from unihap.checkpoints.encoders import SOURCES
from unihap.checkpoints.files import State
from unihap.models.position import resize_table


@dataclass
class HapFile:
    """A state dict for HAP's code.

    Attributes:
        state: HAP's ``model``.
        used: our name -> HAP's.
        dropped: our name -> why.
        unfilled: HAP's names that must be filled and are not.
        notes: what a user should know.
    """

    state: State
    used: dict[str, str]
    dropped: dict[str, str]
    unfilled: list[str]
    notes: list[str]


def to_hap(weights: Mapping[str, Tensor], grid: Grid | None = None) -> HapFile:
    """The inverse of ``from_hap`` and ``convert_encoder``, with the decoder where the weights hold MAE's form of it.

    Args:
        weights: of a converted encoder, a pre-training or a joint checkpoint of ours.
        grid: (h, w) of the position table to write, resized bicubically; ``None`` keeps that of ``weights``.

    Raises:
        ValueError: no encoder among them.
    """
    table = weights.get(ENCODER + TABLE)
    if table is None:
        raise ValueError(f"the checkpoint has no {ENCODER}{TABLE}, so no encoder to write")
    own_grid = (table.shape[-2], table.shape[-1])
    grid = grid or own_grid
    notes = []
    if grid != SOURCES["hap"].grid:
        notes.append(f"the position grid is {grid[0]} x {grid[1]}; HAP's own tools expect 16 x 8")
    pixels = f"{PRETRAIN}{DECODER_PREFIXES['mask_token']}" in weights
    state: State = {}
    used: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for name, value in weights.items():
        theirs = their_name(name)
        if theirs is None or (theirs.startswith("decoder_") and not pixels):
            dropped[name] = "HAP's file has no such weight"
            continue
        if theirs == "pos_embed":
            patches = resize_table(value.float(), grid).flatten(2).transpose(1, 2)
            value = torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)
        elif theirs == "decoder_pos_embed":
            value = resize_tokens(value.float(), own_grid, grid)
        state[theirs] = value.contiguous()
        used[name] = theirs
    wanted = encoder_names(state)
    if pixels:
        wanted += decoder_names(state)
    else:
        notes.append("there is no decoder for HAP in the checkpoint; the file holds the encoder alone, as MAE's does")
    return HapFile(state, used, dropped, [name for name in wanted if name not in state], notes)
