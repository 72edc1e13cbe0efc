"""Drawing results on one image.

The ``draw_*`` functions take (H, W, 3) uint8 RGB images and positions in pixels of that image (see
``unihap.structures`` for the frame); they return a new image.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import cast

import cv2
import numpy as np
import torch
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

Colour = tuple[int, int, int]

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
PREDICTED = (255, 140, 0)
PERSONS_LEFT, PERSONS_RIGHT, MIDDLE = (255, 140, 0), (40, 120, 255), (60, 200, 90)
IGNORED = 255
SCORE = 0.3  # keypoints below it are unsure
FAR = 10_000  # pixels outside the image at which the drawing libraries' integers still work

# Limbs by name; in _SIDED the names may have a left and a right.  Those up to the ankle are COCO's.
_SIDED = (
    "nose eye, eye ear, ear shoulder, shoulder elbow, elbow wrist, shoulder hip, hip knee, knee ankle, "
    "knee foot, head eye, head_bottom shoulder, neck shoulder, upper_neck shoulder, thorax shoulder, "
    "center_shoulder shoulder, pelvis hip, root hip, center_hip hip"
)
_CENTRAL = (
    "head_top neck, head_top upper_neck, head_top head_bottom, nose head_bottom, nose neck, head neck, neck hip, "
    "head neck_base, head center_shoulder, upper_neck thorax, neck_base thorax, thorax pelvis, thorax spine, "
    "spine root, center_shoulder center_hip"
)
_ACROSS = ("eye", "shoulder", "hip")


def limbs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of keypoint numbers to join by a line, found by the keypoints' names; for COCO its official 19."""
    number = {name: i for i, name in enumerate(names)}
    pairs = [(f"left_{name}", f"right_{name}") for name in _ACROSS]
    pairs += [cast(tuple[str, str], tuple(pair.split())) for pair in _CENTRAL.split(", ")]
    for a, b in (pair.split() for pair in _SIDED.split(", ")):
        for side in ("left_", "right_"):
            pairs.append((side + a if side + a in number else a, side + b))
    return [(number[a], number[b]) for a, b in pairs if a in number and b in number]


def side_colour(*names: str) -> Colour:
    """Colour of a keypoint, or of a limb between two: orange on the person's left, blue on the right, else green."""
    if all(name.startswith("left_") for name in names):
        return PERSONS_LEFT
    return PERSONS_RIGHT if all(name.startswith("right_") for name in names) else MIDDLE


@lru_cache
def class_colours(num_classes: int) -> tuple[Colour, ...]:
    """A colour for every class, each as far from all earlier ones as the eye can tell (distance in CIE Lab).

    The first colours are the same for every number of classes.  Greys, which photographs are full of, are left out.
    """
    candidates = np.array(list(product(range(0, 256, 17), repeat=3)), dtype=np.uint8)
    lab = cv2.cvtColor(candidates[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    usable = (np.hypot(lab[:, 1], lab[:, 2]) > 30) & (lab[:, 0] > 30) & (lab[:, 0] < 90)
    candidates, lab = candidates[usable], lab[usable]
    chosen = [int(np.argmin(np.linalg.norm(lab - (55, 60, 50), axis=1)))]  # a red to begin with
    distance = np.full(len(lab), np.inf)
    while len(chosen) < num_classes:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in candidates[chosen[:num_classes]])


# drawing on one image


def draw_pose(
    image: np.ndarray, keypoints: np.ndarray, names: Sequence[str] = (), threshold: float = SCORE, size: int = 0
) -> np.ndarray:
    """Draws one person's keypoints.

    Args:
        image: (H, W, 3) uint8.
        keypoints: (K, 3) x, y, score; a dot from ``threshold`` on, a ring below it, nothing at 0 or less.
        names: the K names, by which dots are joined; where they join none, the dots are numbered.
        threshold: lowest score of a sure keypoint.
        size: radius of a dot in pixels; 0 chooses by the size of the image.

    Returns:
        (H, W, 3) uint8.
    """
    canvas = np.ascontiguousarray(image).copy()
    size = size or max(2, round(max(image.shape[:2]) / 160))
    drawn = (keypoints[:, 2] > 0) & np.isfinite(keypoints).all(1)
    sure = drawn & (keypoints[:, 2] >= threshold)
    places = np.where(drawn[:, None], keypoints[:, :2], 0).round().clip(-FAR, FAR).astype(int).tolist()
    edges = limbs(names)
    for a, b in edges:
        if sure[a] and sure[b]:
            cv2.line(canvas, places[a], places[b], side_colour(names[a], names[b]), max(1, size // 2), cv2.LINE_AA)
    for i in np.flatnonzero(drawn).tolist():
        colour = side_colour(names[i] if names else "")
        if sure[i]:
            cv2.circle(canvas, places[i], size, colour, -1, cv2.LINE_AA)
            cv2.circle(canvas, places[i], size, BLACK, 1, cv2.LINE_AA)
        else:
            cv2.circle(canvas, places[i], size, colour, 1, cv2.LINE_AA)
        if not edges:
            corner = (places[i][0] + size, places[i][1] - size)
            cv2.putText(canvas, str(i), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.1 * size, colour, 1, cv2.LINE_AA)
    return canvas


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, colour: Colour = PREDICTED, labels: Sequence[str] | None = None
) -> np.ndarray:
    """Draws (N, 4) xyxy boxes, which may leave the image, each with a short text inside its upper left corner."""
    if not len(boxes):
        return image.copy()
    shown = np.nan_to_num(boxes).clip(-FAR, FAR)
    drawn = draw_bounding_boxes(
        _tensor(image),
        torch.from_numpy(np.concatenate([shown[:, :2], shown[:, 2:].clip(min=shown[:, :2])], axis=1)),
        labels=None if labels is None else list(labels),
        colors=colour,
        width=max(2, round(max(image.shape[:2]) / 400)),
        label_colors=WHITE if labels is not None else None,
        label_background_colors=colour if labels is not None else None,
        fill_labels=labels is not None,
    )
    return _array(drawn)


def draw_label_map(
    image: np.ndarray,
    label_map: np.ndarray,
    colours: Sequence[Colour],
    opacity: float = 0.6,
    hidden: Sequence[int] = (0,),
) -> np.ndarray:
    """Lays the colours of a label map over an image.

    Args:
        image: (H, W, 3) uint8.
        label_map: (H, W) class numbers; 255, the ignored pixels, becomes black.
        colours: one per class.
        opacity: 0 shows the image alone, 1 the colours alone.
        hidden: classes that are left as they are; by default the background.

    Returns:
        (H, W, 3) uint8.
    """
    numbers = [int(n) for n in np.unique(label_map) if n not in hidden]
    if not numbers:
        return image.copy()
    masks = torch.from_numpy(label_map[None] == np.array(numbers)[:, None, None])
    chosen = [BLACK if n == IGNORED else colours[n] for n in numbers]
    return _array(draw_segmentation_masks(_tensor(image), masks, alpha=opacity, colors=list(chosen)))


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _array(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
