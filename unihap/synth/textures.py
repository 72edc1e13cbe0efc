"""Textures: pictures of surfaces at several resolutions, and the grounds of the two domains.

A texture is drawn once for a scene and looked up for every ray at the resolution that the ray sees, so that distant
ground neither flickers nor costs.
"""

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft

from unihap.synth.camera import decode

Painter = Callable[[np.random.Generator], np.ndarray]

TILE = 384  # pixels along the side of a tile of ground
TILE_EXTENT = 3.6  # metres along that side: a texel is 9 mm
LOOKUP_COLUMNS = 512  # cv2.remap takes at most 32767 rows, so that points are looked up as a rectangle
LINEAR = decode(np.arange(256) / 255.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture that repeats itself to the right, and upwards if ``tiles``.

    Attributes:
        levels: (h, w, C) uint8, sRGB (or sRGB and coverage); each half as fine as the one before.
        extent: (width, height) in metres.
        tiles: whether it repeats upwards; otherwise its border goes on.
    """

    levels: tuple[np.ndarray, ...]
    extent: tuple[float, float]
    tiles: bool = True

    def lookup(self, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Values at points.

        Args:
            u: (N,) metres to the right.
            v: (N,) metres upwards.
            footprint: (N,) metres that a sample covers.

        Returns:
            (N, C) float32, 0-255.
        """
        texel = self.extent[0] / self.levels[0].shape[1]
        last = len(self.levels) - 1
        level = np.clip(np.log2(np.maximum(footprint / texel, 1e-3)), 0, last).astype(np.float32)
        out = np.zeros((len(u), self.levels[0].shape[2]), dtype=np.float32)
        for number in range(int(level.min()), int(np.ceil(level.max())) + 1) if len(u) else ():
            weight = 1 - np.abs(level - number)
            chosen = np.flatnonzero(weight > 0)
            if chosen.size:
                out[chosen] += weight[chosen, None] * self._bilinear(self.levels[number], u[chosen], v[chosen])
        return out

    def _bilinear(self, image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        x = np.mod(u * (width / self.extent[0]), width) - 0.5
        y = (self.extent[1] - v) * (height / self.extent[1])
        y = (np.mod(y, height) if self.tiles else np.clip(y, 0.5, height - 0.5)) - 0.5
        rows = -(-len(u) // LOOKUP_COLUMNS)
        grid = np.zeros((2, rows * LOOKUP_COLUMNS), dtype=np.float32)
        grid[0, : len(u)], grid[1, : len(u)] = x, y
        maps = grid.reshape(2, rows, LOOKUP_COLUMNS)
        values = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return values.reshape(rows * LOOKUP_COLUMNS, -1)[: len(u)]


def texture(image: np.ndarray, extent: tuple[float, float], tiles: bool = True) -> Texture:
    """A texture of an image.

    Args:
        image: (h, w, C) uint8, or float 0-1.
        extent: (width, height) in metres.
        tiles: whether it repeats upwards.
    """
    if image.dtype != np.uint8:
        image = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    levels = [np.ascontiguousarray(image)]
    while min(levels[-1].shape[:2]) >= 8:
        half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
        levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
    return Texture(tuple(levels), extent, tiles)


def clouds(rng: np.random.Generator, shape: tuple[int, int], roughness: float, stretch: float = 1.0) -> np.ndarray:
    """Noise that repeats itself, with mean 0 and standard deviation 1.

    Args:
        rng: the source.
        shape: (h, w).
        roughness: exponent of the falling spectrum: 0 is white noise, 1 grain, 2 clouds.
        stretch: how many times longer features are along the second axis.

    Returns:
        (h, w) float32.
    """
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    across = np.fft.fftfreq(shape[0])[:, None] * shape[0]
    along = np.fft.rfftfreq(shape[1])[None] * shape[1] * stretch
    frequency = np.sqrt(across**2 + along**2).astype(np.float32)
    frequency[0, 0] = np.inf if roughness else 1
    noise = scipy.fft.irfft2(spectrum * frequency**-roughness, shape)
    return (noise / noise.std()).astype(np.float32)


def slabs(
    rng: np.random.Generator, shape: tuple[int, int], counts: tuple[int, int], offset: float, joint: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bricks, tiles or planks in rows.

    Args:
        rng: the source.
        shape: (h, w) pixels.
        counts: (rows, slabs in a row).
        offset: how far every other row is shifted, in slabs.
        joint: half the width of joints, in pixels.

    Returns:
        A random number 0-1 of every slab, and how much joint there is 0-1; both (h, w) float32.
    """
    y = (np.arange(shape[0]) + 0.5) * counts[0] / shape[0]
    x = (np.arange(shape[1]) + 0.5) * counts[1] / shape[1]
    row = y.astype(int)[:, None]
    along = x[None] + offset * (row % 2)
    column = np.floor(along).astype(int) % counts[1]
    values = rng.random(counts, dtype=np.float32)
    up = np.abs(y - np.rint(y))[:, None] * shape[0] / counts[0]
    side = np.abs(along - np.rint(along)) * shape[1] / counts[1]
    edge = np.clip(joint + 0.5 - np.minimum(up, side), 0, 1) if joint > 0 else np.zeros(shape)
    return values[row, column], edge.astype(np.float32)


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) float32 sRGB 0-1; hues repeat every 1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(h, w, 3): ``share`` (h, w) of the second colour and the rest of the first; colours (3,) or (h, w, 3)."""
    return first + (second - first) * share[..., None]


def _asphalt(rng: np.random.Generator) -> np.ndarray:
    shade = rng.uniform(0.28, 0.46)
    base = shade * (1 + 0.10 * clouds(rng, (TILE, TILE), 0.3) + 0.05 * clouds(rng, (TILE, TILE), 1.4))
    stones = clouds(rng, (TILE, TILE), 0.0) > 2.4
    return np.where(stones, base * 1.5, base)[..., None] * hsv(rng.uniform(0.05, 0.65), 0.06, 1.0)


def _paving(rng: np.random.Generator) -> np.ndarray:
    across = int(rng.choice([6, 8, 9, 12]))
    value, edge = slabs(rng, (TILE, TILE), (across, across), float(rng.choice([0.0, 0.5])), 1.0)
    base = hsv(rng.uniform(0.03, 0.14), rng.uniform(0.04, 0.25), rng.uniform(0.5, 0.75))
    stone = base * (0.86 + 0.22 * value + 0.04 * clouds(rng, (TILE, TILE), 0.6))[..., None]
    return mix(stone, base * 0.55, edge)


def _grass(rng: np.random.Generator) -> np.ndarray:
    blades = clouds(rng, (TILE, TILE), 0.45, 0.5)
    patches = clouds(rng, (TILE, TILE), 1.6)
    fresh, dry = hsv(rng.uniform(0.24, 0.32), 0.55, 0.45), hsv(rng.uniform(0.16, 0.22), 0.5, 0.5)
    return mix(fresh, dry, np.clip(0.35 + 0.25 * patches, 0, 1)) * (1 + 0.22 * blades)[..., None]


def _concrete(rng: np.random.Generator) -> np.ndarray:
    _, edge = slabs(rng, (TILE, TILE), (1, 1), 0.0, 1.5)
    stains = clouds(rng, (TILE, TILE), 1.5)
    base = rng.uniform(0.48, 0.64) * (1 + 0.06 * stains + 0.03 * clouds(rng, (TILE, TILE), 0.2))
    return (base * (1 - 0.45 * edge))[..., None] * hsv(rng.uniform(0.05, 0.15), 0.05, 1.0)


def _planks(rng: np.random.Generator) -> np.ndarray:
    value, edge = slabs(rng, (TILE, TILE), (int(rng.choice([24, 30])), 3), 0.5, 0.5)
    base = hsv(rng.uniform(0.05, 0.10), rng.uniform(0.4, 0.65), rng.uniform(0.45, 0.75))
    grain = clouds(rng, (TILE, TILE), 0.9, 12.0)
    return base * ((0.8 + 0.3 * value + 0.06 * grain) * (1 - 0.5 * edge))[..., None]


def _carpet(rng: np.random.Generator) -> np.ndarray:
    base = hsv(
        rng.choice([0.0, 0.60, 0.62, 0.95]) + rng.uniform(-0.03, 0.03), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.55)
    )
    y, x = np.mgrid[:TILE, :TILE] * (2 * np.pi * int(rng.choice([6, 9, 12])) / TILE)
    motif = (np.cos(x) * np.cos(y) > 0.5).astype(np.float32) * rng.uniform(0, 0.35)
    return mix(base, base * 1.6, motif) * (1 + 0.10 * clouds(rng, (TILE, TILE), 0.1))[..., None]


def _cobbles(rng: np.random.Generator) -> np.ndarray:
    rows = int(rng.choice([24, 30, 36]))
    value, edge = slabs(rng, (TILE, TILE), (rows, rows), 0.5, 2.2)
    base = hsv(rng.uniform(0.52, 0.66), rng.uniform(0.05, 0.2), rng.uniform(0.42, 0.62))
    stone = base * (0.7 + 0.5 * value + 0.07 * clouds(rng, (TILE, TILE), 0.8))[..., None]
    return mix(stone, base * 0.4, edge)


def _sand(rng: np.random.Generator) -> np.ndarray:
    y = np.arange(TILE)[:, None] / TILE
    warp = 0.06 * clouds(rng, (TILE, TILE), 1.8)
    ripples = np.sin(2 * np.pi * int(rng.choice([14, 18, 24])) * (y + warp))
    base = hsv(rng.uniform(0.08, 0.12), rng.uniform(0.25, 0.45), rng.uniform(0.7, 0.85))
    return base * (1 + 0.05 * ripples + 0.05 * clouds(rng, (TILE, TILE), 0.2))[..., None]


def _bricks(rng: np.random.Generator) -> np.ndarray:
    value, edge = slabs(rng, (TILE, TILE), (36, 18), 0.5, 0.9)
    base = hsv(rng.uniform(0.0, 0.05), rng.uniform(0.4, 0.6), rng.uniform(0.45, 0.62))
    clay = base * (0.75 + 0.45 * value + 0.05 * clouds(rng, (TILE, TILE), 0.4))[..., None]
    return mix(clay, np.full(3, 0.5, np.float32), edge)


def _gravel(rng: np.random.Generator) -> np.ndarray:
    stones = clouds(rng, (TILE, TILE), 0.5)
    base = hsv(rng.uniform(0.06, 0.6), 0.08, rng.uniform(0.55, 0.75))
    return base * (0.85 + 0.20 * np.tanh(2 * stones) + 0.05 * clouds(rng, (TILE, TILE), 1.5))[..., None]


def _checker(rng: np.random.Generator) -> np.ndarray:
    across = int(rng.choice([4, 6, 8]))
    y, x = np.mgrid[:TILE, :TILE] * across // TILE
    light = hsv(rng.uniform(0, 1), 0.08, rng.uniform(0.75, 0.9))
    dark = hsv(rng.uniform(0, 1), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.5))
    veins = np.exp(-8 * np.abs(clouds(rng, (TILE, TILE), 1.6)))
    return mix(light, dark, ((x + y) % 2).astype(np.float32)) * (1 - 0.25 * veins)[..., None]


def _terrazzo(rng: np.random.Generator) -> np.ndarray:
    base = np.broadcast_to(hsv(rng.uniform(0.3, 0.6), 0.1, rng.uniform(0.65, 0.85)), (TILE, TILE, 3))
    for _ in range(3):
        chips = clouds(rng, (TILE, TILE), 0.7) > 1.5
        base = np.where(chips[..., None], hsv(rng.uniform(0, 1), 0.4, rng.uniform(0.3, 0.8)), base)
    return base


# Domain and kind -> what the ground may be made of.  The two domains share none.
GROUNDS: Mapping[tuple[str, str], tuple[Painter, ...]] = {
    ("a", "outdoor"): (_asphalt, _paving, _grass, _concrete),
    ("a", "indoor"): (_planks, _carpet),
    ("b", "outdoor"): (_cobbles, _sand, _bricks, _gravel),
    ("b", "indoor"): (_checker, _terrazzo),
}
