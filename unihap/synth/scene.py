"""Scenes: the place that people are in, and what a ray sees that meets nobody.

A scene is a ground at z = 0, a panorama on a round wall around the site, the sky or a ceiling above it, things that
stand around, a distant light and an even light from everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unihap.lookup import lookup
from unihap.synth.backdrops import BACKDROPS
from unihap.synth.camera import DOMAINS as CAMERAS
from unihap.synth.props import PROPS, Prop, placed
from unihap.synth.textures import GROUNDS, LINEAR, TILE_EXTENT, Texture, clouds, hsv, texture

KINDS = ("outdoor", "indoor")
INDOOR_SHARE = 0.3
MACRO_EXTENT = 23.0  # metres after which stains of the ground repeat
NEAREST_PROP = 1.0  # metres from the middle of the site
CAMERA_MARGIN = 1.2  # metres between props and the ring in which the cameras stand
BIG = 1.2  # metres, the radius of props that would hide everybody if they stood among people
BRIGHTNESS = 1.35  # light on the ground in the open, of sun and sky together
WALL_MARGIN = 1.15  # the wall is always that much farther from the middle than the camera


@dataclass(frozen=True)
class Look:
    """What the light of a domain is like.

    Attributes:
        elevation: degrees of the sun above the horizon, lowest and highest.
        sun: how much stronger than the sky it is, weakest and strongest.
        warmth: logarithm of the factor of its red.
        sky: hue, saturation and value at the zenith.
        radius: metres from the middle to the backdrop, outdoors and indoors, nearest and farthest.
    """

    elevation: tuple[float, float]
    sun: tuple[float, float]
    warmth: tuple[float, float]
    sky: tuple[float, float, float]
    radius: Mapping[str, tuple[float, float]]


DOMAINS: Mapping[str, Look] = {
    "a": Look(
        elevation=(35, 65), sun=(0.2, 3.0), warmth=(-0.02, 0.12), sky=(0.59, 0.45, 0.95),
        radius={"outdoor": (8, 18), "indoor": (7, 12)},
    ),
    "b": Look(
        elevation=(18, 42), sun=(1.0, 5.0), warmth=(0.10, 0.35), sky=(0.54, 0.25, 0.85),
        radius={"outdoor": (12, 24), "indoor": (10, 16)},
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ground:
    """A path through the site and what is beside it.

    Attributes:
        textures: of the path and of the rest.
        stains: (h, w, 2), brightness and a disturbance of the path's edge.
        angle: radians, direction of the path.
        offset: metres from the origin to the middle of the path.
        width: of the path, metres; infinite where there is only one ground.
        line: linear RGB of the painted line along the edge; ``None`` for none.
    """

    textures: tuple[Texture, Texture]
    stains: Texture
    angle: float
    offset: float
    width: float
    line: tuple[float, float, float] | None

    def colour(self, x: np.ndarray, y: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Linear RGB (N, 3) float32 at points (N,) of the ground, each seen ``footprint`` metres large."""
        along = x * np.cos(self.angle) + y * np.sin(self.angle)
        across = y * np.cos(self.angle) - x * np.sin(self.angle)
        stains = self.stains.lookup(x, y, footprint)
        edge = np.abs(across - self.offset) - self.width / 2
        if self.line is None:
            edge = edge + (stains[:, 1] - 128) * 0.006  # grass grows over the edge; paint is straight
        colour = np.empty((len(x), 3), dtype=np.float32)
        for inside, surface in zip((edge < 0, edge >= 0), self.textures, strict=True):
            chosen = np.flatnonzero(inside)
            if chosen.size:
                colour[chosen] = _linear(surface.lookup(along[chosen], across[chosen], footprint[chosen]))
        if self.line is not None:
            colour[np.abs(edge + 0.3) < 0.06] = self.line
        return colour * (0.55 + stains[:, :1] * np.float32(0.45 / 128))


@dataclass(frozen=True, eq=False)
class Background:
    """What N rays see that meet nobody.

    Attributes:
        colour: (N, 3) float32 linear RGB: albedo of the ground and walls, light of the sky.
        points: (N, 3) float32 world; anything for the sky.
        normals: (N, 3) float32.
        sky: (N,) bool, shines by itself.
    """

    colour: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    sky: np.ndarray


@dataclass(frozen=True, eq=False)
class Scene:
    """A place.

    Attributes:
        domain: ``a`` or ``b``.
        kind: ``outdoor`` or ``indoor``.
        sun: (3,) unit vector towards the sun or the lamps.
        sun_colour: (3,) light that they cast on a surface that faces them.
        softness: radians, half the angle under which they appear: how soft shadows are.
        sky_colour: (3,) even light from above.
        bounce: (3,) even light from below.
        zenith: (3,) colour of the sky above, or of the ceiling.
        horizon: (3,) colour of the sky at the horizon, or of lamps in the ceiling.
        ground: at z = 0.
        panorama: on a wall around the origin; its coverage is 0 where the sky is seen.
        props: things that stand around.
    """

    domain: str
    kind: str
    sun: np.ndarray
    sun_colour: np.ndarray
    softness: float
    sky_colour: np.ndarray
    bounce: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    ground: Ground
    panorama: Texture
    props: tuple[Prop, ...] = ()

    def clear_of(self, places: Sequence[tuple[float, float]] | np.ndarray, margin: float = 0.4) -> "Scene":
        """The scene without the props that are closer than ``margin`` metres to places (x, y) where people stand."""
        return replace(
            self,
            props=tuple(
                prop
                for prop in self.props
                if all(np.hypot(x - prop.place[0], y - prop.place[1]) >= prop.radius + margin for x, y in places)
            ),
        )

    def background(self, origin: np.ndarray, directions: np.ndarray, spread: float) -> Background:
        """What rays see that meet nobody.

        Args:
            origin: (3,) world, where all rays begin; above the ground.
            directions: (N, 3) float32 world, not normalised.
            spread: metres that a ray covers per unit of its direction.
        """
        start = origin.astype(np.float32)
        # Walls have the angle of their texture, so that moving them out for a distant camera changes their size alone.
        usual = np.float32(self.panorama.extent[0] / (2 * np.pi))
        radius = max(usual, np.float32(WALL_MARGIN * np.hypot(*origin[:2])))
        d2 = directions[:, 0] ** 2 + directions[:, 1] ** 2
        b = directions[:, :2] @ start[:2]
        c = radius**2 - (start[:2] ** 2).sum()
        root = np.sqrt(b**2 + d2 * c)
        # Where the ray leaves the wall's circle: of the two forms of the solution the one that does not cancel.
        wall = np.where(b < 0, (root - b) / np.maximum(d2, 1e-12), c / np.maximum(root + b, 1e-6))
        down = np.minimum(directions[:, 2], -1e-6)
        floor = np.where(directions[:, 2] < 0, start[2] / -down, np.inf)
        on_ground = floor < wall
        points = start + directions * np.where(on_ground, floor, wall)[:, None].astype(np.float32)
        length = np.sqrt(d2 + directions[:, 2] ** 2)

        colour = np.empty((len(directions), 3), dtype=np.float32)
        normals = np.zeros((len(directions), 3), dtype=np.float32)
        ground = np.flatnonzero(on_ground)
        slope = np.sqrt(length[ground] / -down[ground])  # the geometric mean of what a slanting ray covers
        colour[ground] = self.ground.colour(points[ground, 0], points[ground, 1], floor[ground] * spread * slope)
        normals[ground, 2] = 1

        rest = np.flatnonzero(~on_ground)
        hit = points[rest]
        angle = np.arctan2(hit[:, 1], hit[:, 0])
        seen = self.panorama.lookup(angle * usual, hit[:, 2] * (usual / radius), wall[rest] * spread * (usual / radius))
        above = hit[:, 2] * (usual / radius) >= self.panorama.extent[1]
        cover = np.where(above, 0, seen[:, 3] / 255)[:, None]
        paint = _linear(seen[:, :3] / np.maximum(cover, 0.02))  # colours fade to black with the coverage
        colour[rest] = cover * paint + (1 - cover) * self._sky(directions[rest] / length[rest, None], start)
        normals[rest, :2] = -hit[:, :2] / radius
        sky = np.zeros(len(directions), dtype=bool)
        sky[rest] = cover[:, 0] < 0.5
        return Background(colour, points, normals, sky)

    def _sky(self, directions: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Linear RGB (N, 3) of the sky, or of a ceiling with lamps, in unit directions."""
        if self.kind == "outdoor":
            share = np.clip(directions[:, 2:], 0, 1) ** 0.6
        else:
            height = np.maximum(self.panorama.extent[1] - start[2], 0.5)
            x, y = start[:2, None] + directions[:, :2].T * (height / np.maximum(directions[:, 2], 0.02))
            share = 1.0 - ((np.mod(x, 2.4) < 1.2) & (np.mod(y, 2.4) < 0.3))[:, None]
        return self.horizon + (self.zenith - self.horizon) * share.astype(np.float32)


def sample_scene(rng: np.random.Generator, domain: str, kind: str | None = None) -> Scene:
    """A new place.

    Args:
        rng: the only source of randomness.
        domain: a key of ``DOMAINS``; the two share neither grounds nor backdrops nor props.
        kind: ``outdoor`` or ``indoor``; by default drawn.

    Raises:
        ValueError: no such domain or kind.
    """
    look = lookup(DOMAINS, domain, "domain")
    indoor = rng.random() < INDOOR_SHARE
    kind = kind or KINDS[indoor]
    if kind not in KINDS:
        raise ValueError(f"unknown kind of scene {kind!r} (known: {', '.join(KINDS)})")
    light = _daylight(rng, look) if kind == "outdoor" else _lamps(rng)
    radius, height = rng.uniform(*look.radius[kind]), 11.0 if kind == "outdoor" else rng.uniform(3.0, 4.5)
    length = 2 * np.pi * radius
    painters = BACKDROPS[domain, kind]
    picture = painters[rng.integers(len(painters))](rng, length, height)
    picture[..., :3] *= picture[..., 3:]
    ground = _ground(rng, domain, kind)
    mean = _linear(ground.textures[0].levels[-1].reshape(-1, 3).mean(axis=0, keepdims=True))[0]
    return Scene(
        domain=domain,
        kind=kind,
        **light,
        bounce=(mean * (0.5 * light["sky_colour"] + 0.4 * light["sun_colour"] * light["sun"][2])).astype(np.float32),
        ground=ground,
        panorama=texture(picture, (length, height), tiles=False),
        props=_props(rng, domain, kind, radius),
    )


def _ground(rng: np.random.Generator, domain: str, kind: str) -> Ground:
    painters = GROUNDS[domain, kind]
    first, second = rng.choice(len(painters), 2, replace=False)
    one = kind == "indoor" or rng.random() < 0.35
    tiles = [
        texture(painters[number](rng), (TILE_EXTENT, TILE_EXTENT)) for number in ((first,) if one else (first, second))
    ]
    stains = np.stack([0.5 + 0.09 * clouds(rng, (256, 256), 1.5), 0.5 + 0.15 * clouds(rng, (256, 256), 1.2)], axis=-1)
    width = float(rng.uniform(2.5, 6.0))
    paint = hsv(rng.choice([0.0, 0.13]), rng.choice([0.0, 0.6]), 0.75).astype(np.float64)
    return Ground(
        textures=(tiles[0], tiles[-1]),
        stains=texture(stains, (MACRO_EXTENT, MACRO_EXTENT)),
        angle=float(rng.uniform(0, np.pi)),
        offset=float(rng.uniform(-2, 2)),
        width=np.inf if one else width,
        line=(float(paint[0]), float(paint[1]), float(paint[2])) if not one and rng.random() < 0.4 else None,
    )


def _daylight(rng: np.random.Generator, look: Look) -> dict:
    elevation, azimuth = np.radians(rng.uniform(*look.elevation)), rng.uniform(0, 2 * np.pi)
    strength, warmth = rng.uniform(*look.sun), rng.uniform(*look.warmth)
    hue, saturation, value = look.sky
    zenith = hsv(hue + rng.normal(0, 0.01), saturation * min(strength, 1), value) ** np.float32(2.2)
    tone = np.array([np.exp(warmth), 1.0, np.exp(-warmth)], dtype=np.float32)
    sky = BRIGHTNESS / (1 + strength * np.sin(elevation))
    return {
        "sun": _direction(elevation, azimuth),
        "sun_colour": (strength * sky * tone).astype(np.float32),
        "sky_colour": (sky * (0.8 + 0.2 * zenith / zenith.mean())).astype(np.float32),
        "softness": float(0.02 + 0.25 * np.exp(-2 * strength)),
        "zenith": zenith.astype(np.float32),
        "horizon": (0.4 * zenith + 0.6 * tone).astype(np.float32),
    }


def _lamps(rng: np.random.Generator) -> dict:
    warmth = rng.uniform(-0.08, 0.2)
    tone = np.array([np.exp(warmth), 1.0, np.exp(-warmth)], dtype=np.float32)
    return {
        "sun": _direction(np.radians(rng.uniform(50, 80)), rng.uniform(0, 2 * np.pi)),
        "sun_colour": (rng.uniform(0.3, 0.7) * tone).astype(np.float32),
        "sky_colour": (rng.uniform(0.6, 0.9) * tone).astype(np.float32),
        "softness": 0.2,
        "zenith": np.full(3, rng.uniform(0.35, 0.7), np.float32),
        "horizon": np.full(3, 1.6, np.float32),
    }


def _props(rng: np.random.Generator, domain: str, kind: str, radius: float) -> tuple[Prop, ...]:
    """Props among the people and props along the wall: none where a camera may stand."""
    makers = PROPS[domain, kind]
    nearest_camera, farthest_camera = CAMERAS[domain].distance
    props: list[Prop] = []
    for _ in range(int(rng.integers(4, 11))):
        pieces = makers[rng.integers(len(makers))](rng)
        yaw, angle = rng.uniform(0, 2 * np.pi, 2)
        size = placed(pieces, (0.0, 0.0), yaw).radius
        rings = ((NEAREST_PROP, nearest_camera - CAMERA_MARGIN), (farthest_camera + CAMERA_MARGIN, radius))
        low, high = rings[int(size > BIG or rng.random() < 0.3)]
        distance = rng.uniform(low + size, max(high - size, low + size))
        place = (float(distance * np.cos(angle)), float(distance * np.sin(angle)))
        apart = all(np.hypot(place[0] - p.place[0], place[1] - p.place[1]) > size + p.radius for p in props)
        if apart and distance + size <= high:
            props.append(placed(pieces, place, yaw))
    return tuple(props)


def _direction(elevation: float, azimuth: float) -> np.ndarray:
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def _linear(codes: np.ndarray) -> np.ndarray:
    """Linear RGB 0-1 of sRGB 0-255."""
    return LINEAR[np.clip(np.rint(codes), 0, 255).astype(np.uint8)]
