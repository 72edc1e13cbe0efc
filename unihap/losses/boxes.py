"""Box arithmetic that torchvision.ops lacks."""

import torch
from torch import Tensor
from torchvision.ops import box_area

from unihap.losses.precision import at_least_float32


def intersection_over_own_area(boxes: Tensor, regions: Tensor) -> Tensor:
    """The share of every box that lies inside every region.

    Args:
        boxes: (N, 4) xyxy, any unit.
        regions: (M, 4) xyxy, the same unit.

    Returns:
        (N, M) in [0, 1]; 0 for a box without area.
    """
    boxes, regions = at_least_float32(boxes), at_least_float32(regions)
    top_left = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    inside = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    area = box_area(boxes)
    return inside / area.clamp(min=torch.finfo(area.dtype).tiny)[:, None]
