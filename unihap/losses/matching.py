"""One-to-one assignment of detection queries to people."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from unihap.losses.precision import at_least_float32

WEIGHTS = (2.0, 5.0, 2.0)  # class, L1, GIoU; the same in the cost and, by default, in the task's loss


@torch.no_grad()
def matching_cost(
    logit: Tensor,
    box: Tensor,
    truth: Tensor,
    *,
    weights: tuple[float, float, float] = WEIGHTS,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    r"""What it costs to give a query to a person (DETR, arXiv:2005.12872; class cost of arXiv:2010.04159).

    .. math:: w_1 (FL^+ - FL^-) + w_2 \lVert b - t \rVert_1 - w_3 \mathrm{GIoU}(b, t)

    :math:`FL^{\pm}` is the focal loss the query would have as a positive or a negative.

    Args:
        logit: (Q,), before the sigmoid.
        box: (Q, 4) cxcywh fractions.
        truth: (N, 4) cxcywh fractions.
        weights: of class, L1 and GIoU.
        alpha: focal weight of positives.
        gamma: focal exponent.

    Returns:
        (Q, N), without a gradient.

    Raises:
        ValueError: shapes that do not fit.
    """
    if logit.shape != box.shape[:1] or box.shape[1:] != (4,) or truth.shape[1:] != (4,):
        raise ValueError(
            f"logit {tuple(logit.shape)}, box {tuple(box.shape)} and truth {tuple(truth.shape)} "
            "are not (Q,), (Q, 4) and (N, 4)"
        )
    logit, box = at_least_float32(logit), at_least_float32(box)
    truth = truth.to(box.dtype)
    p = logit.sigmoid()
    positive = -alpha * (1 - p) ** gamma * (p + 1e-8).log()
    negative = -(1 - alpha) * p**gamma * (1 - p + 1e-8).log()
    overlap = generalized_box_iou(box_convert(box, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy"))
    by_class, by_distance, by_overlap = weights
    return by_class * (positive - negative)[:, None] + by_distance * torch.cdist(box, truth, p=1) - by_overlap * overlap


def assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The one-to-one assignment of least total cost.

    Args:
        cost: (Q, N).

    Returns:
        Query and truth numbers, int64 (min(Q, N),) each, in order of the query, on the device of ``cost``.

    Raises:
        FloatingPointError: a cost is not finite, which means that the prediction or a truth box is not.
    """
    table = cost.detach().cpu()
    finite = table.isfinite()
    if not bool(finite.all()):
        queries, people = (~finite).any(dim=1).sum(), (~finite).any(dim=0).sum()
        raise FloatingPointError(
            f"matching cost is not finite for {int(queries)} of {cost.shape[0]} queries and {int(people)} of "
            f"{cost.shape[1]} people: predicted logits or boxes, or truth boxes, contain nan or infinity"
        )
    query, person = linear_sum_assignment(table.numpy())
    return torch.from_numpy(query).to(cost.device), torch.from_numpy(person).to(cost.device)


def match(
    logit: Tensor,
    box: Tensor,
    truth: Tensor,
    *,
    weights: tuple[float, float, float] = WEIGHTS,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Matches the queries of one image to its people; arguments as ``matching_cost``, result as ``assign``."""
    return assign(matching_cost(logit, box, truth, weights=weights, alpha=alpha, gamma=gamma))
