"""Deep prompts: keys and values that one task adds to every attention of a network that stays as it is.

P-Tuning v2 (Liu et al. 2022, arXiv:2110.07602) puts learned vectors in front of the keys and values of every layer.
UniHCP tunes them beside the queries where queries alone are too little (its Table 9, ATR).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

START = 0.02  # standard deviation; prompts near zero hardly disturb a trained network


class DeepPrompts(nn.Module):
    """The prompts of one task.

    Args:
        num_layers: L, layers of the decoder.
        width: decoder width C.
        length: P, prompts of every attention of the decoder; 0 for none.
        num_blocks: N, blocks of the encoder.
        encoder_width: D.
        encoder_length: P, prompts of every attention of the encoder; 0 for none.

    Attributes:
        decoder: (L, 2, 2, P, C) by layer, attention (cross, self) and side (keys, values), or ``None``.
        encoder: (N, 2, P, D) by block and side, or ``None``.
    """

    def __init__(
        self, num_layers: int, width: int, length: int, num_blocks: int, encoder_width: int, encoder_length: int
    ) -> None:
        super().__init__()
        self.decoder = self.encoder = None
        if length:
            self.decoder = nn.Parameter(START * torch.randn(num_layers, 2, 2, length, width))
        if encoder_length:
            self.encoder = nn.Parameter(START * torch.randn(num_blocks, 2, encoder_length, encoder_width))


def prepend(prompts: Tensor, tokens: Tensor) -> Tensor:
    """(B, ..., P + N, C): (..., P, C) prompts in front of (B, ..., N, C) tokens."""
    return torch.cat([prompts.to(tokens.dtype).expand(len(tokens), *prompts.shape), tokens], dim=-2)


def check_blocks(blocks: Iterable[nn.Module]) -> None:
    """Refuses encoders whose attention ``prompted_block`` does not know.

    Raises:
        ValueError: another block or attention than timm's plain one.
    """
    for block in blocks:
        attention = getattr(block, "attn", None)
        if type(block) is not Block or type(attention) is not Attention or getattr(attention, "gate", None) is not None:
            raise ValueError(
                f"an encoder of {type(block).__name__} with {type(attention).__name__} takes no prompts; set "
                f"PROMPT.ENCODER_LENGTH 0 or use another encoder"
            )


def prompted_block(block: nn.Module, x: Tensor, prompts: Tensor) -> Tensor:
    """One block of the encoder, with prompts in front of its projected keys and values.

    Args:
        block: one that ``check_blocks`` lets pass.
        x: (B, N, D) tokens.
        prompts: (2, P, D) keys and values.
    """
    assert isinstance(block, Block)
    assert isinstance(block.attn, Attention)
    x = x + block.drop_path1(block.ls1(_attend(block.attn, block.norm1(x), prompts)))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def _attend(attention: Attention, x: Tensor, prompts: Tensor) -> Tensor:
    """The attention of timm's module, of which every part is used; without prompts the numbers are its own."""

    def split(tokens: Tensor) -> Tensor:  # (..., N, D) to (..., heads, N, D / heads)
        return tokens.unflatten(-1, (attention.num_heads, -1)).transpose(-3, -2)

    query, key, value = (split(part) for part in attention.qkv(x).chunk(3, dim=-1))
    query, key = attention.q_norm(query), attention.k_norm(key)
    more_keys, more_values = split(prompts)
    x = F.scaled_dot_product_attention(
        query,
        prepend(more_keys, key),
        prepend(more_values, value),
        dropout_p=attention.attn_drop.p if attention.training else 0.0,
    )
    return attention.proj_drop(attention.proj(attention.norm(x.transpose(1, 2).flatten(2))))
