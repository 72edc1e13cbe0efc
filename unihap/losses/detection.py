"""Losses of end-to-end pedestrian detection."""

import torch
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss, sigmoid_focal_loss

from unihap.losses.boxes import intersection_over_own_area
from unihap.losses.matching import WEIGHTS, assign, matching_cost
from unihap.losses.precision import at_least_float32


def _corners(box: Tensor) -> Tensor:
    return box_convert(box, "cxcywh", "xyxy")


def detection_losses(
    logit: Tensor,
    box: Tensor,
    truth: list[Tensor],
    ignore: list[Tensor],
    *,
    num_boxes: float,
    ignore_threshold: float = 0.7,
    weights: tuple[float, float, float] = WEIGHTS,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> dict[str, Tensor]:
    """Focal, L1 and GIoU loss of one layer after one-to-one matching (UniHCP, arXiv:2303.02936).

    Queries are matched to people image by image (``matching_cost``).  A query without a person is a negative,
    unless at least ``ignore_threshold`` of its box lies inside an ignore region: then it is left out.

    Args:
        logit: (B, Q), before the sigmoid.
        box: (B, Q, 4) cxcywh fractions.
        truth: per image (N, 4) cxcywh fractions; N may be 0.
        ignore: per image (M, 4) cxcywh fractions; M may be 0.
        num_boxes: what the sums are divided by: people per process, averaged over processes, at least 1.
        ignore_threshold: share of a box, see above.
        weights: of class, L1 and GIoU in the matching cost; the returned losses are not weighted.
        alpha: focal weight of positives.
        gamma: focal exponent.

    Returns:
        ``class``, ``l1`` and ``giou``, scalars.

    Raises:
        ValueError: shapes or list lengths that do not fit, or ``num_boxes`` not positive.
        FloatingPointError: nan or infinity in what is matched.
    """
    if box.shape != (*logit.shape, 4) or not len(logit) == len(truth) == len(ignore):
        raise ValueError(
            f"logit {tuple(logit.shape)}, box {tuple(box.shape)}, {len(truth)} truth and {len(ignore)} ignore lists "
            "are not (B, Q), (B, Q, 4), B and B"
        )
    if not num_boxes > 0:
        raise ValueError(f"num_boxes must be positive, got {num_boxes}; use at least 1 for a batch without people")
    logit, box = at_least_float32(logit), at_least_float32(box)
    truth = [t.to(box.dtype) for t in truth]
    # All costs at once, as DETR does: those of pairs from different images are not used, but one call takes a fraction
    # of the time of a loop over images, and a device other than the CPU is waited for once.
    people = torch.cat(truth)
    cost = matching_cost(logit.flatten(), box.flatten(0, 1), people, weights=weights, alpha=alpha, gamma=gamma)
    costs = cost.cpu().unflatten(0, logit.shape).split([len(t) for t in truth], dim=2)
    matches = [assign(of_images[b]) for b, of_images in enumerate(costs)]
    image = torch.arange(len(logit)).repeat_interleave(torch.tensor([len(query) for query, _ in matches]))
    matched = (image.to(box.device), torch.cat([query for query, _ in matches]).to(box.device))
    of_query = box[matched]
    of_person = torch.cat([t[person.to(t.device)] for t, (_, person) in zip(truth, matches, strict=True)])
    kept = torch.ones_like(logit)
    with torch.no_grad():
        for b, regions in enumerate(ignore):
            if len(regions):
                inside = intersection_over_own_area(_corners(box[b]), _corners(regions.to(box.dtype)))
                kept[b] = (inside < ignore_threshold).all(dim=1).to(kept.dtype)
    kept[matched] = 1
    positive = torch.zeros_like(logit)
    positive[matched] = 1
    focal = sigmoid_focal_loss(logit, positive, alpha=alpha, gamma=gamma)
    return {
        "class": (kept * focal).sum() / num_boxes,
        "l1": (of_query - of_person).abs().sum() / num_boxes,
        "giou": generalized_box_iou_loss(_corners(of_query), _corners(of_person), reduction="sum") / num_boxes,
    }
