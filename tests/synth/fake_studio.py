"""A studio that needs no body model: people are rectangles of a few parts, in front of noise.

A module of its own, so that rendering processes can import it.
"""

import os
import zlib
from collections.abc import Sequence

import numpy as np

from unihap.data.skeletons import SKELETONS
from unihap.synth.structures import (
    LIP,
    Camera,
    Figure,
    Garment,
    Hair,
    Material,
    Mesh,
    Outfit,
    Person,
    Picture,
    Pose,
    Seen,
)

ROTATION = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # the camera looks along +y
POSITION = np.array([0.0, -5.0, 1.0])
DEPTH = 5.0
# part and its rows and columns, in eighths of the person's height and width
PARTS = (("hat", 0, 1, 2, 6), ("face", 1, 2, 2, 6), ("upper_clothes", 2, 5, 1, 7), ("right_arm", 2, 5, 0, 1),
         ("left_arm", 2, 5, 7, 8), ("right_leg", 5, 8, 1, 4), ("left_leg", 5, 8, 4, 7))  # fmt: skip
# x and y of COCO's keypoints in the same eighths
PLACES = ((4, 1.5), (5, 1.2), (3, 1.2), (6, 1.4), (2, 1.4), (6.5, 2.2), (1.5, 2.2), (7.5, 3.5), (0.5, 3.5), (7.5, 4.8),
          (0.5, 4.8), (5.5, 5), (2.5, 5), (5.5, 6.5), (2.5, 6.5), (5.5, 7.8), (2.5, 7.8))  # fmt: skip
assert len(PLACES) == len(SKELETONS["coco"].names)


class FakeStudio:
    """Draws what ``Studio`` would render."""

    def __init__(self, seed: int, domain: str, staging: str = "street") -> None:
        self.seed, self.domain = seed, domain

    def person(self, split: str, identity: int, outfit: int = 0) -> Person:
        rng = self._rng(split, identity)
        skin = Material(tuple(rng.uniform(0.1, 0.9, 3)))
        shape = {"gender": float(rng.random()), "age": float(rng.uniform(0.3, 1)), "height": 0.4}
        cloth = Material(tuple(self._rng(split, identity, outfit).uniform(0, 1, 3)))
        clothes = Outfit(
            10 * identity + outfit,
            upper=Garment("t_shirt", cloth),
            lower=Garment("trousers", cloth),
            shoes=Garment("shoes", cloth),
            hat=cloth,
        )
        return Person(identity, shape, skin, Hair("short", (0.1, 0.1, 0.1)), clothes)

    def crop(self, person, split, camera, key, size, *, site=0, others=0) -> Picture:
        people = [person, *(self.person(split, -(key * 10 + i + 1)) for i in range(others))]
        height, width = size
        boxes = [np.array([width // 8, height // 8, width // 8 * 7, height // 8 * 7])]
        boxes += [np.array([width // 2, height // 4, width + 6, height + 4]) for _ in range(others)]
        return self._picture(people, boxes, camera, key, size)

    def scene(self, people: Sequence[Person], split, camera, key, size, *, site=0) -> Picture:
        height, width = size
        step = width // max(1, len(people))
        boxes = [np.array([step * i - 4, 5 + i, step * (i + 1) + 4, height - 6]) for i in range(len(people))]
        return self._picture(people, boxes, camera, key, size)

    def _picture(self, people, boxes, number, key, size) -> Picture:
        """People in front of each other, the first nearest."""
        height, width = size
        rng = self._rng(key)
        image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
        owner = np.full(size, -1, np.int16)
        part = np.zeros(size, np.uint8)
        matrix = np.array([[height, 0, width / 2 - 0.5], [0, height, height / 2 - 0.5], [0, 0, 1.0]])
        camera = Camera(number, matrix, ROTATION, POSITION, size, quality=85 + number)
        masks = []
        for box in boxes:
            alone = np.zeros(size, np.uint8)
            whole = 0
            for name, y1, y2, x1, x2 in PARTS:
                rows, columns = (np.round(box[i] + np.array(e) * (box[i + 2] - box[i]) / 8).astype(int)
                                 for i, e in ((1, (y1, y2)), (0, (x1, x2))))  # fmt: skip
                whole += max(0, np.diff(rows)[0]) * max(0, np.diff(columns)[0])
                alone[slice(*rows.clip(0)), slice(*columns.clip(0))] = LIP[name]
            masks.append((alone, whole))
        for i in reversed(range(len(people))):
            where = masks[i][0] > 0
            owner[where], part[where] = i, masks[i][0][where]
            image[where] = (np.array(people[i].outfit.upper.material.colour) * 255).astype(np.uint8)
        seen = [
            self._seen(person, box.astype(np.float32), owner == i, *masks[i], camera)
            for i, (person, box) in enumerate(zip(people, boxes, strict=True))
        ]
        return Picture(image, owner, part, seen, camera)

    def _seen(self, person, box, mask, alone, whole, camera) -> Seen:
        points = box[:2] + np.array(PLACES) / 8 * (box[2:] - box[:2]) - 0.5
        joints = np.column_stack([points, np.ones(17)]) @ np.linalg.inv(camera.matrix).T * DEPTH
        places = points.round().astype(int)
        inside = ((places >= 0) & (places < camera.size[::-1])).all(1)
        visible = [2 if ok and mask[y, x] else int(ok) for ok, (x, y) in zip(inside, places, strict=True)]
        world = joints @ camera.rotation + camera.position
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0]
        head = world[3:5].mean(0) + 0.1 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0, 1.5]])
        faces, part = np.array([[0, 1, 2]], np.int32), np.array([LIP["face"]], np.uint8)
        mesh = Mesh(
            head.astype(np.float32), faces, part, np.zeros(1, np.uint8), head.astype(np.float32), (person.skin,)
        )
        pose = Pose("stand", {"upperarm01.L": np.array([0, 0.7, 0])})
        return Seen(
            figure=Figure(person, pose, mesh, world, yaw=0.3),
            keypoints=np.column_stack([points, visible]).astype(np.float32),
            joints=joints.astype(np.float32),
            full_box=box,
            visible_box=np.array(tight, np.float32),
            visible_share=float(mask.sum() / whole),
            all_parts=frozenset(np.unique(alone[alone > 0]).tolist()),
        )

    def _rng(self, *key) -> np.random.Generator:
        words = (self.seed, self.domain, *key)
        return np.random.default_rng([zlib.crc32(str(word).encode()) for word in words])


class ShyStudio(FakeStudio):
    """Whose people hide from the first picture of every item, and some from all."""

    def crop(self, person, split, camera, key, size, **rest) -> Picture:
        picture = super().crop(person, split, camera, key, size, **rest)
        if key % 8 == 0 or person.identity % 3 == 0:
            object.__setattr__(picture.people[0], "visible_share", 0.1 + 0.01 * (key % 8 == 3))
        return picture


class InvisibleStudio(FakeStudio):
    """Whose people are never seen."""

    def crop(self, *arguments, **rest) -> Picture:
        picture = super().crop(*arguments, **rest)
        object.__setattr__(picture.people[0], "visible_share", 0.0)
        return picture


class DyingStudio(FakeStudio):
    """Whose process is killed by its first picture."""

    def crop(self, *arguments, **rest) -> Picture:
        os._exit(9)
