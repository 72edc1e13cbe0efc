"""The shared encoder: a plain ViT from timm's blocks with a resizable position table and no class token."""

import math
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unihap.lookup import did_you_mean
from unihap.models.position import PositionTable
from unihap.models.prompts import prompted_block

# ImageNet statistics on the 0-255 scale (RGB).
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

# Sizes by short name; any other name is looked up in timm's register of models.  With 96 channels,
# patches of 8 on half of the pixels per side learn faster than patches of 16, from as many tokens.
ENCODERS: Mapping[str, dict[str, int]] = {
    "vit_pico_patch16": {"embed_dim": 64, "depth": 2, "num_heads": 2},  # for tests
    "vit_micro_patch8": {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3},  # for minutes on a CPU
    "vit_nano_patch16": {"embed_dim": 128, "depth": 6, "num_heads": 4},  # for CPUs
    "vit_tiny_patch16": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small_patch16": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch16": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch16": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_huge_patch16": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}


def build_vit(name: str, drop_path: float) -> VisionTransformer:
    """A plain timm ViT without class token, position table, pooling and classifier.

    Raises:
        ValueError: neither a name of ``ENCODERS`` nor of a plain timm ViT.
    """
    plain: dict[str, Any] = {
        "class_token": False,
        "global_pool": "",
        "num_classes": 0,
        "pos_embed": "none",
        "drop_path_rate": drop_path,
        "dynamic_img_size": True,
    }
    if name in ENCODERS:
        return VisionTransformer(**{"patch_size": 16, **plain, **ENCODERS[name]})
    known = [*ENCODERS, *timm.list_models("vit_*")]
    if name not in known:
        raise ValueError(f"unknown encoder {name!r}{did_you_mean(name, known)}; it must be a plain ViT, a vit_* model")
    vit = timm.create_model(name, pretrained=False, **plain)
    reason = _not_plain(vit)
    if reason:
        raise ValueError(f"encoder {name!r} is not a plain ViT ({reason}); use another vit_*")
    assert isinstance(vit, VisionTransformer)
    return vit


@cache
def patch_size(name: str) -> int:
    """Side of the patches of an encoder, pixels.

    Raises:
        ValueError: see ``build_vit``.
    """
    with torch.device("meta"):  # no weights are made
        side: int = build_vit(name, 0.0).patch_embed.patch_size[0]
    return side


def _not_plain(vit: nn.Module) -> str:
    """What a model has beyond the parts that ``Encoder`` takes: patches, blocks and the final norm."""
    if type(vit) is not VisionTransformer:
        return f"it is a {type(vit).__name__}"
    if vit.num_prefix_tokens:
        return "prefix tokens"
    if type(vit.norm_pre) is not nn.Identity:
        return "a norm before the blocks"
    return "" if type(vit.patch_embed) is PatchEmbed else "patches that are no single convolution"


class Encoder(nn.Module):
    """Images to a feature map of one cell per patch (stride 16 unless the name says otherwise).

    Args:
        name: a key of ``ENCODERS`` or any plain timm ViT.
        position_grid: (h, w) of the learnable position table.
        drop_path: stochastic depth of the last block, rising linearly from 0 (0.2 in the release).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, name: str, position_grid: tuple[int, int] = (84, 84), drop_path: float = 0.2) -> None:
        super().__init__()
        vit = build_vit(name, drop_path)
        self.width: int = vit.embed_dim
        self.patch_embed = vit.patch_embed
        self.stride: int = vit.patch_embed.patch_size[0]
        self.position = PositionTable(self.width, position_grid)
        self.blocks = vit.blocks
        self.norm = vit.norm
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)
        self._scale_residual_branches()

    @torch.no_grad()
    def _scale_residual_branches(self) -> None:
        """Divides the last matrix of each residual branch of block l = 1, 2, ... by sqrt(2 l), as BEiT does."""
        for number, block in enumerate(self.blocks, start=1):
            for name in ("attn.proj", "mlp.fc2"):
                block.get_parameter(f"{name}.weight").div_(math.sqrt(2 * number))

    def depth_of(self, parameter: str) -> int:
        """Depth of one of this module's parameters for layer-wise decay: 0 patches, 1 ... L blocks, L + 1 the rest."""
        if parameter.startswith("patch_embed."):
            return 0
        if parameter.startswith("blocks."):
            return int(parameter.split(".")[1]) + 1
        return len(self.blocks) + 1

    def normalise(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Subtracts the ImageNet mean, divides by the deviation and pads to whole patches with zeros.

        Padding holds zeros *after* the normalisation, i.e. the mean colour (the release does so for the rounding to
        whole patches, and pads raw pixels between images of a batch; with its batch of one only the former occurs).

        Args:
            images: (B, 3, H, W) uint8 or float, RGB 0-255.
            sizes: (B, 2) true height and width of each image when ``images`` is padded right and bottom.
        """
        x = (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        height, width = images.shape[-2:]
        if sizes is not None:
            rows = torch.arange(height, device=x.device) < sizes[:, :1]  # (B, H)
            columns = torch.arange(width, device=x.device) < sizes[:, 1:]  # (B, W)
            x = x * (rows[:, None, :, None] & columns[:, None, None, :])
        return F.pad(x, (0, -width % self.stride, 0, -height % self.stride))

    def embed(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Patches before the first block, with their positions added.

        Args:
            images: as in ``forward``.
            sizes: as in ``forward``.

        Returns:
            (B, h * w, D) tokens in raster order, and (h, w).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        x = self.patch_embed.proj(self.normalise(images, sizes))  # (B, D, h, w)
        grid = (x.shape[-2], x.shape[-1])
        return x.flatten(2).transpose(1, 2).contiguous() + self.position(grid), grid

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        *,
        prompts: Tensor | None = None,
        checkpoint_activations: bool = False,
    ) -> Tensor:
        """Encodes images.

        Activations are kept for the backward pass only above the first weight or prompt that trains: of a frozen
        encoder without prompts, none.

        Args:
            images: (B, 3, H, W) uint8 or float, RGB 0-255; padded to whole patches if they are not.
            sizes: (B, 2) heights and widths before padding, or ``None``.
            prompts: (L, 2, P, D) keys and values that every block attends to besides its tokens', see ``DeepPrompts``.
            checkpoint_activations: recompute each block in the backward pass instead of keeping its activations.

        Returns:
            (B, D, h, w) feature map (a channels-last view of the tokens).
        """
        x, grid = self.embed(images, sizes)
        for number, block in enumerate(self.blocks):
            forward = block if prompts is None else partial(prompted_block, block, prompts=prompts[number])
            x = checkpoint(forward, x, use_reentrant=False) if checkpoint_activations else forward(x)
        return self.norm(x).transpose(1, 2).unflatten(2, grid)
