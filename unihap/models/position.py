"""Position codes: sine codes of points and of grids, and the encoder's resizable position table."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 10000.0


def sine_code(points: Tensor, width: int) -> Tensor:
    """DETR's sine code of points (Carion et al. 2020; UniHCP Eq. 3 and 5).

    Args:
        points: (..., 2) x and y as fractions of the padded input.
        width: number of features C, divisible by 4.

    Returns:
        (..., C): C/2 features of y, then C/2 features of x; features 2k and 2k+1 of an axis t are
        sin(2 pi t / 10000^(2k / (C/2))) and the cosine of the same angle.
    """
    half = width // 2
    index = torch.arange(half // 2, dtype=points.dtype, device=points.device)
    frequency = 2 * math.pi / TEMPERATURE ** (2 * index / half)
    angle = points.flip(-1).unsqueeze(-1) * frequency  # (..., 2 axes: y then x, C/4)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-3)


def token_centres(grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(h * w, 2) centres (x, y) of the cells of a row-major (h, w) grid, as fractions of its extent."""
    h, w = grid
    y = (torch.arange(h, device=device, dtype=dtype) + 0.5) / h
    x = (torch.arange(w, device=device, dtype=dtype) + 0.5) / w
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def sincos_table(grid: tuple[int, int], width: int) -> Tensor:
    """MAE's fixed 2-D table (He et al. 2022), the table's first value: (1, D, h, w), D/2 features of x, then of y."""
    h, w = grid
    quarter = width // 4
    frequency = 1.0 / TEMPERATURE ** (torch.arange(quarter, dtype=torch.float64) / quarter)

    def code(position: Tensor) -> Tensor:
        angle = frequency[:, None] * position[None]
        return torch.cat([angle.sin(), angle.cos()])  # (D/2, length)

    x = code(torch.arange(w, dtype=torch.float64))[:, None, :].expand(-1, h, -1)
    y = code(torch.arange(h, dtype=torch.float64))[:, :, None].expand(-1, -1, w)
    return torch.cat([x, y])[None].float()


def resize_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A (1, D, h0, w0) table stretched bicubically to (1, D, h, w); itself when it has that grid."""
    if tuple(table.shape[-2:]) == grid:
        return table
    return F.interpolate(table, size=grid, mode="bicubic", align_corners=False)


class PositionTable(nn.Module):
    """Learnable table of token positions, stretched bicubically onto whatever grid the image has.

    The whole table covers every image, whatever its aspect ratio or scale, in training and at test (the release's
    ``learnable_interpolate``).

    Args:
        width: encoder width D.
        grid: (h, w) of the table; (84, 84) in the release, the grid of a 1344 x 1344 image.
    """

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(sincos_table(grid, width))
        self._resized: dict[tuple[object, ...], Tensor] = {}

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """(1, h * w, D) positions of a row-major (h, w) grid."""
        if torch.is_grad_enabled() and self.table.requires_grad:
            return self._resize(grid)
        # The version counter changes with every in-place update, so a cached table can never be stale.
        key = (grid, self.table.device, self.table.dtype, self.table.data_ptr(), self.table._version)
        if key not in self._resized:
            if len(self._resized) >= 16:  # detection meets many image shapes
                self._resized.clear()
            self._resized[key] = self._resize(grid).detach()
        return self._resized[key]

    def _resize(self, grid: tuple[int, int]) -> Tensor:
        return resize_table(self.table, grid).flatten(2).transpose(1, 2).contiguous()
