"""Keypoints of the pose datasets: names, left and right, upper body, OKS constants.

Left and right pairs follow from the names, so that they cannot contradict them.  UniHCP's release took COCO's
pairs for Human3.6M and OpenPose's for JRDB, which do not fit the order of those keypoints, and left 7 and 14 out of
the upper body of 3DPW (it wrote 714); the values here are the right ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# COCO's constants (cocodataset.org, keypoint evaluation); the others copy those of the nearest COCO keypoint where
# their dataset has published none, so that OKS has comparable strictness.
COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
# half of the deltas in AI Challenger's own Evaluation/keypoint_eval/keypoint_eval.py
AIC_SIGMAS = (
    0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642,
    0.03686941, 0.01981803, 0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173,
)  # fmt: skip
NEAREST_COCO = {
    "head": "ear",
    "head_top": "ear",
    "head_bottom": "shoulder",
    "neck": "shoulder",
    "upper_neck": "shoulder",
    "neck_base": "shoulder",
    "thorax": "shoulder",
    "center_shoulder": "shoulder",
    "spine": "hip",
    "pelvis": "hip",
    "root": "hip",
    "center_hip": "hip",
    "foot": "ankle",
}


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of a dataset, in query order.

    Attributes:
        names: ``left_`` and ``right_`` are the person's own sides.
        mirror: pairs of keypoint numbers that a horizontal flip exchanges.
        upper_body: numbers of the upper body; all others are the lower body.
        sigmas: OKS constant of every keypoint (COCO's ``k_i / 2``).
    """

    names: tuple[str, ...]
    mirror: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    sigmas: tuple[float, ...]


def mirror_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of positions whose names differ only in ``left_`` and ``right_``, smaller number first."""
    position = {name: i for i, name in enumerate(names)}
    pairs = []
    for name, i in position.items():
        partner = position.get("right_" + name.removeprefix("left_")) if name.startswith("left_") else None
        if partner is not None:
            pairs.append((min(i, partner), max(i, partner)))
    return tuple(sorted(pairs))


def _skeleton(names: str, upper_body: Sequence[int], sigmas: Sequence[float] = ()) -> Skeleton:
    order = tuple(names.split())
    if not sigmas:
        kinds = [name.removeprefix("left_").removeprefix("right_") for name in order]
        sigmas = [COCO_SIGMAS[NEAREST_COCO.get(kind, kind)] for kind in kinds]
    assert len(sigmas) == len(order)
    return Skeleton(order, mirror_pairs(order), tuple(upper_body), tuple(sigmas))


_COCO_NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)

SKELETONS: dict[str, Skeleton] = {
    "coco": _skeleton(_COCO_NAMES, range(11)),  # also OCHuman
    "aic": _skeleton(
        "right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee right_ankle "
        "left_hip left_knee left_ankle head_top neck",
        (0, 1, 2, 3, 4, 5, 12, 13),
        AIC_SIGMAS,
    ),
    # without the ears (3 and 4 of the file), which nobody labelled
    "posetrack18": _skeleton(
        "nose head_bottom head_top left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
        "left_hip right_hip left_knee right_knee left_ankle right_ankle",
        range(9),
    ),
    "h36m": _skeleton(
        "root right_hip right_knee right_foot left_hip left_knee left_foot spine thorax neck_base head "
        "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist",
        range(7, 17),
    ),
    # the order of MPII
    "mhp": _skeleton(
        "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck head_top "
        "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
        range(7, 16),
    ),
    "pennaction": _skeleton(
        "head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
        "left_hip right_hip left_knee right_knee left_ankle right_ankle",
        range(9),  # with the hips, as the release has it
    ),
    # the OpenPose order
    "threedpw": _skeleton(
        "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
        "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear",
        (*range(8), *range(14, 18)),
    ),
    # the order of the official JRDB-Pose files
    "jrdb": _skeleton(
        "head right_eye left_eye right_shoulder center_shoulder left_shoulder right_elbow left_elbow center_hip "
        "right_wrist right_hip left_hip left_wrist right_knee left_knee right_foot left_foot",
        (0, 1, 2, 3, 4, 5, 6, 7, 9, 12),
    ),
    # the body keypoints, which are the first 20 of Halpe's 136; constants of its own evaluation code
    "halpe": _skeleton(
        f"{_COCO_NAMES} head neck hip",
        (*range(11), 17, 18),
        (*(COCO_SIGMAS[n.removeprefix("left_").removeprefix("right_")] for n in _COCO_NAMES.split()), 0.08, 0.08, 0.08),
    ),
    # of the rendered people of domain b: MPII's order as far as COCO's keypoints and the middles of two give it
    "synth_b": _skeleton(
        "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis neck nose "
        "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
        range(7, 15),
    ),
}
SKELETONS["mpii"] = SKELETONS["mhp"]
