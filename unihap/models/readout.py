"""Linear probing: what one task reads from the encoder's features without a decoder."""

import torch.nn.functional as F
from torch import Tensor, nn

from unihap.structures import Prediction, TaskSpec, Unit


class LinearReadout(nn.Module):
    """One linear map for every unit that a task opens.

    A heatmap is a 1 x 1 convolution of features that are upsampled bilinearly to stride 4; the two are exchanged here,
    since the upsampling's weights sum to one: the same numbers from a sixteenth of the work.  Probabilities and the
    descriptor are linear in the features' mean.

    Args:
        spec: the task.
        encoder_width: D.
        width: C, so that the descriptor has the decoder's length Q * C.

    Raises:
        ValueError: a task with boxes.
    """

    def __init__(self, spec: TaskSpec, encoder_width: int, width: int) -> None:
        super().__init__()
        if Unit.BOX in spec.units:
            raise ValueError(
                f"MODEL.READOUT linear has no boxes: task {spec.name} detects; leave it out or set READOUT decoder"
            )
        self.to_feature = self.to_logit = self.to_heatmap = None
        if Unit.FEATURE in spec.units:
            self.to_feature = nn.Linear(encoder_width, spec.num_queries * width)
        if Unit.PROBABILITY in spec.units:
            self.to_logit = nn.Linear(encoder_width, spec.num_queries)
        if Unit.HEATMAP in spec.units:
            self.to_heatmap = nn.Conv2d(encoder_width, spec.num_queries, kernel_size=1)

    def forward(self, features: Tensor) -> Prediction:
        """The one prediction from (B, D, h, w) encoder features."""
        mean = features.mean(dim=(2, 3))
        return Prediction(
            feature=None if self.to_feature is None else self.to_feature(mean),
            logit=None if self.to_logit is None else self.to_logit(mean),
            heatmap=None
            if self.to_heatmap is None
            else F.interpolate(self.to_heatmap(features), scale_factor=4, mode="bilinear", align_corners=False),
        )
