"""The task-guided interpreter: query states become features, probabilities, heatmaps and boxes (UniHCP, 3.2)."""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import MLP

from unihap.structures import Prediction, TaskSpec, Unit

ANCHOR_EPS = 1e-5  # anchors are clamped this far from 0 and 1 before the logit


class Interpreter(nn.Module):
    """All output units, shared by every task; a task opens some of them through ``TaskSpec.units``.

    A closed unit is not computed: a ReID batch never pays for the stride-4 map, nor detection for a heatmap.

    Args:
        encoder_width: D.
        width: C.
    """

    def __init__(self, encoder_width: int, width: int = 256) -> None:
        super().__init__()
        self.to_logit = nn.Linear(width, 1)
        self.to_kernel = MLP(width, [width, width, width])
        self.to_box = MLP(width, [width, width, 4])
        # Four cells along every patch (stride 16 to stride 4) in two transposed convolutions.
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(encoder_width, encoder_width, kernel_size=2, stride=2),
            LayerNorm2d(encoder_width, eps=1e-6),
            nn.GELU(),
        )
        self.to_pixel = nn.ConvTranspose2d(encoder_width, width, kernel_size=2, stride=2)

    def forward(
        self, states: Tensor, normed: Tensor, features: Tensor, anchor: Tensor | None, spec: TaskSpec
    ) -> list[Prediction]:
        """Runs the units that ``spec`` opens on every given state.

        Args:
            states: (B, L, Q, C) decoder states of L layers.
            normed: (B, L, Q, C) the same after the decoder's final norm.
            features: (B, D, h, w) encoder map.
            anchor: (A, 2) anchors when the box unit is open.
            spec: the task.

        Returns:
            L predictions.
        """
        predictions = [Prediction() for _ in range(states.shape[1])]
        if Unit.FEATURE in spec.units:
            for p, state in zip(predictions, states.unbind(1), strict=True):
                p.feature = state.flatten(1)  # the release reads features before the final norm, all else after it
        if Unit.PROBABILITY in spec.units:
            logits = self.to_logit(normed).squeeze(-1)  # (B, L, Q)
            for p, logit in zip(predictions, logits.unbind(1), strict=True):
                p.logit = logit
        if Unit.HEATMAP in spec.units:
            heatmaps = self.heatmaps(self.to_kernel(normed).flatten(1, 2), features)  # (B, L * Q, 4h, 4w)
            for p, heatmap in zip(predictions, heatmaps.unflatten(1, normed.shape[1:3]).unbind(1), strict=True):
                p.heatmap = heatmap
        if Unit.BOX in spec.units:
            assert anchor is not None
            for p, box in zip(predictions, self.boxes(normed, anchor).unbind(1), strict=True):
                p.box = box
        return predictions

    def pixel_features(self, features: Tensor) -> Tensor:
        """(B, C, 4h, 4w) stride-4 map of (B, D, h, w) encoder features."""
        return self.to_pixel(self.upsample(features))

    def heatmaps(self, kernels: Tensor, features: Tensor) -> Tensor:
        """Inner products of query kernels with the stride-4 map ("dynamic convolution", UniHCP 3.2).

        The last transposed convolution is linear, so it may act on the kernels instead of the map:
        <k, W z + b> = <W^T k, z> + <k, b>.  With few queries that is cheaper by the size of the stride-4 map, which
        is then never held in memory.

        Args:
            kernels: (B, Q, C).
            features: (B, D, h, w).

        Returns:
            (B, Q, 4h, 4w).
        """
        encoder_width, width = self.to_pixel.weight.shape[:2]
        num_queries = kernels.shape[1]
        # Multiply-adds per stride-8 cell: map first, or kernels first.
        if encoder_width * width + num_queries * width <= num_queries * encoder_width:
            return torch.einsum("bqc,bchw->bqhw", kernels, self.pixel_features(features))
        z = self.upsample(features)  # (B, D, 2h, 2w)
        folded = torch.einsum("bqc,dcij->bqijd", kernels, self.to_pixel.weight).flatten(1, 3)  # (B, Q * 4, D)
        cells = (folded @ z.flatten(2)).unflatten(2, z.shape[2:])  # (B, Q * 4, 2h, 2w)
        assert self.to_pixel.bias is not None
        return F.pixel_shuffle(cells, 2) + (kernels @ self.to_pixel.bias)[:, :, None, None]

    def boxes(self, normed: Tensor, anchor: Tensor) -> Tensor:
        """(B, L, Q, 4) cxcywh fractions of the padded input, each relative to its query's anchor (UniHCP Eq. 6).

        Query i uses anchor i % A; every layer predicts from the same anchors (no iterative refinement).
        """
        offset = self.to_box(normed)
        centre = torch.logit(anchor, eps=ANCHOR_EPS).repeat(normed.shape[2] // len(anchor), 1)  # (Q, 2)
        return torch.cat([offset[..., :2] + centre, offset[..., 2:]], dim=-1).sigmoid()
