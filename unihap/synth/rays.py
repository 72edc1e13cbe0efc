"""Rays: where they start from a picture, and what they meet first (embree, through embreex)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unihap.synth.body import MissingExtraError, vertex_normals
from unihap.synth.camera import project
from unihap.synth.structures import Camera, Mesh

Window = tuple[int, int, int, int]

NEAR = 0.05  # metres; what is closer to the camera has no place in the image
MARGIN = 1  # pixels around projected vertices


@dataclass(frozen=True, eq=False)
class Hits:
    """What N rays meet first.

    Attributes:
        depth: (N,) float32, in lengths of the ray's direction; infinite where it meets nothing.
        face: (N,) int32; -1 where it meets nothing.
        u, v: (N,) float32, weights of the second and third corner of the face.
    """

    depth: np.ndarray
    face: np.ndarray
    u: np.ndarray
    v: np.ndarray


class Solid:
    """A mesh that rays can meet.

    Args:
        mesh: world frame; may be empty.

    Raises:
        MissingExtraError: embreex is not installed.
    """

    def __init__(self, mesh: Mesh) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise MissingExtraError("embreex") from error
        self.mesh = mesh
        self._scene = EmbreeScene() if len(mesh.faces) else None
        if self._scene is not None:
            # The scene holds a copy of the triangles.
            TriangleMesh(self._scene, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))
            self.low, self.high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)

    @cached_property
    def normals(self) -> np.ndarray:
        """(V, 3) float32, of the vertices."""
        return vertex_normals(self.mesh.vertices, self.mesh.faces)

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> Hits:
        """The first face that rays meet.

        Args:
            origin: (3,) world, where all rays begin.
            directions: (N, 3) world, any length.
        """
        count = len(directions)
        if self._scene is None or not count:
            zeros = np.zeros(count, np.float32)
            return Hits(np.full(count, np.inf, np.float32), np.full(count, -1, np.int32), zeros, zeros)
        origins = np.empty((count, 3), dtype=np.float32)
        origins[:] = origin
        found = self._scene.run(origins, np.ascontiguousarray(directions, dtype=np.float32), output=True)
        missed = found["primID"] < 0
        return Hits(np.where(missed, np.float32(np.inf), found["tfar"]), found["primID"], found["u"], found["v"])

    def blocks(self, points: np.ndarray, directions: np.ndarray, reach: float = 1e4) -> np.ndarray:
        """Whether something lies between points and what they look at.

        Args:
            points: (N, 3) world.
            directions: (N, 3) world.
            reach: how far to look, in lengths of the direction.

        Returns:
            (N,) bool.
        """
        result = np.zeros(len(points), dtype=bool)
        if self._scene is not None and len(points):
            limits = np.full(len(points), reach, np.float32)
            rays = points.astype(np.float32), directions.astype(np.float32)
            result = self._scene.run(*rays, dists=limits, query="OCCLUDED") >= 0
        return result


def blocked(solids: Sequence[Solid], points: np.ndarray, directions: np.ndarray, reach: float = 1e4) -> np.ndarray:
    """``Solid.blocks`` for any of several solids."""
    result = np.zeros(len(points), dtype=bool)
    starts = np.ascontiguousarray(points.T, dtype=np.float32)
    inverse = 1 / np.where(np.abs(directions.T) < 1e-9, np.float32(1e-9), directions.T).astype(np.float32)
    for solid in solids:
        if not len(solid.mesh.faces):
            continue
        # Most rays pass the box around the mesh: leaving them out is several times faster than casting them.
        nearest = np.zeros(len(points), np.float32)
        farthest = np.where(result, np.float32(-1), np.float32(reach))
        for axis in range(3):
            to_low = (solid.low[axis] - starts[axis]) * inverse[axis]
            to_high = (solid.high[axis] - starts[axis]) * inverse[axis]
            np.maximum(nearest, np.minimum(to_low, to_high), out=nearest)
            np.minimum(farthest, np.maximum(to_low, to_high), out=farthest)
        chosen = np.flatnonzero(nearest <= farthest)
        result[chosen] = solid.blocks(points[chosen], directions[chosen], reach)
    return result


def pixel_rays(camera: Camera, window: Window, supersample: int = 1) -> np.ndarray:
    """Directions of the rays through the samples of a window.

    A pixel has ``supersample`` x ``supersample`` samples, evenly spread; with 1 the ray goes through its centre.

    Args:
        camera: the camera.
        window: (x1, y1, x2, y2) whole pixels, the last ones excluded; may lie outside of the image.
        supersample: samples along the side of a pixel.

    Returns:
        (rows, columns, 3) float32 world; their length along the camera's axis is 1 metre, so that multiples of them
        are depths.
    """
    x1, y1, x2, y2 = window
    x = x1 - 0.5 + (np.arange((x2 - x1) * supersample) + 0.5) / supersample
    y = y1 - 0.5 + (np.arange((y2 - y1) * supersample) + 0.5) / supersample
    # From pixels to the world in one step: rotation' @ inverse intrinsics @ (x, y, 1).
    back = camera.rotation.T @ np.linalg.inv(camera.matrix)
    return (x[None, :, None] * back[:, 0] + (y[:, None, None] * back[:, 1] + back[:, 2])).astype(np.float32)


def window_of(camera: Camera, vertices: np.ndarray, limits: Window) -> Window:
    """The smallest window with everything that may be seen of a mesh; empty (x2 <= x1) where that is nothing.

    Args:
        camera: the camera.
        vertices: (V, 3) world.
        limits: the result lies in this window.
    """
    x, y, depth = project(camera, vertices)
    if not len(vertices) or depth.max() < NEAR:
        return limits[0], limits[1], limits[0], limits[1]
    if depth.min() < NEAR:  # it surrounds the camera, or nearly so: it may be anywhere
        return limits
    low = np.floor([x.min(), y.min()]) - MARGIN
    high = np.ceil([x.max(), y.max()]) + 1 + MARGIN
    corners = np.clip(np.concatenate([low, high]), np.tile(limits[:2], 2), np.tile(limits[2:], 2)).astype(int)
    return int(corners[0]), int(corners[1]), int(corners[2]), int(corners[3])


def clipped(window: Window, width: int, height: int) -> Window:
    """The part of a window that lies in the image; empty (x2 = x1 or y2 = y1) where there is none."""
    x1, x2 = np.clip(window[0::2], 0, width)
    y1, y2 = np.clip(window[1::2], 0, height)
    return int(x1), int(y1), int(x2), int(y2)
