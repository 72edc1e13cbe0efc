"""Affine maps between the source image and the network input.

A map is a (2, 3) float64 matrix that takes pixel positions (x, y, 1); the centre of the first pixel is (0, 0)
(see ``unihap.structures``).  Boxes are given by their edges, which lie between pixels: the box of a whole image
is (0, 0, width, height), and its left edge is the pixel position x = -0.5.  ``transform_boxes`` knows this, so
a resize scales boxes without an offset although it moves pixel centres by a fraction.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def chain(first: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """The map that applies ``first``, then each of the others in turn."""
    matrix = first
    for other in others:
        matrix = np.hstack([other[:, :2] @ matrix[:, :2], other[:, :2] @ matrix[:, 2:] + other[:, 2:]])
    return matrix


def invert(matrix: np.ndarray) -> np.ndarray:
    """The map from network input to source image."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def resize_matrix(source_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The map of a resize between two (height, width): pixel x goes to (x + 0.5) * scale - 0.5."""
    scale_y, scale_x = size[0] / source_size[0], size[1] / source_size[1]
    return np.array([[scale_x, 0.0, (scale_x - 1) / 2], [0.0, scale_y, (scale_y - 1) / 2]])


def shift_matrix(x: float, y: float) -> np.ndarray:
    """The map that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def flip_matrix(width: int) -> np.ndarray:
    """The map of a horizontal flip of an image ``width`` pixels wide: x goes to width - 1 - x."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def is_mirrored(matrix: np.ndarray) -> bool:
    """Whether the map turns left into right."""
    return bool(np.linalg.det(matrix[:, :2]) < 0)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps (..., 2) pixel positions."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def transform_boxes(matrix: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Maps (N, 4) xyxy boxes; of a rotated box the upright box around it."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] - 0.5  # (N, 4, 2), from edges to pixel positions
    corners = transform_points(matrix, corners) + 0.5
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def mirror_order(num_classes: int, mirror: Sequence[tuple[int, int]]) -> np.ndarray:
    """(num_classes,) int64: ``values[order]`` are the values of the flipped image.

    Args:
        num_classes: keypoints, attributes or parsing classes.
        mirror: pairs of class numbers that a flip exchanges.

    Raises:
        ValueError: a number is out of range or in two pairs.
    """
    order = np.arange(num_classes)
    numbers = [number for pair in mirror for number in pair]
    if len(set(numbers)) < len(numbers) or any(not 0 <= number < num_classes for number in numbers):
        raise ValueError(
            f"mirror pairs {tuple(mirror)} must name each of the classes 0 ... {num_classes - 1} at most once"
        )
    for left, right in mirror:
        order[[left, right]] = right, left
    return order


def resize(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear resize that averages over all source pixels when it shrinks, as PIL does.

    The original trained ReID, attributes and detection on PIL's resize; torch's equals it within one grey level
    at a third of the time.

    Args:
        image: (H, W, 3) uint8.
        size: (height, width) to make.

    Returns:
        The image and its map.
    """
    matrix = resize_matrix(image.shape[:2], size)
    if image.shape[:2] == size:
        return image, matrix
    tensor = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W)
    resized = F.interpolate(tensor, size=size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy()), matrix


def resize_plain(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear resize that reads four source pixels per pixel: what the original trained parsing on."""
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized, resize_matrix(image.shape[:2], size)


def resize_labels(label_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) class numbers resized to ``size``; nearest in the same frame as the image's resize.

    Plain ``INTER_NEAREST`` of OpenCV is up to half a source pixel off that frame.
    """
    return cv2.resize(label_map, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
