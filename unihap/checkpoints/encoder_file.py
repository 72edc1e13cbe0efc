"""Encoders on disk: a converted one, or the encoder inside a checkpoint of joint training or of pre-training."""

import logging
from pathlib import Path
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor

from unihap.checkpoints.files import read_weights
from unihap.models.encoder import Encoder
from unihap.models.position import resize_table

ENCODER = "shared.encoder."  # prefix of the encoder's weights in every file of ours
PRETRAIN = "pretrain."  # prefix of what pre-training has beside the encoder
TABLE = "position.table"

logger = logging.getLogger(__name__)


def read_encoder(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The encoder in a file of ours.

    Args:
        path: checkpoint folder or ``.safetensors`` file: a converted encoder, a joint or a pre-training checkpoint.

    Returns:
        Weights by ``Encoder`` parameter name, the position table (1, D, h, w) on the file's grid; the file's card.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a file of ours, or no encoder in it.
    """
    weights, card = read_weights(path)
    tensors = {name.removeprefix(ENCODER): value for name, value in weights.items() if name.startswith(ENCODER)}
    if not tensors:
        raise ValueError(f"{path} holds no encoder (no weight is named {ENCODER}...); give another checkpoint")
    return tensors, card


def num_heads(encoder: Encoder) -> int:
    """Heads of an encoder's attention; no shape of a weight tells them."""
    attention = encoder.get_submodule("blocks.0.attn")
    assert isinstance(attention, Attention)
    return attention.num_heads


def load_encoder(encoder: Encoder, path: str | Path) -> list[str]:
    """Copies an encoder from disk; its position table is resized bicubically when the grids differ.

    Args:
        encoder: where to.
        path: as for ``read_encoder``.

    Returns:
        Names of the parameters that the file lacks; they keep their values.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a file of ours, no encoder in it, or another encoder: unexpected or differently shaped weights.
    """
    tensors, card = read_encoder(path)
    mine = encoder.state_dict()
    table = tensors.get(TABLE)
    if table is not None and table.ndim == 4 and table.shape[1] == encoder.width:
        tensors[TABLE] = resize_table(table.float(), (mine[TABLE].shape[-2], mine[TABLE].shape[-1]))
    problems = [
        f"{name} has shape {tuple(value.shape)}, the model {tuple(mine[name].shape)}"
        for name, value in tensors.items()
        if name in mine and value.shape != mine[name].shape
    ]
    problems += [f"unexpected {name}" for name in tensors if name not in mine]
    if problems:
        raise ValueError(
            f"{path} holds another encoder than this model ({len(problems)} differences: {'; '.join(problems[:3])}); "
            f"check MODEL.ENCODER.NAME"
        )
    described = card.get("encoder")
    described = described if isinstance(described, dict) else {}
    heads = num_heads(encoder)
    if described.get("num_heads", heads) != heads:
        raise ValueError(
            f"{path} is for {described['num_heads']} attention heads, this model's encoder has {heads}; "
            f"check MODEL.ENCODER.NAME"
        )
    if described.get("patch_padding"):
        logger.warning("%s was trained with a padded patch convolution, which this encoder has not", path)
    with torch.no_grad():
        for name, value in tensors.items():
            mine[name].copy_(value)
    missing = [name for name in mine if name not in tensors]
    if missing:
        logger.warning(
            "%s leaves %d weights of the encoder as they were: %s", path, len(missing), ", ".join(missing[:3])
        )
    return missing
