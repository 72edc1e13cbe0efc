import numpy as np
import pytest

from unihap.data.crops import crop_matrix, pose_transform
from unihap.data.geometry import flip_matrix, is_mirrored, transform_points
from unihap.structures import PoseLabel

SIZE = (256, 192)
STILL = {"flip": 0.0, "half_body": 0.0, "scale": 0.0, "rotate_probability": 0.0, "shift_probability": 0.0}
IMAGE = np.zeros((400, 300, 3), np.uint8)


def person(box=(50, 60, 150, 260), keypoints=None, **others):
    if keypoints is None:
        keypoints = np.random.default_rng(0).uniform(60, 140, (17, 3))
        keypoints[:, 2] = 1
    return PoseLabel(np.asarray(keypoints, float), np.array(box, float), image_id=3, **others)


def crop(label, seed=0, train=True, size=SIZE, mirror=((1, 2),), upper_body=tuple(range(11)), **changes):
    transform = pose_transform(size, mirror=mirror, upper_body=upper_body, train=train, **(STILL | changes))
    return transform(IMAGE, label, np.random.default_rng(seed))


def test_crop_matrix_by_hand():
    # height 204 x 1.25 = 255 = H - 1, so y is not scaled; the width is set by the aspect: 255 x 192 / 256 = 191.25
    matrix = crop(person(box=(100, 50, 200, 254)), train=False).matrix
    scale = 191 / 191.25
    np.testing.assert_allclose(matrix, [[scale, 0, 95.5 - 150 * scale], [0, 1, 127.5 - 152]], atol=1e-9)


def test_a_wide_box_is_made_higher():
    # width 200 x 1.25 = 250 goes to 191 steps; height 250 x 256 / 192 = 333.3 to 255
    matrix = crop(person(box=(0, 0, 200, 10)), train=False).matrix
    assert matrix[0, 0] == pytest.approx(191 / 250)
    assert matrix[1, 1] == pytest.approx(255 / (1000 / 3))


def test_rotation_turns_the_content_clockwise_about_the_centre():
    matrix = crop_matrix(np.array([10.0, 20.0]), np.array([191.0, 255.0]), 90, SIZE)
    moved = transform_points(matrix, np.array([[10.0, 20.0], [11.0, 20.0], [10.0, 21.0]]))
    np.testing.assert_allclose(moved, [[95.5, 127.5], [95.5, 128.5], [94.5, 127.5]], atol=1e-9)


def test_rotated_scaled_points_by_hand():
    # half size, 30 degrees: (2, 0) from the centre goes to (cos 30, sin 30)
    matrix = crop_matrix(np.array([0.0, 0.0]), np.array([382.0, 510.0]), 30, SIZE)
    np.testing.assert_allclose(
        transform_points(matrix, np.array([2.0, 0.0])), [95.5 + np.sqrt(3) / 2, 127.5 + 0.5], atol=1e-9
    )


def test_keypoints_go_where_the_matrix_says_and_keep_their_flag():
    keypoints = [[70, 80, 1], [-500, 80, 1], [0, 0, 0]]  # inside, outside the crop, not labelled
    label = person(keypoints=keypoints)
    result = crop(label, mirror=(), scale=0.5, rotate_probability=1.0)
    np.testing.assert_array_equal(result.label.keypoints[:, 2], [1, 1, 0])
    np.testing.assert_allclose(
        result.label.keypoints[:, :2], transform_points(result.matrix, label.keypoints[:, :2]), atol=1e-9
    )
    assert result.label.keypoints[1, 0] < 0
    np.testing.assert_array_equal(label.keypoints, keypoints)  # the record is left alone


def test_a_flip_mirrors_the_crop_and_exchanges_left_and_right():
    keypoints = [[70, 80, 1], [90, 100, 1], [110, 120, 0]]
    still, flipped = crop(person(keypoints=keypoints)), crop(person(keypoints=keypoints), flip=1.0)
    assert is_mirrored(flipped.matrix)
    np.testing.assert_allclose(flipped.label.keypoints[:, 2], [1, 0, 1])
    expected = transform_points(flip_matrix(192), still.label.keypoints[[0, 2, 1], :2])
    np.testing.assert_allclose(flipped.label.keypoints[:, :2], expected, atol=1e-9)


def test_lengths_and_areas_follow_the_scale():
    result = crop(person(box=(100, 50, 200, 254), area=1000.0, head_size=10.0), train=False, size=(511, 383))
    # twice the size in y (510 / 255), 382 / (255 x 383 / 511) in x
    scale = 2 * 382 / (255 * 383 / 511)
    assert result.label.area == pytest.approx(1000 * scale)
    assert result.label.head_size == pytest.approx(10 * np.sqrt(scale))
    assert result.label.box[3] - result.label.box[1] == pytest.approx(2 * 204)


def test_a_box_partly_outside_the_image_is_black_there():
    transform = pose_transform(SIZE, mirror=(), upper_body=(), train=False)
    white = np.full((100, 100, 3), 255, np.uint8)
    result = transform(white, person(box=(-60, 10, 40, 90)), np.random.default_rng(0))
    edge = transform_points(result.matrix, np.array([-0.5, 50.0]))[0]
    columns = result.image[128, :, 0]
    assert (columns[: int(edge) - 1] == 0).all()
    assert (columns[int(edge) + 2 : int(edge) + 40] == 255).all()


@pytest.mark.parametrize("box", [(10, 10, 10, 50), (10, 50, 40, 50), (40, 10, 10, 50), (0, 0, np.nan, 5)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match=r"person box .* has no area"):
        crop(person(box=box))


def centres(label, **changes):
    """Source positions that come to the middle of the crop, for many seeds."""
    middle = np.array([95.5, 127.5])
    found = []
    for seed in range(200):
        matrix = crop(label, seed=seed, **changes).matrix
        found.append(np.linalg.solve(matrix[:, :2], middle - matrix[:, 2]))
    return np.array(found)


def test_boxes_are_shifted_anew_at_every_visit():
    offsets = (centres(person(), shift_probability=0.3) - [100, 160]) / [100, 200]
    moved = np.abs(offsets).max(axis=1) > 1e-9
    assert 40 < moved.sum() < 80
    assert 0.18 < np.abs(offsets).max() <= 0.2
    assert len(np.unique(offsets[moved].round(9), axis=0)) == moved.sum()


def test_half_bodies_are_upper_and_lower_in_equal_parts():
    keypoints = np.ones((12, 3))
    keypoints[:6, :2] = np.array([[60, 70], [140, 70], [60, 100], [140, 100], [80, 85], [120, 85]])
    keypoints[6:, :2] = np.array([[70, 170], [130, 170], [70, 250], [130, 250], [100, 200], [100, 220]])
    label = person(keypoints=keypoints)
    found = centres(label, half_body=1.0, upper_body=tuple(range(6))).round(6).tolist()
    upper, lower = found.count([100, 85]), found.count([100, 210])
    assert upper + lower == 200
    assert 75 < upper < 125
    # the upper body is 80 x 30: 1.5 x 80 wide
    widths = {
        round(191 / crop(label, seed=seed, half_body=1.0, upper_body=tuple(range(6))).matrix[0, 0], 6)
        for seed in range(20)
    }
    assert widths == {120.0, 90.0}  # the lower is 60 x 80: exactly the aspect


def test_half_body_falls_back_to_the_half_that_is_visible():
    keypoints = np.random.default_rng(2).uniform(60, 140, (12, 3))
    keypoints[:, 2] = 1
    keypoints[:2, 2] = 0  # of the upper body, 0-3, two are left
    found = centres(person(keypoints=keypoints), half_body=1.0, upper_body=(0, 1, 2, 3))
    np.testing.assert_allclose(found, np.tile(keypoints[4:, :2].mean(axis=0), (200, 1)))


def test_no_half_bodies_with_eight_keypoints_or_no_upper_body():
    keypoints = np.random.default_rng(2).uniform(60, 140, (17, 3))
    keypoints[:, 2] = np.arange(17) < 8
    few = centres(person(keypoints=keypoints), half_body=1.0)
    undivided = centres(person(), half_body=1.0, upper_body=())
    np.testing.assert_allclose(few, np.tile([100, 160], (200, 1)))
    np.testing.assert_allclose(undivided, np.tile([100, 160], (200, 1)))


def test_half_body_ignores_keypoints_that_all_lie_on_one_spot():
    keypoints = np.ones((12, 3))
    found = centres(person(keypoints=keypoints), half_body=1.0)
    np.testing.assert_allclose(found, np.tile([100, 160], (200, 1)))


def test_scale_and_rotation_stay_within_their_limits():
    angles, scales = [], []
    for seed in range(300):
        matrix = crop(person(), seed=seed, scale=0.5, rotate_probability=0.6).matrix
        angles.append(np.rad2deg(np.arctan2(matrix[1, 0], matrix[1, 1])))
        scales.append(255 / 250 / np.hypot(matrix[1, 0], matrix[1, 1]))  # the box is 200 x 1.25 high
    rotated = np.abs(angles) > 1e-6
    assert 150 < rotated.sum() < 210
    assert 60 < np.abs(angles).max() <= 80 + 1e-6
    assert min(scales) == pytest.approx(0.5)
    assert max(scales) == pytest.approx(1.5)


def test_impossible_mirror_pairs_are_refused():
    with pytest.raises(ValueError, match="mirror pairs"):
        crop(person(keypoints=np.ones((3, 3))), flip=1.0, mirror=((1, 7),))
