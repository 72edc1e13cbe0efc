"""Shading: the colour of surfaces in the light of a scene.

Light comes from the sun (or lamps), with shadows, and evenly from the sky and the ground, darkened where something is
close (ambient occlusion).  Both are estimated with one ray per sample in a direction that depends on the sample's
place in a 4 x 4 pattern, and averaged over such a pattern, which makes shadows soft.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from unihap.synth.rays import Hits, Solid, blocked
from unihap.synth.scene import Background, Scene
from unihap.synth.structures import LIP, Mesh, Pattern

PATTERN_SIDE = 4
OCCLUSION = 2.2  # exponent of the share of the sky that is seen: above 1, light that is reflected twice counts less
BODY_REACH = 0.5  # metres within which things darken each other
GROUND_REACH = 1.1
LIFT = 0.004  # metres that rays start above their surface, so as not to meet it
CHEST = (0.72, 0.80)  # a logo, in heights of the person

# Slope of the wrinkles of a part.
WRINKLES = np.full(256, 0.03, dtype=np.float32)
for _name in ("upper_clothes", "dress", "coat", "pants", "skirt", "scarf", "jumpsuits"):
    WRINKLES[LIP[_name]] = 0.3
for _name in ("hair", "socks", "hat", "glove"):
    WRINKLES[LIP[_name]] = 0.25

_RNG = np.random.default_rng(20)
# Radians per metre.  Folds hang: they are longer upwards than around.
_WAVES = (_RNG.normal(size=(7, 3)) * [1, 1, 0.55]).astype(np.float32)
_WAVES *= (2 * np.pi / np.geomspace(0.07, 0.35, 7) / np.linalg.norm(_WAVES, axis=1))[:, None].astype(np.float32)
_PHASES = _RNG.uniform(0, 2 * np.pi, 7).astype(np.float32)


class Cut(NamedTuple):
    """What a pattern needs to know about a garment: its period, the person's height, and the garment's middle."""

    period: float
    height: float
    middle: float


def _half(length: np.ndarray, period: float) -> np.ndarray:
    return np.mod(length / period, 1) < 0.5


def _around(surface: np.ndarray) -> np.ndarray:
    """Metres around a garment, roughly."""
    return surface[:, 0] + 0.8 * surface[:, 1]


def _stripes(surface: np.ndarray, cut: Cut) -> np.ndarray:
    return _half(surface[:, 2], cut.period)


def _plaid(surface: np.ndarray, cut: Cut) -> np.ndarray:
    return 0.5 * _half(surface[:, 2], cut.period) + 0.5 * _half(_around(surface), cut.period)


def _logo(surface: np.ndarray, cut: Cut) -> np.ndarray:
    z = surface[:, 2] / cut.height
    return (np.abs(surface[:, 0]) < cut.period / 2) & (surface[:, 1] < 0) & (z > CHEST[0]) & (z < CHEST[1])


def _two_tone(surface: np.ndarray, cut: Cut) -> np.ndarray:
    return surface[:, 2] < cut.middle


def _dots(surface: np.ndarray, cut: Cut) -> np.ndarray:
    x, z = np.mod(_around(surface) / cut.period, 1) - 0.5, np.mod(surface[:, 2] / cut.period, 1) - 0.5
    return x**2 + z**2 < 0.09


# How much of the second colour there is, 0-1, at (N, 3) points of the surface.
PATTERNS: Mapping[Pattern, Callable[[np.ndarray, Cut], np.ndarray]] = {
    Pattern.STRIPES: _stripes,
    Pattern.PLAID: _plaid,
    Pattern.LOGO: _logo,
    Pattern.TWO_TONE: _two_tone,
    Pattern.DOTS: _dots,
}


class Light:
    """The light of a scene at the samples of a picture.

    Args:
        scene: whose light.
        solids: what casts shadows.
    """

    def __init__(self, scene: Scene, solids: Sequence[Solid]) -> None:
        self.scene = scene
        self.solids = solids
        order = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])  # far apart: Bayer's matrix
        number = np.arange(PATTERN_SIDE**2)
        turn = number * np.pi * (3 - np.sqrt(5))
        radius = np.sqrt((number + 0.5) / len(number))
        x = np.cross(scene.sun, [0.0, 1.0, 0.0] if abs(scene.sun[1]) < 0.9 else [1.0, 0.0, 0.0])
        x /= np.linalg.norm(x)
        disc = np.outer(radius * np.cos(turn), x) + np.outer(radius * np.sin(turn), np.cross(scene.sun, x))
        height = 1 - (2 * number + 1) / len(number)
        around = np.sqrt(1 - height**2)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        self._order = order
        self._suns = (scene.sun + scene.softness * disc).astype(np.float32)
        self._sphere = np.concatenate([around, height[:, None]], axis=1).astype(np.float32)

    def arriving(
        self, points: np.ndarray, normals: np.ndarray, place: tuple[np.ndarray, np.ndarray], reach: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Light on surfaces.

        Args:
            points: (N, 3) world.
            normals: (N, 3) unit.
            place: (N,) row and (N,) column in the grid of samples.
            reach: metres within which things take light of the sky.

        Returns:
            Even light and sunlight, both (N, 3) float32.
        """
        scene = self.scene
        number = self._order[place[0] % PATTERN_SIDE, place[1] % PATTERN_SIDE]
        start = points + LIFT * normals
        sunny = np.maximum(normals @ scene.sun.astype(np.float32), 0)
        lit = np.flatnonzero(sunny > 0)
        shadow = blocked(self.solids, start[lit], self._suns[number[lit]])
        sunny[lit] *= 1 - _smooth(shadow, (place[0][lit], place[1][lit]))
        shut = _smooth(blocked(self.solids, start, _unit(normals + 0.95 * self._sphere[number]), reach), place)
        upwards = (0.5 + 0.5 * normals[:, 2:]).astype(np.float32)
        even = upwards * scene.sky_colour + (1 - upwards) * scene.bounce
        return even * ((1 - shut) ** OCCLUSION)[:, None], sunny[:, None] * scene.sun_colour


def shade_solid(
    solid: Solid,
    hits: Hits,
    rays: tuple[np.ndarray, np.ndarray],
    place: tuple[np.ndarray, np.ndarray],
    light: Light,
    fold: float,
) -> np.ndarray:
    """Colours of a solid where rays hit it.

    Args:
        solid: what was hit; every ray hits.
        hits: N of them.
        rays: origin (3,) and directions (N, 3).
        place: (N,) row and (N,) column in the grid of samples.
        light: of the scene.
        fold: a number of the person, so that clothes fall differently.

    Returns:
        (N, 3) float32 linear RGB.
    """
    mesh = solid.mesh
    corners = mesh.faces[hits.face]
    weights = np.stack([1 - hits.u - hits.v, hits.u, hits.v], axis=1)
    surface = _blend(mesh.surface, corners, weights)
    normals = _blend(solid.normals, corners, weights)
    origin, directions = rays
    points = origin.astype(np.float32) + directions * hits.depth[:, None]
    views = _unit(-directions)
    a, b, c = (mesh.vertices[corners[:, i]] for i in range(3))
    behind = _dot(np.cross(b - a, c - a), views) < 0  # seen from inside, such as a hem
    normals = np.where(behind[:, None], -normals, normals)
    part = mesh.part[hits.face]
    slope, relief = _wrinkles(surface, fold)
    strength = WRINKLES[part][:, None]
    slope -= _dot(slope, normals)[:, None] * normals
    bent = _unit(normals + strength * slope)

    even, sun = light.arriving(points, bent, place, BODY_REACH)
    halfway = _unit(views + light.scene.sun.astype(np.float32))
    gloss = np.array([material.gloss for material in mesh.materials], np.float32)[mesh.material[hits.face]]
    shine = gloss * np.maximum(_dot(bent, halfway), 0) ** (8 + 60 * gloss)
    colour = albedo(mesh, hits.face, surface) * (1 + 0.12 * strength * relief[:, None])
    return colour * (even + sun) + shine[:, None] * (sun + 0.15 * even)


def shade_background(background: Background, place: tuple[np.ndarray, np.ndarray], light: Light) -> np.ndarray:
    """Colours of ground, walls and sky: (N, 3) float32 linear RGB."""
    colour = background.colour.copy()
    solid = np.flatnonzero(~background.sky)
    even, sun = light.arriving(
        background.points[solid], background.normals[solid], (place[0][solid], place[1][solid]), GROUND_REACH
    )
    colour[solid] *= even + sun
    return colour


def albedo(mesh: Mesh, faces: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Colours of a mesh in white light.

    Args:
        mesh: whose materials.
        faces: (N,) numbers of faces.
        surface: (N, 3) where on the person at rest (``Mesh.surface``).

    Returns:
        (N, 3) float32 linear RGB.
    """
    material = mesh.material[faces]
    first = np.array([m.colour for m in mesh.materials], dtype=np.float32)[material]
    second = np.array([m.second for m in mesh.materials], dtype=np.float32)[material]
    share = np.zeros(len(faces), dtype=np.float32)
    for number in np.unique(material):
        pattern = mesh.materials[number].pattern
        if pattern is not Pattern.PLAIN:
            chosen = np.flatnonzero(material == number)
            share[chosen] = PATTERNS[pattern](surface[chosen], _cut(mesh, int(number)))
    return first + (second - first) * share[:, None]


def _cut(mesh: Mesh, number: int) -> Cut:
    z = mesh.surface[mesh.faces[mesh.material == number], 2]
    return Cut(mesh.materials[number].period, float(mesh.surface[:, 2].max()), float((z.min() + z.max()) / 2))


def _wrinkles(surface: np.ndarray, fold: float) -> tuple[np.ndarray, np.ndarray]:
    """Direction in which cloth leans (N, 3), and its relief (N,), both about -1 to 1: a sum of bent waves."""
    bent = surface + 0.02 * np.sin(surface[:, [1, 2, 0]] * 23 + fold)
    phase = bent @ _WAVES.T + _PHASES + fold
    weight = np.float32(1 / np.sqrt(len(_WAVES)))
    unit = _WAVES / np.linalg.norm(_WAVES, axis=1, keepdims=True)
    return weight * (np.cos(phase) @ unit), weight * np.sin(phase).sum(axis=1)


def _smooth(values: np.ndarray, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Means of (N,) values over the pattern of samples around each; samples that have no value do not count."""
    if not len(values):
        return np.zeros(0, dtype=np.float32)
    rows, columns = (index - index.min() for index in place)
    grid = np.zeros((rows.max() + 1, columns.max() + 1, 2), dtype=np.float32)
    grid[rows, columns, 0] = values
    grid[rows, columns, 1] = 1
    size = (PATTERN_SIDE, PATTERN_SIDE)
    sums = cv2.boxFilter(grid, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)[rows, columns]
    return sums[:, 0] / sums[:, 1]


def _blend(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return sum(
        (values[corners[:, i]] * weights[:, i : i + 1] for i in range(1, 3)), values[corners[:, 0]] * weights[:, :1]
    )


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", first, second)  # several times faster than a sum over three columns


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.maximum(_dot(vectors, vectors), 1e-18))[:, None]
