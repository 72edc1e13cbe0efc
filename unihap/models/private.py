"""What one task owns: its queries, their positions or anchors, ReID's feature normalisation, and more on request."""

import torch
from torch import nn

from unihap.models.decoder import Decoder
from unihap.models.interpreter import Interpreter
from unihap.models.prompts import DeepPrompts
from unihap.models.queries import Queries
from unihap.models.readout import LinearReadout
from unihap.structures import TaskSpec


class Private(nn.Module):
    """The private weights of one task.

    Args:
        spec: the task.
        width: decoder width C.
        prompts: deep prompts.
        decoder: a decoder of the task's own, used instead of the shared one.
        interpreter: an interpreter of the task's own, used instead of the shared one.
        readout: reads the encoder's features instead of any decoder; there are no queries then.
        branch: the one of several shared decoders and interpreters that the task uses; "" where there is one.
    """

    def __init__(
        self,
        spec: TaskSpec,
        width: int,
        *,
        prompts: DeepPrompts | None = None,
        decoder: Decoder | None = None,
        interpreter: Interpreter | None = None,
        readout: LinearReadout | None = None,
        branch: str = "",
    ) -> None:
        super().__init__()
        self.spec = spec
        self.branch = branch
        self.content = self.position = self.anchor = None
        if readout is None:
            # Content from N(0, 1), positions and anchors from U(0, 1), as the release draws them.
            self.content = nn.Parameter(torch.randn(spec.num_queries, width))
            if spec.num_anchors:
                self.anchor = nn.Parameter(torch.rand(spec.num_anchors, 2))
            else:
                self.position = nn.Parameter(torch.rand(spec.num_queries, width))
        self.feature_norm: nn.BatchNorm1d | None = None
        if spec.feature_norm:
            # BN neck (Luo et al. 2019): the bias stays 0 so that the identity classifier sees a centred feature.
            self.feature_norm = nn.BatchNorm1d(spec.num_queries * width)
            self.feature_norm.bias.requires_grad_(False)
        self.prompts = prompts
        self.decoder = decoder
        self.interpreter = interpreter
        self.readout = readout

    def forward(self) -> Queries:
        """The task's queries."""
        assert self.content is not None, "a readout has no queries"
        return Queries(self.content, self.position, self.anchor, self.prompts)
