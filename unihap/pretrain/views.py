"""What both forms of HAP share: the views of an image, the class token and the encoder that sees them.

A *view* is the set of patches that one pass of the encoder gets.  N = gh * gw tokens, Nm of them masked, Nv visible;
masks are True where a patch is masked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unihap.lookup import did_you_mean
from unihap.models.encoder import Encoder
from unihap.models.position import sincos_table
from unihap.pretrain.part_masking import attention_mask

# Masks per image of every kind of views (HAP, Table 14).  The alignment pulls the two views' class tokens together:
# masked_masked   two masks of the same crop, both reconstructed (HAP's default);
# masked_global   a masked view, reconstructed, and the whole image;
# masked_visible  a masked view, reconstructed, and exactly the patches that it lacks;
# none            one masked view, nothing to align.
VIEWS: Mapping[str, int] = {"masked_masked": 2, "masked_global": 1, "masked_visible": 1, "none": 1}


def token_order(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the visible and of the masked tokens, both in raster order.

    Args:
        mask: (B, N) bool, True = masked, the same count in every row.

    Returns:
        (B, Nv) and (B, Nm) int64.

    Raises:
        ValueError: rows with different counts, which could not be stacked.
    """
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(f"a mask must be (B, N) bool, got {tuple(mask.shape)} {mask.dtype}")
    counts = mask.sum(dim=1)
    fewest, most = (int(count) for count in counts.aminmax())
    if fewest != most:
        raise ValueError(f"masks of a batch must hide the same number of patches, but some hide {fewest}, some {most}")
    order = mask.int().argsort(dim=1, stable=True)
    return order[:, : mask.shape[1] - most], order[:, mask.shape[1] - most :]


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens of given numbers, a selection of rows: much cheaper in backward than ``gather``.

    Args:
        tokens: (B, N, D).
        index: (V * B, n) numbers, V views of the B images, the first view of all images first.

    Returns:
        (V * B, n, D).
    """
    batch, number, width = tokens.shape
    first = torch.arange(len(index), device=tokens.device)[:, None] % batch * number
    return tokens.reshape(-1, width).index_select(0, (index + first).flatten()).view(len(index), -1, width)


def visible_tokens(tokens: Tensor, mask: Tensor) -> Tensor:
    """The tokens that a mask leaves, in raster order.

    Args:
        tokens: (B, N, D).
        mask: (B, N) bool, True = masked.

    Returns:
        (B, Nv, D).

    Raises:
        ValueError: rows of the mask with different counts.
    """
    return pick(tokens, token_order(mask)[0])


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) to (B, N, 3 * patch^2): patches in raster order, each row by row with the channel fastest."""
    x = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, 3, gh, p, gw, p)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of ``patchify``: (B, N, 3 * patch^2) to (B, 3, H, W)."""
    x = patches.unflatten(1, grid).unflatten(3, (patch, patch, 3))  # (B, gh, gw, p, p, 3)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """MAE's first weights: Linear Xavier-uniform with bias 0, normalisation 1 and 0 (He et al. 2022, A.1)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()


@dataclass(frozen=True)
class EncodedViews:
    """The encoder's output for one batch.

    Attributes:
        latent: (R * B, 1 + Nv, D) after the final norm, class token first: the R views that are to be reconstructed,
            all images of the first view before those of the second.
        mask: (R * B, N) bool, the masks of these views.
        aligned: the two views' class tokens, (B, D) each, or ``None`` when there is one view only.
    """

    latent: Tensor
    mask: Tensor
    aligned: tuple[Tensor, Tensor] | None


class PretrainEncoder(nn.Module):
    """The joint model's encoder with a class token: base class of both pre-training models.

    State of a pre-training model is therefore ``cls_token``, ``encoder.*`` (the keys of ``Encoder``) and its own.
    The class token has position 0 and meets the encoder in the sequence only; nothing of ``Encoder`` changes.

    Args:
        encoder: the encoder to be trained; its position table becomes frozen.
        grid: (gh, gw), the tokens of a crop and also of the position table.
        views: a key of ``VIEWS``.
        scratch: give the encoder MAE's first weights and the table sine codes; False keeps what the encoder holds.
            Weights may as well be loaded into ``encoder`` afterwards.

    Raises:
        ValueError: a position table of another grid, or unknown views.
    """

    def __init__(
        self, encoder: Encoder, grid: tuple[int, int], views: str = "masked_masked", *, scratch: bool = True
    ) -> None:
        super().__init__()
        if views not in VIEWS:
            raise ValueError(f"unknown views {views!r}{did_you_mean(views, VIEWS)}; known: {', '.join(VIEWS)}")
        table = encoder.position.table
        if tuple(table.shape[-2:]) != tuple(grid):
            raise ValueError(
                f"the encoder's position table is {tuple(table.shape[-2:])}, the grid of a crop {tuple(grid)}; "
                "build the encoder with position_grid equal to the grid, so that no position is interpolated"
            )
        self.encoder = encoder
        self.grid = (int(grid[0]), int(grid[1]))
        self.patch = encoder.stride
        self.views = views
        self.cls_token = nn.Parameter(torch.zeros(1, 1, encoder.width))
        nn.init.normal_(self.cls_token, std=0.02)
        table.requires_grad_(False)
        if scratch:
            initialise(encoder)
            with torch.no_grad():
                projection = encoder.patch_embed.proj
                nn.init.xavier_uniform_(projection.weight.flatten(1))  # a view: fans of the flattened kernel
                nn.init.zeros_(projection.bias)
                table.copy_(sincos_table(self.grid, encoder.width))

    @property
    def num_tokens(self) -> int:
        """Patches of a crop, N."""
        return self.grid[0] * self.grid[1]

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB 0-255 minus the ImageNet mean, divided by the deviation.

        Raises:
            ValueError: another size than the grid's.
        """
        expected = (3, self.grid[0] * self.patch, self.grid[1] * self.patch)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images must be (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        return self.encoder.normalise(images)

    def patchify(self, images: Tensor) -> Tensor:
        """(B, N, 3 * patch^2), see the function of this name."""
        return patchify(images, self.patch)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB 0-255 to (B, N, D) embedded patches with their positions added."""
        tokens, grid = self.encoder.embed(images)
        if grid != self.grid:
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels have {grid} patches, the model {self.grid}")
        return tokens

    def _with_class_token(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)

    def encode(self, tokens: Tensor) -> Tensor:
        """Passes any subset of tokens through the encoder.

        Args:
            tokens: (B, n, D) with their positions added.

        Returns:
            (B, 1 + n, D) after the final norm, class token first.
        """
        x = self._with_class_token(tokens)
        for block in self.encoder.blocks:
            x = block(x)
        return self.encoder.norm(x)

    def encode_views(self, tokens: Tensor, masks: Tensor) -> EncodedViews:
        """Encodes the views of a batch, views of the same length in one pass.

        Args:
            tokens: (B, N, D) with their positions added.
            masks: (B, V, N) or (B, V, gh, gw) bool, True = masked; V as in ``VIEWS``.

        Raises:
            ValueError: another number of masks, or masks that hide different numbers of patches.
        """
        batch = len(tokens)
        if masks.ndim < 3 or masks.shape[:2] != (batch, VIEWS[self.views]):
            raise ValueError(
                f"views {self.views!r} of {batch} images need masks ({batch}, {VIEWS[self.views]}, ...), "
                f"got {tuple(masks.shape)}"
            )
        masks = masks.reshape(batch, VIEWS[self.views], -1)
        if masks.shape[2] != self.num_tokens:
            raise ValueError(f"masks of {masks.shape[2]} patches do not fit the grid {self.grid}")
        mask = masks.transpose(0, 1).flatten(0, 1)  # (V * B, N)
        visible, masked = token_order(mask)
        if self.views == "masked_masked":
            latent = self.encode(pick(tokens, visible))
            return EncodedViews(latent, mask, (latent[:batch, 0], latent[batch:, 0]))
        if self.views == "none":
            return EncodedViews(self.encode(pick(tokens, visible)), mask, None)
        if self.views == "masked_visible" and visible.shape == masked.shape:
            both = self.encode(pick(tokens, torch.cat([visible, masked])))
            return EncodedViews(both[:batch], mask, (both[:batch, 0], both[batch:, 0]))
        latent = self.encode(pick(tokens, visible))
        other = self.encode(tokens if self.views == "masked_global" else pick(tokens, masked))
        return EncodedViews(latent, mask, (latent[:, 0], other[:, 0]))

    @torch.no_grad()
    def attention(self, images: Tensor, block: int = -1) -> Tensor:
        """Attention of one block when the encoder sees the whole image (a pass of its own, nothing masked).

        Args:
            images: (B, 3, H, W) RGB 0-255.
            block: number of the block; negative numbers count from the last.

        Returns:
            (B, heads, 1 + N, 1 + N), rows are queries and sum to 1; token 0 is the class token, then raster order.

        Raises:
            ValueError: no block of this number.
        """
        blocks = self.encoder.blocks
        if not -len(blocks) <= block < len(blocks):
            raise ValueError(f"no block {block}: the encoder has {len(blocks)}")
        training = self.encoder.training
        self.encoder.eval()  # without drop path
        x = self._with_class_token(self.tokens(images))
        block %= len(blocks)
        for earlier in blocks[:block]:
            x = earlier(x)
        attention: Any = blocks[block].attn
        x = blocks[block].get_submodule("norm1")(x)
        query, key, _ = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = attention.q_norm(query), attention.k_norm(key)
        self.encoder.train(training)
        return F.softmax(attention.scale * query @ key.transpose(-2, -1), dim=-1)

    def attention_guided(self, images: Tensor, masks: Tensor) -> Tensor:
        """Masks that hide what the class token attends to most in the last block (HAP, Table 11, "attention").

        Both views of an image get the same mask, since the encoder's attention depends on nothing else.

        Args:
            images: (B, 3, H, W) RGB 0-255.
            masks: (B, V, gh, gw) bool; only the number that they hide is used.

        Returns:
            (B, V, N) bool.
        """
        num_masked = token_order(masks.flatten(0, 1).flatten(1))[1].shape[1]
        attention = self.attention(images)[:, :, 0, 1:].mean(dim=1)  # (B, N), of the class token, mean of the heads
        return attention_mask(attention, num_masked)[:, None].expand(-1, masks.shape[1], -1)
