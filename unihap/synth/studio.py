"""Stages pictures: who stands where, in which light, seen by which camera.

Everything is drawn from generators seeded by (seed, domain, split, what, number), so that a picture depends on its own
key alone: not on the pictures before it and not on how many processes share the work.  A split has sites of its own
(cameras, background and props), and a site is never used by another split.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from unihap.data.skeletons import SKELETONS
from unihap.lookup import lookup
from unihap.synth.accessories import handbag_side
from unihap.synth.body import Body
from unihap.synth.camera import project, site_cameras, windowed
from unihap.synth.dress import Wardrobe
from unihap.synth.person import PALETTES, change_outfit, linear, sample_person
from unihap.synth.poses import ACTIVITIES, sample_pose, seat_height
from unihap.synth.props import box, placed
from unihap.synth.render import render
from unihap.synth.scene import Scene, sample_scene
from unihap.synth.staging import STAGINGS
from unihap.synth.structures import Camera, Figure, Material, Person, Picture

NUM_CAMERAS = 6
OUTFITS = 11  # numbers of outfits that a person has; odd, since what a number decides varies with odd and even
GROUND_RADIUS = 2.5  # metres around the middle of a site in which people stand
SHARES = {"stand": 0.30, "walk": 0.34, "run": 0.08, "sit": 0.05, "reach": 0.06, "carry": 0.11, "random": 0.06}
assert set(SHARES) == set(ACTIVITIES)
PARCELS = ((176, 132, 86), (214, 208, 196), (70, 74, 84), (150, 60, 52))
STOOLS = ((96, 62, 40), (58, 60, 66), (186, 182, 174), (38, 84, 110))
HIPS = tuple(SKELETONS["coco"].names.index(f"{side}_hip") for side in ("left", "right"))
NEAREST = 2.0  # metres from a person to the camera


@dataclass(frozen=True)
class Site:
    """A place and the cameras that look at it."""

    scene: Scene
    cameras: tuple[Camera, ...]


class Studio:
    """Renders people.

    Args:
        seed: everything follows from it.
        domain: ``a`` or ``b``: palettes, backgrounds and cameras.
        staging: key of ``STAGINGS``: how people stand before the cameras.

    Raises:
        ValueError: no such domain or staging.
        MissingExtraError: the packages of the extra ``synth`` are not installed (when the first picture is taken).
    """

    def __init__(self, seed: int, domain: str, staging: str = "street") -> None:
        lookup(PALETTES, domain, "domain")
        self.seed = seed
        self.domain = domain
        self.staging = lookup(STAGINGS, staging, "staging")
        self._site = lru_cache(maxsize=32)(self._build_site)

    @cached_property
    def wardrobe(self) -> Wardrobe:
        """The body model with the clothes of the last people."""
        return Wardrobe(Body())

    def person(self, split: str, identity: int, outfit: int = 0) -> Person:
        """Somebody.

        Args:
            split: people of different splits have nothing in common even if they have the same number.
            identity: unique number, from 1.
            outfit: 0 for the first clothes; 1-10 keep body and hair and change the rest.
        """
        person = sample_person(self._rng(split, "person", identity), identity, self.domain)
        person = replace(person, outfit=replace(person.outfit, number=identity * OUTFITS))
        if outfit:
            rng = self._rng(split, "outfit", identity, outfit)
            person = change_outfit(rng, person, identity * OUTFITS + outfit, self.domain)
        return person

    def crop(
        self,
        person: Person,
        split: str,
        camera: int,
        key: int,
        size: tuple[int, int],
        *,
        site: int = 0,
        others: int = 0,
    ) -> Picture:
        """One person as a detector would cut them out.

        Args:
            person: who is in the middle.
            split: whose site.
            camera: 1-6.
            key: unique number of the picture: pose, place, framing and noise follow from it.
            size: (height, width) of the picture.
            site: one of the split's places.
            others: strangers close by, who may hide the person.
        """
        rng = self._rng(split, "crop", key)
        place = self._site(split, site)
        view = place.cameras[camera - 1]
        middle = _in_disc(rng, GROUND_RADIUS)
        figures = [self._figure(rng, person, middle, view)]
        right = view.rotation[0, :2] / np.linalg.norm(view.rotation[0, :2])
        ahead = np.array([-right[1], right[0]])
        for number in range(others if self.staging.strangers else 0):
            side = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
            spot = middle + side * right + rng.uniform(0.4, 1.4) * rng.choice([-1, 1]) * ahead
            stranger = sample_person(rng, -(key * 10 + number + 1), self.domain)
            figures.append(self._figure(rng, stranger, spot, view))
        window = _crop_window(rng, _extent(figures[0], view), size, self.staging.truncated)
        return render(figures, _furnished(place.scene, figures), windowed(view, window, size), rng)

    def scene(
        self, people: Sequence[Person], split: str, camera: int, key: int, size: tuple[int, int], *, site: int = 0
    ) -> Picture:
        """Several people in one picture; some may be cut by its edges, hidden, or outside.

        Args:
            people: may be empty.
            split: whose site.
            camera: 1-6.
            key: unique number of the picture.
            size: (height, width) of the picture.
            site: one of the split's places.
        """
        rng = self._rng(split, "scene", key)
        place = self._site(split, site)
        view = place.cameras[camera - 1]
        spots: list[np.ndarray] = []
        for _ in people:
            spots.append(_free_spot(rng, spots, GROUND_RADIUS + 0.15 * len(people), view, self.staging.space))
        figures = [self._figure(rng, who, spot, view) for who, spot in zip(people, spots, strict=True)]
        window = _scene_window(rng, [_extent(figure, view) for figure in figures], view, size, self.staging.smallest)
        return render(figures, _furnished(place.scene, figures), windowed(view, window, size), rng)

    def _figure(self, rng: np.random.Generator, person: Person, spot: np.ndarray, camera: Camera) -> Figure:
        activity = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        side = handbag_side(person.outfit) if person.outfit.handbag else None
        if side and activity == "carry":
            activity = "walk"  # both hands cannot hold two things
        parcel = None
        if activity == "carry":
            parcel = Material(linear(PARCELS[rng.integers(len(PARCELS))]))
        pose = sample_pose(rng, activity, side, parcel)
        yaw = self.staging.yaw(rng, spot, camera.position[:2])
        return self.wardrobe.figure(person, pose, yaw, (float(spot[0]), float(spot[1])))

    def _build_site(self, split: str, number: int) -> Site:
        rng = self._rng(split, "site", number)
        cameras = site_cameras(rng, self.domain, NUM_CAMERAS)
        return Site(sample_scene(rng, self.domain), tuple(self.staging.camera(camera) for camera in cameras))

    def _rng(self, *key: str | int) -> np.random.Generator:
        words = (self.seed, self.domain, *key)
        return np.random.default_rng([zlib.crc32(w.encode()) if isinstance(w, str) else w for w in words])


def _furnished(scene: Scene, figures: Sequence[Figure]) -> Scene:
    """The scene without props where somebody stands, and with a stool under everybody who sits."""
    scene = scene.clear_of([(float(x), float(y)) for x, y in (_hips(figure)[:2] for figure in figures)])
    stools = []
    for figure in figures:
        if figure.pose.activity == "sit":
            x, y, _ = _hips(figure)
            height = max(seat_height(figure.keypoints), 0.1)
            wood = Material(linear(STOOLS[figure.person.outfit.number % len(STOOLS)]))
            # a little behind the hips: thighs rest on its edge
            place = (float(x - 0.04 * np.sin(figure.yaw)), float(y + 0.04 * np.cos(figure.yaw)))
            stools.append(placed([box((0.36, 0.34, height), (0, 0, 0), wood)], place, figure.yaw))
    return replace(scene, props=(*scene.props, *stools))


def _hips(figure: Figure) -> np.ndarray:
    """(3,) the middle of the hips."""
    return figure.keypoints[list(HIPS)].mean(axis=0)


def _in_disc(rng: np.random.Generator, radius: float) -> np.ndarray:
    """(2,) a place in a disc around the origin."""
    angle = rng.uniform(0, 2 * np.pi)
    return radius * np.sqrt(rng.random()) * np.array([np.cos(angle), np.sin(angle)])


def _free_spot(
    rng: np.random.Generator, taken: Sequence[np.ndarray], radius: float, camera: Camera, space: float
) -> np.ndarray:
    """A place in front of the camera where nobody stands, often beside somebody, as people walk in pairs."""
    for _ in range(100):
        if taken and rng.random() < 0.4:
            angle = rng.uniform(0, 2 * np.pi)
            beside = rng.uniform(space, space + 0.25) * np.array([np.cos(angle), np.sin(angle)])
            spot = taken[int(rng.integers(len(taken)))] + beside
        else:
            spot = _in_disc(rng, radius)
        depth = project(camera, np.array([*spot, 1.0]))[2]
        if depth > NEAREST and all(np.linalg.norm(spot - other) >= space for other in taken):
            break
    return spot


def _extent(figure: Figure, camera: Camera) -> np.ndarray:
    """(4,) xyxy of a figure's vertices on the camera's sensor."""
    x, y, _ = project(camera, figure.mesh.vertices)
    return np.array([x.min(), y.min(), x.max(), y.max()])


def _crop_window(rng: np.random.Generator, extent: np.ndarray, size: tuple[int, int], truncated: float) -> np.ndarray:
    """(4,) xyxy around an extent, of the picture's aspect, as loose and as wrong as a detector's box."""
    height, width = size
    x1, y1, x2, y2 = extent
    cut = rng.random() < truncated
    if cut:
        y2 -= rng.uniform(0.15, 0.45) * (y2 - y1)
    tall = max(y2 - y1, (x2 - x1) * height / width)
    if cut:
        tall = min(tall, 1.2 * (y2 - y1))  # rather lose a hand than show mostly background
    tall *= rng.uniform(1.03, 1.14)
    centre = np.array([x1 + x2, y1 + y2]) / 2 + rng.normal(0, 0.015, 2) * tall
    if cut:
        centre[1] = min(centre[1], y2 - tall / 2)  # the lower edge is where the person is cut
    half = np.array([tall * width / height, tall]) / 2
    return np.concatenate([centre - half, centre + half])


def _scene_window(
    rng: np.random.Generator, extents: Sequence[np.ndarray], camera: Camera, size: tuple[int, int], smallest: float
) -> np.ndarray:
    """(4,) xyxy of the picture's aspect: most people, none too small where that can be had."""
    height, width = size
    if not extents:
        tall = camera.size[0] * rng.uniform(0.4, 0.9)
        centre = np.array([camera.size[1], camera.size[0]]) / 2
    else:
        boxes = np.stack(extents)
        tops, bottoms = boxes[:, 1].min(), boxes[:, 3].max()
        heights = boxes[:, 3] - boxes[:, 1]
        tall = max(bottoms - tops, np.ptp(boxes[:, [0, 2]]) * height / width) * rng.uniform(1.02, 1.25)
        tall = max(min(tall, heights.min() / smallest), 1.05 * np.median(heights))
        centre = np.array([boxes[:, [0, 2]].mean(), (tops + bottoms) / 2]) + rng.normal(0, 0.05, 2) * tall
    half = np.array([tall * width / height, tall]) / 2
    return np.concatenate([centre - half, centre + half])
