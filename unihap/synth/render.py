"""Renders people in a scene, with the labels of everybody.

Rays are cast at people only within their outlines' boxes; ground, backdrop and sky are computed (``scene``).  Labels
have rays of their own, through the centres of pixels (``labels``).
"""

from collections.abc import Sequence

import cv2
import numpy as np

from unihap.synth.camera import develop, to_camera
from unihap.synth.labels import label
from unihap.synth.props import merged
from unihap.synth.rays import Hits, Solid, Window, clipped, pixel_rays, window_of
from unihap.synth.scene import Scene
from unihap.synth.shading import Light, shade_background, shade_solid
from unihap.synth.structures import Camera, Figure, Picture

GOLDEN = 2.399963  # radians; multiples of it are never close to each other


def render(
    figures: Sequence[Figure], scene: Scene, camera: Camera, rng: np.random.Generator, supersample: int = 2
) -> Picture:
    """Takes a picture.

    Args:
        figures: people in the world; may be empty, outside of the image or behind the camera.
        scene: where they are.
        camera: who looks.
        rng: of the camera's noise, the only randomness.
        supersample: samples along the side of a pixel; colours are their mean.

    Raises:
        ValueError: no samples asked for, or a camera under the ground.
        MissingExtraError: embreex is not installed.
    """
    if supersample < 1:
        raise ValueError(f"supersample must be at least 1, not {supersample}")
    if camera.position[2] <= 0:
        raise ValueError(f"the camera at {camera.position} is under the ground; give it a positive z")
    distance = [float(to_camera(camera, figure.mesh.vertices)[:, 2].mean()) for figure in figures]
    figures = [figures[i] for i in np.argsort(distance, kind="stable")]
    solids = [Solid(figure.mesh) for figure in figures]
    props = Solid(merged([prop.mesh for prop in scene.props]))
    height, width = camera.size
    beyond = (-width, -height, 2 * width, 2 * height)  # far enough for the full boxes of people who are cut
    windows = [window_of(camera, solid.mesh.vertices, beyond) for solid in (*solids, props)]
    labels = label(figures, solids, windows[:-1], props, camera)
    folds = [GOLDEN * figure.person.outfit.number for figure in figures]
    image = develop(_light([*solids, props], windows, [*folds, 0.0], scene, camera, supersample), camera, rng)
    return Picture(image, labels.owner, labels.part, labels.people, camera)


def _light(
    solids: Sequence[Solid],
    windows: Sequence[Window],
    folds: Sequence[float],
    scene: Scene,
    camera: Camera,
    supersample: int,
) -> np.ndarray:
    """(H, W, 3) float32 linear RGB that arrives at the sensor."""
    height, width = camera.size
    rays = pixel_rays(camera, (0, 0, width, height), supersample)
    shape = rays.shape[:2]
    depth = np.full(shape, np.inf, dtype=np.float32)
    first = np.full(shape, -1, dtype=np.int16)
    hits: list[Hits] = []
    areas: list[tuple[slice, slice]] = []
    for number, (solid, window) in enumerate(zip(solids, windows, strict=True)):
        x1, y1, x2, y2 = clipped(window, width, height)
        area = slice(y1 * supersample, y2 * supersample), slice(x1 * supersample, x2 * supersample)
        found = solid.cast(camera.position, rays[area].reshape(-1, 3))
        nearer = found.depth.reshape(depth[area].shape) < depth[area]
        depth[area][nearer] = found.depth.reshape(nearer.shape)[nearer]
        first[area][nearer] = number
        hits.append(found)
        areas.append(area)

    light = Light(scene, solids)
    colour = np.empty((*shape, 3), dtype=np.float32)
    for number, solid in enumerate(solids):
        won = first[areas[number]] == number
        if won.any():
            rows, columns = np.nonzero(won)
            place = rows + areas[number][0].start, columns + areas[number][1].start
            found = hits[number]
            chosen = Hits(*(values[won.ravel()] for values in (found.depth, found.face, found.u, found.v)))
            colour[place] = shade_solid(solid, chosen, (camera.position, rays[place]), place, light, folds[number])
    empty = first < 0
    rows, columns = np.nonzero(empty)
    spread = 1 / (float(np.sqrt(camera.matrix[0, 0] * camera.matrix[1, 1])) * supersample)
    background = scene.background(camera.position, rays[empty], spread)
    colour[empty] = shade_background(background, (rows, columns), light)
    return cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)  # the mean of each pixel's samples
