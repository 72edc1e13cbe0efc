"""HAP on a masked autoencoder: a light decoder paints the hidden patches of every view."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from unihap.losses.precision import at_least_float32
from unihap.models.encoder import Encoder
from unihap.models.position import sincos_table
from unihap.pretrain.views import PretrainEncoder, initialise, pick, token_order, unpatchify

# Added to the variance of a patch before the root (He et al. 2022, the released code).
VARIANCE_EPS = 1e-6


def normalise_patches(patches: Tensor) -> Tensor:
    """Gives every patch mean 0 and (unbiased) variance 1: MAE's better target (He et al. 2022, section 4.1).

    Args:
        patches: (..., 3 * patch^2).
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + VARIANCE_EPS).sqrt()


def attend_last(block: Block, x: Tensor, num_queries: int) -> Tensor:
    """A transformer block for the last tokens of a sequence only; they still attend to all.

    Equal to ``block(x)[:, -num_queries:]`` at a good half of its cost.

    Args:
        block: a timm block without drop path, layer scale and norms of query and key.
        x: (B, n, D).
        num_queries: tokens wanted.

    Returns:
        (B, num_queries, D).
    """
    attention: Any = block.attn
    width, heads = x.shape[2], attention.num_heads
    wanted = x[:, -num_queries:]
    normed = block.norm1(x)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query = F.linear(normed[:, -num_queries:], weight[:width], bias[:width]).unflatten(2, (heads, -1)).transpose(1, 2)
    key, value = F.linear(normed, weight[width:], bias[width:]).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    seen = F.scaled_dot_product_attention(query, key, value)  # (B, heads, num_queries, D / heads)
    wanted = wanted + attention.proj(seen.transpose(1, 2).flatten(2))
    return wanted + block.mlp(block.norm2(wanted))


class PixelDecoder(nn.Module):
    """Paints patches from the encoder's view of the others.

    Tokens travel in the order class token, visible, hidden; their positions are added by number, so nothing has to be
    sorted back.

    Args:
        encoder_width: D of the latents.
        grid: (gh, gw).
        outputs: numbers per patch, 3 * patch^2.
        width: the decoder's own width.
        layers: blocks.
        heads: heads of every block.
    """

    position: Tensor

    def __init__(
        self, encoder_width: int, grid: tuple[int, int], outputs: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        if layers < 1 or width % heads or width % 4:
            raise ValueError(
                f"a decoder needs a layer and a width that its heads and 4 divide, got {layers} layers, width {width}, "
                f"{heads} heads"
            )
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        table = sincos_table(grid, width).flatten(2).transpose(1, 2)
        self.register_buffer("position", F.pad(table, (0, 0, 1, 0)))  # (1, 1 + N, width), 0 at the class token
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, outputs)
        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, visible: Tensor, hidden: Tensor, *, everywhere: bool = False) -> Tensor:
        """Predicts patches.

        Args:
            latent: (B, 1 + Nv, D) from the encoder, class token first.
            visible: (B, Nv) numbers of the patches it holds.
            hidden: (B, Nm) numbers of the patches it lacks.
            everywhere: predict the visible patches too; they come first.

        Returns:
            (B, Nm, outputs) in the order of ``hidden``, or (B, Nv + Nm, outputs).
        """
        position = self.position[0]
        seen = self.embed(latent)
        seen = seen + torch.cat([position[:1].expand(len(latent), 1, -1), position[1:][visible]], dim=1)
        unseen = self.mask_token + position[1:][hidden]
        x = torch.cat([seen, unseen.to(seen.dtype)], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        last: Any = self.blocks[-1]
        wanted = x.shape[1] - 1 if everywhere else hidden.shape[1]
        return self.predict(self.norm(attend_last(last, x, wanted)))


class MaskedAutoencoder(PretrainEncoder):
    r"""HAP's model (arXiv:2310.20695, Eq. 2): reconstruction of every view plus alignment of the two.

    .. math:: L = \frac{1}{R} \sum_{v=1}^{R} L_\text{rec}^{(v)} + \gamma L_\text{align}

    where :math:`L_\text{rec}^{(v)}` is the mean squared error over the hidden patches of view v (R = 2 for
    ``masked_masked``, with or without alignment, as in the released code; else 1).

    Args:
        encoder: the joint model's encoder, with ``position_grid`` equal to ``grid``.
        grid: (gh, gw) of a crop.
        decoder_width: width of the decoder.
        decoder_layers: its blocks.
        decoder_heads: its heads.
        normalize_target: predict patches of mean 0 and variance 1 instead of pixels.
        views: a key of ``VIEWS``.
        alignment: module of the views' two class tokens that returns its weighted loss, or ``None``.
        guidance_by_attention: hide what the encoder attends to instead of the masks that are passed.
        scratch: see ``PretrainEncoder``.

    Raises:
        ValueError: alignment with one view only, unknown views or sizes that do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        grid: tuple[int, int],
        *,
        decoder_width: int = 512,
        decoder_layers: int = 8,
        decoder_heads: int = 16,
        normalize_target: bool = True,
        views: str = "masked_masked",
        alignment: nn.Module | None = None,
        guidance_by_attention: bool = False,
        scratch: bool = True,
    ) -> None:
        super().__init__(encoder, grid, views, scratch=scratch)
        if alignment is not None and views == "none":
            raise ValueError("views 'none' leave nothing to align; choose other views or no alignment")
        self.normalize_target = normalize_target
        self.guidance_by_attention = guidance_by_attention
        self.alignment = alignment
        self.decoder = PixelDecoder(
            encoder.width, self.grid, 3 * self.patch**2, decoder_width, decoder_layers, decoder_heads
        )

    def target(self, images: Tensor) -> Tensor:
        """(B, N, 3 * patch^2), what the decoder is to predict at every patch of (B, 3, H, W) RGB 0-255."""
        patches = self.patchify(self.normalise(images))
        return normalise_patches(patches) if self.normalize_target else patches

    def forward(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The terms of the loss; their sum is the loss.

        Args:
            images: (B, 3, H, W) RGB 0-255, uint8 or float.
            masks: (B, V, gh, gw) bool, True = masked, the same number in all; V as in ``VIEWS``.

        Returns:
            ``reconstruction`` and, where there is an alignment, ``alignment``; scalars, already weighted.
        """
        if self.guidance_by_attention:
            masks = self.attention_guided(images, masks)
        views = self.encode_views(self.tokens(images), masks)
        visible, masked = token_order(views.mask)
        prediction = at_least_float32(self.decoder(views.latent, visible, masked))
        # Every view hides the same number of patches, so one mean over all is the mean of the views.
        terms = {"reconstruction": F.mse_loss(prediction, pick(self.target(images), masked))}
        if self.alignment is not None:
            assert views.aligned is not None, "the constructor refuses an alignment of one view"
            terms["alignment"] = self.alignment(*views.aligned)
        return terms

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """What the decoder says about every patch, seen or not (only hidden ones are ever trained).

        Args:
            images: (B, 3, H, W) RGB 0-255.
            mask: (B, gh, gw) or (B, N) bool, True = masked.

        Returns:
            (B, N, 3 * patch^2) patches in raster order, in the units of ``target``.
        """
        visible, masked = token_order(mask.flatten(1))
        latent = self.encode(pick(self.tokens(images), visible))
        patches = self.decoder(latent, visible, masked, everywhere=True)
        return pick(patches, torch.cat([visible, masked], dim=1).argsort(dim=1))

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Tensor, *, paste: bool = True) -> Tensor:
        """The picture as the model completes it.

        A normalised prediction is brought back with the mean and the deviation of the *true* patch, which the model
        never said: shape within a patch is predicted, its brightness and its contrast are not.

        Args:
            images: (B, 3, H, W) RGB 0-255.
            mask: (B, gh, gw) or (B, N) bool, True = masked.
            paste: put the true pixels where the picture was visible; otherwise show the prediction everywhere.

        Returns:
            (B, 3, H, W) float, RGB 0-255.
        """
        patches = self.patchify(self.normalise(images))
        painted = self.predict(images, mask).to(patches.dtype)
        if self.normalize_target:
            variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            painted = painted * (variance + VARIANCE_EPS).sqrt() + mean
        if paste:
            painted = torch.where(mask.flatten(1)[..., None], painted, patches)
        pixels = unpatchify(painted, self.grid, self.patch) * self.encoder.pixel_std + self.encoder.pixel_mean
        return pixels.clamp(0, 255)
