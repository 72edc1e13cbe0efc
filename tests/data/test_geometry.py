import numpy as np
import pytest

from unihap.data.geometry import (
    IDENTITY,
    chain,
    flip_matrix,
    invert,
    is_mirrored,
    mirror_order,
    resize,
    resize_labels,
    resize_matrix,
    resize_plain,
    shift_matrix,
    transform_boxes,
    transform_points,
)


def test_a_resize_moves_pixel_centres_by_half_pixels():
    # twice as wide: the first pixel, centre 0, becomes the pixels 0 and 1, centre 0.5
    matrix = resize_matrix((10, 20), (30, 40))
    np.testing.assert_allclose(transform_points(matrix, np.array([[0.0, 0.0], [19.0, 9.0]])), [[0.5, 1.0], [38.5, 28]])


def test_a_resize_scales_boxes_without_an_offset():
    matrix = resize_matrix((10, 20), (30, 40))
    np.testing.assert_allclose(transform_boxes(matrix, [[0, 0, 20, 10], [1, 2, 3, 4]]), [[0, 0, 40, 30], [2, 6, 6, 12]])


def test_a_flip_mirrors_pixels_and_boxes():
    matrix = flip_matrix(20)
    np.testing.assert_allclose(transform_points(matrix, np.array([0.0, 3.0])), [19, 3])
    np.testing.assert_allclose(transform_boxes(matrix, [[0, 0, 5, 10]]), [[15, 0, 20, 10]])
    assert is_mirrored(matrix)
    assert not is_mirrored(resize_matrix((1, 2), (3, 4)))


def test_no_boxes_stay_no_boxes():
    assert transform_boxes(IDENTITY, np.zeros((0, 4))).shape == (0, 4)


def test_maps_are_chained_first_to_last():
    matrix = chain(shift_matrix(1, 0), resize_matrix((10, 10), (20, 20)), flip_matrix(20))
    # x = 0 is moved to 1, scaled to 2.5, mirrored to 16.5
    np.testing.assert_allclose(transform_points(matrix, np.array([0.0, 0.0])), [16.5, 0.5])


def test_the_inverse_undoes_a_map():
    matrix = chain(shift_matrix(3, -2), resize_matrix((7, 5), (20, 31)), flip_matrix(31))
    np.testing.assert_allclose(chain(matrix, invert(matrix)), IDENTITY, atol=1e-12)


def test_mirror_order_swaps_pairs_and_keeps_the_rest():
    assert mirror_order(5, [(1, 2), (4, 3)]).tolist() == [0, 2, 1, 4, 3]


@pytest.mark.parametrize("mirror", [[(0, 3)], [(0, 1), (1, 2)], [(-1, 0)]])
def test_impossible_mirror_pairs_are_refused(mirror):
    with pytest.raises(ValueError, match=r"classes 0 ... 2 at most once"):
        mirror_order(3, mirror)


def test_resize_averages_over_everything_it_shrinks():
    image = np.zeros((8, 64, 3), np.uint8)
    image[:, ::8] = 255  # one column in eight
    small, _ = resize(image, (1, 8))
    plain, _ = resize_plain(image, (1, 8))
    assert 20 < small.mean() < 44  # 255 / 8 = 32
    assert plain.mean() == 0  # four pixels in the middle of each cell: all black


@pytest.mark.parametrize("function", [resize, resize_plain])
def test_resize_to_the_same_size_changes_nothing(function):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    resized, matrix = function(image, (5, 7))
    np.testing.assert_array_equal(resized, image)
    np.testing.assert_array_equal(matrix, IDENTITY)


def test_labels_are_resized_in_the_frame_of_the_image():
    # three pixels from nine: the centres of the new pixels are the old pixels 1, 4 and 7
    labels = np.arange(9, dtype=np.uint8)[None].repeat(9, axis=0)
    assert resize_labels(labels, (3, 3))[0].tolist() == [1, 4, 7]
