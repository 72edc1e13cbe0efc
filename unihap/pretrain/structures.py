"""What pre-training reads: one crop with its masks, and a batch of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PretrainSample:
    """One crop.

    Attributes:
        image: (3, H, W) uint8, RGB.
        masks: (V, gh, gw) bool, True = masked, one for each masked view.
        keypoints: (17, 3) float32: x, y in pixels of ``image``, score; -1, -1, -1 where a keypoint is absent.
        path: of the image file.
        draw: number of the draw, which with the seed decides everything random.
        skipped: ids of unreadable records that this sample stands in for.
    """

    image: Tensor
    masks: Tensor
    keypoints: Tensor
    path: str
    draw: int = 0
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class PretrainBatch:
    """Crops of one forward pass.

    Attributes:
        images: (B, 3, H, W) uint8, RGB.
        masks: (B, V, gh, gw) bool, True = masked.
        keypoints: (B, 17, 3) float32: x, y in pixels of the crop, score; -1, -1, -1 where a keypoint is absent.
        paths: B image files.
        skipped: ids of unreadable records in whose place others were put.
    """

    images: Tensor
    masks: Tensor
    keypoints: Tensor
    paths: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_without_keypoints(self) -> int:
        """Crops whose masks know nothing of a person."""
        return int((self.keypoints[..., 0] < 0).all(dim=1).sum())

    def to(self, device: torch.device | str) -> "PretrainBatch":
        """A copy on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            masks=self.masks.to(device, non_blocking=True),
            keypoints=self.keypoints.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "PretrainBatch":
        """A copy in page-locked memory; ``DataLoader`` calls this by its name."""
        return replace(
            self,
            images=self.images.pin_memory(),
            masks=self.masks.pin_memory(),
            keypoints=self.keypoints.pin_memory(),
        )
