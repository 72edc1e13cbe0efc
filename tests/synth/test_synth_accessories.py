from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from unihap.synth.accessories import HATS, handbag_side, held_objects, worn_shells
from unihap.synth.body import Body
from unihap.synth.hair import Skull
from unihap.synth.poses import sample_pose
from unihap.synth.structures import BAG, LIP, Garment, Material, Outfit

CLOTH = Material((0.5, 0.1, 0.1))
PLAIN = Outfit(0, Garment("t_shirt", CLOTH), Garment("shoes", CLOTH), Garment("trousers", CLOTH))
SHAPES = [
    {"gender": gender, "age": age, "muscle": 0.5, "weight": weight, "height": 0.43, "proportions": 0.5}
    for gender, age, weight in ((0.0, 0.66, 0.5), (1.0, 0.33, 0.4), (1.0, 1.0, 0.9))
]


@pytest.fixture(params=range(len(SHAPES)), ids=["man", "girl", "heavy old woman"])
def rest(body: Body, request):
    return body.rest(SHAPES[request.param])


def bounds(shell) -> tuple[np.ndarray, np.ndarray]:
    return shell.vertices.min(axis=0), shell.vertices.max(axis=0)


def test_nothing_worn_gives_nothing(body: Body, rest):
    assert worn_shells(body, rest, PLAIN) == []


@pytest.mark.parametrize("number", range(len(HATS)))
def test_a_hat_sits_on_the_head_above_the_eyes(body: Body, rest, number: int):
    skull = Skull(body, rest)
    shells = worn_shells(body, rest, replace(PLAIN, number=number, hat=CLOTH))
    place = skull.of(np.concatenate([shell.vertices for shell in shells]))
    assert all(shell.part == LIP["hat"] for shell in shells)
    assert place[:, 2].min() > 0
    assert 1 < place[:, 2].max() < 1.6
    assert np.abs(place[:, 0]).max() < 1.5


def test_glasses_are_in_front_of_the_eyes(body: Body, rest):
    (glasses,) = worn_shells(body, rest, replace(PLAIN, glasses=CLOTH))
    assert glasses.part == LIP["sunglasses"]
    eyes = (rest.heads[body.bone("eye.L")] + rest.heads[body.bone("eye.R")]) / 2
    low, high = bounds(glasses)
    assert low[1] < eyes[1]
    assert np.abs(np.array([low[2], high[2]]) - eyes[2]).max() < 0.03
    assert np.isclose(low[0], -high[0], atol=0.004)


def test_a_backpack_is_on_the_back_with_straps_over_the_front(body: Body, rest):
    pack, *straps = worn_shells(body, rest, replace(PLAIN, backpack=CLOTH))
    assert len(straps) == 2
    assert all(shell.part == BAG for shell in (pack, *straps))
    spine = rest.heads[body.bone("spine02")]
    assert pack.vertices[:, 1].min() > spine[1]
    # the straps are outside of the chest's skin
    torso = np.unique(body.faces[body.segment_of_face == "torso"])
    tree = cKDTree(rest.vertices[torso])
    for strap in straps:
        assert strap.vertices[:, 1].min() < rest.heads[body.bone("spine01")][1] - 0.05
        distance = tree.query(strap.vertices)[0]
        assert distance.min() > 0.01
        assert distance.max() < 0.16


def test_a_shoulder_bag_hangs_at_one_hip(body: Body, rest):
    sides = []
    for number in (0, 1):
        bag, strap = worn_shells(body, rest, replace(PLAIN, number=number, shoulder_bag=CLOTH))
        assert bag.part == strap.part == BAG
        hip = rest.heads[body.bone("upperleg01.L")]
        assert abs(bag.vertices[:, 2].mean() - hip[2]) < 0.1
        assert np.abs(bag.vertices[:, 0]).min() > hip[0]
        sides.append(np.sign(bag.vertices[:, 0].mean()))
        # over the other shoulder
        assert np.sign(strap.vertices[strap.vertices[:, 2].argmax(), 0]) == -sides[-1]
    assert sides == [-1, 1]


def test_everything_worn_follows_bones(body: Body, rest):
    outfit = replace(PLAIN, hat=CLOTH, glasses=CLOTH, backpack=CLOTH, shoulder_bag=CLOTH)
    for shell in worn_shells(body, rest, outfit):
        np.testing.assert_allclose(shell.weights.sum(axis=1), 1, atol=1e-5)
        assert shell.weights.shape == (len(shell.vertices), len(body.bones))
        assert 0 <= shell.faces.min() <= shell.faces.max() < len(shell.vertices)


@pytest.mark.parametrize("number", [0, 1])
def test_a_handbag_hangs_below_the_hand(body: Body, rest, number: int):
    outfit = replace(PLAIN, number=number, handbag=CLOTH)
    side = handbag_side(outfit)
    pose = sample_pose(np.random.default_rng(1), "stand", side, None)
    posed = body.pose(rest, pose.rotations)
    bag, *handle = held_objects(body, rest, posed, outfit, pose)
    hand = posed.vertices[np.unique(body.faces[body.segment_of_face == f"{side}_hand"])]
    assert bag.vertices[:, 2].max() < hand[:, 2].mean()
    assert np.linalg.norm(bag.vertices[:, :2].mean(axis=0) - hand[:, :2].mean(axis=0)) < 0.12
    assert len(handle) == 2
    tree = cKDTree(hand)
    assert all(tree.query(rod.vertices)[0].min() < 0.05 for rod in handle)


def test_a_parcel_is_between_the_hands(body: Body, rest):
    pose = sample_pose(np.random.default_rng(2), "carry", None, CLOTH)
    posed = body.pose(rest, pose.rotations)
    (parcel,) = held_objects(body, rest, posed, PLAIN, pose)
    hands = [
        posed.vertices[np.unique(body.faces[body.segment_of_face == f"{side}_hand"])].mean(axis=0)
        for side in ("left", "right")
    ]
    assert np.linalg.norm(parcel.vertices.mean(axis=0) - np.mean(hands, axis=0)) < 0.12
    assert parcel.part == BAG


def test_straps_are_as_thick_as_cloth_and_face_outwards(body: Body, rest):
    for number in (0, 1):
        shells = worn_shells(body, rest, replace(PLAIN, number=number, backpack=CLOTH, shoulder_bag=CLOTH))
        straps = shells[1:3] + shells[4:]
        assert len(straps) == 3
        for strap in straps:
            a, b, c = strap.vertices[strap.faces].astype(np.float64).transpose(1, 0, 2)
            volume = (a * np.cross(b, c)).sum() / 6
            assert volume > 0.00015  # cubic metres: half a metre of a strap 4 by 1 centimetres, less for a child
            edges = np.sort(np.concatenate([strap.faces[:, [0, 1]], strap.faces[:, [1, 2]], strap.faces[:, [2, 0]]]))
            assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # closed
