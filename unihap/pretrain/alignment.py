"""Structure-invariant alignment: two views of a person get the same class token (HAP, section 3.3)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from unihap.losses.precision import at_least_float32


def _gather(keys: Tensor) -> tuple[Tensor, int]:
    """Keys of all processes in order of rank, without a gradient, and where this process's own begin."""
    keys = keys.detach()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return keys, 0
    everyone = [torch.empty_like(keys) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, keys.contiguous())
    return torch.cat(everyone), dist.get_rank() * len(keys)


def info_nce(query: Tensor, key: Tensor, tau: float = 0.2, *, scale: bool = True, gather: bool = True) -> Tensor:
    r"""Contrastive loss of one direction (HAP, arXiv:2310.20695, Eq. 1, as released).

    .. math:: -\frac{2 \tau}{B} \sum_i \log \frac{\exp(q_i \cdot k_i / \tau)}{\sum_j \exp(q_i \cdot k_j / \tau)}

    where q and k are the L2-normalised rows and j runs over the keys of all processes.  Keys get no gradient.  The
    factor 2 tau, MoCo v3's, is in the released code and not in the paper.

    Args:
        query: (B, D) features of one view.
        key: (B, D) features of the other view, row by row of the same images.
        tau: temperature.
        scale: multiply by 2 tau.
        gather: take the keys of all processes, which must have the same B, when ``torch.distributed`` runs.

    Returns:
        Scalar, the mean over this process's queries.

    Raises:
        ValueError: shapes that differ or are not (B, D).
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} must both be (B, D)")
    with torch.autocast(query.device.type, enabled=False):
        query = F.normalize(at_least_float32(query), dim=1)
        key = F.normalize(at_least_float32(key), dim=1)
        keys, first = _gather(key) if gather else (key.detach(), 0)
        label = torch.arange(first, first + len(query), device=query.device)
        loss = F.cross_entropy(query @ keys.T / tau, label)
    return 2 * tau * loss if scale else loss


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    r"""SimSiam's loss of one direction (Chen and He 2021, arXiv:2011.10566, Eq. 1 and 3).

    .. math:: -\frac{1}{B} \sum_i \frac{p_i}{\|p_i\|} \cdot \frac{z_i}{\|z_i\|}

    Args:
        prediction: (B, D), the predictor's output for one view.
        target: (B, D) features of the other view; they get no gradient.

    Returns:
        Scalar, the mean over the batch, -1 ... 1.

    Raises:
        ValueError: shapes that differ or are not (B, D).
    """
    if prediction.ndim != 2 or prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (B, D)")
    with torch.autocast(prediction.device.type, enabled=False):
        return -F.cosine_similarity(at_least_float32(prediction), at_least_float32(target).detach(), dim=1).mean()


class Alignment(nn.Module):
    """Weighted InfoNCE between the class tokens of two views; no projector and no momentum encoder.

    Args:
        weight: gamma of the total loss.
        tau: temperature.
        symmetric: add the two directions; otherwise the first view is the query (the paper's Eq. 1).
        scale: multiply every direction by 2 tau.
        gather: use the keys of all processes as negatives.
    """

    def __init__(
        self,
        weight: float = 0.05,
        tau: float = 0.2,
        *,
        symmetric: bool = True,
        scale: bool = True,
        gather: bool = True,
    ) -> None:
        super().__init__()
        if tau <= 0:
            raise ValueError(f"the temperature tau must be above 0, got {tau}")
        self.weight = weight
        self.tau = tau
        self.symmetric = symmetric
        self.scale = scale
        self.gather = gather

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, D) class tokens of both views to a scalar, already multiplied by ``weight``."""
        loss = info_nce(first, second, self.tau, scale=self.scale, gather=self.gather)
        if self.symmetric:
            loss = loss + info_nce(second, first, self.tau, scale=self.scale, gather=self.gather)
        return self.weight * loss


class SimSiamAlignment(nn.Module):
    """Weighted SimSiam in the place of InfoNCE: a predictor, a stopped gradient and no negatives.

    HAP names this variant without its predictor.  Ours is SimSiam's bottleneck of two layers with LayerNorm in the
    place of BatchNorm, so that the loss does not depend on how a batch is split over processes.

    Args:
        width: encoder width D; the predictor's hidden layer has D / 4.
        weight: gamma of the total loss.
        symmetric: average the two directions; otherwise the first view predicts the second.
    """

    def __init__(self, width: int, weight: float = 0.05, *, symmetric: bool = True) -> None:
        super().__init__()
        self.weight = weight
        self.symmetric = symmetric
        hidden = width // 4
        self.predictor = nn.Sequential(
            nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, D) class tokens of both views to a scalar, already multiplied by ``weight``."""
        loss = negative_cosine(self.predictor(first), second)
        if self.symmetric:
            loss = (loss + negative_cosine(self.predictor(second), first)) / 2
        return self.weight * loss
