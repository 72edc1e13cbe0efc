"""Backdrops: panoramas painted around a site, from the ground up to a roof or the sky."""

from collections.abc import Callable, Mapping
from itertools import pairwise

import cv2
import numpy as np

from unihap.synth.textures import clouds, hsv, slabs

DENSITY = 24  # pixels per metre

Rng = np.random.Generator
Backdrop = Callable[[Rng, float, float], np.ndarray]


class Canvas:
    """A panorama that is painted in metres; nothing painted is sky.

    Args:
        length: metres around the site.
        height: metres above the ground.

    Attributes:
        pixels: (h, w, 4) float32, sRGB 0-1 and coverage.
    """

    def __init__(self, length: float, height: float) -> None:
        self.length = length
        self.height = height
        self.pixels = np.zeros((round(height * DENSITY), round(length * DENSITY), 4), dtype=np.float32)

    def box(self, left: float, bottom: float, right: float, top: float, colour: np.ndarray) -> None:
        """Fills a rectangle with a colour (3,) or a picture (h, w, 3) that is resized to it."""
        rows = slice(max(self._row(top), 0), max(self._row(bottom), 0))
        columns = slice(max(round(left * DENSITY), 0), max(round(right * DENSITY), 0))
        area = self.pixels[rows, columns]
        if area.size:
            picture = colour if colour.ndim == 1 else cv2.resize(colour, area.shape[1::-1])
            area[..., :3] = picture
            area[..., 3] = 1

    def disc(self, x: float, z: float, radii: tuple[float, float], colour: np.ndarray) -> None:
        """Fills an upright ellipse."""
        axes = (round(radii[0] * DENSITY), round(radii[1] * DENSITY))
        centre = (round(x * DENSITY), self._row(z))
        cv2.ellipse(self.pixels, centre, axes, 0, 0, 360, (*colour.tolist(), 1.0), -1, cv2.LINE_8)

    def line(self, points: np.ndarray, width: float, colour: np.ndarray) -> None:
        """Draws a line through (N, 2) points."""
        pixels = np.stack([points[:, 0] * DENSITY, (self.height - points[:, 1]) * DENSITY], axis=1)
        thickness = max(round(width * DENSITY), 1)
        cv2.polylines(
            self.pixels, [np.rint(pixels).astype(np.int32)], False, (*colour.tolist(), 1.0), thickness, cv2.LINE_8
        )

    def finished(self, rng: Rng, grain: float = 0.07) -> np.ndarray:
        """The picture with dirt on it: (h, w, 4) float32."""
        height, width = self.pixels.shape[:2]
        noise = clouds(rng, (height // 2, width // 4), 0.9)
        self.pixels[..., :3] *= (1 + grain * cv2.resize(noise, (width, height)))[..., None]
        return self.pixels

    def _row(self, z: float) -> int:
        return round((self.height - z) * DENSITY)


def _spans(rng: Rng, length: float, shortest: float, longest: float) -> list[tuple[float, float]]:
    """Pieces of random length that fill the panorama without a seam."""
    edges = [0.0]
    while length - edges[-1] > longest + shortest:
        edges.append(edges[-1] + rng.uniform(shortest, longest))
    edges.append(length)
    return list(pairwise(edges))


def _poster(rng: Rng, hues: tuple[float, float]) -> np.ndarray:
    """(24, 16, 3) a picture with a frame."""
    picture = np.broadcast_to(
        hsv(rng.uniform(*hues), rng.uniform(0.1, 0.7), rng.uniform(0.5, 0.95)), (24, 16, 3)
    ).copy()
    for _ in range(4):
        row, column = rng.integers(2, 18), rng.integers(1, 9)
        patch = picture[row : row + rng.integers(2, 8), column : column + rng.integers(3, 8)]
        patch[:] = hsv(rng.uniform(*hues), rng.uniform(0, 0.8), rng.uniform(0.1, 1.0))
    return picture


def _street(rng: Rng, length: float, height: float) -> np.ndarray:
    """Houses with windows, shops on the ground floor."""
    canvas = Canvas(length, height)
    for left, right in _spans(rng, length, 4, 11):
        top = rng.uniform(0.45, 1.3) * height
        wall = hsv(rng.uniform(0.02, 0.16), rng.uniform(0.03, 0.4), rng.uniform(0.4, 0.85))
        canvas.box(left, 0, right, top, wall)
        glass = hsv(rng.uniform(0.52, 0.62), rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.4))
        step, width = rng.uniform(1.6, 2.8), rng.uniform(0.7, 1.3)
        for z in np.arange(3.9, top - 1.6, 2.9):
            for x in np.arange(left + 0.6, right - width - 0.3, step):
                canvas.box(x - 0.08, z - 0.1, x + width + 0.08, z + 1.5, wall * rng.uniform(1.1, 1.2))
                canvas.box(x, z, x + width, z + 1.4, glass * rng.uniform(0.6, 1.5))
        if rng.random() < 0.6:
            canvas.box(left + 0.3, 0.4, right - 0.3, 2.7, hsv(rng.uniform(0.05, 0.6), 0.25, rng.uniform(0.15, 0.5)))
            for x in np.arange(left + 0.5, right - 1.4, 1.5):
                canvas.box(x, 0.7, x + 1.0, 2.3, _poster(rng, (0, 1)))
            canvas.box(left + 0.2, 2.8, right - 0.2, 3.4, hsv(rng.uniform(0, 1), 0.7, rng.uniform(0.4, 0.8)))
        door = rng.uniform(left + 0.4, right - 1.5)
        canvas.box(door, 0, door + 1.1, 2.2, hsv(rng.uniform(0, 1), 0.4, 0.3))
    return canvas.finished(rng)


def _park(rng: Rng, length: float, height: float) -> np.ndarray:
    """Trees behind a hedge, roofs far away."""
    canvas = Canvas(length, height)
    for left, right in _spans(rng, length, 3, 9):
        grey = rng.uniform(0.5, 0.7)
        canvas.box(left, 0, right, rng.uniform(2.5, 0.6 * height), np.array([grey, grey, grey + 0.05], np.float32))
    hedge = rng.uniform(1.0, 2.2)
    hue = rng.uniform(0.22, 0.35)
    for left, right in _spans(rng, length, 2.5, 6):
        x = (left + right) / 2
        canvas.box(x - 0.15, 0, x + 0.15, 3.5, hsv(0.07, 0.45, rng.uniform(0.2, 0.35)))
        for _ in range(26):
            place = rng.normal(0, (0.9, 0.8))
            leaf = hsv(hue + rng.uniform(-0.05, 0.04), rng.uniform(0.4, 0.7), rng.uniform(0.2, 0.5))
            canvas.disc(x + place[0], 4.3 + place[1], (rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.7)), leaf)
    canvas.box(0, 0, length, hedge - 0.1, hsv(hue, 0.55, 0.25))
    for x in np.arange(0, length, 0.22):
        leaf = hsv(hue + rng.uniform(-0.02, 0.02), 0.6, rng.uniform(0.2, 0.38))
        canvas.disc(x, rng.uniform(0, hedge), (0.25, 0.2), leaf)
        canvas.disc(x, hedge - 0.15, (0.25, rng.uniform(0.1, 0.25)), leaf)
    return canvas.finished(rng, 0.15)


def _campus(rng: Rng, length: float, height: float) -> np.ndarray:
    """Glass front over a concrete wall with posters."""
    canvas = Canvas(length, height)
    concrete = hsv(rng.uniform(0.05, 0.15), 0.06, rng.uniform(0.55, 0.8))
    wall = rng.uniform(2.2, 3.2)
    canvas.box(0, 0, length, height, hsv(rng.uniform(0.5, 0.6), 0.35, rng.uniform(0.25, 0.45)))
    for x in np.arange(0, length, rng.uniform(1.0, 1.8)):
        canvas.box(x, wall, x + 0.1, height, concrete * 1.1)
        canvas.box(x + 0.1, wall, x + 0.9, height - 1, hsv(0.55, 0.3, rng.uniform(0.2, 0.55)))
    for z in np.arange(wall, height, 1.6):
        canvas.box(0, z, length, z + 0.25, concrete)
    canvas.box(0, 0, length, wall, concrete)
    for left, right in _spans(rng, length, 1.8, 2.4):
        canvas.box(left, 0, left + 0.04, wall, concrete * 0.6)
        if rng.random() < 0.45:
            z = rng.uniform(0.6, 1.1)
            canvas.box(left + 0.4, z, right - 0.5, z + rng.uniform(0.7, 1.2), _poster(rng, (0, 1)))
    return canvas.finished(rng)


def _yard(rng: Rng, length: float, height: float) -> np.ndarray:
    """Brick wall with graffiti and rolling doors."""
    canvas = Canvas(length, height)
    top = rng.uniform(0.5, 1.0) * height
    size = (round(top * DENSITY), round(length * DENSITY))
    value, edge = slabs(rng, size, (round(top / 0.2), round(length / 0.5)), 0.5, 0.8)
    brick = hsv(rng.uniform(-0.02, 0.07), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.7))
    canvas.box(0, 0, length, top, brick * ((0.75 + 0.4 * value) * (1 - 0.3 * edge))[..., None])
    for left, right in _spans(rng, length, 3, 7):
        if rng.random() < 0.45:
            colour = hsv(rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.5), rng.uniform(0.35, 0.7))
            canvas.box(left + 0.3, 0, right - 0.3, 2.6, colour)
            for z in np.arange(0.1, 2.6, 0.2):
                canvas.box(left + 0.3, z, right - 0.3, z + 0.06, colour * 0.7)
        for _ in range(int(rng.integers(0, 5))):
            spray = hsv(rng.uniform(0.45, 1.05), rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95))
            steps = np.cumsum(rng.normal(0, 0.35, (7, 2)), axis=0)
            canvas.line(np.array([(left + right) / 2, 1.3]) + steps, rng.uniform(0.08, 0.2), spray)
    return canvas.finished(rng)


def _harbour(rng: Rng, length: float, height: float) -> np.ndarray:
    """Stacked containers before the sea."""
    canvas = Canvas(length, height)
    canvas.box(0, 0, length, 1.6, hsv(rng.uniform(0.5, 0.6), 0.4, rng.uniform(0.3, 0.5)))
    for left, right in _spans(rng, length, 2.4, 6.1):
        for storey in range(int(rng.integers(0, 4))):
            low = 2.4 * storey
            colour = hsv(rng.choice([0.04, 0.09, 0.48, 0.55, 0.8]), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.75))
            canvas.box(left, low, right, low + 2.35, colour)
            for x in np.arange(left + 0.1, right, 0.32):
                canvas.box(x, low + 0.12, x + 0.12, low + 2.2, colour * 0.78)
            if rng.random() < 0.4:
                canvas.box(left + 0.5, low + 1.2, left + 1.6, low + 1.8, colour * 0.3 + 0.6)
    return canvas.finished(rng)


def _hills(rng: Rng, length: float, height: float) -> np.ndarray:
    """Hills behind a wooden fence."""
    canvas = Canvas(length, height)
    x = np.arange(canvas.pixels.shape[1]) / DENSITY
    z = np.arange(canvas.pixels.shape[0])[::-1, None] / DENSITY
    hue = rng.uniform(0.6, 0.95)
    for layer in range(4):
        turns = 2 * np.pi * x / length
        ridge = (
            (0.75 - 0.15 * layer) * height * (1 + 0.12 * np.sin(int(rng.integers(2, 5)) * turns + rng.uniform(0, 6)))
        )
        ridge += 0.05 * height * np.sin(int(rng.integers(7, 15)) * turns + rng.uniform(0, 6))
        canvas.pixels[z < ridge] = [*hsv(hue - 0.07 * layer, 0.18 + 0.1 * layer, 0.8 - 0.12 * layer), 1]
    fence = rng.uniform(1.1, 2.1)
    wood = hsv(rng.uniform(0.05, 0.6), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.75))
    for left in np.arange(0, length, 0.16):
        canvas.box(left, 0, left + 0.13, fence + rng.normal(0, 0.02), wood * rng.uniform(0.7, 1.1))
    return canvas.finished(rng)


def _corridor(rng: Rng, length: float, height: float) -> np.ndarray:
    """Painted wall with doors and notices."""
    canvas = Canvas(length, height)
    paint = hsv(rng.uniform(0.05, 0.6), rng.uniform(0.03, 0.25), rng.uniform(0.65, 0.9))
    canvas.box(0, 0, length, height, paint)
    canvas.box(0, 0, length, rng.uniform(0.7, 1.3), paint * rng.uniform(0.5, 0.8))
    for left, right in _spans(rng, length, 1.8, 3.5):
        drawn = rng.random()
        if drawn < 0.35:
            door = hsv(rng.choice([0.07, 0.6, 0.0]), 0.4, rng.uniform(0.35, 0.7))
            canvas.box(left + 0.2, 0, left + 1.3, 2.2, door * 0.6)
            canvas.box(left + 0.28, 0, left + 1.22, 2.12, door)
            canvas.box(left + 1.05, 0.95, left + 1.15, 1.05, np.full(3, 0.85, np.float32))
        elif drawn < 0.8:
            for x in np.arange(left + 0.3, right - 0.7, 0.8):
                canvas.box(x, 1.2, x + 0.5, 1.2 + rng.uniform(0.5, 0.9), _poster(rng, (0, 1)))
    canvas.box(0, 0, length, 0.12, paint * 0.35)
    return canvas.finished(rng, 0.04)


def _shop(rng: Rng, length: float, height: float) -> np.ndarray:
    """Shelves full of goods."""
    canvas = Canvas(length, height)
    canvas.box(0, 0, length, height, hsv(rng.uniform(0.05, 0.2), 0.08, 0.75))
    for left, right in _spans(rng, length, 2, 4):
        canvas.box(left, 0, right - 0.2, 2.2, np.full(3, 0.22, np.float32))
        hue = rng.uniform(0, 1)
        for z in np.arange(0.15, 2.0, 0.42):
            x = left + 0.05
            while x < right - 0.45:
                width = rng.uniform(0.1, 0.32)
                goods = hsv(hue + rng.normal(0, 0.12), rng.uniform(0.2, 0.8), rng.uniform(0.35, 0.95))
                canvas.box(x, z, x + width - 0.03, z + rng.uniform(0.18, 0.36), goods)
                x += width
            canvas.box(left, z - 0.06, right - 0.2, z, np.full(3, 0.7, np.float32))
    return canvas.finished(rng, 0.04)


def _station(rng: Rng, length: float, height: float) -> np.ndarray:
    """Tiled wall with a coloured band, advertisements and pillars."""
    canvas = Canvas(length, height)
    size = (round(height * DENSITY), round(length * DENSITY))
    value, edge = slabs(rng, size, (round(height / 0.3), round(length / 0.6)), 0.5, 0.5)
    tile = hsv(rng.uniform(0.1, 0.5), rng.uniform(0.03, 0.2), rng.uniform(0.7, 0.9))
    canvas.box(0, 0, length, height, tile * ((0.92 + 0.1 * value) * (1 - 0.3 * edge))[..., None])
    band = rng.uniform(1.5, 2.2)
    accent = hsv(rng.uniform(0, 1), 0.8, rng.uniform(0.4, 0.8))
    canvas.box(0, band, length, band + 0.35, accent)
    for left, right in _spans(rng, length, 3, 5):
        if rng.random() < 0.6:
            canvas.box(left + 0.6, 0.7, right - 0.5, 2.4, np.full(3, 0.15, np.float32))
            canvas.box(left + 0.7, 0.8, right - 0.6, 2.3, _poster(rng, (0.45, 1.1)))
        canvas.box(left, 0, left + 0.4, height, accent * 0.5 + 0.25)
    return canvas.finished(rng, 0.04)


def _hall(rng: Rng, length: float, height: float) -> np.ndarray:
    """Curtains, wood panels and windows to the dark."""
    canvas = Canvas(length, height)
    cloth = hsv(rng.uniform(0.7, 1.05), rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.6))
    wood = hsv(rng.uniform(0.05, 0.09), 0.6, rng.uniform(0.3, 0.55))
    for left, right in _spans(rng, length, 1.5, 4):
        drawn = rng.random()
        width = max(round((right - left) * DENSITY), 1)
        if drawn < 0.4:
            folds = 0.8 + 0.25 * np.sin(np.arange(width) * rng.uniform(0.35, 0.6))
            canvas.box(left, 0, right, height, cloth * np.repeat(folds[None, :, None], 8, axis=0).astype(np.float32))
        elif drawn < 0.7:
            canvas.box(left, 0, right, height, wood * rng.uniform(0.8, 1.1))
            for z in np.arange(0.1, height, 0.9):
                canvas.box(left + 0.12, z, right - 0.12, z + 0.75, wood * rng.uniform(1.1, 1.3))
        else:
            canvas.box(left, 0, right, height, hsv(0.62, 0.5, 0.12))
            for x in np.arange(left, right, 0.75):
                canvas.box(x, 0, x + 0.08, height, np.full(3, 0.75, np.float32))
            canvas.box(left, 0, right, 0.5, np.full(3, 0.6, np.float32))
    return canvas.finished(rng, 0.05)


# Domain and kind -> what may be around a site.  The two domains share none.
BACKDROPS: Mapping[tuple[str, str], tuple[Backdrop, ...]] = {
    ("a", "outdoor"): (_street, _park, _campus),
    ("a", "indoor"): (_corridor, _shop),
    ("b", "outdoor"): (_yard, _harbour, _hills),
    ("b", "indoor"): (_station, _hall),
}
