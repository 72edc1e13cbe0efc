"""Cutting and hemming meshes.

Fields of vertices are in metres and positive inside of a garment, so that its edge is where the field is 0 and the
smaller of two fields is the garment that both lines bound.
"""

from dataclasses import dataclass

import numpy as np

from unihap.synth.body import vertex_normals
from unihap.synth.structures import Material, Shell


@dataclass(frozen=True)
class Clip:
    """A mesh cut along the line on which a field is 0.

    Attributes:
        faces: (G, 3) int32, what is left, wound as before.
        first: (N,) int64, old vertices that a new vertex lies between ...
        second: (N,) int64, ... the other one, the same for vertices that were kept.
        fraction: (N,) float32, how far a new vertex is from ``first``, 0-1.
    """

    faces: np.ndarray
    first: np.ndarray
    second: np.ndarray
    fraction: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Carries values of the old vertices, (V, ...), to the new ones, (N, ...)."""
        new = values[self.first]
        cut = np.flatnonzero(self.fraction)
        fraction = self.fraction[cut].reshape(-1, *([1] * (values.ndim - 1)))
        new[cut] += fraction * (values[self.second[cut]] - new[cut])
        return new


def clip(faces: np.ndarray, field: np.ndarray) -> Clip:
    """Keeps the side of a mesh on which a field of its vertices is positive.

    Args:
        faces: (F, 3).
        field: (V,), linear inside triangles.
    """
    inside = field > 0
    count = inside[faces].sum(axis=1)
    one, two = faces[count == 1], faces[count == 2]
    one = _roll(one, inside[one].argmax(axis=1))  # the corner that stays comes first
    two = _roll(two, inside[two].argmin(axis=1))  # the corner that goes comes first
    size = len(field)
    # A cut edge is numbered by its inner and its outer end.
    edges = np.concatenate([one[:, [0, 1]], one[:, [0, 2]], two[:, [1, 0]], two[:, [2, 0]]]).astype(np.int64)
    keys, numbers = np.unique(edges[:, 0] * size + edges[:, 1], return_inverse=True)
    numbers = numbers.ravel() + size
    a, b, c, d = np.split(numbers, np.cumsum([len(one), len(one), len(two)]))
    kept = np.concatenate(
        [
            faces[count == 3],
            np.stack([one[:, 0], a, b], axis=1),
            np.stack([c, two[:, 1], two[:, 2]], axis=1),
            np.stack([c, two[:, 2], d], axis=1),
        ]
    )
    used, kept = compacted(kept, size + len(keys))
    inner, outer = keys // size, keys % size
    step = (field[inner] / (field[inner] - field[outer])).astype(np.float32)
    first = np.concatenate([np.arange(size), inner])[used]
    second = np.concatenate([np.arange(size), outer])[used]
    fraction = np.concatenate([np.zeros(size, np.float32), step])[used]
    return Clip(kept, first, second, fraction)


def compacted(faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that faces use, and the faces with the numbers of these: ``np.unique`` without sorting.

    Args:
        faces: (F, 3).
        size: number of vertices.

    Returns:
        (N,) int64 in rising order, and (F, 3) int32.
    """
    used = np.zeros(size, dtype=bool)
    used[faces] = True
    numbers = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(used), numbers[faces]


def with_hems(
    vertices: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    depth: np.ndarray | float,
    sewn: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Folds a strip inwards at every open edge, so that cloth looks thick.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        weights: (V, J).
        depth: width of the strip in metres, one for all or (V,).
        sewn: (V,) vertices between which an open edge stays as it is.

    Returns:
        Vertices, faces and weights with the strip.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    # Edges of one face alone, in the order of their ends.  Keys with the number of their edge in the last digits sort
    # several times faster than ``np.unique`` finds out where it met them.
    keys = np.sort(edges, axis=1) @ np.array([len(vertices), 1])
    keys, where = np.divmod(np.sort(keys * len(keys) + np.arange(len(keys))), len(keys))
    border = edges[where[(np.diff(keys, prepend=-1) != 0) & (np.diff(keys, append=-1) != 0)]]
    if sewn is not None:
        border = border[~sewn[border].all(axis=1)]
    rim, links = np.unique(border, return_inverse=True)
    links = links.reshape(-1, 2)
    normals = vertex_normals(vertices, faces)[rim]
    for _ in range(3):  # cut triangles differ much in size and their normals with it
        both = normals[links].sum(axis=1)
        normals = np.stack([np.bincount(links.ravel(), np.repeat(both[:, i], 2), len(rim)) for i in range(3)], axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    inner = vertices[rim] - np.broadcast_to(depth, len(vertices))[rim, None] * normals
    # The strip has vertices of its own on both sides: it meets the cloth in a sharp edge.
    outer, under = links + len(vertices), links + len(vertices) + len(rim)
    strip = np.concatenate([np.column_stack([outer[:, ::-1], under[:, 0]]), np.column_stack([outer[:, 1], under])])
    return (
        np.concatenate([vertices, vertices[rim], inner]).astype(np.float32),
        np.concatenate([faces, strip]).astype(np.int32),
        np.concatenate([weights, weights[rim], weights[rim]]),
    )


def shell(
    vertices: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    part: int | np.ndarray,
    material: Material,
    covers: np.ndarray,
) -> Shell:
    """A shell of the right types whose weights sum to 1."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    return Shell(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        weights.astype(np.float32),
        part,
        material,
        np.asarray(covers, dtype=np.int64),
    )


def _roll(faces: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.take_along_axis(faces, (start[:, None] + np.arange(3)) % 3, axis=1)
