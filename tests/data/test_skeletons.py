import pytest

from unihap.data.skeletons import COCO_SIGMAS, SKELETONS, mirror_pairs

NUM_KEYPOINTS = {
    "coco": 17, "aic": 14, "posetrack18": 15, "h36m": 17, "mhp": 16, "pennaction": 13, "threedpw": 18, "jrdb": 17,
    "halpe": 20, "mpii": 16, "synth_b": 15,
}  # fmt: skip
# written down by hand from the orders of the datasets, independently of the names
PAIRS = {
    "coco": [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)],
    "aic": [(0, 3), (1, 4), (2, 5), (6, 9), (7, 10), (8, 11)],
    "posetrack18": [(3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14)],
    "h36m": [(1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16)],
    "mhp": [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)],
    "pennaction": [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)],
    "threedpw": [(2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17)],
    "jrdb": [(1, 2), (3, 5), (6, 7), (9, 12), (10, 11), (13, 14), (15, 16)],
    "synth_b": [(0, 5), (1, 4), (2, 3), (9, 14), (10, 13), (11, 12)],
    "halpe": [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)],
}
PAIRS["mpii"] = PAIRS["mhp"]


def test_there_is_a_skeleton_for_every_order():
    assert {name: len(body.names) for name, body in SKELETONS.items()} == NUM_KEYPOINTS


@pytest.mark.parametrize("name", SKELETONS)
def test_skeleton_is_whole(name):
    body = SKELETONS[name]
    assert len(set(body.names)) == len(body.names) == len(body.sigmas)
    assert list(body.mirror) == PAIRS[name]
    for a, b in body.mirror:
        assert {body.names[a].split("_")[0], body.names[b].split("_")[0]} == {"left", "right"}
        assert body.names[a].split("_", 1)[1] == body.names[b].split("_", 1)[1]
    paired = {i for pair in body.mirror for i in pair}
    assert not [n for i, n in enumerate(body.names) if i not in paired and n.startswith(("left_", "right_"))]


@pytest.mark.parametrize("name", SKELETONS)
def test_upper_body_holds_both_sides_and_no_leg(name):
    body = SKELETONS[name]
    upper = set(body.upper_body)
    assert all((a in upper) == (b in upper) for a, b in body.mirror)
    names = [body.names[i] for i in upper]
    assert {"left_elbow", "right_wrist", "left_shoulder"} <= set(names)
    assert not [n for n in names if n.endswith(("knee", "ankle", "foot"))]
    assert {"left_knee", "right_knee"} <= set(body.names) - set(names)


def test_coco_constants_are_the_published_ones():
    assert SKELETONS["coco"].sigmas == (
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
        0.089, 0.089,
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SKELETONS if name != "aic"])
def test_keypoints_that_coco_has_use_its_constants(name):
    for keypoint, sigma in zip(SKELETONS[name].names, SKELETONS[name].sigmas, strict=True):
        kind = keypoint.split("_", 1)[-1]
        if kind in COCO_SIGMAS and keypoint.startswith(("left_", "right_")):
            assert sigma == COCO_SIGMAS[kind]


def test_pairs_follow_from_names_alone():
    assert mirror_pairs(["right_arm", "head", "left_arm", "left_out", "scarf"]) == ((0, 2),)
