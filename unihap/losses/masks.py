"""Mask losses of human parsing, computed at sampled points (PointRend, arXiv:1912.08193)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from unihap.losses.precision import at_least_float32

IGNORED = 255  # label of pixels without a class
_OUTSIDE = 254  # label of what surrounds the map while interpolating: no class, and not ignored either


def present_classes(label_map: Tensor, num_classes: int) -> Tensor:
    """Which classes occur in every image.

    Args:
        label_map: (B, H, W) uint8, 255 = ignored.
        num_classes: Q.

    Returns:
        (B, Q) bool.

    Raises:
        ValueError: another type or shape, or a label that is neither a class nor 255.
    """
    if label_map.ndim != 3 or label_map.dtype != torch.uint8:
        raise ValueError(f"label map must be (B, H, W) uint8, got {tuple(label_map.shape)} {label_map.dtype}")
    if not 0 < num_classes <= _OUTSIDE:
        raise ValueError(f"number of classes must be 1 to {_OUTSIDE}, got {num_classes}")
    occurs = torch.zeros(len(label_map), 256, dtype=torch.bool, device=label_map.device)
    occurs.scatter_(1, label_map.flatten(1).long(), True)
    unknown = occurs[:, num_classes:IGNORED].any(dim=0).nonzero().flatten().add(num_classes).tolist()
    if unknown:
        raise ValueError(
            f"label map contains {unknown}, but the task has classes 0 to {num_classes - 1} and {IGNORED} for ignored "
            "pixels; re-number the labels when they are read"
        )
    return occurs[:, :num_classes]


def count_masks(label_map: Tensor, num_classes: int) -> int:
    """How many masks a batch holds: one for every class present in every image; arguments as ``present_classes``."""
    return int(present_classes(label_map, num_classes).sum())


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points; beyond its border a map is 0.

    Args:
        maps: (M, C, h, w).
        points: (M, P, 2) x, y as fractions of the map: (0, 0) and (1, 1) are the outer corners of its corner cells.

    Returns:
        (M, C, P).
    """
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


class _LabelSampler:
    """Reads the masks of classes at points from the label maps themselves; no mask is ever made.

    The value of a class's binary mask at a point is an interpolation of four zeros and ones, which the four labels
    around the point determine.  They are packed into one 32-bit number per place between pixel centres, so that a
    point costs one look-up instead of four.
    """

    def __init__(self, label_map: Tensor) -> None:
        self.height, self.width = label_map.shape[1:]
        padded = F.pad(label_map, (1, 1, 1, 1), value=_OUTSIDE)
        corners = torch.stack(
            [padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]], dim=-1
        )  # (B, H + 1, W + 1, 4): top left, top right, bottom left, bottom right
        self.ignored = (corners == IGNORED).any(dim=-1).flatten()
        self.corners = corners.view(torch.int32).flatten()

    def _places(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the place of every point, and how far right of and below the place's first corner it lies."""
        cells = points * points.new_tensor([self.width, self.height]) + 0.5
        corner = cells.floor()
        column, row = corner.long().unbind(dim=-1)
        first = image[:, None] * ((self.height + 1) * (self.width + 1))
        return torch.add(column, row, alpha=self.width + 1).add_(first), cells.sub_(corner)

    def labelled(self, image: Tensor, points: Tensor) -> Tensor:
        """Whether none of the four labels around a point is 255.

        Args:
            image: (M,), the image in which the points of a row lie.
            points: (M, P, 2) fractions in [0, 1].

        Returns:
            (M, P) bool.
        """
        return ~self.ignored.take(self._places(image, points)[0])

    def masks(self, image: Tensor, category: Tensor, points: Tensor) -> Tensor:
        """What bilinear sampling of the binary mask of class ``category`` (M,) gives: (M, P); else as ``labelled``."""
        place, offset = self._places(image, points)
        corners = self.corners.take(place)[..., None].view(torch.uint8)
        mask = (corners == category.to(torch.uint8)[:, None, None]).to(points.dtype)
        top_left, top_right, bottom_left, bottom_right = mask.unbind(dim=-1)
        right, below = offset.unbind(dim=-1)
        return torch.lerp(torch.lerp(top_left, top_right, right), torch.lerp(bottom_left, bottom_right, right), below)


@torch.no_grad()
def sample_points(
    logit: Tensor,
    image: Tensor,
    category: Tensor,
    num_points: int,
    *,
    oversample: float = 3.0,
    importance: float = 0.75,
    usable: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random points, most of them where the prediction is least certain (PointRend, section 3.1).

    The masks of an image choose from the same uniform candidates: every mask's points are distributed as if it had
    drawn its own, at a fraction of the random numbers.

    Args:
        logit: (B, Q, h, w).
        image: (M,), image number of every mask.
        category: (M,), class of every mask.
        num_points: P.
        oversample: k; k * P uniform candidates are drawn.
        importance: beta; beta * P points are the least certain candidates, the other points are uniform.
        usable: says of points (B, C, 2) which can be learned from, (B, C) bool; candidates that cannot are taken last.
        generator: source of the random numbers, on the device of ``logit``.

    Returns:
        (M, P, 2) fractions, the least certain ones before the uniform ones.
    """
    num_uncertain = int(importance * num_points)
    num_candidates = int(oversample * num_points)

    def draw(number: int) -> Tensor:
        return torch.rand(len(logit), number, 2, generator=generator, dtype=logit.dtype, device=logit.device)

    candidates = draw(num_candidates)
    certainty = sample_maps(logit, candidates).abs_()
    if usable is not None:
        certainty.masked_fill_(~usable(candidates)[:, None], torch.inf)
    chosen = certainty[image, category].topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    uncertain = candidates[image[:, None], chosen]
    return torch.cat([uncertain, draw(num_points - num_uncertain)[image]], dim=1)


def mask_losses(logit: Tensor, truth: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Binary cross entropy and dice loss of masks given at points.

    .. math:: 1 - \frac{2 \sum p t + 1}{\sum p + \sum t + 1}

    is the dice loss (Milletari et al. 2016, arXiv:1606.04797, with linear instead of squared sums), where
    :math:`p` is the sigmoid of the logit and :math:`t` the truth.  The caller reduces over masks.

    Args:
        logit: (M, P), before the sigmoid.
        truth: (M, P) in [0, 1].
        known: (M, P), 1 or 0 for points that count or do not, default all; a mask without known points has no loss.

    Returns:
        Mean cross entropy over the known points (M,), and dice loss (M,).
    """
    known = torch.ones_like(logit) if known is None else known.to(logit.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logit, truth, weight=known, reduction="none")
    bce = cross_entropy.sum(dim=1) / known.sum(dim=1).clamp(min=1)
    probability, truth = logit.sigmoid() * known, truth * known
    dice = 1 - (2 * (probability * truth).sum(dim=1) + 1) / (probability.sum(dim=1) + truth.sum(dim=1) + 1)
    return bce, dice


def point_mask_losses(
    logit: Tensor,
    label_map: Tensor,
    *,
    num_masks: float,
    num_points: int = 12544,
    oversample: float = 3.0,
    importance: float = 0.75,
    ignore: str = "ignore",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Mask losses of the classes present in every image, at sampled points (UniHCP, arXiv:2303.02936).

    Query q stands for class q; a class absent from an image has no mask and its map no loss.  Logits and labels
    cover the same extent, whatever their sizes.  Points are drawn anew in every call.

    Args:
        logit: (B, Q, h, w), before the sigmoid.
        label_map: (B, H, W) uint8, 255 = ignored.
        num_masks: what the sums are divided by: ``count_masks`` averaged over processes, at least 1.
        num_points: points per mask.
        oversample: candidates per point, see ``sample_points``.
        importance: share of the points taken where the logit is nearest to 0.
        ignore: ``ignore`` leaves out every point that has a pixel labelled 255 among the four it interpolates;
            ``release`` counts such pixels as not belonging to any class, as UniHCP's released code does.
        generator: source of the random numbers, on the device of ``logit``.

    Returns:
        Cross entropy and dice loss, scalars; 0, with a zero gradient, for a batch without classes.

    Raises:
        ValueError: shapes that do not fit, a label that is not a class, or an argument out of its range.
    """
    if logit.ndim != 4 or len(logit) != len(label_map):
        raise ValueError(f"logit {tuple(logit.shape)} and label map {tuple(label_map.shape)} are not of one batch")
    if not num_masks > 0:
        raise ValueError(f"num_masks must be positive, got {num_masks}; use at least 1 for a batch without masks")
    if num_points < 1 or not 0 <= importance <= 1 or oversample < 1:
        raise ValueError(
            f"num_points {num_points}, oversample {oversample} and importance {importance} must be "
            "at least 1, at least 1, and between 0 and 1"
        )
    if ignore not in ("ignore", "release"):
        raise ValueError(f"ignore must be 'ignore' or 'release', got {ignore!r}")
    image, category = present_classes(label_map, logit.shape[1]).nonzero(as_tuple=True)
    logit = at_least_float32(logit)
    present = logit[image, category]
    if len(present) == 0:
        return present.sum(), present.sum()
    sampler = _LabelSampler(label_map)
    ignoring = ignore == "ignore" and bool(sampler.ignored.any())
    points = sample_points(
        logit.detach(),
        image,
        category,
        num_points,
        oversample=oversample,
        importance=importance,
        usable=partial(sampler.labelled, torch.arange(len(logit), device=logit.device)) if ignoring else None,
        generator=generator,
    )
    truth = sampler.masks(image, category, points)
    known = sampler.labelled(image, points) if ignoring else None
    bce, dice = mask_losses(sample_maps(present[:, None], points)[:, 0], truth, known)
    return bce.sum() / num_masks, dice.sum() / num_masks
