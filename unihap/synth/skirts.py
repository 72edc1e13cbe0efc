"""Cloth that hangs: outlines around the body and the tubes of skirts, dresses and coats.

An outline is kept as its support function: for every direction around the body, how far the farthest point in that
direction is.  It is the convex hull, room to move is added to it, and cloth that hangs from what is above is a maximum.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter1d
from scipy.spatial import cKDTree

from unihap.synth.fitting import Fit

NUM_ANGLES = 48
SPACING = 0.02  # metres between levels
FRONT_TAPER = 0.06  # how much narrower skirts get in front and behind, per metre below the hips
ANGLES = np.arange(NUM_ANGLES) * (2 * np.pi / NUM_ANGLES)  # 0 is the front, a quarter turn the left side
DIRECTIONS = np.stack([np.sin(ANGLES), -np.cos(ANGLES)], axis=1)


@dataclass(frozen=True)
class Outline:
    """Horizontal outlines of cloth around the body.

    Attributes:
        levels: (L,) heights in metres, falling.
        support: (L, NUM_ANGLES) metres from the axis.
        middle: y of the axis; its x is 0.
    """

    levels: np.ndarray
    support: np.ndarray
    middle: float

    def radius(self) -> np.ndarray:
        """(L, NUM_ANGLES) distance from the axis to the outline in every direction."""
        cosine = np.cos(ANGLES[:, None] - ANGLES)
        reach = np.where(cosine > 0.1, self.support[:, None, :] / np.maximum(cosine, 0.1), np.inf)
        return reach.min(axis=2)

    def widths(self, levels: np.ndarray) -> np.ndarray:
        """(M, NUM_ANGLES) support at other heights (M,); -inf over the top, the lowest under the hem."""
        row = np.interp(-levels, -self.levels, np.arange(len(self.levels)))
        low = np.minimum(row.astype(int), len(self.levels) - 2)
        share = (row - low)[:, None]
        support = self.support[low] * (1 - share) + self.support[low + 1] * share
        return np.where(levels[:, None] > self.levels[0], -np.inf, support)

    def at(self, points: np.ndarray) -> np.ndarray:
        """(N,) distance from the axis to the outline in the direction and at the height of (N, 3) points."""
        radius = self.radius()
        level = np.interp(-points[:, 2], -self.levels, np.arange(len(self.levels)))
        turn = np.arctan2(points[:, 0], self.middle - points[:, 1]) / (2 * np.pi) * NUM_ANGLES
        low, left = np.minimum(level.astype(int), len(self.levels) - 2), np.floor(turn).astype(int)
        down, right = level - low, turn - left
        left %= NUM_ANGLES
        row = [radius[low + i, left] * (1 - right) + radius[low + i, (left + 1) % NUM_ANGLES] * right for i in (0, 1)]
        return row[0] * (1 - down) + row[1] * down


def outline(fit: Fit, top: float, bottom: float) -> Outline:
    """Convex outlines of torso and legs between two heights in metres; arms are left out."""
    levels = np.linspace(top, bottom, max(3, round((top - bottom) / (SPACING * fit.scale)) + 1))
    body = fit.skin[(fit.pattern.arm.max(axis=1) < 0.2) & (fit.arm.along < 0.3)]
    step = levels[0] - levels[1]
    number = np.round((levels[0] - body[:, 2]) / step).astype(int)
    inside = (number >= 0) & (number < len(levels))
    body, number = body[inside], number[inside]
    order = np.argsort(number, kind="stable")
    reach = (body[order, :2] - [0.0, fit.middle]) @ DIRECTIONS.T
    found, starts = np.unique(number[order], return_index=True)
    support = np.full((len(levels), NUM_ANGLES), -np.inf)
    support[found] = np.maximum.reduceat(reach, starts, axis=0)
    support = maximum_filter1d(support, 3, axis=0, mode="nearest")
    return Outline(levels, support, fit.middle)


def drape(body: Outline, room: np.ndarray | float, taper: np.ndarray | float) -> Outline:
    """Cloth that hangs over the body.

    Args:
        body: what it hangs over.
        room: (L,) metres between body and cloth.
        taper: (L,) or (L, NUM_ANGLES), how much narrower the cloth gets per metre downwards; negative: wider.
    """
    support = body.support + np.broadcast_to(room, len(body.levels))[:, None]
    steps = np.reshape(taper, (len(support), -1)) * np.abs(np.gradient(body.levels))[:, None]
    for level in range(1, len(support)):
        support[level] = np.maximum(support[level], support[level - 1] - steps[level])
    support = gaussian_filter(support, (1.0, 1.0), mode=("nearest", "wrap"))
    return Outline(body.levels, support, body.middle)


def flared(levels: np.ndarray, hips: float, above: float, flare: float) -> np.ndarray:
    """(L, NUM_ANGLES) tapers of ``drape``: ``above`` over the hips; skirts widen below them, least in front."""
    below = -flare * np.abs(np.sin(ANGLES)) + FRONT_TAPER * np.abs(np.cos(ANGLES))
    return np.where(levels[:, None] > hips, above, below)


def tube(fit: Fit, cloth: Outline, cap: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mesh of cloth that hangs freely.

    Args:
        fit: the body.
        cloth: the outlines.
        cap: height of a lining that closes the tube inside, so that nobody looks up into it.

    Returns:
        Vertices (V, 3), faces (F, 3), and weights (V, J): those of the body nearby, the lower legs' given to the
        thighs and everything spread around the body, so that the cloth between the legs follows both.
    """
    num_levels = len(cloth.levels)
    flat = cloth.radius()[:, :, None] * DIRECTIONS + [0.0, cloth.middle]
    height = np.broadcast_to(cloth.levels[:, None, None], (num_levels, NUM_ANGLES, 1))
    vertices = np.concatenate([flat, height], axis=2)
    here = np.arange(num_levels * NUM_ANGLES).reshape(num_levels, NUM_ANGLES)
    right = np.roll(here, -1, axis=1)
    a, b, c, d = (part.ravel() for part in (here[:-1], right[:-1], here[1:], right[1:]))
    faces = np.concatenate([np.stack([a, c, d], axis=1), np.stack([a, d, b], axis=1)])
    weights = _tube_weights(fit, vertices)
    vertices = vertices.reshape(-1, 3)
    if cap is not None:
        ring = here[np.abs(cloth.levels - cap).argmin()]
        own = len(vertices) + np.arange(NUM_ANGLES)  # vertices of its own keep the shading of the outside apart
        centre = vertices[ring].mean(axis=0, keepdims=True)
        fan = np.stack([np.full(NUM_ANGLES, len(vertices) + NUM_ANGLES), np.roll(own, -1), own], axis=1)
        faces = np.concatenate([faces, fan])
        vertices = np.concatenate([vertices, centre + 0.94 * (vertices[ring] - centre), centre])
        weights = np.concatenate([weights, weights[ring], weights[ring].mean(axis=0, keepdims=True)])
    return vertices, faces, weights


def _tube_weights(fit: Fit, vertices: np.ndarray) -> np.ndarray:
    body = fit.body
    own = np.flatnonzero(fit.pattern.arm.max(axis=1) < 0.05)
    _, nearest = cKDTree(fit.skin[own]).query(vertices.reshape(-1, 3), k=3)
    weights = fit.pattern.weights[own[nearest]].mean(axis=1)
    for side in (".L", ".R"):
        lower = [i for i, name in enumerate(body.bones) if name.startswith(("lowerleg", "foot", "toe"))]
        lower = [i for i in lower if body.bones[i].endswith(side)]
        weights[:, body.bone("upperleg02" + side)] += weights[:, lower].sum(axis=1)
        weights[:, lower] = 0
    moved = np.flatnonzero(weights.any(axis=0))
    grid = weights[:, moved].reshape(*vertices.shape[:2], -1)
    spread = gaussian_filter(grid, (2.0, 2.8, 0.0), mode=("nearest", "wrap", "nearest"))
    # At the waist cloth follows the body; the lower, the more it hangs as one piece.
    free = np.clip((fit.crotch + 0.1 * fit.scale - vertices[..., 2:]) / (0.12 * fit.scale), 0, 1)
    weights[:, moved] = (grid + free * (spread - grid)).reshape(len(weights), -1)
    return weights
