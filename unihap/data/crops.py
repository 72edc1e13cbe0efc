"""The person crop of pose estimation, after UDP (Huang et al. 2020, arXiv:1911.07524).

The crop is one affine map of the source image: shift, scale, rotation and flip together.  It is done with OpenCV
because UDP measures sizes between pixel centres (size - 1 steps), which albumentations has no operation for, and
because one warp of the crop is cheaper than augmenting the source image first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from unihap.data.geometry import chain, flip_matrix, mirror_order, transform_boxes, transform_points
from unihap.structures import Label, PoseLabel

PADDING = 1.25  # the crop is this much larger than the person box
HALF_BODY_PADDING = 1.5  # ... and than the keypoints of half a body
HALF_BODY_KEYPOINTS = 8  # half-body crops need more visible keypoints than this


@dataclass(frozen=True)
class Transformed:
    """A network input.

    Attributes:
        image: (H, W, 3) uint8.
        label: of the same class as the source label, in input pixels.
        matrix: (2, 3) float64, source pixels to input pixels.
    """

    image: np.ndarray
    label: Label
    matrix: np.ndarray


def to_aspect(extent: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The smallest (width, height) with the aspect of ``size`` = (height, width) that holds ``extent``."""
    aspect = size[1] / size[0]
    width, height = extent
    return np.array([max(width, height * aspect), max(height, width / aspect)])


def crop_matrix(centre: np.ndarray, extent: np.ndarray, rotation: float, size: tuple[int, int]) -> np.ndarray:
    """The UDP map from a rotated source region to the network input (UDP, section 3.1).

    Args:
        centre: (2,) of the region in source pixels; it goes to the middle of the input.
        extent: (width, height) of the region in source pixels.
        rotation: degrees by which the content turns clockwise.
        size: (height, width) of the network input; the region spans (width - 1, height - 1) pixel steps.
    """
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    turn = np.array([[cos, -sin], [sin, cos]])
    scale = np.array([size[1] - 1, size[0] - 1]) / extent
    offset = extent / 2 - turn @ centre
    return scale[:, None] * np.hstack([turn, offset[:, None]])


def box_region(box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centre and extent of the crop of a person box.

    Raises:
        ValueError: the box has no area.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    if not (np.isfinite([x1, y1, x2, y2]).all() and x2 > x1 and y2 > y1):
        raise ValueError(f"person box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no area; boxes are x1, y1, x2, y2 in pixels")
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2]), PADDING * to_aspect(np.array([x2 - x1, y2 - y1]), size)


@dataclass(frozen=True)
class PoseTransform:
    """What ``pose_transform`` makes; its arguments are explained there."""

    size: tuple[int, int]
    mirror: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    train: bool
    flip: float
    half_body: float
    scale: float
    rotate: float
    rotate_probability: float
    shift: float
    shift_probability: float

    def __call__(self, image: np.ndarray, label: Label, rng: np.random.Generator) -> Transformed:
        """Crops the person of ``label`` out of ``image``."""
        assert isinstance(label, PoseLabel)
        centre, extent = box_region(label.box, self.size)
        keypoints = label.keypoints.astype(np.float64)
        rotation, flipped = 0.0, False
        if self.train:
            # The original moves the boxes once at start-up; here every visit moves its box anew.
            if rng.random() < self.shift_probability:
                box_extent = np.array([label.box[2] - label.box[0], label.box[3] - label.box[1]])
                centre = centre + rng.uniform(-self.shift, self.shift, 2) * box_extent
            flipped = rng.random() < self.flip
            if rng.random() < self.half_body:
                centre, extent = self._half_body_region(keypoints, rng) or (centre, extent)
            extent = extent * np.clip(rng.normal(1, self.scale), 1 - self.scale, 1 + self.scale)
            if rng.random() < self.rotate_probability:
                rotation = float(np.clip(rng.normal(0, self.rotate), -2 * self.rotate, 2 * self.rotate))

        height, width = self.size
        matrix = crop_matrix(centre, extent, rotation, self.size)
        if flipped:
            matrix = chain(matrix, flip_matrix(width))
            keypoints = keypoints[mirror_order(len(keypoints), self.mirror)]
        keypoints[:, :2] = transform_points(matrix, keypoints[:, :2])
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return Transformed(crop, _move_label(label, keypoints, matrix), matrix)

    def _half_body_region(
        self, keypoints: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Centre and extent of the upper or the lower body, or ``None`` when too little of it is visible."""
        visible = keypoints[:, 2] > 0
        if not self.upper_body or visible.sum() <= HALF_BODY_KEYPOINTS:
            return None
        is_upper = np.isin(np.arange(len(keypoints)), self.upper_body)
        # The original draws randn() < 0.5 here, which prefers the upper body (69 %); half and half is meant.
        first, second = (is_upper, ~is_upper) if rng.random() < 0.5 else (~is_upper, is_upper)
        half = first if (visible & first).sum() > 2 else second
        points = keypoints[visible & half, :2]
        extent = HALF_BODY_PADDING * to_aspect(np.ptp(points, axis=0), self.size)
        return (points.mean(axis=0), extent) if extent.min() > 0 else None


def _move_label(label: PoseLabel, keypoints: np.ndarray, matrix: np.ndarray) -> PoseLabel:
    """The label in input pixels; areas and lengths change with the scale of the map."""
    scale = abs(np.linalg.det(matrix[:, :2]))
    return replace(
        label,
        keypoints=keypoints,
        box=transform_boxes(matrix, label.box)[0],
        area=float(label.area * scale),
        head_size=float(label.head_size * np.sqrt(scale)),
    )


def pose_transform(
    size: tuple[int, int] = (256, 192),
    *,
    mirror: Sequence[tuple[int, int]],
    upper_body: Sequence[int],
    train: bool,
    flip_alone: bool = False,
    flip: float = 0.5,
    half_body: float = 0.3,
    scale: float = 0.5,
    rotate: float = 40.0,
    rotate_probability: float = 0.6,
    shift: float = 0.2,
    shift_probability: float = 0.3,
) -> PoseTransform:
    """Top-down person crop: the box, widened to the aspect of the input and by a quarter, warped after UDP.

    Keypoints keep their ``visible`` flag wherever they come to lie; the codec decides what a keypoint outside the
    crop is worth.  A box may leave the image, the missing part is black.  The transform raises ``ValueError`` for
    a box without area.

    Args:
        size: (height, width) of the network input.
        mirror: pairs of keypoint numbers that a flip exchanges.
        upper_body: keypoint numbers of the upper body; () makes no half-body crops.
        train: whether to augment; without it the crop draws no random number.
        flip_alone: augment by flips alone; what follows ``flip`` then does not count.
        flip: probability of a horizontal flip.
        half_body: probability of a crop around the upper or the lower body, for people with more than 8 visible
            keypoints.
        scale: the region is scaled by N(1, scale), clipped to 1 - scale ... 1 + scale.
        rotate: the region is rotated by N(0, rotate) degrees, clipped to twice that.
        rotate_probability: probability of a rotation.
        shift: the region is shifted by up to this share of the box's width and height.
        shift_probability: probability of a shift.
    """
    if flip_alone:
        half_body = scale = rotate_probability = shift_probability = 0.0
    return PoseTransform(
        size=(size[0], size[1]),
        mirror=tuple((left, right) for left, right in mirror),
        upper_body=tuple(upper_body),
        train=train,
        flip=flip,
        half_body=half_body,
        scale=scale,
        rotate=rotate,
        rotate_probability=rotate_probability,
        shift=shift,
        shift_probability=shift_probability,
    )
