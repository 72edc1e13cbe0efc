"""Object keypoint similarity and the suppression of repeated poses by it."""

import numpy as np

from unihap.evaluation.checks import finite

COCO_SIGMAS = tuple(
    sigma / 100 for sigma in (2.6, 2.5, 2.5, 3.5, 3.5, 7.9, 7.9, 7.2, 7.2, 6.2, 6.2, 10.7, 10.7, 8.7, 8.7, 8.9, 8.9)
)


def keypoint_similarity(
    predicted: np.ndarray, truth: np.ndarray, labelled: np.ndarray, area: float, sigmas: np.ndarray
) -> float:
    """COCO's similarity of a pose and the truth: exp(-d^2 / (2 area (2 sigma)^2)), mean over labelled keypoints.

    Args:
        predicted: (K, 2).
        truth: (K, 2), in the same frame.
        labelled: (K,) bool, true somewhere.
        area: of the person, square pixels.
        sigmas: (K,).

    Returns:
        Within 0-1.
    """
    distance2 = ((predicted - truth).astype(np.float64) ** 2).sum(axis=-1)
    return float(np.exp(-distance2 / (2 * (area + np.spacing(1)) * (2 * sigmas) ** 2))[labelled].mean())


def pose_similarity(
    keypoints: np.ndarray, others: np.ndarray, area: float, other_areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """OKS between a predicted pose and others, over all keypoints and with the mean of both areas.

    COCO's similarity, exp(-d^2 / (2 s^2 (2 sigma)^2)) with s^2 the area, is between a pose and the truth; between two
    predictions neither is the truth (as in Simple Baselines, Xiao et al. 2018, arXiv:1804.06208, section 3).

    Args:
        keypoints: (K, 2).
        others: (N, K, 2).
        area: of ``keypoints``, square pixels.
        other_areas: (N,).
        sigmas: (K,).

    Returns:
        (N,) within 0-1.
    """
    distance2 = ((others - keypoints) ** 2).sum(axis=-1)  # (N, K)
    area_mean = (area + other_areas)[:, None] / 2 + np.spacing(1)
    return np.exp(-distance2 / (2 * area_mean * (2 * sigmas) ** 2)).mean(axis=1)


def oks_nms(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    sigmas: tuple[float, ...] | np.ndarray | None = None,
    threshold: float = 0.9,
) -> np.ndarray:
    """Keeps the best pose, drops those more similar to it than the threshold, and goes on with the rest.

    Args:
        keypoints: (N, K, 2 or more) x, y; further columns are not read.
        scores: (N,); equal scores keep their order.
        areas: (N,) square pixels.
        sigmas: (K,) OKS constants; COCO's when not given.
        threshold: similarity above which a pose repeats a better one.

    Returns:
        Indices of the kept poses, best first.

    Raises:
        ValueError: shapes that do not fit, NaN, or a negative area.
    """
    if len(keypoints) == 0:
        return np.empty(0, dtype=np.int64)
    xy, score, area = finite("keypoints", keypoints, 3)[..., :2], finite("scores", scores, 1), finite("areas", areas, 1)
    sigma = np.array(COCO_SIGMAS if sigmas is None else sigmas, dtype=np.float64)
    if not len(xy) == len(score) == len(area):
        raise ValueError(f"{len(xy)} poses, {len(score)} scores and {len(area)} areas do not fit")
    if sigma.shape != (xy.shape[1],):
        raise ValueError(f"{sigma.size} sigmas for {xy.shape[1]} keypoints")
    if area.min() < 0:
        raise ValueError(f"area {area.min()} is negative")
    order, kept = np.argsort(-score, kind="stable"), []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[pose_similarity(xy[best], xy[order], area[best], area[order], sigma) <= threshold]
    return np.array(kept)
