"""The shared transformer decoder: the queries of any task read the encoder's features (UniHCP, section 3.2)."""

import math

import torch
from torch import Tensor, nn

from unihap.models.position import sine_code, token_centres
from unihap.models.prompts import prepend
from unihap.models.queries import Queries


class DecoderLayer(nn.Module):
    """Cross-attention, then self-attention, then feed-forward; post-norm, no dropout (Mask2Former's order).

    Args:
        width: C.
        num_heads: attention heads.
        feedforward: hidden width of the feed-forward network.
    """

    def __init__(self, width: int, num_heads: int, feedforward: int) -> None:
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.self_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))
        self.feedforward_norm = nn.LayerNorm(width)
        for attention in (self.cross_attention, self.self_attention, self.feedforward):
            for name, p in attention.named_parameters():
                if p.ndim > 1:  # N(0, 1 / sqrt(fan in)), the release's "fan_in" architecture
                    nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))
                elif "attention" in name or "proj" in name:
                    nn.init.zeros_(p)

    def forward(
        self, queries: Tensor, query_position: Tensor, keys: Tensor, values: Tensor, prompts: Tensor | None = None
    ) -> Tensor:
        """One layer.

        Prompts stand in front of what the key and value projections get, not of what they give.  A square matrix of
        full rank reaches every projected vector either way, so for frozen projections nothing is lost, and the
        attention is PyTorch's own.

        Args:
            queries: (B, Q, C) content.
            query_position: (1, Q, C) or (B, Q, C).
            keys: (B, h * w, C) memory plus its position code.
            values: (B, h * w, C) memory.
            prompts: (2, 2, P, C) by attention (cross, self) and side (keys, values), or ``None``.
        """
        if prompts is not None:
            keys, values = prepend(prompts[0, 0], keys), prepend(prompts[0, 1], values)
        x, _ = self.cross_attention(queries + query_position, keys, values, need_weights=False)
        queries = self.cross_norm(queries + x)
        positioned = keys = queries + query_position
        values = queries
        if prompts is not None:
            keys, values = prepend(prompts[1, 0], keys), prepend(prompts[1, 1], values)
        x, _ = self.self_attention(positioned, keys, values, need_weights=False)
        queries = self.self_norm(queries + x)
        return self.feedforward_norm(queries + self.feedforward(queries))


class Decoder(nn.Module):
    """Nine such layers over one feature level.

    Args:
        encoder_width: D.
        width: C.
        num_heads: attention heads.
        num_layers: layers.
        feedforward: hidden width of the feed-forward networks.
    """

    def __init__(
        self, encoder_width: int, width: int = 256, num_heads: int = 8, num_layers: int = 9, feedforward: int = 2048
    ) -> None:
        super().__init__()
        if width % (4 * num_heads):
            raise ValueError(f"decoder width {width} must be divisible by 4 x {num_heads} heads")
        self.width = width
        self.project = nn.Linear(encoder_width, width)
        nn.init.kaiming_uniform_(self.project.weight, a=1)  # Caffe2's Xavier
        nn.init.zeros_(self.project.bias)
        # The release adds a learned level embedding to the memory, although there is a single level (the paper
        # has none); it is kept so that released weights convert.
        self.level = nn.Parameter(torch.randn(1, width))
        # One projection for the sine codes of tokens and of detection anchors ("proj" in UniHCP Eq. 3 and 5).
        self.project_position = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(DecoderLayer(width, num_heads, feedforward) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)  # the final norm; the interpreter's units read states before or after it

    def position_code(self, points: Tensor) -> Tensor:
        """(..., C) projected sine code of (..., 2) points (x, y), fractions of the padded input."""
        return self.project_position(sine_code(points, self.width))

    def forward(self, features: Tensor, queries: Queries) -> list[Tensor]:
        """Decodes.

        Args:
            features: (B, D, h, w) encoder map.
            queries: the task's queries.

        Returns:
            (B, Q, C) states: the learned queries themselves, then the output of every layer.
        """
        memory = self.project(features.flatten(2).transpose(1, 2)) + self.level  # (B, h * w, C)
        centres = token_centres((features.shape[2], features.shape[3]), memory.device, self.level.dtype)
        # The codes of tokens and anchors do not change from layer to layer: once per forward, not nine times.
        keys = memory + self.position_code(centres)
        content, position = queries.content, queries.position
        if queries.anchor is not None:
            # Query i is pattern i // A at anchor i % A.
            position = self.position_code(queries.anchor).repeat(len(content), 1)
            content = content.repeat_interleave(len(queries.anchor), dim=0)
        assert position is not None
        position = position[None]
        prompts = None if queries.prompts is None else queries.prompts.decoder
        states = [content[None].expand(len(features), -1, -1)]
        for number, layer in enumerate(self.layers):
            states.append(layer(states[-1], position, keys, memory, None if prompts is None else prompts[number]))
        return states
