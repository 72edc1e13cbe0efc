"""From a source image and its label to a network input: one factory per kind of task.

A transform is a picklable function of (image, label, generator).  All its random numbers come from the generator,
so the same generator state gives the same sample in any process; without ``train`` it draws none.  Flips, pads,
crops, rotations and colours are albumentations'; it carries keypoints, from which the map is read.  Done here:

- resizes, because albumentations carries keypoints through them without the half-pixel shift of pixel centres;
- random erasing, because albumentations' ``Erasing`` only draws areas that fit with *every* aspect in the range
  (15 % of a 256x128 image where the paper's bound is 40 %);
- the person crop of pose, see ``unihap.data.crops``.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import albumentations as A
import cv2
import numpy as np

from unihap.data.crops import Transformed, pose_transform
from unihap.data.geometry import (
    chain,
    flip_matrix,
    is_mirrored,
    mirror_order,
    resize,
    resize_labels,
    resize_plain,
    shift_matrix,
    transform_boxes,
)
from unihap.structures import AttributesLabel, DetectionLabel, Label, ParsingLabel

__all__ = [
    "Transform",
    "Transformed",
    "attributes_transform",
    "detection_transform",
    "parsing_transform",
    "pose_transform",
    "reid_transform",
]

Size = tuple[int, int]  # (height, width)


class Transform(Protocol):
    """From a source image to a network input."""

    def __call__(self, image: np.ndarray, label: Label, rng: np.random.Generator) -> Transformed:
        """Transforms (H, W, 3) uint8 and its label in source pixels with random numbers of ``rng``."""


# Black border of ReID and attribute images before their random crop, by rows of the input: the release's 10 pixels at
# its 256 rows, and as large a shift of the person at others.
PADDING = 10 / 256
ERASING_PROBABILITY = 0.75
ERASING_AREA = (0.02, 0.4)
ERASING_ASPECT = (0.3, 1 / 0.3)  # height / width
SCALES = tuple(factor / 10 for factor in range(5, 17))  # of parsing, 0.5 ... 1.6
ROTATION = 30  # largest angle of parsing, degrees
IGNORED = 255  # label of pixels that a pad or a rotation brought in
SHORT_CHOICES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)  # of detection


def _compose(*transforms: A.BasicTransform | A.BaseCompose) -> A.Compose:
    return A.Compose(transforms, keypoint_params=A.KeypointParams(format="xy", remove_invisible=False))


def _augment(
    compose: A.Compose, image: np.ndarray, label_map: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Runs albumentations on ``rng`` and reads the map from three corners of the image that it carries along."""
    # All transforms share one stream; Compose.set_random_seed would give each of them the same random numbers, and
    # an image that is flipped would always be rotated too.
    compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1]], dtype=np.float64)
    inputs = {"image": image, "keypoints": corners} | ({} if label_map is None else {"mask": label_map})
    outputs = compose(**inputs)
    origin, right, bottom = np.asarray(outputs["keypoints"], dtype=np.float64)
    columns = [(right - origin) / (width - 1), (bottom - origin) / (height - 1), origin]
    return outputs["image"], outputs.get("mask"), np.stack(columns, axis=1)


# --------------------------------------------------------------------------------- ReID and attributes


def _shake(size: Size, flip_alone: bool) -> A.Compose:
    """Flip, then a crop of ``size`` out of the image padded with black."""
    if flip_alone:
        return _compose(A.HorizontalFlip(p=0.5))
    return _compose(
        A.HorizontalFlip(p=0.5),
        A.Pad(round(PADDING * size[0]), border_mode=cv2.BORDER_CONSTANT, fill=0),
        A.RandomCrop(*size),
    )


def erase(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random erasing: a rectangle in one uniform random colour (Zhong et al. 2020, arXiv:1708.04896, algorithm 1).

    Area and aspect are uniform and drawn again until the rectangle fits.  The original's rectangles often lie
    outside the image, because it swaps height and width; here they lie inside.
    """
    height, width = image.shape[:2]
    erased_height, erased_width = height + 1, width + 1
    while erased_height > height or erased_width > width:
        area = rng.uniform(*ERASING_AREA) * height * width
        aspect = rng.uniform(*ERASING_ASPECT)
        erased_height, erased_width = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
    top, left = rng.integers(height - erased_height + 1), rng.integers(width - erased_width + 1)
    image = image.copy()
    image[top : top + erased_height, left : left + erased_width] = rng.integers(256, size=3)
    return image


def _reid(
    image: np.ndarray, label: Label, rng: np.random.Generator, *, size: Size, shake: A.Compose | None, erased: float
) -> Transformed:
    image, matrix = resize(image, size)
    if shake is not None:
        image, _, move = _augment(shake, image, None, rng)
        matrix = chain(matrix, move)
        if erased and rng.random() < erased:
            image = erase(image, rng)
    return Transformed(image, label, matrix)


def reid_transform(size: Size = (256, 128), *, train: bool, flip_alone: bool = False) -> Transform:
    """Resize; in training flip, pad (by 10 pixels where the input has 256 rows), random crop and random erasing.

    Args:
        size: (height, width) of the network input; the aspect of the image is not kept.
        train: whether to augment.
        flip_alone: augment by flips alone.
    """
    size = (size[0], size[1])
    erased = 0.0 if flip_alone else ERASING_PROBABILITY
    return partial(_reid, size=size, shake=_shake(size, flip_alone) if train else None, erased=erased)


def _attributes(
    image: np.ndarray,
    label: Label,
    rng: np.random.Generator,
    *,
    size: Size,
    mirror: tuple[tuple[int, int], ...],
    shake: A.Compose | None,
) -> Transformed:
    assert isinstance(label, AttributesLabel)
    image, matrix = resize(image, size)
    if shake is not None:
        image, _, move = _augment(shake, image, None, rng)
        matrix = chain(matrix, move)
        if is_mirrored(matrix):
            label = AttributesLabel(label.values[mirror_order(len(label.values), mirror)])
    return Transformed(image, label, matrix)


def attributes_transform(
    size: Size = (256, 192), *, train: bool, flip_alone: bool = False, mirror: Sequence[tuple[int, int]] = ()
) -> Transform:
    """Resize; in training flip, pad (by 10 pixels where the input has 256 rows) and random crop.

    Args:
        size: (height, width) of the network input; the aspect of the image is not kept.
        train: whether to augment.
        flip_alone: augment by flips alone.
        mirror: pairs of attribute numbers that a flip exchanges, e.g. "facing left" and "facing right".
    """
    size = (size[0], size[1])
    pairs = tuple((left, right) for left, right in mirror)
    return partial(_attributes, size=size, mirror=pairs, shake=_shake(size, flip_alone) if train else None)


# ----------------------------------------------------------------------------------------------- parsing


def _distort_colours() -> list[A.BasicTransform | A.BaseCompose]:
    """Brightness +-32, contrast and saturation x 0.5 ... 1.5, hue +-18 of 180, each with probability one half.

    Contrast comes before or after the colours, as in SSD (Liu et al. 2016, arXiv:1512.02325) and the original.
    Saturation is albumentations' mixture with grey, where the original multiplies the S of HSV.
    """
    contrast = A.RandomBrightnessContrast(brightness_limit=0, contrast_limit=0.5, p=0.5)
    saturation = A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=(0.5, 1.5), hue=(0, 0), p=0.5)
    hue = A.HueSaturationValue(hue_shift_limit=18, sat_shift_limit=0, val_shift_limit=0, p=0.5)
    orders = [A.Sequential(order, p=1) for order in ([contrast, saturation, hue], [saturation, hue, contrast])]
    return [A.RandomBrightnessContrast(brightness_limit=32 / 255, contrast_limit=0, p=0.5), A.OneOf(orders, p=1)]


def _parsing(
    image: np.ndarray,
    label: Label,
    rng: np.random.Generator,
    *,
    size: Size,
    mirror: tuple[tuple[int, int], ...],
    augment: A.Compose | None,
    scales: tuple[float, ...],
) -> Transformed:
    assert isinstance(label, ParsingLabel)
    label_map = label.label_map
    image, matrix = resize_plain(image, size)
    if augment is None:
        if label_map is not None:
            label = replace(label, label_map=resize_labels(label_map, size))
        return Transformed(image, label, matrix)

    if label_map is None:
        raise ValueError(f"label map {label.path} has not been read; training on parsing needs it")
    factor = rng.choice(scales)
    scaled_size = (round(size[0] * factor), round(size[1] * factor))
    image, scale = resize_plain(image, scaled_size)
    image, label_map, move = _augment(augment, image, resize_labels(label_map, scaled_size), rng)
    matrix = chain(matrix, scale, move)
    assert label_map is not None
    if is_mirrored(matrix):
        label_map = mirror_order(256, mirror).astype(np.uint8)[label_map]
    return Transformed(image, replace(label, label_map=label_map), matrix)


def parsing_transform(
    size: Size = (480, 480), *, mirror: Sequence[tuple[int, int]], train: bool, flip_alone: bool = False
) -> Transform:
    """Resize; in training flip, scale 0.5 ... 1.6, pad and crop, rotation (40 %) and colour distortion.

    Without ``train`` a label that has no label map stays without; with it that is a ``ValueError``.

    Args:
        size: (height, width) of the network input; the aspect of the image is not kept.
        mirror: pairs of class numbers that a flip exchanges.
        train: whether to augment.
        flip_alone: augment by flips alone.
    """
    size = (size[0], size[1])
    border = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": IGNORED}
    rest = (
        A.PadIfNeeded(*size, position="top_left", **border),
        A.RandomCrop(*size),
        A.Rotate(limit=ROTATION, p=0.4, **border),
        *_distort_colours(),
    )
    augment = _compose(A.HorizontalFlip(p=0.5), *(() if flip_alone else rest))
    pairs = tuple((left, right) for left, right in mirror)
    scales = (1.0,) if flip_alone else SCALES
    return partial(_parsing, size=size, mirror=pairs, augment=augment if train else None, scales=scales)


# --------------------------------------------------------------------------------------------- detection


def scaled_size(source_size: Size, short: int, long: int) -> Size:
    """The size at which the short side is ``short``, or less where the long side would exceed ``long``.

    >>> scaled_size((1080, 1920), short=800, long=1333)
    (750, 1333)
    """
    low, high = sorted(source_size)
    if high / low * short > long:
        short = max(1, round(long * low / high))
    height, width = source_size
    return (int(short * height / width), short) if width < height else (short, int(short * width / height))


def _random_window(size: Size, short: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop.

    Drawn as the original does, at a resolution with a short side of 400, 500 or 600 pixels (for ``short`` = 800)
    with sides of 384 ... 600, but cut from the source, so that it is resized once and not twice.
    """
    scale = rng.choice([0.5, 0.625, 0.75]) * short / min(size)
    height, width = (
        min(side, max(1, round(rng.uniform(0.48 * short, min(side * scale, 0.75 * short)) / scale))) for side in size
    )
    return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width


def _move_boxes(boxes: np.ndarray, window: tuple[int, int, int, int], matrix: np.ndarray, size: Size) -> np.ndarray:
    """Clips boxes to the window of the source, drops those of which nothing is left, and maps the others."""
    top, left, height, width = window
    boxes = np.clip(boxes, [left, top, left, top], [left + width, top + height, left + width, top + height])
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    return np.clip(transform_boxes(matrix, boxes), 0, [size[1], size[0], size[1], size[0]])  # against rounding


def _detection(
    image: np.ndarray,
    label: Label,
    rng: np.random.Generator,
    *,
    short: int,
    long: int,
    train: bool,
    flip_alone: bool,
    short_choices: tuple[int, ...],
) -> Transformed:
    assert isinstance(label, DetectionLabel)
    window, target_short, flipped = (0, 0, *image.shape[:2]), short, False
    if train:
        flipped = rng.random() < 0.5
    if train and not flip_alone:
        target_short = int(rng.choice(short_choices))
        if rng.random() < 0.5:
            window = _random_window(image.shape[:2], short, rng)
    top, left, height, width = window
    size = scaled_size((height, width), target_short, long)
    image, scale = resize(image[top : top + height, left : left + width], size)
    matrix = chain(shift_matrix(-left, -top), scale)
    if flipped:
        image = image[:, ::-1]
        matrix = chain(matrix, flip_matrix(size[1]))
    boxes, ignore = (_move_boxes(boxes, window, matrix, size) for boxes in (label.boxes, label.ignore))
    return Transformed(np.ascontiguousarray(image), DetectionLabel(boxes, ignore), matrix)


def detection_transform(
    *,
    short: int = 800,
    long: int = 1333,
    train: bool,
    flip_alone: bool = False,
    short_choices: Sequence[int] = SHORT_CHOICES,
) -> Transform:
    """Resize that keeps the aspect; in training flip, random size and, for every other image, a random crop.

    Boxes are clipped to the input; those with nothing left are dropped.  After a crop there may be none.

    Args:
        short: short side of the network input in pixels at test time; it also sets the scale of training's crops.
        long: the long side does not exceed this.
        train: whether to augment.
        flip_alone: augment by flips alone.
        short_choices: short sides in training.
    """
    if not 0 < short <= long or not short_choices or not 0 < min(short_choices):
        raise ValueError(f"need 0 < short <= long and positive short_choices, got {short}, {long}, {short_choices}")
    choices = tuple(short_choices)
    return partial(_detection, short=short, long=long, train=train, flip_alone=flip_alone, short_choices=choices)
