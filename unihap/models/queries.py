"""What the decoder gets from a task."""

from dataclasses import dataclass

from torch import Tensor

from unihap.models.prompts import DeepPrompts


@dataclass
class Queries:
    """The learned queries of one task, as its private weights give them.

    Attributes:
        content: (Q, C) content; for detection (patterns, C).
        position: (Q, C) position codes, or ``None`` with anchors.
        anchor: (A, 2) anchors (x, y) as fractions of the padded input, or ``None`` with positions.
        prompts: the task's deep prompts, if it has any.
    """

    content: Tensor
    position: Tensor | None
    anchor: Tensor | None
    prompts: DeepPrompts | None = None

    def __post_init__(self) -> None:
        assert (self.position is None) != (self.anchor is None)
