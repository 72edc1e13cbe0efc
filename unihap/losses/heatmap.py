"""Regression of Gaussian heatmaps."""

from torch import Tensor

from unihap.losses.precision import at_least_float32


def heatmap_mse(heatmap: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    r"""Mean squared error over all cells of all joints (pose loss of UniHCP, arXiv:2303.02936).

    .. math:: \frac{1}{B K h w} \sum_{b,k} w_{bk} \sum_{x,y} (P_{bkyx} - T_{bkyx})^2

    The sum is divided by all B * K joints, not by the labelled ones, as the paper's released code does: an image
    with few labelled joints counts less.

    Args:
        heatmap: (B, K, h, w), predicted.
        target: (B, K, h, w).
        weight: (B, K), 1 for joints that are labelled and inside the crop, else 0.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes that do not fit.
    """
    if heatmap.shape != target.shape or weight.shape != heatmap.shape[:2]:
        raise ValueError(
            f"heatmap {tuple(heatmap.shape)}, target {tuple(target.shape)} and weight {tuple(weight.shape)} "
            "are not (B, K, h, w), the same, and (B, K)"
        )
    heatmap = at_least_float32(heatmap)
    error = (heatmap - target.to(heatmap.dtype)).square().mean(dim=(2, 3))
    return (weight.to(heatmap.dtype) * error).mean()
