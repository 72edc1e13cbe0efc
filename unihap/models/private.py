"""What one task owns: its queries, their positions or anchors, and ReID's feature normalisation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unihap.structures import TaskSpec


@dataclass
class Queries:
    """The learned queries of one task, as its private weights give them.

    Attributes:
        content: (Q, C) content; for detection (patterns, C).
        position: (Q, C) position codes, or ``None`` with anchors.
        anchor: (A, 2) anchors (x, y) as fractions of the padded input, or ``None`` with positions.
    """

    content: Tensor
    position: Tensor | None
    anchor: Tensor | None

    def __post_init__(self) -> None:
        assert (self.position is None) != (self.anchor is None)


class Private(nn.Module):
    """The private weights of one task.

    Args:
        spec: the task.
        width: decoder width C.
    """

    def __init__(self, spec: TaskSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        # Content from N(0, 1), positions and anchors from U(0, 1), as the release draws them.
        self.content = nn.Parameter(torch.randn(spec.num_queries, width))
        self.position = self.anchor = None
        if spec.num_anchors:
            self.anchor = nn.Parameter(torch.rand(spec.num_anchors, 2))
        else:
            self.position = nn.Parameter(torch.rand(spec.num_queries, width))
        self.feature_norm: nn.BatchNorm1d | None = None
        if spec.feature_norm:
            # BN neck (Luo et al. 2019): the bias stays 0 so that the identity classifier sees a centred feature.
            self.feature_norm = nn.BatchNorm1d(spec.num_queries * width)
            self.feature_norm.bias.requires_grad_(False)

    def forward(self) -> Queries:
        """The task's queries."""
        return Queries(self.content, self.position, self.anchor)
