"""Exact labels of a picture, from the same geometry as its colours.

Masks are sampled at the centres of pixels: a pixel belongs to whom the ray through its centre meets first.  The whole
of a person is found in the same way with nobody else there, also outside of the image, up to one image size away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unihap.data.skeletons import SKELETONS
from unihap.synth.camera import project, to_camera
from unihap.synth.rays import Hits, Solid, Window, clipped, pixel_rays
from unihap.synth.structures import BAG, LIP, Camera, Figure, Seen

# Metres that a keypoint may lie under the surface that is seen there, for a person of 1.7 m: joints are inside of the
# body, below muscles and cloth.
DEPTHS = {
    "nose": 0.035, "eye": 0.035, "ear": 0.04, "shoulder": 0.18, "elbow": 0.09, "wrist": 0.07, "hip": 0.20,
    "knee": 0.10, "ankle": 0.09,
}  # fmt: skip
STATURE = 1.7
NAMES = SKELETONS["coco"].names
FACE = ("nose", "eye", "ear")
FACE_PARTS = (LIP["face"], LIP["hair"], LIP["sunglasses"])
SEEN, HIDDEN, OUTSIDE = 2, 1, 0


@dataclass(frozen=True, eq=False)
class Silhouette:
    """Somebody as if alone in the world, at the centres of the pixels of a window.

    Attributes:
        window: (x1, y1, x2, y2) pixels.
        depth: (rows, columns) float32, infinite where they are not.
        part: (rows, columns) uint8, class of LIP or ``BAG``; 0 where they are not.
    """

    window: Window
    depth: np.ndarray
    part: np.ndarray

    @property
    def body(self) -> np.ndarray:
        """(rows, columns) bool: the person without what they carry."""
        return np.isfinite(self.depth) & (self.part != BAG)


@dataclass(frozen=True, eq=False)
class Labels:
    """``owner``, ``part`` and ``people`` of a ``Picture``."""

    owner: np.ndarray
    part: np.ndarray
    people: tuple[Seen, ...]


def silhouette(solid: Solid, camera: Camera, window: Window) -> Silhouette:
    """What a camera would see of somebody alone in a window."""
    rays = pixel_rays(camera, window)
    hits = solid.cast(camera.position, rays.reshape(-1, 3))
    shape = rays.shape[:2]
    return Silhouette(window, hits.depth.reshape(shape), _parts(solid, hits).reshape(shape))


def label(
    figures: Sequence[Figure], solids: Sequence[Solid], windows: Sequence[Window], props: Solid, camera: Camera
) -> Labels:
    """The labels of a picture.

    Args:
        figures: people, in the order of their indices.
        solids: their meshes.
        windows: where they may appear, also outside of the image.
        props: everything else that hides people.
        camera: where from.
    """
    height, width = camera.size
    alone = [silhouette(solid, camera, window) for solid, window in zip(solids, windows, strict=True)]
    depth = np.full((height, width), np.inf, dtype=np.float32)
    owner = np.full((height, width), -1, dtype=np.int16)
    part = np.zeros((height, width), dtype=np.uint8)
    for index, one in enumerate(alone):
        inside, piece = _overlap(one.window, width, height)
        nearer = one.depth[piece] < depth[inside]
        depth[inside][nearer] = one.depth[piece][nearer]
        owner[inside][nearer] = np.where(one.body[piece][nearer], index, -1)
        part[inside][nearer] = np.where(one.body[piece][nearer], one.part[piece][nearer], 0)
    rows, columns = np.nonzero(np.isfinite(depth))
    rays = pixel_rays(camera, (0, 0, width, height))
    hidden = props.cast(camera.position, rays[rows, columns]).depth < depth[rows, columns]
    owner[rows[hidden], columns[hidden]] = -1
    part[rows[hidden], columns[hidden]] = 0
    people = tuple(
        _seen(figure, index, alone[index], owner, [*solids, props], camera) for index, figure in enumerate(figures)
    )
    return Labels(owner, part, people)


def _seen(
    figure: Figure, index: int, alone: Silhouette, owner: np.ndarray, solids: Sequence[Solid], camera: Camera
) -> Seen:
    body = alone.body
    mine = owner == index
    x, y, _ = project(camera, figure.keypoints)
    keypoints = np.stack([x, y, _visibility(figure, index, owner, solids, camera)], axis=1)
    return Seen(
        figure=figure,
        keypoints=keypoints.astype(np.float32),
        joints=to_camera(camera, figure.keypoints).astype(np.float32),
        full_box=extent(body, alone.window[:2]),
        visible_box=extent(mine),
        visible_share=float(mine.sum() / max(body.sum(), 1)),
        all_parts=frozenset(int(number) for number in np.unique(alone.part[np.isfinite(alone.depth)])),
    )


def extent(mask: np.ndarray, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Tight box of a mask.

    Args:
        mask: (H, W) bool.
        corner: x and y of its first pixel.

    Returns:
        (4,) float32 xyxy, edges between pixels; zeros for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return np.zeros(4, dtype=np.float32)
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)
    return box + np.array([*corner, *corner], dtype=np.float32)


def _visibility(figure: Figure, index: int, owner: np.ndarray, solids: Sequence[Solid], camera: Camera) -> np.ndarray:
    """(17,): whether the ray through a keypoint meets its owner first, close enough above the keypoint."""
    x, y, depth = project(camera, figure.keypoints)
    with np.errstate(invalid="ignore"):
        column, row = np.floor(x + 0.5), np.floor(y + 0.5)
    height, width = owner.shape
    inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int)

    rays = (figure.keypoints - camera.position).astype(np.float32)  # the keypoint is at 1
    hits = [solid.cast(camera.position, rays) for solid in solids]
    nearest = np.argmin([hit.depth for hit in hits], axis=0)
    own = hits[index]
    tall = float(np.ptp(figure.mesh.surface[:, 2]))
    under = (1 - own.depth) * np.linalg.norm(rays, axis=1)  # -inf where the ray misses
    limit = np.array([DEPTHS[name.split("_")[-1]] for name in NAMES]) * tall / STATURE
    part = _parts(solids[index], own)
    face = np.array([name.endswith(FACE) for name in NAMES])
    fits = np.where(face, np.isin(part, FACE_PARTS), part != BAG)
    seen = inside & (nearest == index) & np.isfinite(own.depth) & (under <= limit) & fits & (owner[pixel] == index)
    return np.where(inside, np.where(seen, SEEN, HIDDEN), OUTSIDE)


def _parts(solid: Solid, hits: Hits) -> np.ndarray:
    """(N,) uint8 part that was hit; 0 for nothing."""
    if not len(solid.mesh.faces):
        return np.zeros(len(hits.face), dtype=np.uint8)
    return np.where(hits.face >= 0, solid.mesh.part[hits.face], 0).astype(np.uint8)


def _overlap(window: Window, width: int, height: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of the image, and of the window, where the two meet."""
    x1, y1, x2, y2 = clipped(window, width, height)
    image = (slice(y1, y2), slice(x1, x2))
    return image, (slice(y1 - window[1], y2 - window[1]), slice(x1 - window[0], x2 - window[0]))
