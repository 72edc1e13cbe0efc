"""Sampling of poses: what somebody does, in the angles of ``unihap.synth.joints`` and the lengths of ``limbs``."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from scipy.interpolate import CubicSpline

from unihap.data.skeletons import SKELETONS
from unihap.lookup import lookup
from unihap.synth import joints
from unihap.synth.joints import LIMITS, MIRROR, Angles
from unihap.synth.limbs import STRAIGHTEST_KNEE, Foot, collides, from_pelvis, make_room, place_hand, stand_on
from unihap.synth.structures import Material, Pose

__all__ = ["ACTIVITIES", "HANDS", "LIMITS", "mirrored", "sample_pose", "seat_height"]

HANDS = {"left": "L", "right": "R"}
OTHER = {"L": "R", "R": "L"}
LOW = np.radians(60)  # somebody whose hips are both bent more sits or squats


Points = tuple[tuple[float, float], ...]


def _stride(**points: Points) -> dict[str, CubicSpline]:
    """Periodic curves through (share of the stride, degrees)."""
    curves = {}
    for joint, given in points.items():
        shares, degrees = zip(*given, strict=True)
        curves[joint] = CubicSpline((*shares, 1.0), np.radians((*degrees, degrees[0])), bc_type="periodic")
    return curves


# Flexion of hip and knee and lift of the toes over a stride that begins when the foot touches the ground.  Walking
# after Winter, The Biomechanics and Motor Control of Human Gait (1987), running after Novacheck, The biomechanics of
# running (Gait and Posture 7, 1998); both simplified to a few points.
WALK = _stride(
    hip=((0.0, 28), (0.15, 20), (0.35, 2), (0.5, -12), (0.6, -7), (0.73, 18), (0.85, 31), (0.95, 30)),
    knee=((0.0, 5), (0.14, 18), (0.38, 6), (0.5, 13), (0.6, 36), (0.72, 60), (0.85, 32), (0.95, 4)),
    ankle=((0.0, 0), (0.07, -6), (0.2, 3), (0.44, 10), (0.61, -17), (0.75, -3), (0.85, 2)),
)
RUN = _stride(
    hip=((0.0, 38), (0.12, 28), (0.25, 5), (0.38, -9), (0.5, 8), (0.65, 42), (0.78, 54), (0.9, 45)),
    knee=((0.0, 18), (0.15, 42), (0.28, 28), (0.38, 20), (0.52, 70), (0.66, 105), (0.8, 72), (0.94, 18)),
    ankle=((0.0, 6), (0.18, 22), (0.3, 5), (0.4, -22), (0.55, -12), (0.75, 2), (0.9, 6)),
)


def sample_pose(rng: Generator, activity: str, holds_bag: str | None = None, carried: Material | None = None) -> Pose:
    """Draws a pose.

    Args:
        rng: the only source of chance.
        activity: one of ``ACTIVITIES``.
        holds_bag: ``left`` or ``right`` when a bag hangs from that hand; its arm then stays near the side.
        carried: an object held in front with both hands, which needs them whatever the activity.

    Raises:
        ValueError: an unknown activity or hand, or a bag in a hand that holds the object.
    """
    sample = lookup(ACTIVITIES, activity, "activity")
    hand = lookup(HANDS, holds_bag, "hand") if holds_bag is not None else None
    if hand and (carried is not None or activity == "carry"):
        raise ValueError("an object in front takes both hands; leave out holds_bag or carried")
    angles: Angles = {}
    free = [side for side in "LR" if side != hand]
    if rng.random() < 0.5:
        free.reverse()  # the sampler treats the first one as the active arm
    angles["neck"] = _uniform(rng, (-14, 18), (-8, 8), (-50, 50))
    angles |= {f"fingers.{side}": _uniform(rng, (10, 30)) for side in "LR"}
    sample(rng, angles, free)
    if hand:
        _bag_arm(rng, angles, hand)
    if carried is not None:
        _hold_object(rng, angles)
    return Pose(activity, joints.to_rotations(angles), carried)


def mirrored(pose: Pose) -> Pose:
    """The pose as a mirror shows it: left and right exchanged."""
    rotations = {}
    for bone, vector in pose.rotations.items():
        stem, dot, side = bone.partition(".")
        rotations[stem + dot + OTHER.get(side, side)] = MIRROR * vector
    return replace(pose, rotations=rotations)


def seat_height(keypoints: np.ndarray) -> float:
    """Height of the seat under somebody who sits.

    Args:
        keypoints: (17, 3) COCO order, metres, z up.

    Returns:
        z in metres, in the frame of ``keypoints``; a little inside the flesh, which gives way.
    """
    names = SKELETONS["coco"].names
    hips, knees = (
        np.mean([keypoints[names.index(f"{side}_{joint}")] for side in HANDS], axis=0) for joint in ("hip", "knee")
    )
    return float(hips[2] - 0.27 * np.linalg.norm(hips - knees))


def _uniform(rng: Generator, *degrees: tuple[float, float]) -> np.ndarray:
    """(3,) radians, each from its range; angles without one are 0."""
    drawn = np.zeros(3)
    drawn[: len(degrees)] = [rng.uniform(low, high) for low, high in degrees]
    return np.radians(drawn)


def _hang(rng: Generator, angles: Angles, side: str) -> None:
    """An arm that hangs."""
    angles[f"shoulder.{side}"] = _uniform(rng, (-8, 12), (5, 13), (5, 25))
    angles[f"elbow.{side}"] = _uniform(rng, (8, 28), (0, 0), (0, 45))
    make_room(angles, side)


def _bag_arm(rng: Generator, angles: Angles, side: str) -> None:
    """An arm with a bag, pulled straight by its weight, or bent by somebody so low that the bag would touch ground."""
    low = min(angles[f"hip.{leg}"][0] for leg in "LR") > LOW
    angles[f"shoulder.{side}"] = _uniform(rng, (-8, 8), (10, 15), (0, 15))
    angles[f"elbow.{side}"] = _uniform(rng, (50, 70) if low else (4, 12), (0, 0), (-10, 20))
    angles[f"wrist.{side}"] = np.zeros(3)
    angles[f"fingers.{side}"] = _uniform(rng, (65, 80))
    make_room(angles, side)


def _stance(rng: Generator, angles: Angles) -> None:
    """Legs and trunk of somebody who stands: weight on both legs or on one of them."""
    side = "LR"[rng.integers(2)]
    sign = 1.0 if side == "L" else -1.0
    shift = rng.uniform(0.0, 1.0) ** 2  # 0 on both legs, 1 on the leg of ``side``
    width = rng.uniform(0.08, 0.2)
    angles["pelvis"] = _uniform(rng, (-3, 4), (0, 0), (-8, 8)) - np.radians([0, sign * 6 * shift, 0])
    angles["spine"] = _uniform(rng, (-6, 6), (-3, 3), (-8, 8)) + np.radians([0, sign * 8 * shift, 0])
    centre = sign * shift * 0.09
    straight = Foot((width - sign * centre, rng.uniform(-0.03, 0.03)), toes_in=-rng.uniform(0, 0.25))
    relaxed = Foot(
        (width + sign * centre + 0.08 * shift * rng.random(), rng.uniform(-0.22, 0.06) * (0.3 + shift)),
        toes_in=-rng.uniform(0.05, 0.5),
        heel=max(rng.uniform(-0.3, 0.3), 0.0) * shift,
    )
    stand_on(angles, {side: straight, OTHER[side]: relaxed})


def _stand(rng: Generator, angles: Angles, free: list[str]) -> None:
    _stance(rng, angles)
    for side in "LR":
        _hang(rng, angles, side)
    manner = rng.choice(["sides", "hips", "crossed", "phone", "pockets"], p=[0.4, 0.15, 0.15, 0.15, 0.15])
    if manner == "hips":
        for side in free[: rng.integers(1, 3)]:
            _hand_on_hip(rng, angles, side)
    elif manner == "crossed" and len(free) == 2:
        _cross_arms(rng, angles, free)
    elif manner == "phone":
        _hold_phone(rng, angles, free[0])
    elif manner == "pockets":
        for side in free[: rng.integers(1, 3)]:
            _hand_in_pocket(rng, angles, side)


def _hand_on_hip(rng: Generator, angles: Angles, side: str) -> None:
    point = (0.53 + 0.04 * rng.random(), -0.1 + 0.1 * rng.random(), 0.2 + 0.06 * rng.random())
    place_hand(angles, side, from_pelvis(angles, side, point), (1.0, 0.45, 0.0), 20, -55)


def _hand_in_pocket(rng: Generator, angles: Angles, side: str) -> None:
    point = (0.48 + 0.03 * rng.random(), -0.14 - 0.06 * rng.random(), 0.03 + 0.05 * rng.random())
    place_hand(angles, side, from_pelvis(angles, side, point), (0.7, 1.0, 0.0), 10)


def _cross_arms(rng: Generator, angles: Angles, sides: list[str]) -> None:
    upper, lower = sides
    height = rng.uniform(-0.03, 0.03)
    place_hand(angles, lower, (-0.5, -0.45, -0.50 + height), (1.0, 0.0, -1.0), 30)
    place_hand(angles, upper, (-0.46, -0.60, -0.40 + height), (1.0, -0.1, -1.0), 40)


def _hold_phone(rng: Generator, angles: Angles, side: str) -> None:
    if rng.random() < 0.35:  # at the ear
        place_hand(angles, side, (0.0, -0.33, 0.1), (0.6, -1.0, -1.0), 20, 10)
        angles["neck"] = _uniform(rng, (-5, 10), (-5, 5), (-15, 15))
    else:
        wrist = (-0.2 + 0.1 * rng.random(), -0.58 - 0.1 * rng.random(), -0.32 + 0.12 * rng.random())
        place_hand(angles, side, wrist, (0.5, 0.3, -1.0), -50 - 20 * rng.random(), 10)
        towards = 8 if side == "L" else -8
        angles["neck"] = _uniform(rng, (10, 24), (-4, 4), (towards - 6, towards + 6))
    angles[f"fingers.{side}"] = _uniform(rng, (35, 50))


def _hold_object(rng: Generator, angles: Angles) -> None:
    """Both hands in front, palms to each other, as far apart as the shoulders or less."""
    apart, forward, height = -rng.uniform(0.02, 0.12), -rng.uniform(0.55, 0.72), -rng.uniform(0.38, 0.62)
    for side in "LR":
        place_hand(angles, side, (apart, forward, height), (0.5, 0.6, -1.0), -10)
        angles[f"fingers.{side}"] = _uniform(rng, (15, 35))


def _gait(rng: Generator, angles: Angles, curves: dict[str, CubicSpline], size: float, lean: float) -> dict[str, float]:
    """Legs and trunk at a random moment of a stride.

    Args:
        rng: the only source of chance.
        angles: changed in place.
        curves: ``WALK`` or ``RUN``.
        size: factor of the angles of hip and knee.
        lean: of the trunk, degrees forwards.

    Returns:
        Side -> how far forwards its leg is, -1 to 1.
    """
    start = rng.random()
    ahead = {}
    for side, phase in (("L", start), ("R", (start + 0.5) % 1.0)):
        hip, knee, ankle = (float(curves[joint](phase)) for joint in ("hip", "knee", "ankle"))
        # the share of the lean that the pelvis has is added, so that the thigh keeps its angle to the ground
        angles[f"hip.{side}"] = np.array([size * hip, 0, 0]) + _uniform(rng, (0.3 * lean,) * 2, (-1.5, -1.5), (-8, 0))
        angles[f"knee.{side}"] = np.array([max(size * knee, STRAIGHTEST_KNEE), 0.0, 0.0])
        angles[f"ankle.{side}"] = np.array([ankle, 0.0, 0.0])
        ahead[side] = float(np.cos(2 * np.pi * (phase + 0.05)))
    turn = 6 * size * ahead["L"]  # the pelvis follows the leg, the chest the arm
    angles["pelvis"] = np.radians([0.3 * lean, 2.5 * np.sin(2 * np.pi * start), -turn])
    angles["spine"] = _uniform(rng, (-2, 2), (-2, 2), (-2, 2)) + np.radians([0.7 * lean, 0, 2 * turn])
    return ahead


def _walk(rng: Generator, angles: Angles, free: list[str]) -> None:
    size = rng.uniform(0.75, 1.1)
    legs = _gait(rng, angles, WALK, size, rng.uniform(0, 6))
    swing = rng.uniform(14, 26) * size
    for side in "LR":
        ahead = legs[OTHER[side]]  # the arm goes with the other leg
        angles[f"shoulder.{side}"] = _uniform(rng, (-1, 3), (7, 13), (8, 22)) + np.radians([swing * ahead, 0, 0])
        angles[f"elbow.{side}"] = _uniform(rng, (12, 22), (0, 0), (0, 30)) + np.radians([12 * max(ahead, 0), 0, 0])
        make_room(angles, side)
    if rng.random() < 0.1:
        _hold_phone(rng, angles, free[0])
    elif rng.random() < 0.06:
        _hand_in_pocket(rng, angles, free[0])


def _run(rng: Generator, angles: Angles, free: list[str]) -> None:
    size = rng.uniform(0.75, 1.1)
    legs = _gait(rng, angles, RUN, size, rng.uniform(6, 14))
    swing = rng.uniform(25, 38) * size
    angles["neck"] = _uniform(rng, (-16, 0), (-4, 4), (-25, 25))
    for side in "LR":
        ahead = legs[OTHER[side]]  # the arm goes with the other leg
        angles[f"shoulder.{side}"] = _uniform(rng, (-8, 0), (9, 16), (5, 20)) + np.radians([swing * ahead, 0, 0])
        angles[f"elbow.{side}"] = _uniform(rng, (75, 100), (0, 0), (-10, 20))
        make_room(angles, side)
        angles[f"fingers.{side}"] = _uniform(rng, (40, 70))


def _sit(rng: Generator, angles: Angles, free: list[str]) -> None:
    tilt = rng.uniform(-14, 2)
    angles["pelvis"] = np.radians([tilt, 0, 0])
    angles["spine"] = _uniform(rng, (0, 22), (-4, 4), (-12, 12))
    lift, apart = rng.uniform(-6, 5), rng.uniform(2, 15)
    for side in "LR":
        raised = lift + rng.uniform(-1.5, 1.5)  # of the thigh over level
        shin = rng.uniform(-12, 14)  # degrees by which the foot is in front of the knee
        angles[f"hip.{side}"] = np.radians([90 + raised + tilt, apart, 0])
        angles[f"knee.{side}"] = np.radians([90 + raised - shin, 0, 0])
        angles[f"ankle.{side}"] = np.radians([-shin, 0, 0])
    for side in "LR":
        point = (rng.uniform(0.2, 0.34), -rng.uniform(0.42, 0.72), 0.23)
        place_hand(angles, side, from_pelvis(angles, side, point), (0.8, 0.8, 0.0), 60, -20)
    manner = rng.random()
    if manner < 0.2 and len(free) == 2:
        _cross_arms(rng, angles, free)
    elif manner < 0.45:
        _hold_phone(rng, angles, free[0])


def _reach(rng: Generator, angles: Angles, free: list[str]) -> None:
    _stance(rng, angles)
    side, sign = free[0], 1.0 if free[0] == "L" else -1.0
    _hang(rng, angles, OTHER[side])
    height = rng.uniform(50, 165)
    angles["spine"] += _uniform(rng, (0, 8), (0, 0), (0, 0)) - np.radians([0, 0, sign * rng.uniform(0, 14)])
    angles[f"shoulder.{side}"] = np.radians([height, rng.uniform(-8, 35), rng.uniform(-20, 30)])
    angles[f"elbow.{side}"] = _uniform(rng, (5, 35), (0, 0), (-20, 60))
    angles[f"fingers.{side}"] = _uniform(rng, (0, 40))
    looks_up = np.interp(height, (50, 165), (15, -25))
    angles["neck"] = _uniform(rng, (looks_up - 8, looks_up + 8), (-4, 4), (sign * 10 - 20, sign * 10 + 20))


def _carry(rng: Generator, angles: Angles, free: list[str]) -> None:
    _stance(rng, angles)
    angles["spine"] -= np.radians([rng.uniform(0, 6), 0, 0])  # leans back against the weight
    _hold_object(rng, angles)


def _random(rng: Generator, angles: Angles, free: list[str]) -> None:
    angles["pelvis"] = _uniform(rng, (-8, 20), (-8, 8), (-15, 15))
    angles["spine"] = _uniform(rng, (-12, 30), (-20, 20), (-25, 25))
    angles["neck"] = _uniform(rng, (-25, 25), (-15, 15), (-50, 50))
    feet = {
        side: Foot((rng.uniform(0.08, 0.34), rng.uniform(-0.3, 0.25)), toes_in=-rng.uniform(0, 0.5)) for side in "LR"
    }
    stand_on(angles, feet, np.radians(rng.uniform(5, 50)))
    if rng.random() < 0.35:  # one leg in the air
        side = "LR"[rng.integers(2)]
        angles[f"hip.{side}"] = _uniform(rng, (-15, 80), (0, 30), (-20, 10))
        angles[f"knee.{side}"] = _uniform(rng, (20, 110))
        angles[f"ankle.{side}"] = _uniform(rng, (-30, 10))
    for side in "LR":
        angles[f"wrist.{side}"] = _uniform(rng, (-30, 40))
        angles[f"fingers.{side}"] = _uniform(rng, (0, 70))
        while True:
            angles[f"shoulder.{side}"] = _uniform(rng, (-35, 160), (8, 80), (-50, 50))
            angles[f"elbow.{side}"] = _uniform(rng, (5, 130), (0, 0), (-60, 60))
            if not collides(angles, side)[0]:
                break


ACTIVITIES: dict[str, Callable[[Generator, Angles, list[str]], None]] = {
    "stand": _stand,
    "walk": _walk,
    "run": _run,
    "sit": _sit,
    "reach": _reach,
    "carry": _carry,
    "random": _random,
}
