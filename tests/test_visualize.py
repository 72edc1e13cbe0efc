from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from unihap.data.catalog import load_dataset
from unihap.data.skeletons import SKELETONS
from unihap.structures import (
    AttributesLabel,
    Dataset,
    DetectionLabel,
    ParsingLabel,
    PoseLabel,
    Record,
    ReIDLabel,
)
from unihap.visualize import class_colours, draw_boxes, draw_label_map, draw_pose, draw_sheet, sheet
from unihap.visualize.draw import MIDDLE, PERSONS_LEFT, PERSONS_RIGHT, limbs, side_colour

COCO = SKELETONS["coco"].names
GREY = np.full((60, 80, 3), 128, dtype=np.uint8)


def task(kind: str):
    return SimpleNamespace(kind=kind, spec=SimpleNamespace(name=f"toy_{kind}"))


def is_colour(picture: np.ndarray, colour) -> np.ndarray:
    return (picture == colour).all(-1)


def image_file(folder: Path, name: str, height: int, width: int, colour=(128, 128, 128)) -> str:
    path = folder / f"{name}.png"
    assert cv2.imwrite(str(path), np.full((height, width, 3), colour[::-1], dtype=np.uint8))
    return str(path)


# limbs and colours


def test_the_limbs_of_coco_are_its_official_skeleton():
    # "skeleton" of the category person in person_keypoints_val2017.json, counted from 1
    official = [
        (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
        (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
    ]  # fmt: skip
    assert {frozenset(pair) for pair in limbs(COCO)} == {frozenset((a - 1, b - 1)) for a, b in official}
    assert len(limbs(COCO)) == len(official)


@pytest.mark.parametrize("skeleton", [name for name in SKELETONS if name != "pennaction"])  # which has no neck
def test_limbs_join_all_keypoints_of_a_skeleton(skeleton):
    names = SKELETONS[skeleton].names
    reached, size = {0}, 0
    while size < len(reached):
        size = len(reached)
        reached |= {point for pair in limbs(names) if reached & set(pair) for point in pair}
    assert reached == set(range(len(names)))


def test_colours_tell_the_persons_sides():
    assert side_colour("left_knee") == side_colour("left_knee", "left_hip") == PERSONS_LEFT
    assert side_colour("right_knee", "right_hip") == PERSONS_RIGHT
    assert side_colour("left_hip", "right_hip") == side_colour("nose", "left_eye") == MIDDLE


def test_class_colours_differ_and_do_not_depend_on_their_number():
    assert len(set(class_colours(59))) == 59
    assert class_colours(59)[:20] == class_colours(20)
    apart = [np.linalg.norm(np.subtract(a, b)) for a in class_colours(20) for b in class_colours(20) if a != b]
    assert min(apart) > 50


# drawing on one image


def test_a_sure_keypoint_is_a_dot_and_an_unsure_one_a_ring():
    before = GREY.copy()
    points = np.array([[20, 30, 0.9], [60, 30, 0.1]])
    drawn = draw_pose(before, points, ("left_hip", "right_wrist"), threshold=0.3, size=4)
    assert tuple(drawn[30, 20]) == PERSONS_LEFT
    assert tuple(drawn[30, 60]) == (128, 128, 128)
    assert (drawn[26:35, 56:65] != 128).any()
    assert (before == 128).all()


def test_a_keypoint_without_a_score_is_not_drawn():
    points = np.array([[20, 30, 0.0], [60, 30, -0.2]])
    assert (draw_pose(GREY, points, COCO[:2]) == GREY).all()


def test_a_limb_needs_two_sure_keypoints():
    names = ("left_hip", "left_knee")
    both = draw_pose(GREY, np.array([[20, 30, 1.0], [60, 30, 1.0]]), names, size=4)
    one = draw_pose(GREY, np.array([[20, 30, 1.0], [60, 30, 0.1]]), names, size=4)
    assert tuple(both[30, 40]) == PERSONS_LEFT
    assert tuple(one[30, 40]) == (128, 128, 128)


def test_keypoints_are_numbered_where_no_limb_is_known():
    points = np.array([[20, 30, 1.0], [50, 30, 1.0]])
    numbered, joined = draw_pose(GREY, points, size=4), draw_pose(GREY, points, COCO[:2], size=4)
    above_the_second = np.s_[20:26, 54:62]
    assert (numbered[above_the_second] != 128).any()
    assert (joined[above_the_second] == 128).all()


@pytest.mark.parametrize("place", [(1e12, 5), (np.nan, 5), (-np.inf, 5), (-500, 9000)])
def test_a_keypoint_far_away_is_no_mistake(place):
    points = np.array([[*place, 1.0], [40, 30, 1.0]])
    assert tuple(draw_pose(GREY, points, ("nose", "spine"), size=3)[30, 40]) == MIDDLE


def test_boxes_are_drawn_along_their_edges():
    drawn = draw_boxes(GREY, np.array([[10.0, 20.0, 40.0, 50.0]]), (1, 2, 3))
    assert is_colour(drawn, (1, 2, 3))[20, 10:41].all()
    assert is_colour(drawn, (1, 2, 3))[20:51, 40].all()
    assert (drawn[25:45, 15:35] == 128).all()
    assert (GREY == 128).all()


@pytest.mark.parametrize("box", [(-30, -30, 200, 200), (40, 30, 20, 10), (np.nan, 0, 1e30, 5)])
def test_a_box_that_leaves_the_image_or_is_turned_inside_out_is_no_mistake(box):
    assert draw_boxes(GREY, np.array([box], dtype=float), labels=["0.50"]).shape == GREY.shape


def test_no_boxes_leave_the_image_as_it_is(recwarn):
    assert (draw_boxes(GREY, np.zeros((0, 4)), labels=[]) == GREY).all()
    assert not recwarn


def test_a_label_map_colours_its_classes_and_blackens_ignored_pixels():
    label_map = np.zeros((60, 80), dtype=np.uint8)
    label_map[:10], label_map[10:20] = 2, 255
    drawn = draw_label_map(GREY, label_map, [(1, 1, 1), (2, 2, 2), (10, 20, 30)], opacity=1)
    assert is_colour(drawn[:10], (10, 20, 30)).all()
    assert (drawn[10:20] == 0).all()
    assert (drawn[20:] == 128).all()


def test_opacity_mixes_image_and_colour():
    drawn = draw_label_map(GREY, np.ones((60, 80), np.uint8), [(0, 0, 0), (228, 28, 128)], opacity=0.5)
    assert drawn[5, 5].tolist() == [178, 78, 128]


# cells


def test_a_pose_cell_shows_the_surroundings_of_the_box(tmp_path):
    # the longer side is 60, a fifth of it is 12: the crop is x 38 ... 102, y 8 ... 92, scaled by 270 / 64 to fit
    points = np.array([[70.0, 50.0, 1.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    label = PoseLabel(points, np.array([50.0, 20.0, 90.0, 80.0]), image_id=1)
    dataset = Dataset("toy", "pose", [Record("a", image_file(tmp_path, "a", 120, 200), label)], ("left_hip", "nose"))
    missed = np.array([[90.0, 50.0, 0.9], [0.0, 0.0, 0.0]])
    ((caption, cell),) = sheet._pose_cells(dataset, [(dataset.records[0], {"keypoints": missed})])
    assert caption == "a"
    assert cell.shape == (354, 2 * 270 + 4, 3)
    truth_x, missed_x, y = round(32.5 * 270 / 64 - 0.5), round(52.5 * 270 / 64 - 0.5), round(42.5 * 354 / 84 - 0.5)
    assert tuple(cell[y, truth_x]) == PERSONS_LEFT
    assert tuple(cell[y, 274 + missed_x]) == PERSONS_LEFT
    assert tuple(cell[y, 274 + truth_x]) == (128, 128, 128)


def test_a_detection_cell_shows_truth_ignored_regions_and_sure_predictions(tmp_path):
    label = DetectionLabel(np.array([[10.0, 10, 50, 110]]), np.array([[70.0, 10, 110, 110]]))
    record = Record("a", image_file(tmp_path, "a", 120, 160), label)
    result = {"boxes": np.array([[10.0, 10, 50, 110], [70, 10, 110, 110]]), "scores": np.array([0.9, 0.2])}
    ((caption, cell),) = sheet._detection_cells(Dataset("toy", "detection", [record]), [(record, result)])
    assert caption == "a (people: 1, found: 1)"
    truth, found = cell[:, :480], cell[:, 484:]  # three times as large
    assert tuple(truth[200, 30]) == sheet.RIGHT_ANSWER
    assert tuple(truth[200, 210]) == sheet.UNKNOWN
    assert tuple(found[200, 30]) == (255, 140, 0)
    assert tuple(found[200, 210]) == (128, 128, 128)


@pytest.mark.parametrize(
    ("truth", "score", "colour"),
    [
        (1, 0.9, sheet.RIGHT_ANSWER),
        (1, 0.1, sheet.WRONG_ANSWER),
        (0, 0.9, sheet.WRONG_ANSWER),
        (0, 0.1, None),
        (-1, 0.9, sheet.UNKNOWN),
        (-1, 0.1, None),
    ],
)
def test_an_attributes_cell_lists_what_is_true_or_predicted(tmp_path, truth, score, colour):
    record = Record("a", image_file(tmp_path, "a", 60, 30), AttributesLabel(np.array([truth], np.int8)))
    dataset = Dataset("toy", "attributes", [record], ("backpack",))
    ((_, cell),) = sheet._attributes_cells(dataset, [(record, {"probability": np.array([score])})])
    text = cell[:, 270:]
    for other in (sheet.RIGHT_ANSWER, sheet.WRONG_ANSWER, sheet.UNKNOWN):
        assert is_colour(text, other).any() == (other == colour)


def test_more_attributes_than_lines_are_counted(tmp_path):
    record = Record("a", image_file(tmp_path, "a", 60, 30), AttributesLabel(np.ones(50, np.int8)))
    dataset = Dataset("toy", "attributes", [record], tuple(f"attribute {i}" for i in range(50)))
    ((_, cell),) = sheet._attributes_cells(dataset, [(record, {"probability": np.ones(50)})])
    last_line = cell[(360 // sheet.LINE - 1) * sheet.LINE :, 270:]
    assert is_colour(last_line, sheet.INK).any()
    assert not is_colour(last_line, sheet.RIGHT_ANSWER).any()


def reid_cells(tmp_path, *people):
    """``people``: identity, camera, role, feature."""
    shown = []
    for i, (identity, camera, role, feature) in enumerate(people):
        image = image_file(tmp_path, str(i), 60, 30, colour=(10 + i, 0, 0))
        shown.append((Record(str(i), image, ReIDLabel(identity, camera, role)), {"feature": np.array(feature)}))
    return sheet._reid_cells(Dataset("toy", "reid", [record for record, _ in shown]), shown)


def shown_images(cell: np.ndarray) -> list[int]:
    """Which images a cell of framed pictures shows."""
    return [int(cell[100, x, 0]) - 10 for x in range(65, cell.shape[1], 130)]


def frames(cell: np.ndarray) -> list[tuple]:
    return [tuple(cell[2, x]) for x in range(65, cell.shape[1], 130)]


def test_a_reid_cell_shows_the_nearest_images_framed_by_identity(tmp_path):
    cells = reid_cells(
        tmp_path,
        (1, 1, "query", (1.0, 0.0)),
        (2, 1, "gallery", (0.8, 0.6)),
        (1, 2, "gallery", (30.0, 3.0)),  # nearest, whatever its length
        (1, 1, "gallery", (1.0, 0.0)),  # same camera: does not count
        (3, 2, "gallery", (0.0, 1.0)),
    )
    ((caption, cell),) = cells
    assert caption == "0"
    assert shown_images(cell) == [0, 2, 1, 4]
    assert frames(cell) == [sheet.INK, sheet.RIGHT_ANSWER, sheet.WRONG_ANSWER, sheet.WRONG_ANSWER]


def test_where_no_query_is_shown_every_image_is_one(tmp_path):
    cells = reid_cells(tmp_path, (1, 1, "train", (1.0, 0.0)), (1, 2, "train", (1.0, 0.0)))
    assert [shown_images(cell) for _, cell in cells] == [[0, 1], [1, 0]]


def test_four_neighbours_are_shown_at_most(tmp_path):
    gallery = [(i, 2, "gallery", (1.0, i)) for i in range(2, 9)]
    ((_, cell),) = reid_cells(tmp_path, (1, 1, "query", (1.0, 0.0)), *gallery)
    assert len(shown_images(cell)) == 1 + 4


def test_a_single_image_has_no_neighbours(tmp_path):
    ((_, cell),) = reid_cells(tmp_path, (1, 1, "query", (0.0, 0.0)))
    assert shown_images(cell) == [0]


def test_a_parsing_cell_names_the_classes_that_occur(tmp_path):
    truth, predicted = np.zeros((90, 75), np.uint8), np.zeros((90, 75), np.uint8)
    truth[:45], predicted[:45] = 1, 2
    record = Record("a", image_file(tmp_path, "a", 90, 75), ParsingLabel("unused"))
    names = ("background", "hat", "hair", "shoes")
    dataset = Dataset("toy", "parsing", [record], names, read_label_map=lambda path: truth)
    ((_, cell),) = sheet._parsing_cells(dataset, [(record, {"label_map": predicted})])
    assert cell.shape == (360 + sheet.LINE, 604, 3)
    legend, colours = cell[360:], class_colours(4)
    assert [bool(is_colour(legend, colour).any()) for colour in colours] == [False, True, True, False]
    assert (cell[100, 100] != cell[100, 404]).any()
    assert (cell[300, 100] == 128).all()


# sheets


def results_of(dataset: Dataset):
    """A made-up result of every record."""
    rng = np.random.default_rng(0)
    make = {
        "pose": lambda label: {"keypoints": label.keypoints + np.array([3, 3, 0])},
        "parsing": lambda label: {"label_map": dataset.read_label_map(label.path) % 20},
        "detection": lambda label: {"boxes": label.boxes + 2, "scores": rng.random(len(label.boxes))},
        "attributes": lambda label: {"probability": rng.random(len(label.values))},
        "reid": lambda label: {"feature": rng.random(8)},
    }[dataset.kind]
    return [(record, make(record.label)) for record in dataset.records]


@pytest.mark.parametrize(
    "name", ["coco_keypoints_val", "lip_val", "crowdhuman_val", "pa100k_test", "market1501_test", "market1501_train"]
)
def test_a_sheet_of_every_kind_is_a_jpeg_of_at_most_2000_pixels(toy_root, tmp_path, name):
    dataset = load_dataset(name, toy_root)
    path = tmp_path / "new" / "folder" / "sheet.jpg"
    draw_sheet(task(dataset.kind), dataset, results_of(dataset), path)
    assert path.read_bytes()[:2] == b"\xff\xd8"
    picture = cv2.imread(str(path))
    assert 200 < picture.shape[1] <= 2000
    assert picture.std() > 5
    assert [file.name for file in path.parent.iterdir()] == ["sheet.jpg"]


def test_cells_are_laid_out_in_rows_of_equal_size(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "SHEET_WIDTH", 800)
    records = [Record(str(i), image_file(tmp_path, str(i), 100, 100, (200, 0, 0)), None) for i in range(3)]
    dataset = Dataset("toy", "unheard_of", records)
    draw_sheet(task("unheard_of"), dataset, [(record, {}) for record in records], tmp_path / "sheet.jpg")
    picture = cv2.imread(str(tmp_path / "sheet.jpg"))[..., ::-1]
    # two columns of 360, two rows of 360 under a line of text, a heading of two lines
    assert picture.shape == (2 * 10 + 2 * sheet.LINE + 2 * (360 + sheet.LINE + 10), 10 + 2 * 370, 3)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 80)
    assert red.sum() == pytest.approx(3 * 360 * 360, rel=0.02)


def test_a_sheet_too_high_for_a_jpeg_shows_the_first_results(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "SHEET_HEIGHT", 800)
    record = Record("a", image_file(tmp_path, "a", 60, 60), None)
    dataset = Dataset("toy", "unheard_of", [record])
    draw_sheet(task("unheard_of"), dataset, [(record, {})] * 40, tmp_path / "sheet.jpg")
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape[0] <= 800 + 3 * sheet.LINE


def test_an_older_sheet_is_replaced(tmp_path):
    record = Record("a", image_file(tmp_path, "a", 60, 60), None)
    (tmp_path / "sheet.jpg").write_bytes(b"old")
    draw_sheet(task("unheard_of"), Dataset("toy", "unheard_of", [record]), [(record, {})], tmp_path / "sheet.jpg")
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None


def crop(folder, name, role, identity, camera, angle):
    label = ReIDLabel(identity, camera, role)
    return Record(name, image_file(folder, name, 40, 20), label), {"feature": np.array([np.cos(angle), np.sin(angle)])}


def test_queries_with_company_are_compared_with_it_alone(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sheet, "lay_out", lambda cells, title, explanation: seen.append((cells, title)) or GREY)
    queries = [crop(tmp_path, "q0", "query", 1, 1, 0.0), crop(tmp_path, "q1", "query", 2, 1, 0.01)]
    gallery = [crop(tmp_path, "g0", "gallery", 1, 2, 0.1), crop(tmp_path, "g1", "gallery", 1, 1, 0.02)]
    dataset = Dataset("toy", "reid", [record for record, _ in queries + gallery])
    draw_sheet(
        task("reid"), dataset, queries, tmp_path / "s.jpg", heading="the best", scores=[99.5, 50.0], company=gallery
    )
    ((cells, title),) = seen
    assert title == "toy, task toy_reid: the best"
    assert [caption for caption, _ in cells] == ["q0: 99.5", "q1: 50.0"]
    tile = 120 + 2 * 5  # the other query is nearest to each, but not in the gallery; g1 is junk for q0
    assert [picture.shape[1] // tile for _, picture in cells] == [2, 3]


def test_scores_that_do_not_fit_the_cells_are_an_error(tmp_path):
    record = Record("a", image_file(tmp_path, "a", 60, 60), None)
    with pytest.raises(ValueError, match="zip"):
        draw_sheet(
            task("unheard_of"),
            Dataset("toy", "unheard_of", [record]),
            [(record, {})],
            tmp_path / "s.jpg",
            scores=[1, 2],
        )


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no results of toy"):
        draw_sheet(task("pose"), Dataset("toy", "pose", []), [], tmp_path / "sheet.jpg")
    assert not list(tmp_path.iterdir())


def test_a_long_caption_keeps_its_end():
    assert sheet._shortened("s_01_act_02/rgb/000123", 60).endswith("0123")
    assert sheet._font().getlength(sheet._shortened("x" * 500, 60)) <= 60
    assert sheet._shortened("short", 600) == "short"
