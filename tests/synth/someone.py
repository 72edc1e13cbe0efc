"""A plain person without a mesh, for tests that only read what is known about people."""

from dataclasses import replace

import numpy as np

from unihap.data.skeletons import SKELETONS
from unihap.synth.structures import Camera, Figure, Garment, Hair, Material, Mesh, Outfit, Person, Pose

RED, BLUE, WHITE, BLACK, BROWN = (
    (0.55, 0.014, 0.019),
    (0.02, 0.11, 0.49),
    (0.85, 0.85, 0.83),
    (0.006,) * 3,
    (0.19, 0.055, 0.016),
)
NOTHING = Mesh(
    np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0, np.uint8), np.zeros(0, np.uint8),
    np.zeros((0, 3), np.float32), (),
)  # fmt: skip


def someone(shape: dict[str, float] | None = None, hair: str = "short", **outfit: object) -> Person:
    """A man of middle age with short black hair in a red t-shirt, blue trousers and black shoes, but for changes."""
    worn = Outfit(
        number=1,
        upper=Garment("t_shirt", Material(RED)),
        lower=Garment("trousers", Material(BLUE)),
        shoes=Garment("shoes", Material(BLACK)),
    )
    body = {"gender": 0.0, "age": 0.7, "muscle": 0.5, "weight": 0.5, "height": 0.42, "proportions": 0.5}
    return Person(1, body | (shape or {}), Material(BROWN), Hair(hair, BLACK), replace(worn, **outfit))


def figure_of(
    person: Person, activity: str = "stand", yaw: float = 0.0, twist: float = 0.0, carried: Material | None = None
) -> Figure:
    """The person at the origin, turned by ``yaw``; ``twist`` turns the shoulders further."""
    keypoints = np.zeros((17, 3))
    for joint, width, z, angle in (("shoulder", 0.18, 1.45, yaw + twist), ("hip", 0.1, 0.93, yaw)):
        for side, sign in (("left", 1), ("right", -1)):
            index = SKELETONS["coco"].names.index(f"{side}_{joint}")
            keypoints[index] = (sign * width * np.cos(angle), sign * width * np.sin(angle), z)
    return Figure(person, Pose(activity, {}, carried), NOTHING, keypoints, yaw)


def camera_at(degrees: float = 0.0, distance: float = 5.0) -> Camera:
    """A camera on a circle around the origin; at 0 degrees somebody of yaw 0 faces it."""
    angle = np.radians(degrees)
    position = np.array([distance * np.sin(angle), -distance * np.cos(angle), 2.0])
    return Camera(1, np.eye(3), np.eye(3), position, (10, 10))
