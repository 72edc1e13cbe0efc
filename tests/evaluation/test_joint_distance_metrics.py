import math

import numpy as np
import pytest

from unihap.evaluation.pose import end_point_error, pck, pckh


def mpii(moved: dict[int, float], hidden: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """One person with a head of 10 pixels; ``moved`` gives the error of some joints, in pixels."""
    truth = np.arange(32, dtype=float).reshape(1, 16, 2) * 7
    predicted = truth.copy()
    for joint, distance in moved.items():
        predicted[0, joint] += (0.6 * distance, 0.8 * distance)
    visible = np.ones((1, 16))
    visible[0, list(hidden)] = 0
    return predicted, truth, visible, np.array([10.0])


def test_perfect_joints_score_100_and_lost_ones_0():
    assert set(pckh(*mpii({})).values()) == {100.0}
    assert set(pckh(*mpii(dict.fromkeys(range(16), 99.0))).values()) == {0.0}


def test_hand_computed_parts():
    # right ankle half a head off (found), left ankle more, head top a tenth of a head (found at 0.1), one wrist lost
    result = pckh(*mpii({0: 4.99, 5: 5.01, 9: 0.99, 10: 30}))
    assert (result["Ankle"], result["Wrist"], result["Head"], result["Knee"]) == (50, 50, 100, 100)
    assert result["PCKh"] == pytest.approx(100 * 12 / 14)
    assert result["PCKh@0.1"] == pytest.approx(100 * 11 / 14)


def test_a_distance_equal_to_the_threshold_is_found():
    predicted, truth, visible, size = mpii({})
    predicted[0, 9, 0] += 5
    assert pckh(predicted, truth, visible, size)["Head"] == 100
    assert pckh(predicted, truth, visible, size, threshold=0.4)["Head"] == 0


def test_pelvis_and_thorax_are_left_out_and_the_neck_counts_in_the_mean_alone():
    assert pckh(*mpii({6: 99, 7: 99})) == pckh(*mpii({}))
    result = pckh(*mpii({8: 99}))
    assert result["PCKh"] == pytest.approx(100 * 13 / 14)
    assert result["Head"] == 100


def test_invisible_joints_do_not_count():
    result = pckh(*mpii({0: 99, 9: 99, 13: 99}, hidden=(0, 9)))
    assert result["PCKh"] == pytest.approx(100 * 11 / 12)
    assert result["Ankle"] == 100  # the left one alone
    assert math.isnan(result["Head"])


def test_people_are_measured_by_their_own_heads_in_any_order():
    sizes, moved = np.array([10.0, 20.0]), mpii(dict.fromkeys(range(16), 8.0))
    two = [np.repeat(part, 2, axis=0) for part in moved[:3]]
    assert pckh(*two, sizes)["PCKh"] == 50
    assert pckh(*(part[::-1] for part in two), sizes[::-1])["PCKh"] == 50


def test_end_point_error_is_the_mean_over_visible_joints():
    predicted, truth, visible, _ = mpii({0: 3, 1: 5, 2: 77}, hidden=tuple(range(2, 16)))
    assert end_point_error(predicted, truth, visible) == pytest.approx(4)
    assert end_point_error(truth, truth, visible) == 0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.zeros((1, 15, 2)), r"predicted \(1, 15, 2\), truth \(1, 16, 2\)"),
        (0, np.full((1, 16, 2), np.nan), r"predicted joints hold nan at \(0, 0, 0\)"),
        (2, np.zeros((1, 15)), r"visible flags have shape \(1, 15\)"),
        (2, np.zeros((1, 16)), "none of"),
        (3, np.array([0.0]), "head size 0.0 of person 0"),
        (3, np.array([1.0, 2.0]), "2 head sizes for 1 people"),
        (3, np.array([np.nan]), "head sizes hold nan"),
    ],
)
def test_impossible_joints_are_refused(place, value, message):
    arguments = list(mpii({}))
    arguments[place] = value
    with pytest.raises(ValueError, match=message):
        pckh(*arguments)
    if place < 3:
        with pytest.raises(ValueError, match=message):
            end_point_error(*arguments[:3])


def test_other_skeletons_have_no_pckh():
    with pytest.raises(ValueError, match="17 joints"):
        pckh(np.zeros((1, 17, 2)), np.zeros((1, 17, 2)), np.ones((1, 17)), np.ones(1))


def test_pck_counts_keypoints_within_a_fifth_of_the_torso():
    # left shoulder (0, 0), right hip (30, 40): a torso of 50 pixels, so that 10 pixels are found and 10.1 are not
    truth = np.array([[[0.0, 0], [30, 40], [100, 100], [200, 200]]])
    predicted = truth + np.array([[[0.0, 0], [6, 8], [10.1, 0], [500, 0]]])
    visible = np.array([[1, 1, 1, 0]])
    assert pck(predicted, truth, visible, (0, 1)) == pytest.approx(200 / 3)
    assert pck(predicted, truth, visible, (0, 1), threshold=0.1) == pytest.approx(100 / 3)


def test_pck_leaves_out_people_without_a_torso():
    truth = np.array([[[0.0, 0], [30, 40], [9, 9]], [[0, 0], [30, 40], [9, 9]], [[5, 5], [5, 5], [9, 9]]])
    predicted = truth.copy()
    predicted[1:] += 1000
    visible = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1]])  # no shoulder; shoulder and hip at one point
    assert pck(predicted, truth, visible, (0, 1)) == 100
    assert math.isnan(pck(predicted[1:], truth[1:], visible[1:], (0, 1)))
