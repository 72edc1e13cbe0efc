"""Triplet loss of person re-identification."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unihap.losses.precision import at_least_float32


def _squared_distances(feature: Tensor) -> Tensor:
    """(B, F) to (B, B), from inner products.  Centring first keeps the cancellation small."""
    feature = feature - feature.mean(dim=0)
    square = feature.square().sum(dim=1)
    with torch.autocast(feature.device.type, enabled=False):
        return square[:, None] + square[None, :] - 2 * feature @ feature.T


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of corresponding rows; the clamp keeps the gradient of the root finite at zero."""
    return (a - b).square().sum(dim=1).clamp(min=1e-12).sqrt()


def soft_margin_triplet(feature: Tensor, identity: Tensor) -> Tensor:
    r"""Batch-hard triplet loss with a soft margin (Hermans et al. 2017, arXiv:1703.07737, Eq. 5).

    .. math:: \frac{1}{B} \sum_a \log\left( 1 + \exp(d_{ap} - d_{an}) \right)

    where p is the farthest image of the anchor's identity (the anchor itself when it has no other image) and n
    the nearest image of any other identity, by Euclidean distance of features that are not normalised.

    The hardest images are chosen from all B x B distances without a gradient; only the chosen 2B distances are
    then computed from differences of features, so they are exact to rounding and backward touches nothing else.

    Args:
        feature: (B, F).
        identity: (B,) integers.

    Returns:
        Scalar.

    Raises:
        ValueError: all images show one identity, so that no negative exists, or the shapes do not fit.
    """
    if feature.ndim != 2 or identity.shape != feature.shape[:1]:
        raise ValueError(f"feature {tuple(feature.shape)} and identity {tuple(identity.shape)} are not (B, F) and (B,)")
    feature = at_least_float32(feature)
    same = identity[:, None] == identity[None, :]
    if bool(same.all()):
        shown = f"only identity {int(identity[0])}" if len(identity) else "no image"
        raise ValueError(
            f"the triplet loss needs two identities in a batch, but this one of {len(identity)} images has {shown}; "
            "sample several identities per batch"
        )
    with torch.no_grad():
        distance = _squared_distances(feature)
        # The anchor ranks below all its true positives, above other identities: its own positive as a last resort.
        positive = distance.masked_fill(~same, -torch.inf).fill_diagonal_(torch.finfo(distance.dtype).min).argmax(dim=1)
        negative = distance.masked_fill(same, torch.inf).argmin(dim=1)
    gap = _distance(feature, feature[negative]) - _distance(feature, feature[positive])
    return -F.logsigmoid(gap).mean()
