"""Keypoints as heatmaps and back: unbiased Gaussian targets (UDP) and distribution-aware decoding (DARK)."""

import numpy as np
import torch
from torch import Tensor

BLUR_SIGMA = 2.0  # cells; what an 11-tap kernel stands for in the original decoding
BLUR_RADIUS = 5


def _blur_matrix(size: int) -> Tensor:
    """(size, size) float64: multiplying by it blurs a line of cells, which is continued by reflection at its ends."""
    offset = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel = np.exp(-(offset**2) / (2 * BLUR_SIGMA**2))
    kernel /= kernel.sum()
    continued = np.pad(np.eye(size), ((BLUR_RADIUS, BLUR_RADIUS), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(continued, len(kernel), axis=0)
    return torch.from_numpy(windows @ kernel)


def _newton_step(log_value: Tensor) -> Tensor:
    """From the middle of 3 x 3 cells to the extremum of the parabola through them.

    The derivatives are those of the original decoding, including its mixed one, which reads seven of the nine cells.

    Args:
        log_value: (..., 3, 3), rows are y.

    Returns:
        (..., 2) x, y in cells; zero where there is no extremum near, as on a flat map or along a ridge.
    """
    left, middle, right = log_value[..., 1, 0], log_value[..., 1, 1], log_value[..., 1, 2]
    above, below = log_value[..., 0, 1], log_value[..., 2, 1]
    dx, dy = (right - left) / 2, (below - above) / 2
    dxx, dyy = right - 2 * middle + left, below - 2 * middle + above
    dxy = (log_value[..., 2, 2] + log_value[..., 0, 0] - right - left - below - above + 2 * middle) / 2
    determinant = dxx * dyy - dxy.square()
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / determinant[..., None]
    # Below the first limit the curvature is rounding noise (a Gaussian of sigma 20 cells still has 6e-6 after the
    # blur); beyond the second the extremum lies where none of the nine values has looked.  Both are False for nan.
    usable = (determinant.abs() > 1e-6) & (step.abs() <= BLUR_RADIUS).all(dim=-1)
    return step.where(usable[..., None], torch.zeros_like(step))


class HeatmapCodec:
    """Turns keypoints into target heatmaps, and predicted heatmaps into keypoints.

    Pixels and cells are points whose extremes coincide: cell (0, 0) is pixel (0, 0), and cell (w - 1, h - 1) is
    pixel (W - 1, H - 1) (UDP, arXiv:1911.07524).  A cell is therefore (W - 1) / (w - 1) pixels wide, not W / w.
    """

    def __init__(self, input_size: tuple[int, int], map_size: tuple[int, int], sigma: float = 2.0) -> None:
        """Sets the sizes.

        Args:
            input_size: (H, W) of the network input, pixels.
            map_size: (h, w) of the heatmap, cells.
            sigma: standard deviation of the target, cells.

        Raises:
            ValueError: a size below 2, or ``sigma`` not positive.
        """
        if min(*input_size, *map_size) < 2:
            raise ValueError(f"input size {input_size} and map size {map_size} must be at least 2 in both directions")
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        height, width = map_size
        self.input_size, self.map_size, self.sigma = input_size, (height, width), sigma
        self.stride = np.array([(input_size[1] - 1) / (width - 1), (input_size[0] - 1) / (height - 1)])  # x, y
        self._blur_rows, self._blur_columns = _blur_matrix(height), _blur_matrix(width)

    def encode(self, keypoints: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian targets with sub-pixel centres.

        The Gaussian of a joint fills a square patch of cells, 3 sigma (13 cells for sigma 2) around the cell nearest
        to it, and is 0 beyond.

        Args:
            keypoints: (K, 3) x, y in input pixels, visible (above 0.5 labelled).

        Returns:
            Heatmap (K, h, w) and weight (K,), float32.  The weight is 1 for a labelled joint whose patch touches the
            map and 0 for others, whose heatmap is 0.

        Raises:
            ValueError: another shape, or a labelled joint whose position is not finite.
        """
        joints = np.asarray(keypoints, dtype=np.float64)
        if joints.ndim != 2 or joints.shape[1] != 3:
            raise ValueError(f"keypoints must be (K, 3): x, y, visible; got {joints.shape}")
        labelled = joints[:, 2] > 0.5
        lost = labelled & ~np.isfinite(joints[:, :2]).all(axis=1)
        if lost.any():
            raise ValueError(f"position of labelled keypoints {np.flatnonzero(lost).tolist()} is not finite")
        centre = np.where(labelled[:, None], joints[:, :2], 0.0) / self.stride  # cells
        nearest = np.trunc(centre + 0.5)  # outside the map this is towards 0, as in the original
        radius = int(3 * self.sigma)
        height, width = self.map_size
        inside = ((nearest + radius >= 0) & (nearest - radius <= np.array([width - 1, height - 1]))).all(axis=1)
        weight = labelled & inside
        along_x, along_y = (
            self._line(centre[:, i], nearest[:, i], size, radius) for i, size in ((0, width), (1, height))
        )
        along_y *= weight[:, None]
        heatmap = (along_y[:, :, None] * along_x[:, None, :]).astype(np.float32)
        return torch.from_numpy(heatmap), torch.from_numpy(weight.astype(np.float32))

    def _line(self, centre: np.ndarray, nearest: np.ndarray, size: int, radius: int) -> np.ndarray:
        """(K, size): the Gaussian along one axis; that of the plane is the product of two."""
        cell = np.arange(size)
        value = np.exp(-((cell - centre[:, None]) ** 2) / (2 * self.sigma**2))
        return np.where(np.abs(cell - nearest[:, None]) <= radius, value, 0.0)

    @torch.no_grad()
    def decode(self, heatmap: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-pixel positions (UDP-DARK, arXiv:1911.07524 and arXiv:1910.06278).

        From the cell of the maximum one Newton step is taken on the logarithm of the blurred map, which for a
        Gaussian is a parabola.  Beyond the border the map is reflected for the blur and the blurred map repeats its
        last cell, as in the original.  Only the 3 x 3 cells that the step reads are blurred.

        Args:
            heatmap: (B, K, h, w).

        Returns:
            Points (B, K, 2) x, y in input pixels, and peak (B, K), the maximum of the map before the blur; at least
            float32.  A map without a positive value gives the cell of its maximum.

        Raises:
            ValueError: a map of another size than the codec's.
        """
        if heatmap.ndim != 4 or heatmap.shape[2:] != self.map_size:
            raise ValueError(
                f"heatmap must be (B, K, {self.map_size[0]}, {self.map_size[1]}), got {tuple(heatmap.shape)}"
            )
        if heatmap.dtype in (torch.float16, torch.bfloat16):
            heatmap = heatmap.float()
        height, width = self.map_size
        peak, index = heatmap.flatten(2).max(dim=2)
        row, column = index // width, index % width
        around = torch.arange(-1, 2, device=heatmap.device)
        rows = self._blur_rows.to(heatmap)[(row[..., None] + around).clamp(0, height - 1)]  # (B, K, 3, h)
        columns = self._blur_columns.to(heatmap)[(column[..., None] + around).clamp(0, width - 1)]  # (B, K, 3, w)
        with torch.autocast(heatmap.device.type, enabled=False):
            blurred = rows @ heatmap @ columns.transpose(2, 3)
        cell = torch.stack([column, row], dim=2) + _newton_step(blurred.clamp(1e-3, 50).log())
        return cell * torch.from_numpy(self.stride).to(heatmap), peak
