"""Binary cross entropy of the global probability, weighted by how common the positives are."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unihap.losses.precision import at_least_float32


def positive_ratio_weight(target: Tensor, positive_ratio: Tensor) -> Tensor:
    r"""Weight of every element of a binary loss (UniHCP, arXiv:2303.02936, Eq. 10).

    .. math:: \omega_n = \exp\left( y_n (1 - \gamma_n) + (1 - y_n) \gamma_n \right)

    A rare positive weighs up to e times as much as a common one, and likewise for negatives.  The paper prints
    the exponent without the minus sign before :math:`\gamma_n`; its released code and this function have it.

    Args:
        target: (B, Q), above 0.5 positive, else negative; below 0 unknown.
        positive_ratio: (Q,), the share of positives among the training labels, gamma.

    Returns:
        (B, Q), 0 where unknown.

    Raises:
        ValueError: the two arguments differ in Q.
    """
    if target.shape[-1:] != positive_ratio.shape:
        raise ValueError(
            f"target {tuple(target.shape)} needs one positive ratio per query, got {tuple(positive_ratio.shape)}"
        )
    positive_ratio = at_least_float32(positive_ratio)
    weight = torch.where(target > 0.5, 1 - positive_ratio, positive_ratio).exp()
    return weight.masked_fill(target < 0, 0.0)


def weighted_bce(logit: Tensor, target: Tensor, positive_ratio: Tensor) -> Tensor:
    r"""Weighted binary cross entropy, element by element (UniHCP, arXiv:2303.02936, Eq. 10).

    .. math:: -\omega_n \left( y_n \log p_n + (1 - y_n) \log(1 - p_n) \right)

    The caller reduces: attributes sum over Q and divide by B, pose and parsing take the mean over B * Q.

    Args:
        logit: (B, Q), before the sigmoid.
        target: (B, Q), 1 present, 0 absent, -1 unknown.
        positive_ratio: (Q,), see ``positive_ratio_weight``.

    Returns:
        (B, Q); exactly 0, with zero gradient, where the target is unknown.

    Raises:
        ValueError: shapes that do not fit.
    """
    if logit.shape != target.shape:
        raise ValueError(f"logit {tuple(logit.shape)} and target {tuple(target.shape)} differ in shape")
    logit = at_least_float32(logit)
    unknown = target < 0
    weight = positive_ratio_weight(target, positive_ratio)
    # The logit of an unknown element is replaced, not only multiplied by 0: an infinite one would give nan.
    known_logit = logit.masked_fill(unknown, 0.0)
    loss = F.binary_cross_entropy_with_logits(known_logit, target.to(logit.dtype), reduction="none")
    return weight.to(logit.dtype) * loss
