"""HAP on a context autoencoder: hidden patches are first predicted as latents, then as codes."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerNorm, Mlp  # a norm with eps 1e-6, as in the encoder
from timm.models.vision_transformer import Block, LayerScale
from torch import Tensor, nn

from unihap.losses.precision import at_least_float32
from unihap.models.encoder import Encoder
from unihap.pretrain.tokenizers import Tokenizer
from unihap.pretrain.views import PretrainEncoder, initialise, pick, token_order

# LayerScale starts here in the blocks of this file (CAE, "base").  CAE's encoder has LayerScale as well; ours is the
# joint model's encoder, which has none, so a CAE encoder's scales must be folded into its weights when it is loaded.
LAYER_SCALE = 0.1


def _drop_rates(last: float, layers: int) -> list[float]:
    """Rates of stochastic depth, from 0 at the first block to ``last``."""
    return torch.linspace(0, last, layers, device="cpu").tolist()


class RegressorBlock(nn.Module):
    """Cross-attention of hidden tokens to all tokens, then a feed-forward network.

    Not the usual order: the norm before the feed-forward network normalises the residual stream itself, not only what
    the network reads.

    Args:
        width: D.
        heads: attention heads.
        drop_path: rate of stochastic depth.
    """

    def __init__(self, width: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.query_norm = LayerNorm(width)
        self.key_norm = LayerNorm(width)
        self.value_norm = LayerNorm(width)
        # CAE's keys have no bias; one that torch adds cannot change an attention.
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.attention_scale = LayerScale(width, LAYER_SCALE)
        self.mlp_norm = LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.mlp_scale = LayerScale(width, LAYER_SCALE)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, hidden: Tensor, visible: Tensor, hidden_position: Tensor, visible_position: Tensor) -> Tensor:
        """One block.

        Args:
            hidden: (B, Nm, D), queries, and also keys and values.
            visible: (B, Nv, D), keys and values only; they are not updated.
            hidden_position: (B, Nm, D), added to queries and keys, not to values.
            visible_position: (B, Nv, D), added to keys.

        Returns:
            (B, Nm, D).
        """
        everything = torch.cat([visible, hidden], dim=1)
        position = torch.cat([visible_position, hidden_position], dim=1)
        attended, _ = self.attention(
            self.query_norm(hidden + hidden_position),
            self.key_norm(everything + position),
            self.value_norm(everything),
            need_weights=False,
        )
        hidden = self.mlp_norm(hidden + self.drop_path(self.attention_scale(attended)))
        return hidden + self.drop_path(self.mlp_scale(self.mlp(hidden)))


class LatentRegressor(nn.Module):
    """Predicts the latents of hidden patches from those of the visible ones (CAE, arXiv:2202.03026).

    Args:
        width: D.
        heads: attention heads.
        layers: blocks.
        drop_path: stochastic depth of the last block, rising linearly from 0.
    """

    def __init__(self, width: int, heads: int, layers: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(RegressorBlock(width, heads, rate) for rate in _drop_rates(drop_path, layers))
        self.norm = LayerNorm(width)
        initialise(self)
        with torch.no_grad():
            nn.init.normal_(self.mask_token, std=0.02)
            for block in self.blocks:
                # Three matrices in one parameter: each is drawn by its own fans.
                for matrix in block.get_parameter("attention.in_proj_weight").chunk(3):
                    nn.init.xavier_uniform_(matrix)

    def forward(self, visible: Tensor, visible_position: Tensor, hidden_position: Tensor) -> Tensor:
        """Predicts.

        Args:
            visible: (B, Nv, D) latents of the visible patches after the encoder's final norm, no class token.
            visible_position: (B, Nv, D).
            hidden_position: (B, Nm, D).

        Returns:
            (B, Nm, D) latents of the hidden patches, after a norm.
        """
        hidden = self.mask_token.expand(hidden_position.shape)
        for block in self.blocks:
            hidden = block(hidden, visible, hidden_position, visible_position)
        return self.norm(hidden)


class CodeDecoder(nn.Module):
    """Reads codes from predicted latents: self-attention among hidden patches only, visible ones are out of reach.

    Args:
        width: D.
        heads: attention heads.
        vocabulary: codes.
        layers: blocks.
        drop_path: stochastic depth of the last block, rising linearly from 0.
    """

    def __init__(self, width: int, heads: int, vocabulary: int, layers: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, init_values=LAYER_SCALE, drop_path=rate, norm_layer=LayerNorm)
            for rate in _drop_rates(drop_path, layers)
        )
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        initialise(self)

    def forward(self, hidden: Tensor, hidden_position: Tensor) -> Tensor:
        """(B, Nm, D) predicted latents and their positions to (B, Nm, vocabulary) logits."""
        x = hidden + hidden_position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class ContextAutoencoder(PretrainEncoder):
    r"""HAP on CAE (Chen et al. 2022, arXiv:2202.03026; HAP, arXiv:2310.20695, Table 2).

    .. math:: L = \frac{1}{R} \sum_{v=1}^{R} \left( L_\text{code}^{(v)} + 2 L_\text{latent}^{(v)} \right)
        + \gamma L_\text{align}

    Of a view v the encoder sees the visible patches and the class token.  The regressor predicts the latents of the
    hidden patches, :math:`L_\text{latent}` is their mean squared distance to what the encoder itself, without a
    gradient, says about the hidden patches when it sees only them.  The decoder predicts the tokenizer's codes from
    the predicted latents, :math:`L_\text{code}` is its cross-entropy over the hidden patches.
    :math:`L_\text{align}` pulls the class tokens of two views together and is HAP's, not CAE's own.

    HAP reports this form but says about it no more than "the same".  That both terms are averaged over the views and
    that the class tokens aligned are those after the final norm, as with the masked autoencoder, is our reading.

    CAE holds a second encoder for the target, replaced by a copy of the first in every step *after* it was used
    (momentum 0): a target one step old.  Ours is the encoder itself, up to date, without a copy.

    Args:
        encoder: the joint model's encoder, with ``position_grid`` equal to ``grid``.
        grid: (gh, gw) of a crop.
        tokenizer: frozen; gives the codes.
        regressor_layers: blocks of the regressor.
        decoder_layers: blocks of the decoder.
        views: a key of ``VIEWS``.
        alignment: module of the views' two class tokens that returns its weighted loss, or ``None``.
        align_weight: weight of the latents' distance, CAE's own alignment.
        drop_path: stochastic depth of the last block of regressor and decoder; the encoder brings its own.
        guidance_by_attention: hide what the encoder attends to instead of the masks that are passed.
        scratch: see ``PretrainEncoder``.

    Raises:
        ValueError: alignment with one view only, no layers, unknown views or sizes that do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        grid: tuple[int, int],
        tokenizer: Tokenizer,
        *,
        regressor_layers: int = 4,
        decoder_layers: int = 4,
        views: str = "masked_masked",
        alignment: nn.Module | None = None,
        align_weight: float = 2.0,
        drop_path: float = 0.1,
        guidance_by_attention: bool = False,
        scratch: bool = True,
    ) -> None:
        super().__init__(encoder, grid, views, scratch=scratch)
        if alignment is not None and views == "none":
            raise ValueError("views 'none' leave nothing to align; choose other views or no alignment")
        if regressor_layers < 1 or decoder_layers < 1:
            raise ValueError(
                f"regressor and decoder need a layer each, got {regressor_layers} and {decoder_layers} layers"
            )
        self.tokenizer = tokenizer
        self.align_weight = align_weight
        self.guidance_by_attention = guidance_by_attention
        self.alignment = alignment
        attention: Any = encoder.blocks[0].attn
        width, heads = encoder.width, attention.num_heads
        self.regressor = LatentRegressor(width, heads, regressor_layers, drop_path)
        self.decoder = CodeDecoder(width, heads, tokenizer.vocabulary, decoder_layers, drop_path)

    def codes(self, images: Tensor) -> Tensor:
        """(B, N) int64, the tokenizer's codes of (B, 3, H, W) RGB 0-255.

        Raises:
            ValueError: a tokenizer with another grid than the model's.
        """
        codes = self.tokenizer(images)
        if tuple(codes.shape[1:]) != self.grid:
            raise ValueError(
                f"the tokenizer gives {tuple(codes.shape[1:])} codes where the model has {self.grid} patches; "
                f"build it with patch={self.patch}"
            )
        return codes.flatten(1)

    @torch.no_grad()
    def target_latent(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """What the encoder says about hidden patches when it sees them and no others.

        Args:
            tokens: (B, N, D) with their positions added.
            hidden: (B, Nm) numbers of the hidden patches.

        Returns:
            (B, Nm, D) after the final norm, without a gradient.
        """
        return self.encode(pick(tokens, hidden))[:, 1:]

    def _predict(self, latent: Tensor, visible: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Nm, D) latents and (B, Nm, vocabulary) logits of hidden patches; ``latent`` has its class token."""
        position = self.encoder.position(self.grid)[0]
        predicted = self.regressor(latent[:, 1:], position[visible], position[hidden])
        return predicted, self.decoder(predicted, position[hidden])

    def forward(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The terms of the loss; their sum is the loss.

        Args:
            images: (B, 3, H, W) RGB 0-255, uint8 or float.
            masks: (B, V, gh, gw) bool, True = masked, the same number in all; V as in ``VIEWS``.

        Returns:
            ``token``, ``latent`` and, where there is an alignment, ``alignment``; scalars, already weighted.
        """
        if self.guidance_by_attention:
            masks = self.attention_guided(images, masks)
        tokens = self.tokens(images)
        views = self.encode_views(tokens, masks)
        visible, hidden = token_order(views.mask)
        num_views = len(hidden) // len(tokens)
        predicted, logits = self._predict(views.latent, visible, hidden)
        target = self.target_latent(tokens.repeat(num_views, 1, 1), hidden)
        codes = self.codes(images).repeat(num_views, 1).gather(1, hidden)
        # All views hide as many patches, so means over everything are means over the views.
        terms = {
            "token": F.cross_entropy(at_least_float32(logits).flatten(0, 1), codes.flatten()),
            "latent": self.align_weight * F.mse_loss(at_least_float32(predicted), at_least_float32(target)),
        }
        if self.alignment is not None:
            assert views.aligned is not None, "the constructor refuses an alignment of one view"
            terms["alignment"] = self.alignment(*views.aligned)
        return terms

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Logits of the codes of one view's hidden patches.

        Args:
            images: (B, 3, H, W) RGB 0-255.
            mask: (B, gh, gw) or (B, N) bool, True = masked.

        Returns:
            (B, Nm, vocabulary), hidden patches in raster order.
        """
        visible, hidden = token_order(mask.flatten(1))
        return self._predict(self.encode(pick(self.tokens(images), visible)), visible, hidden)[1]
