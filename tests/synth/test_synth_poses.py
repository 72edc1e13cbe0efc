import numpy as np
import pytest

from unihap.data.skeletons import SKELETONS
from unihap.synth import joints
from unihap.synth.body import Body, Posed, RestBody
from unihap.synth.joints import LIMITS, to_angles, to_rotations
from unihap.synth.poses import ACTIVITIES, mirrored, sample_pose, seat_height
from unihap.synth.structures import Material, Pose

NAMES = SKELETONS["coco"].names
ADULT = {"gender": 0.5, "age": 2 / 3, "muscle": 0.5, "weight": 0.5, "height": 0.42, "proportions": 0.5}
CHILD = {**ADULT, "age": 1 / 3}
WOOD = Material((0.4, 0.2, 0.1))


@pytest.fixture(scope="session", params=[ADULT, CHILD], ids=["adult", "child"])
def rest(request: pytest.FixtureRequest, body: Body) -> RestBody:
    return body.rest(request.param)


def poses(activity: str, count: int, **kwargs: object) -> list[Pose]:
    rng = np.random.default_rng(3)
    return [sample_pose(rng, activity, **kwargs) for _ in range(count)]


def point(posed: Posed, name: str) -> np.ndarray:
    return posed.keypoints[NAMES.index(name)]


def test_the_activities_are_these():
    assert sorted(ACTIVITIES) == ["carry", "random", "reach", "run", "sit", "stand", "walk"]


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_the_same_seed_gives_the_same_pose(activity):
    first, again, other = (sample_pose(np.random.default_rng(seed), activity) for seed in (5, 5, 6))
    assert first.activity == activity
    assert list(first.rotations) == list(again.rotations)
    assert all(np.array_equal(first.rotations[bone], again.rotations[bone]) for bone in first.rotations)
    assert any(not np.array_equal(first.rotations[bone], other.rotations[bone]) for bone in first.rotations)


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_joints_stay_within_their_limits(activity):
    drawn = poses(activity, 100)
    angles = to_angles({bone: np.stack([pose.rotations[bone] for pose in drawn]) for bone in drawn[0].rotations})
    assert len(angles) == 3 + 2 * 6
    for joint, values in angles.items():
        low, high = LIMITS[joint.partition(".")[0]].T
        assert (values >= low - 1e-6).all(), joint
        assert (values <= high + 1e-6).all(), joint


def test_fingers_only_curl_towards_the_palm():
    for pose in poses("random", 30):
        for side, mirror in (("L", 1), ("R", joints.MIRROR)):
            curl = (mirror * pose.rotations[f"finger2-1.{side}"]) @ joints.CURL_AXIS
            assert LIMITS["fingers"][0, 0] <= curl <= LIMITS["fingers"][0, 1]


def test_angles_return_from_rotations():
    rng = np.random.default_rng(0)
    names = [*joints.CHAINS, *(f"{joint}.{side}" for joint in joints.SIDED for side in "LR")]
    for _ in range(20):
        angles = {name: rng.uniform(*LIMITS[name.partition(".")[0]].T) for name in names}
        back = to_angles(to_rotations(angles))
        for name, values in back.items():
            np.testing.assert_allclose(values, angles[name], atol=1e-6, err_msg=name)


def test_angles_beyond_a_limit_are_clipped():
    back = to_angles(to_rotations({"knee.L": np.array([-1.0, 0, 0]), "elbow.R": np.array([4.0, 0, 0])}))
    assert back["knee.L"][0] == pytest.approx(0)
    assert back["elbow.R"][0] == pytest.approx(np.radians(145))


def test_an_unknown_joint_is_refused():
    with pytest.raises(ValueError, match=r"no joint 'elbow'; the joints are .*elbow\.L"):
        to_rotations({"elbow": np.zeros(3)})


def test_two_bones_reach_their_target_with_the_elbow_towards_the_pole():
    target, pole = np.array([0.2, -0.5, -0.4]), np.array([1.0, 0.2, -0.5])
    angles, bent = joints.two_bones(target, pole, joints.ARM, joints.ARM_BEND)
    upper = joints.limb_rotation(angles)
    elbow = upper.apply([0, 0, -joints.ARM[0]])
    wrist = elbow + joints.ARM[1] * upper.apply([0, -np.sin(bent), -np.cos(bent)])
    np.testing.assert_allclose(wrist, target, atol=1e-9)
    aside = elbow - (elbow @ target) / (target @ target) * target
    across = pole - (pole @ target) / (target @ target) * target
    assert aside @ across == pytest.approx(np.linalg.norm(aside) * np.linalg.norm(across))


def test_angles_mean_what_anatomy_says(body, rest):
    """Each line is one joint, and where a point of the body must go, as (point, axis, sign) of the change."""
    for joint, angles, name, axis, sign in (
        ("shoulder.L", (1, 0, 0), "left_wrist", 1, -1),
        ("shoulder.R", (0, 1, 0), "right_wrist", 0, -1),
        ("elbow.R", (1, 0, 0), "right_wrist", 1, -1),
        ("hip.L", (1, 0, 0), "left_knee", 1, -1),
        ("hip.L", (0, 0.5, 0), "left_ankle", 0, 1),
        ("knee.R", (1, 0, 0), "right_ankle", 1, 1),
        ("spine", (0.5, 0, 0), "nose", 1, -1),
        ("spine", (0, 0.4, 0), "nose", 0, 1),
        ("neck", (0, 0, 0.8), "nose", 0, 1),
        ("neck", (0.4, 0, 0), "nose", 2, -1),
        ("pelvis", (0, 0, 0.3), "nose", 0, 1),
    ):
        still = point(body.pose(rest, to_rotations({})), name)
        moved = point(body.pose(rest, to_rotations({joint: np.array(angles, dtype=float)})), name)
        assert sign * (moved - still)[axis] > 0.01, joint


def test_shoulders_follow_a_raised_arm(body, rest):
    still = point(body.pose(rest, to_rotations({})), "left_shoulder")
    aside, forwards = (
        point(body.pose(rest, to_rotations({"shoulder.L": np.array(angles)})), "left_shoulder") - still
        for angles in ((0.0, 1.5, 0.0), (1.5, 0.0, 0.0))
    )
    assert aside[2] > 0.01
    assert forwards[1] < -0.01


def test_hanging_arms_and_straight_legs_are_vertical(body, rest):
    posed = body.pose(rest, to_rotations({}))
    for side in ("left", "right"):
        for top, bottom in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "ankle")):
            limb = point(posed, f"{side}_{bottom}") - point(posed, f"{side}_{top}")
            assert -limb[2] / np.linalg.norm(limb) > np.cos(np.radians(12))


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_mirroring_twice_changes_nothing(activity):
    pose = poses(activity, 1, carried=WOOD)[0]
    twice = mirrored(mirrored(pose))
    assert twice.activity == activity
    assert twice.carried is WOOD
    assert set(twice.rotations) == set(pose.rotations)
    assert all(np.array_equal(twice.rotations[bone], pose.rotations[bone]) for bone in pose.rotations)


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_a_mirrored_pose_has_mirrored_keypoints(body, rest, activity):
    for pose in poses(activity, 3):
        seen = body.pose(rest, pose.rotations).keypoints * (-1, 1, 1)
        for left, right in SKELETONS["coco"].mirror:
            seen[[left, right]] = seen[[right, left]]
        np.testing.assert_allclose(body.pose(rest, mirrored(pose).rotations).keypoints, seen, atol=0.01)


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_knees_and_elbows_never_bend_the_wrong_way(body, rest, activity):
    """The axis of the bend, seen from thigh or upper arm, is that of the rest pose, where both are slightly bent."""
    for pose in poses(activity, 8):
        posed = body.pose(rest, pose.rotations)
        for side, letter in (("left", "L"), ("right", "R")):
            for bone, axis, chain in (
                ("upperleg02", joints.KNEE_AXIS, ("hip", "knee", "ankle")),
                ("upperarm02", joints.ELBOW_AXIS, ("shoulder", "elbow", "wrist")),
            ):
                top, middle, end = (point(posed, f"{side}_{joint}") for joint in chain)
                turn = posed.transforms[body.bone(f"{bone}.{letter}"), :3, :3]
                bend = np.cross(middle - top, end - middle) @ turn
                bend /= np.linalg.norm(middle - top) * np.linalg.norm(end - middle)
                assert bend @ (axis if letter == "L" else joints.MIRROR * axis) > -0.1, (chain, side)


def test_bones_are_those_of_the_body(body):
    for activity in ACTIVITIES:
        assert set(poses(activity, 1)[0].rotations) <= set(body.bones)


def test_arms_swing_against_the_legs(body, rest):
    against, strides = 0, 0
    for activity in ("walk", "run"):
        for pose in poses(activity, 25):
            posed = body.pose(rest, pose.rotations)
            leg, arm = (
                point(posed, f"left_{joint}")[1] - point(posed, f"right_{joint}")[1] for joint in ("ankle", "wrist")
            )
            if abs(leg) > 0.2 * rest.height:
                strides += 1
                against += leg * arm < 0
    assert strides >= 15
    assert against >= 0.8 * strides  # some hold a phone


def test_somebody_who_sits_has_level_thighs_over_a_seat(body, rest):
    for pose in poses("sit", 15):
        posed = body.pose(rest, pose.rotations)
        hips, knees, ankles = (
            np.array([point(posed, f"{side}_{joint}")[2] for side in ("left", "right")])
            for joint in ("hip", "knee", "ankle")
        )
        assert np.abs(hips - knees).max() < 0.07 * rest.height
        assert (knees - ankles > 0.18 * rest.height).all()
        assert abs(np.diff(ankles)[0]) < 0.03 * rest.height
        assert knees.min() - 0.12 * rest.height < seat_height(posed.keypoints) < hips.min() - 0.03 * rest.height


@pytest.mark.parametrize("activity", ["stand", "reach", "carry"])
def test_both_feet_are_on_the_ground_under_the_body(body, rest, activity):
    feet = {side: np.unique(body.faces[body.segment_of_face == f"{side}_foot"]) for side in ("left", "right")}
    used = np.unique(body.faces)
    for pose in poses(activity, 8):
        vertices = body.pose(rest, pose.rotations).vertices
        lowest = [vertices[corners, 2].min() for corners in feet.values()]
        assert abs(lowest[0] - lowest[1]) < 0.02
        soles = np.concatenate([vertices[corners] for corners in feet.values()])[:, :2]
        middle = vertices[used].mean(axis=0)[:2]
        assert (soles.min(axis=0) < middle).all()
        assert (middle < soles.max(axis=0)).all()


def test_somebody_who_reaches_stretches_one_arm_forwards_or_up(body, rest):
    for pose in poses("reach", 10):
        posed = body.pose(rest, pose.rotations)
        arms = [point(posed, f"{side}_wrist") - point(posed, f"{side}_shoulder") for side in ("left", "right")]
        far = max(arms, key=lambda arm: arm[2])
        assert np.linalg.norm(far) > 0.24 * rest.height
        assert far[2] > 0 or far[1] < -0.1 * rest.height


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_an_object_is_held_in_front_with_both_hands(body, rest, activity):
    for pose in poses(activity, 4, carried=WOOD):
        assert pose.carried is WOOD
        posed = body.pose(rest, pose.rotations)
        chest = posed.transforms[body.bone("spine01"), :3, :3]
        left, right = (point(posed, f"{side}_wrist") for side in ("left", "right"))
        shoulders = (point(posed, "left_shoulder") + point(posed, "right_shoulder")) / 2
        middle, apart = ((left + right) / 2 - shoulders) @ chest / rest.height, (left - right) @ chest / rest.height
        assert abs(middle[0]) < 0.04
        assert -0.30 < middle[1] < -0.10
        assert -0.28 < middle[2] < -0.05
        assert 0.09 < apart[0] < 0.25
        assert np.abs(apart[1:]).max() < 0.03


@pytest.mark.parametrize("hand", ["left", "right"])
def test_the_arm_with_a_bag_hangs_at_its_side(body, rest, hand):
    for activity in ("stand", "walk", "run", "reach", "random"):
        for pose in poses(activity, 3, holds_bag=hand):
            posed = body.pose(rest, pose.rotations)
            chest = posed.transforms[body.bone("spine01"), :3, :3]
            arm = (point(posed, f"{hand}_wrist") - point(posed, f"{hand}_shoulder")) @ chest
            assert -arm[2] / np.linalg.norm(arm) > np.cos(np.radians(35)), activity


@pytest.mark.parametrize("activity", sorted(set(ACTIVITIES) - {"carry"}))
def test_a_bag_in_the_hand_hangs_clear_of_the_ground(body, rest, activity):
    for pose in poses(activity, 5, holds_bag="left"):
        posed = body.pose(rest, pose.rotations)
        assert point(posed, "left_wrist")[2] - posed.vertices[:, 2].min() > 0.26 * rest.height


def test_wrong_requests_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown activity 'fly'"):
        sample_pose(rng, "fly")
    with pytest.raises(ValueError, match="unknown hand 'top'"):
        sample_pose(rng, "walk", holds_bag="top")
    with pytest.raises(ValueError, match="takes both hands"):
        sample_pose(rng, "walk", holds_bag="left", carried=WOOD)
    with pytest.raises(ValueError, match="takes both hands"):
        sample_pose(rng, "carry", holds_bag="left")
