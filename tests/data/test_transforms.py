import pickle
from dataclasses import replace

import numpy as np
import pytest

from unihap.data import transforms
from unihap.data.geometry import is_mirrored, transform_points
from unihap.data.transforms import (
    attributes_transform,
    detection_transform,
    erase,
    parsing_transform,
    pose_transform,
    reid_transform,
    scaled_size,
)
from unihap.structures import AttributesLabel, DetectionLabel, ParsingLabel, PoseLabel, ReIDLabel

HEIGHT, WIDTH = 150, 120
SPOT = np.array([51.0, 88.0])


def draw_spot(height=HEIGHT, width=WIDTH, centre=SPOT, sigma=4.0):
    """A black image with one soft white spot."""
    y, x = np.mgrid[:height, :width]
    spot = 255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(spot.round().astype(np.uint8)[..., None], 3, axis=2)


def find_spot(image):
    """Centre of the brightest spot, whatever was done to its colour."""
    grey = image.astype(float).sum(axis=2)
    weight = np.maximum(grey - (np.median(grey) + 0.3 * (grey.max() - np.median(grey))), 0)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def make(kind, train, **how):
    """A small transform of every kind and a label that it accepts."""
    if kind == "reid":
        return reid_transform((96, 48), train=train, **how), ReIDLabel(1, 1, "train")
    if kind == "attributes":
        return attributes_transform((96, 64), train=train, **how), AttributesLabel(np.array([0, 1, -1], np.int8))
    if kind == "parsing":
        labels = (draw_spot()[..., 0] > 100).astype(np.uint8)
        return parsing_transform((96, 80), mirror=[(1, 2)], train=train, **how), ParsingLabel("", labels)
    if kind == "detection":
        boxes = np.array([[31.0, 68.0, 72.0, 109.0]])  # its centre, in edges, is the spot's
        detection = detection_transform(short=80, long=120, train=train, **how, short_choices=(64, 80, 96))
        return detection, DetectionLabel(boxes, np.zeros((0, 4)))
    keypoints = np.random.default_rng(1).uniform(20, 100, (17, 3))
    keypoints[:, 2] = 1
    keypoints[0, :2] = SPOT
    pose = pose_transform((96, 72), mirror=[(1, 2)], upper_body=range(11), train=train, **how)
    return pose, PoseLabel(keypoints, np.array([20.0, 30.0, 90.0, 130.0]), image_id=1)


KINDS = ["reid", "attributes", "pose", "parsing", "detection"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train", [False, True])
def test_the_matrix_says_where_every_pixel_went(kind, train, monkeypatch):
    monkeypatch.setattr(transforms, "ERASING_PROBABILITY", 0)  # it would cover the spot
    transform, label = make(kind, train)
    image = draw_spot()
    checked = {False: 0, True: 0}
    for seed in range(40 if train else 1):
        result = transform(image, label, np.random.default_rng(seed))
        expected = transform_points(result.matrix, SPOT)
        height, width = result.image.shape[:2]
        if 14 < expected[0] < width - 15 and 14 < expected[1] < height - 15:
            np.testing.assert_allclose(find_spot(result.image), expected, atol=0.12)
            checked[is_mirrored(result.matrix)] += 1
    assert checked[False] >= (5 if train else 1)
    assert checked[True] >= (5 if train else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_test_time_draws_no_random_numbers(kind):
    transform, label = make(kind, train=False)
    rng = np.random.default_rng(5)
    before = rng.bit_generator.state
    transform(draw_spot(), label, rng)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("kind", KINDS)
def test_flips_alone_give_the_test_image_or_its_mirror_and_both_in_turn(kind):
    image = draw_spot()
    image[:, :40, 0] = 255  # so that a mirrored image differs
    plain, label = make(kind, train=False)
    mild, _ = make(kind, train=True, flip_alone=True)
    expected = plain(image, label, np.random.default_rng(0)).image
    mirrored = 0
    for seed in range(20):
        sample = mild(image, label, np.random.default_rng(seed))
        turned = is_mirrored(sample.matrix)
        mirrored += turned
        difference = np.abs((expected[:, ::-1] if turned else expected).astype(int) - sample.image)
        assert difference.mean() < 1  # a warp of the mirrored crop may round otherwise
    assert 4 <= mirrored <= 16


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_depends_on_its_generator_alone(kind):
    transform, label = make(kind, train=True)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    source = image.copy()
    first = transform(image, label, np.random.default_rng(7))
    other = transform(image, label, np.random.default_rng(8))
    again = pickle.loads(pickle.dumps(transform))(image, label, np.random.default_rng(7))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert pickle.dumps(first.label) == pickle.dumps(again.label)
    assert first.image.shape != other.image.shape or (first.image != other.image).any()
    np.testing.assert_array_equal(image, source)  # the source is left alone


@pytest.mark.parametrize(("kind", "size"), [("reid", (96, 48)), ("attributes", (96, 64)), ("parsing", (96, 80))])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("source", [(40, 30), (300, 20), (1, 1)])
def test_any_image_becomes_the_input_size(kind, size, train, source):
    transform, label = make(kind, train)
    if kind == "parsing":
        label = ParsingLabel("", np.zeros(source, np.uint8))
    result = transform(np.full((*source, 3), 9, np.uint8), label, np.random.default_rng(0))
    assert result.image.shape == (*size, 3)
    assert result.image.dtype == np.uint8
    assert result.matrix.dtype == np.float64


# ReID


def test_erasing_covers_one_rectangle_with_one_colour():
    image = np.full((256, 128, 3), 7, np.uint8)
    areas = []
    for seed in range(200):
        erased = erase(image, np.random.default_rng(seed))
        changed = (erased != 7).any(axis=2)
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        assert changed.sum() == rows.sum() * columns.sum()
        assert len(np.unique(erased[changed], axis=0)) == 1
        assert 0.29 < rows.sum() / columns.sum() < 3.4
        areas.append(changed.sum() / changed.size)
    assert 0.019 < min(areas) < 0.05
    assert 0.3 < max(areas) < 0.401
    assert (image == 7).all()


def test_three_quarters_of_reid_images_are_erased(monkeypatch):
    calls = []
    monkeypatch.setattr(transforms, "erase", lambda image, rng: calls.append(1) or image)
    transform = reid_transform((32, 16), train=True)
    for seed in range(200):
        transform(np.zeros((32, 16, 3), np.uint8), ReIDLabel(1, 1, "train"), np.random.default_rng(seed))
    assert 130 < len(calls) < 170


def test_the_random_crop_moves_by_at_most_the_padding(monkeypatch):
    monkeypatch.setattr(transforms, "ERASING_PROBABILITY", 0)
    for size, padding in (((256, 16), 10), ((128, 64), 5)):
        transform = reid_transform(size, train=True)
        moves = set()
        for seed in range(200):
            matrix = transform(np.zeros((*size, 3), np.uint8), ReIDLabel(1, 1, ""), np.random.default_rng(seed)).matrix
            if not is_mirrored(matrix):
                moves.update(matrix[:, 2].tolist())
        assert moves == set(range(-padding, padding + 1))


# attributes


def test_a_flip_swaps_left_and_right_attributes():
    transform = attributes_transform((32, 24), train=True, mirror=[(0, 2)])
    image = np.zeros((32, 24, 3), np.uint8)
    seen = set()
    for seed in range(10):
        result = transform(image, AttributesLabel(np.array([1, -1, 0], np.int8)), np.random.default_rng(seed))
        assert result.label.values.tolist() == ([0, -1, 1] if is_mirrored(result.matrix) else [1, -1, 0])
        seen.add(is_mirrored(result.matrix))
    assert seen == {True, False}


# parsing


@pytest.fixture
def no_colours(monkeypatch):
    monkeypatch.setattr(transforms, "_distort_colours", list)


def test_labels_stay_on_their_pixels(no_colours):
    # the image shows its labels: class c has grey value 80 c; left and right classes 1 and 2 swap on a flip
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 4, (5, 4)), np.ones((30, 30))).astype(np.uint8)
    image = np.repeat((80 * labels)[..., None], 3, axis=2)
    transform = parsing_transform((96, 80), mirror=[(1, 2)], train=True)
    swap = np.array([0, 2, 1, 3])
    for seed in range(30):
        result = transform(image, ParsingLabel("", labels), np.random.default_rng(seed))
        known = result.label.label_map != 255
        assert (result.image[~known] <= 240).all()
        shown = (result.image[..., 0] / 80).round().astype(int)
        if is_mirrored(result.matrix):
            shown = swap[shown]
        # between two classes the blended grey value names a third: some pixels at class borders differ
        assert (shown[known] == result.label.label_map[known]).mean() > 0.9


def test_what_is_not_in_the_image_is_ignored_and_black(no_colours):
    image = np.full((50, 50, 3), 200, np.uint8)
    transform = parsing_transform((64, 64), mirror=[], train=True)
    shares = []
    for seed in range(30):
        result = transform(image, ParsingLabel("", np.ones((50, 50), np.uint8)), np.random.default_rng(seed))
        assert set(np.unique(result.label.label_map)) <= {1, 255}
        ignored = result.label.label_map == 255
        assert (result.image[ignored] < 150).all()
        assert (result.image[~ignored] > 50).all()
        shares.append(ignored.mean())
    assert min(shares) == 0  # enlarged
    assert max(shares) >= 0.75  # halved


def test_parsing_scales_by_tenths_and_rotates_two_fifths(no_colours):
    transform = parsing_transform((100, 100), mirror=[], train=True)
    image, label = np.zeros((100, 100, 3), np.uint8), ParsingLabel("", np.zeros((100, 100), np.uint8))
    scales, rotated, flipped = set(), [], []
    for seed in range(200):
        matrix = transform(image, label, np.random.default_rng(seed)).matrix
        scales.add(round(np.sqrt(abs(np.linalg.det(matrix[:, :2]))), 3))
        angle = np.rad2deg(np.arctan2(matrix[1, 0], abs(matrix[0, 0])))
        assert abs(angle) <= 30.01
        rotated.append(abs(angle) > 0.01)
        flipped.append(is_mirrored(matrix))
    assert scales == {0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6}
    assert 60 < sum(rotated) < 100
    # every operation has random numbers of its own: a flip says nothing about a rotation
    assert 20 < sum(r and f for r, f in zip(rotated, flipped, strict=True)) < 60


def test_colours_change_but_labels_do_not():
    image = np.full((32, 32, 3), (200, 120, 60), np.uint8)
    transform = parsing_transform((32, 32), mirror=[], train=True)
    colours = set()
    for seed in range(30):
        result = transform(image, ParsingLabel("", np.ones((32, 32), np.uint8)), np.random.default_rng(seed))
        inside = result.label.label_map == 1
        colours.update(map(tuple, np.unique(result.image[inside], axis=0)[-1:]))
        assert set(np.unique(result.label.label_map)) <= {1, 255}
    assert len(colours) > 15


def test_a_parsing_label_may_be_missing_at_test_time_only():
    image = np.zeros((10, 10, 3), np.uint8)
    label = ParsingLabel("labels.png")
    tested = parsing_transform((8, 8), mirror=[], train=False)(image, label, np.random.default_rng(0))
    assert tested.label.label_map is None
    with pytest.raises(ValueError, match=r"labels\.png has not been read"):
        parsing_transform((8, 8), mirror=[], train=True)(image, label, np.random.default_rng(0))


# detection


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((480, 640), (800, 1066)),  # 800 * 640 / 480 = 1066.7
        ((640, 480), (1066, 800)),
        ((500, 500), (800, 800)),
        ((1080, 1920), (750, 1333)),  # 800 would give 1422: 1333 * 1080 / 1920 = 749.8
        ((100, 1000), (133, 1330)),
        ((1, 5000), (1, 5000)),  # a side is never shorter than a pixel
    ],
)
def test_detection_sizes_by_hand(source, expected):
    assert scaled_size(source, short=800, long=1333) == expected


def detect(boxes, ignore=(), size=(60, 80), **arguments):
    label = DetectionLabel(np.array(boxes, float).reshape(-1, 4), np.array(ignore, float).reshape(-1, 4))
    transform = detection_transform(**({"short": 120, "long": 200, "train": False} | arguments))
    return transform(np.zeros((*size, 3), np.uint8), label, np.random.default_rng(0))


def test_boxes_are_scaled_and_clipped_to_the_image():
    # 60 x 80 becomes 120 x 160
    result = detect([[0, 0, 80, 60], [-10, 5, 20, 70], [75, 50, 99, 55]], ignore=[[70, -9, 90, 10]])
    assert result.image.shape == (120, 160, 3)
    np.testing.assert_allclose(result.label.boxes, [[0, 0, 160, 120], [0, 10, 40, 120], [150, 100, 160, 110]])
    np.testing.assert_allclose(result.label.ignore, [[140, 0, 160, 20]])


def test_boxes_without_area_in_the_image_are_dropped():
    result = detect([[-9, 0, 0, 9], [80, 0, 90, 9], [5, 5, 5, 9], [9, 9, 5, 5]], ignore=[[0, 60, 9, 70]])
    assert result.label.boxes.shape == (0, 4)
    assert result.label.ignore.shape == (0, 4)


def test_an_image_without_people_is_fine():
    result = detect([], train=True)
    assert result.label.boxes.shape == (0, 4)


def test_training_boxes_follow_flips_and_crops():
    box = np.array([[20.0, 30.0, 70.0, 80.0]])
    image = np.zeros((150, 120, 3), np.uint8)
    image[30:80, 20:70] = 255
    transform = detection_transform(short=80, long=120, train=True, short_choices=(64, 80, 96))
    sizes, mirrored, crops = set(), set(), 0
    for seed in range(60):
        result = transform(image, DetectionLabel(box, box), np.random.default_rng(seed))
        sizes.add(min(result.image.shape[:2]))
        assert max(result.image.shape[:2]) <= 120
        mirrored.add(is_mirrored(result.matrix))
        crops += abs(result.matrix[0, 0] * 120) > result.image.shape[1] + 1
        np.testing.assert_array_equal(result.label.boxes, result.label.ignore)
        white = result.image[..., 0] > 127
        if len(result.label.boxes) == 0:
            assert white.sum() == 0
            continue
        y, x = np.nonzero(white)
        found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(result.label.boxes[0], found, atol=0.8)
    assert {64, 80, 96} <= sizes
    assert mirrored == {True, False}
    assert 15 < crops < 45


def test_impossible_detection_sizes_are_refused():
    with pytest.raises(ValueError, match="0 < short <= long"):
        detection_transform(short=800, long=600, train=False)


# keeping labels whole


def test_labels_keep_what_the_transform_does_not_know():
    label = ReIDLabel(5, 2, "query")
    assert (
        reid_transform((8, 8), train=True)(np.ones((4, 4, 3), np.uint8), label, np.random.default_rng(0)).label == label
    )
    parsed = ParsingLabel("a.png", np.ones((4, 4), np.uint8))
    result = parsing_transform((8, 8), mirror=[], train=False)(
        np.ones((4, 4, 3), np.uint8), parsed, np.random.default_rng(0)
    )
    assert replace(result.label, label_map=None) == ParsingLabel("a.png")
    assert (result.label.label_map == 1).all()
