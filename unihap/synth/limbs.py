"""Bringing hands and feet to places, and arms out of the body.

Lengths are in arms (shoulder to wrist) or legs (hip to ankle), so that one pose suits children and adults alike.
Directions are the body's: x left, y back, z up.  Right limbs are solved as left ones of the mirror image.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from unihap.synth import joints
from unihap.synth.joints import MIRROR, Angles

HIP = np.array([0.127, 0.009, -0.010])  # left hip from the root, in legs
SHOULDER = np.array([0.35, -0.02, 0.89])  # left shoulder from the root, in arms
SPINE_PIVOT = np.array([0.0, 0.0, 0.3])  # about which the spine bends, in arms
TRUNK, HEAD = (0.49, 0.36), (0.32, 0.40)  # half width and half depth with clothes and half a forearm, in arms
HEAD_Y, HEAD_TOP = -0.15, 1.7
FOREARM_POINTS = np.linspace(0.1, 0.8, 6)  # from the elbow, in arms: forearm and hand
NOT_ASIDE, ASIDE = np.zeros(1), np.radians(np.arange(0.0, 19.0, 1.5))
ANKLE_HEIGHT, BALL = 0.09, 0.16  # sole to ankle, and ankle to the ball of the foot, in legs
STRAIGHTEST_KNEE = np.radians(5.0)


@dataclass(frozen=True)
class Foot:
    """Where a left foot goes (the mirror image for the right one).

    Attributes:
        ankle: (2,) x and y of the ankle from the root, in legs.
        toes_in: turn of the foot, radians.
        heel: how far the heel is raised, radians, standing on the ball.
    """

    ankle: tuple[float, float]
    toes_in: float = -0.12
    heel: float = 0.0


def place_hand(
    angles: Angles,
    side: str,
    wrist: tuple[float, float, float],
    pole: tuple[float, float, float],
    pronation: float = 0.0,
    bend: float = 0.0,
) -> None:
    """Brings a hand to a point.

    Args:
        angles: changed in place.
        side: ``L`` or ``R``.
        wrist: from the shoulder, in arms, in the frame of the chest, for the left side.
        pole: where the elbow points to.
        pronation: degrees.
        bend: of the wrist towards the palm, degrees.
    """
    shoulder, elbow = joints.two_bones(np.array(wrist), np.array(pole), joints.ARM, joints.ARM_BEND)
    angles[f"shoulder.{side}"] = shoulder
    angles[f"elbow.{side}"] = np.array([elbow, 0.0, np.radians(pronation)])
    angles[f"wrist.{side}"] = np.radians([bend, 0.0, 0.0])


def from_pelvis(angles: Angles, side: str, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """A point near the left side of the pelvis (from the root, in arms) as ``place_hand`` wants it."""
    x, y, z = _chest(angles, side).inv().apply(np.array(point) - SPINE_PIVOT) + SPINE_PIVOT - SHOULDER
    return float(x), float(y), float(z)


def _chest(angles: Angles, side: str) -> Rotation:
    """Of the chest to the pelvis; for the right side that of the mirror image."""
    spine = joints.clip({"spine": angles.get("spine", joints.REST_ANGLES)})["spine"]
    return joints.trunk_rotation(spine if side == "L" else spine * MIRROR)


def collides(angles: Angles, side: str, aside: np.ndarray = NOT_ASIDE) -> np.ndarray:
    """Whether forearm or hand are in trunk or head, for a dressed person who may be heavy.

    Args:
        angles: ``shoulder`` and ``elbow`` of the side and ``spine`` are read.
        side: ``L`` or ``R``.
        aside: (N,) radians to add to the shoulder's abduction.

    Returns:
        (N,) bool.
    """
    limited = joints.clip({name: angles[f"{name}.{side}"] for name in ("shoulder", "elbow")})
    upper, bent = joints.limb_rotation(limited["shoulder"] + np.outer(aside, [0, 1, 0])), limited["elbow"][0]
    elbow = joints.ARM[0] * upper.apply([0.0, 0.0, -1.0])
    forearm = upper.apply([0.0, -np.sin(bent), -np.cos(bent)])
    along = elbow[:, None] + FOREARM_POINTS[:, None] * forearm[:, None]
    turn = _chest(angles, side).as_matrix()
    points = (along + SHOULDER - SPINE_PIVOT) @ turn.T + SPINE_PIVOT  # from the root, as for a left arm
    x, y, z = np.moveaxis(points, -1, 0)
    trunk = (z < SHOULDER[2]) & ((x / TRUNK[0]) ** 2 + (y / TRUNK[1]) ** 2 < 1)
    head = (z >= SHOULDER[2]) & (z < HEAD_TOP) & ((x / HEAD[0]) ** 2 + ((y - HEAD_Y) / HEAD[1]) ** 2 < 1)
    return (trunk | head).any(axis=1)


def make_room(angles: Angles, side: str) -> None:
    """Moves an arm aside until it is clear of the body."""
    free = np.flatnonzero(~collides(angles, side, ASIDE))
    angles[f"shoulder.{side}"] = angles[f"shoulder.{side}"] + [0, ASIDE[free[0] if len(free) else -1], 0]


def stand_on(angles: Angles, feet: dict[str, Foot], knee: float = STRAIGHTEST_KNEE) -> None:
    """Legs that bring both feet to their places on level ground.

    Args:
        angles: changed in place; ``pelvis`` is read.
        feet: side -> place.
        knee: flexion of the straighter leg, radians.
    """
    pelvis = joints.clip({"pelvis": angles.get("pelvis", joints.REST_ANGLES)})["pelvis"]
    frames = {"L": joints.trunk_rotation(pelvis), "R": joints.trunk_rotation(pelvis * MIRROR)}
    thigh, shin = joints.LEG
    reach = np.sqrt(thigh**2 + shin**2 + 2 * thigh * shin * np.cos(knee))
    ankles = {}
    for side, foot in feet.items():
        height = ANKLE_HEIGHT * np.cos(foot.heel) + BALL * np.sin(foot.heel)
        ankles[side] = np.array([*foot.ankle, height])
    heights = []
    for side, ankle in ankles.items():
        hip = frames[side].apply(HIP)
        aside = float(np.linalg.norm((ankle - hip)[:2]))
        heights.append(ankle[2] + np.sqrt(max(reach**2 - aside**2, 0.04)) - hip[2])
    root = np.array([0.0, 0.0, min(heights)])
    for side, foot in feet.items():
        hip = frames[side].inv().apply(ankles[side] - root) - HIP
        turn = joints.trunk_rotation(np.array([0.0, 0.0, -foot.toes_in]))
        pole = (frames[side].inv() * turn).apply([0.0, -1.0, 0.0])
        angles[f"hip.{side}"], bent = joints.two_bones(hip, pole, joints.LEG, joints.LEG_BEND)
        angles[f"knee.{side}"] = np.array([bent, 0.0, 0.0])
        # Clipped here, because the foot must suit the leg that the body will really have.
        limited = joints.clip({"hip": angles[f"hip.{side}"], "knee": angles[f"knee.{side}"]})
        leg = frames[side] * joints.shin_rotation(limited["hip"], limited["knee"][0])
        sole = turn * joints.limb_rotation(np.array([-foot.heel, 0.0, 0.0]))
        angles[f"ankle.{side}"] = joints.limb_angles(leg.inv() * sole)
