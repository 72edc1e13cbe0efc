"""Joints of the body in the words of anatomy, and the rotations of bones that they mean.

A joint has three angles in radians, 0 for somebody who stands upright with hanging arms and palms to the thighs:

    joint      flexion (+)         abduction (+)          twist (+)
    pelvis     tilted forwards     leaning to the left    turned to the left     (of the whole body)
    spine      bent forwards       bent to the left       turned to the left
    neck       chin down           ear to left shoulder   turned to the left
    shoulder   arm forwards        arm away from the body inwards
    elbow      bent                -                      palm to the back (pronation)
    wrist      palm to forearm     -                      -
    fingers    curled, per joint   -                      -
    hip        thigh forwards      away from the other    toes inwards
    knee       heel to the back    -                      -
    ankle      toes up             sole inwards           toes inwards

Limbs flex, then abduct, then twist about axes that move with them; trunk and head turn first, then flex, then bend.
Abduction of limbs stays within 90 degrees, so that every direction has one set of angles: an arm that is raised
sideways above the shoulder counts as flexed by more than 90 degrees.
"""

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

Angles = dict[str, np.ndarray]  # joint (with side: shoulder.L) -> (flexion, abduction, twist)


def _degrees(*bounds: tuple[float, float]) -> np.ndarray:
    return np.radians(np.array(bounds, dtype=np.float64))


# Active range of motion: American Academy of Orthopaedic Surgeons, Joint Motion: Method of Measuring and Recording
# (1965).  Tighter, because nobody in a street uses them: neck flexion and turn (25 and 50), hip extension (20 as in
# later surveys) and the pelvis, which is no joint.  Knees and elbows never pass their straight position.
LIMITS: dict[str, np.ndarray] = {
    "pelvis": _degrees((-25, 35), (-12, 12), (-20, 20)),
    "spine": _degrees((-25, 60), (-30, 30), (-40, 40)),
    "neck": _degrees((-25, 25), (-20, 20), (-50, 50)),
    "shoulder": _degrees((-60, 180), (-45, 89), (-90, 80)),
    "elbow": _degrees((0, 145), (0, 0), (-80, 80)),
    "wrist": _degrees((-60, 70), (0, 0), (0, 0)),
    "fingers": _degrees((-10, 85), (0, 0), (0, 0)),
    "hip": _degrees((-20, 120), (-25, 45), (-45, 35)),
    "knee": _degrees((0, 135), (0, 0), (0, 0)),
    "ankle": _degrees((-50, 25), (-20, 20), (-15, 15)),
}

# Left limbs of the rest pose: unit directions of Anny's mean adult, whose axes the model uses for everybody.
UPPER_ARM, FOREARM, HAND, KNUCKLES = (
    np.array(direction) / np.linalg.norm(direction)
    for direction in ((0.663, -0.024, -0.748), (0.512, -0.682, -0.522), (0.419, -0.753, -0.507), (0.385, 0.823, -0.419))
)
THIGH = np.array([0.084, -0.078, -0.993]) / np.linalg.norm((0.084, -0.078, -0.993))
SHIN = np.array([0.095, 0.066, -0.993]) / np.linalg.norm((0.095, 0.066, -0.993))

ARM = (0.53, 0.47)  # upper arm and forearm, shares of shoulder to wrist
LEG = (0.485, 0.515)  # thigh and shin, shares of hip to ankle
ARM_BEND, LEG_BEND = -1.0, 1.0  # sign of the x axis about which a hanging limb bends

CHAINS = {  # bones that share a rotation, and how much of it each takes
    "pelvis": (("root", 1.0),),
    "spine": (("spine05", 0.2), ("spine04", 0.25), ("spine03", 0.25), ("spine02", 0.2), ("spine01", 0.1)),
    "neck": (("neck01", 0.2), ("neck02", 0.25), ("neck03", 0.25), ("head", 0.3)),
}
SIDED = ("shoulder", "elbow", "wrist", "fingers", "hip", "knee", "ankle")
FINGERS = tuple(f"finger{finger}-{joint}" for finger in range(2, 6) for joint in range(1, 4))
THUMB = ("finger1-2", "finger1-3")
THUMB_SHARE = 0.3  # of the fingers' curl
FOREARM_SHARE = 0.6  # of pronation; the rest turns the hand
MIRROR = np.array([1.0, -1.0, -1.0])  # of a rotation vector, at the plane x = 0
REST_ANGLES = np.zeros(3)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _hanging(limb: np.ndarray, bend: np.ndarray, sign: float) -> Rotation:
    """From rest to the limb hanging straight down, bending about ``sign`` times the x axis."""
    x, z = sign * _unit(bend - (bend @ limb) * limb), -limb
    return Rotation.from_matrix(np.stack([x, np.cross(z, x), z]))


ELBOW_AXIS = _unit(np.cross(UPPER_ARM, FOREARM))
KNEE_AXIS = _unit(np.array([1.0, 0.0, 0.0]) - THIGH[0] * THIGH)
ARM_DOWN = _hanging(UPPER_ARM, ELBOW_AXIS, ARM_BEND)
LEG_DOWN = _hanging(THIGH, KNEE_AXIS, LEG_BEND)
REST_ELBOW = float(np.arccos(UPPER_ARM @ FOREARM))
REST_KNEE = float(np.arctan2(np.cross(THIGH, SHIN) @ KNEE_AXIS, THIGH @ SHIN))
CURL_AXIS = _unit(KNUCKLES - (KNUCKLES @ HAND) * HAND)
THUMB_AXIS = _unit(np.cross(np.array([-0.338, -0.860, -0.383]), np.array([-0.2, -0.2, -0.95])))
_PALM = np.cross(CURL_AXIS, HAND)  # where the palm faces at rest; towards the body when pronation is 0
REST_PRONATION = float(np.arctan2(np.cross(ELBOW_AXIS, _PALM) @ FOREARM, ELBOW_AXIS @ _PALM))


def clip(angles: Mapping[str, np.ndarray]) -> Angles:
    """The nearest angles within ``LIMITS``."""
    return {joint: np.clip(values, *LIMITS[joint.partition(".")[0]].T) for joint, values in angles.items()}


def limb_rotation(angles: np.ndarray) -> Rotation:
    """Of left upper arms or thighs, from hanging, for (..., 3) angles."""
    return Rotation.from_euler("XYZ", -angles)


def limb_angles(rotation: Rotation) -> np.ndarray:
    """The inverse of ``limb_rotation``."""
    return -rotation.as_euler("XYZ")


def trunk_rotation(angles: np.ndarray) -> Rotation:
    """Of pelvis, spine or neck, for (..., 3) angles."""
    return Rotation.from_euler("ZXY", angles[..., [2, 0, 1]])


def trunk_angles(rotation: Rotation) -> np.ndarray:
    """The inverse of ``trunk_rotation``."""
    return rotation.as_euler("ZXY")[..., [1, 2, 0]]


def to_rotations(angles: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rotations of bones.

    Args:
        angles: joint -> (3,), clipped to ``LIMITS``; joints that are not named stay at 0.

    Returns:
        bone -> (3,) rotation vector as ``Pose.rotations`` has it.

    Raises:
        ValueError: an unknown joint.
    """
    known = [*CHAINS, *(f"{joint}.{side}" for joint in SIDED for side in "LR")]
    unknown = sorted(set(angles) - set(known))
    if unknown:
        raise ValueError(f"no joint {unknown[0]!r}; the joints are {', '.join(known)}")
    complete = clip({joint: angles.get(joint, REST_ANGLES) for joint in known})
    trunk = trunk_rotation(np.stack([complete[joint] for joint in CHAINS]))
    rotations = {}
    for chain, vector in zip(CHAINS.values(), trunk.as_rotvec(), strict=True):
        rotations.update({bone: share * vector for bone, share in chain})
    limbs = {joint: np.stack([complete[f"{joint}.{side}"] for side in "LR"]) for joint in SIDED}
    for bone, (left, right) in {**_arms(limbs), **_legs(limbs)}.items():
        rotations[f"{bone}.L"], rotations[f"{bone}.R"] = left, MIRROR * right
    return rotations


def to_angles(rotations: Mapping[str, np.ndarray]) -> Angles:
    """The inverse of ``to_rotations``, up to the fingers and the shares of chains.

    Args:
        rotations: bone -> (3,) rotation vector, or (N, 3) of N poses.

    Returns:
        joint -> (3,) or (N, 3), for all joints but the fingers.
    """
    angles = {joint: trunk_angles(_product(rotations, [bone for bone, _ in CHAINS[joint]])) for joint in CHAINS}
    for side, mirror in (("L", np.ones(3)), ("R", MIRROR)):
        own = {bone[:-2]: mirror * vector for bone, vector in rotations.items() if bone.endswith(f".{side}")}
        shoulder = _product(own, ["clavicle", "shoulder01", "upperarm01", "upperarm02"])
        pronation = own["lowerarm02"] @ FOREARM / FOREARM_SHARE
        straight = Rotation.from_rotvec((FOREARM_SHARE - 1) * pronation[..., None] * FOREARM)
        wrist = (straight * Rotation.from_rotvec(own["wrist"])).as_rotvec() @ CURL_AXIS
        elbow = REST_ELBOW + own["lowerarm01"] @ ELBOW_AXIS
        knee = REST_KNEE + own["lowerleg01"] @ KNEE_AXIS
        none = np.zeros_like(knee)
        angles[f"shoulder.{side}"] = limb_angles(shoulder * ARM_DOWN.inv())
        angles[f"elbow.{side}"] = np.stack([elbow, none, REST_PRONATION + pronation], axis=-1)
        angles[f"wrist.{side}"] = np.stack([wrist, none, none], axis=-1)
        angles[f"hip.{side}"] = limb_angles(_product(own, ["upperleg01", "upperleg02"]) * LEG_DOWN.inv())
        angles[f"knee.{side}"] = np.stack([knee, none, none], axis=-1)
        angles[f"ankle.{side}"] = limb_angles(_product(own, ["foot"]))
    return angles


def shin_rotation(hip: np.ndarray, knee: float) -> Rotation:
    """Of the left shin from rest, in the frame of the pelvis."""
    return limb_rotation(hip) * LEG_DOWN * Rotation.from_rotvec((knee - REST_KNEE) * KNEE_AXIS)


def two_bones(
    target: np.ndarray, pole: np.ndarray, lengths: tuple[float, float], bend: float
) -> tuple[np.ndarray, float]:
    """Brings the end of a left arm or leg to a point.

    Args:
        target: (3,) wrist from the shoulder, or ankle from the hip, in lengths of the limb; points that are too far
            are approached as far as a nearly straight limb reaches.
        pole: (3,) where the elbow or the knee should point to.
        lengths: shares of the two bones.
        bend: ``ARM_BEND`` or ``LEG_BEND``.

    Returns:
        (3,) angles of the upper joint, and flexion of the lower one.
    """
    upper, lower = lengths
    distance = float(np.clip(np.linalg.norm(target), abs(upper - lower) + 0.15, 0.998 * (upper + lower)))
    along = _unit(target)
    aside = _unit(pole - (pole @ along) * along)
    inner = np.arccos((upper**2 + lower**2 - distance**2) / (2 * upper * lower))
    lift = np.arccos((upper**2 + distance**2 - lower**2) / (2 * upper * distance))
    direction = np.cos(lift) * along + np.sin(lift) * aside
    x = bend * np.cross(aside, along)
    rotation = Rotation.from_matrix(np.stack([x, np.cross(-direction, x), -direction], axis=1))
    return limb_angles(rotation), float(np.pi - inner)


def _arms(limbs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bone -> (2, 3), as for two left arms."""
    curl, wrist, elbow = limbs["fingers"][:, :1], limbs["wrist"][:, :1], limbs["elbow"][:, :1]
    rotation = limb_rotation(limbs["shoulder"])
    _, backwards, upwards = rotation.apply([0, 0, -1]).T  # of the upper arm
    raised = np.arccos(np.clip(-upwards, -1.0, 1.0))
    # The shoulder blade helps from 30 degrees on, about 1 degree of 3 (Inman, Saunders and Abbott 1944), and comes
    # forwards with the arm; of that the collar bone shows about a half.
    lift = -0.17 * np.maximum(raised - np.pi / 6, 0.0)
    girdle = np.stack([np.zeros(2), lift, 0.2 * backwards], axis=1)
    first, second = _shared_twist(Rotation.from_rotvec(-girdle) * rotation * ARM_DOWN, UPPER_ARM)
    turn = (limbs["elbow"][:, 2:] - REST_PRONATION) * FOREARM
    hand = Rotation.from_rotvec((1 - FOREARM_SHARE) * turn) * Rotation.from_rotvec(wrist * CURL_AXIS)
    return {
        "clavicle": girdle,
        "upperarm01": first,
        "upperarm02": second,
        "lowerarm01": (elbow - REST_ELBOW) * ELBOW_AXIS,
        "lowerarm02": FOREARM_SHARE * turn,
        "wrist": hand.as_rotvec(),
        **{bone: curl * CURL_AXIS for bone in FINGERS},
        **{bone: THUMB_SHARE * curl * THUMB_AXIS for bone in THUMB},
    }


def _legs(limbs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bone -> (2, 3), as for two left legs."""
    first, second = _shared_twist(limb_rotation(limbs["hip"]) * LEG_DOWN, THIGH)
    return {
        "upperleg01": first,
        "upperleg02": second,
        "lowerleg01": (limbs["knee"][:, :1] - REST_KNEE) * KNEE_AXIS,
        "foot": limb_rotation(limbs["ankle"]).as_rotvec(),
    }


def _shared_twist(whole: Rotation, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits rotations between two bones so that the second takes half of the twist about ``axis``."""
    quaternions = whole.as_quat(canonical=True)
    half = Rotation.from_rotvec(np.arctan2(quaternions[:, :3] @ axis, quaternions[:, 3])[:, None] * axis)
    return (whole * half.inv()).as_rotvec(), half.as_rotvec()


def _product(rotations: Mapping[str, np.ndarray], bones: list[str]) -> Rotation:
    """Of a chain; bones that are not named are at rest."""
    product = Rotation.identity()
    for bone in bones:
        if bone in rotations:
            product = product * Rotation.from_rotvec(rotations[bone])
    return product
