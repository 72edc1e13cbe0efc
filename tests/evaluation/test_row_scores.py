"""How good one row is by itself: what the sheets of best and worst cases are chosen by."""

import numpy as np
import pytest

from unihap.evaluation import attributes, detection, parsing, pose, reid
from unihap.evaluation.oks import COCO_SIGMAS, keypoint_similarity
from unihap.structures import (
    AttributesLabel,
    Dataset,
    DetectionLabel,
    ParsingLabel,
    PoseLabel,
    Record,
    ReIDLabel,
)


def dataset(kind, *labels, **fields):
    return Dataset("toy", kind, [Record(f"r{i}", f"{i}.jpg", label) for i, label in enumerate(labels)], **fields)


# attributes


def test_a_person_scores_the_share_of_known_attributes_predicted_right():
    labels = [AttributesLabel(np.array(v, dtype=np.int8)) for v in ([1, 0, 1, -1], [1, 1, 0, 0], [-1, -1, -1, -1])]
    data = dataset("attributes", *labels, classes=("a", "b", "c", "d"))
    rows = [{"id": f"r{i}", "probability": [0.9, 0.9, 0.2, 0.9]} for i in range(3)]
    # person 0: a right, b wrong, c missed, d unknown; person 1: a, b, c right, d wrong
    assert attributes.scores(rows, data) == [pytest.approx(100 / 3), 75.0, None]


# parsing


def test_an_image_scores_the_mean_iou_of_the_classes_in_its_truth():
    truth = np.array([[0, 0], [1, 255]], dtype=np.uint8)
    data = dataset(
        "parsing", ParsingLabel("", truth), ParsingLabel("", np.full((2, 2), 255, np.uint8)), classes=tuple("abc")
    )
    predicted = np.array([[0, 1], [1, 2]], dtype=np.uint8)
    rows = [parsing.row({"label_map": predicted}, record, data) for record in data.records]
    # class 0: 1 of 2; class 1: 1 of 2; class 2 is predicted on an ignored pixel alone
    assert parsing.scores(rows, data) == [50.0, None]


# pose


def person(visible=(1, 1), area=0.0, box=(0, 0, 10, 20), **fields):
    points = np.array([[2.0, 3.0, visible[0]], [8.0, 9.0, visible[1]]])
    return PoseLabel(points, np.array(box, dtype=float), 1, area=area, **fields)


def test_a_similarity_is_coco_s():
    """Computed by pycocotools' formula: e = d^2 / (2 sigma)^2 / area / 2, mean of exp(-e) over labelled keypoints."""
    predicted, truth = np.array([[3.0, 3.0], [8.0, 9.0], [0.0, 0.0]]), np.array([[1.0, 3.0], [8.0, 9.0], [50.0, 50.0]])
    similarity = keypoint_similarity(predicted, truth, np.array([True, True, False]), 100.0, np.array([0.1, 0.2, 0.3]))
    assert similarity == pytest.approx((np.exp(-4 / (4 * 0.01) / 100 / 2) + 1) / 2)


def test_a_person_scores_the_similarity_of_labelled_keypoints():
    data = dataset(
        "pose",
        person(area=100.0),
        person(visible=(1, 0)),
        person(visible=(0, 0)),
        classes=("nose", "tail"),
        sigmas=(0.1, 0.2),
        metric="keypoint_ap",
    )
    moved = [4.0, 3.0, 1.0, 8.0, 9.0, 1.0]  # the first keypoint is 2 pixels off
    rows = [{"id": f"r{i}", "keypoints": moved} for i in range(3)]
    by_area = np.exp(-4 / (2 * 100 * 0.04))
    by_box = np.exp(-4 / (2 * 200 * 0.53 * 0.04))  # no area is labelled: 0.53 of the box
    assert pose.scores(rows, data) == [pytest.approx(50 * (by_area + 1)), pytest.approx(100 * by_box), None]


def test_area_of_the_box_counts_where_the_dataset_says_so():
    areas = dict(classes=("nose", "tail"), sigmas=(0.1, 0.2), use_area=False)
    rows = [{"id": "r0", "keypoints": [4.0, 3.0, 1.0, 8.0, 9.0, 1.0]}]
    labelled, boxed = (pose.scores(rows, dataset("pose", person(area=area), **areas)) for area in (5000.0, 0.0))
    assert labelled == boxed


def test_perfect_coco_people_score_100():
    points = np.column_stack([np.arange(17.0), np.arange(17.0), np.ones(17)])
    data = dataset("pose", PoseLabel(points, np.array([0, 0, 20, 20.0]), 1), sigmas=COCO_SIGMAS)
    assert pose.scores([{"id": "r0", "keypoints": points.ravel().tolist()}], data) == [100.0]


# detection


def boxes(*xyxy):
    return np.array(xyxy, dtype=float).reshape(-1, 4)


def found(data, *results):
    return [
        detection.row(
            {"boxes": boxes(*(r[:4] for r in result)), "scores": [r[4] for r in result], "size": (100, 100)},
            record,
            data,
        )
        for record, result in zip(data.records, results, strict=True)
    ]


def test_an_image_scores_the_jaccard_index_meaned_over_score_thresholds():
    people = DetectionLabel(boxes((0, 0, 10, 10), (50, 50, 80, 90)), boxes())
    data = dataset("detection", people, people)
    one = (0, 0, 10, 10, 0.95)
    rows = found(data, [one, (50, 50, 80, 90, 0.45)], [one, (20, 70, 30, 80, 0.95)])
    # first: both people up to 0.4, one of two from 0.5 on; second: one hit, one false, one missed
    assert detection.scores(rows, data) == [pytest.approx(100 * (4 + 5 / 2) / 9), pytest.approx(100 / 3)]


def test_an_image_of_nobody_has_a_score_only_if_somebody_was_found():
    empty = DetectionLabel(boxes(), boxes((0, 0, 40, 40)))
    data = dataset("detection", *[empty] * 4)
    ignored, false, unsure = (5, 5, 20, 20, 0.9), (60, 60, 90, 90, 0.9), (60, 60, 90, 90, 0.06)
    assert detection.scores(found(data, [], [ignored], [unsure], [false]), data) == [None, None, None, 0.0]


def test_an_image_whose_people_nobody_found_scores_0():
    data = dataset("detection", DetectionLabel(boxes((0, 0, 10, 10)), boxes()))
    assert detection.scores(found(data, []), data) == [0.0]


# ReID


LABELS = [
    ReIDLabel(1, 1, "query"),
    ReIDLabel(1, 2, "gallery"),
    ReIDLabel(2, 1, "gallery"),
    ReIDLabel(2, 2, "query"),
    ReIDLabel(1, 1, "gallery"),  # junk for the first query
    ReIDLabel(3, 1, "query"),  # without a match
]


def crops(*angles):
    return [
        {"id": f"r{i}", "feature": np.array([np.cos(a), np.sin(a)], dtype=np.float32)} for i, a in enumerate(angles)
    ]


def test_a_query_scores_its_average_precision_and_a_gallery_image_nothing():
    data = dataset("reid", *LABELS)
    # seen from the first query: junk at 0.1, person 2 at 0.2, person 1 at 0.3 -> the match is second
    rows = crops(0.0, 0.3, 0.2, 0.25, 0.1, 0.5)
    assert reid.scores(rows, data) == [50.0, None, None, 50.0, None, None]
    assert np.mean([50.0, 50.0]) == pytest.approx(reid.summary(rows, data)["mAP"])


def test_scores_of_re_ranked_queries_average_to_the_re_ranked_map():
    rng = np.random.default_rng(0)
    labels = [ReIDLabel(i % 6 + 1, i % 4, "query" if i < 12 else "gallery") for i in range(60)]
    data = dataset("reid", *labels)
    rows = [{"id": f"r{i}", "feature": rng.normal(size=8).astype(np.float32)} for i in range(60)]
    for rerank in (False, True):
        known = [score for score in reid.scores(rows, data, rerank=rerank) if score is not None]
        assert np.mean(known) == pytest.approx(reid.summary(rows, data, rerank=rerank)["mAP"])
    assert reid.scores(rows, data) != reid.scores(rows, data, rerank=True)


def test_a_query_is_shown_with_the_gallery_images_nearest_to_it_without_junk():
    data = dataset("reid", *LABELS)
    rows = crops(0.0, 0.3, 0.2, 0.25, 0.1, 0.5)
    assert reid.company([0], rows, data) == [1, 2]
    assert reid.company([0], rows, data, number=1) == [2]
    assert reid.company([0, 5], rows, data, number=1) == [1, 2]  # the last query is nearest to record 1
    assert reid.company([3], rows, data, number=9) == [1, 2, 4]


@pytest.mark.parametrize("module", [attributes, detection, parsing, reid], ids=lambda m: m.__name__)
def test_conventions_say_what_the_score_is(module):
    said = module.conventions(dataset("toy"))
    assert said["score"].endswith("%")
    assert said["metrics"]


@pytest.mark.parametrize("metric", ["keypoint_ap", "pckh", "end_point_error"])
def test_pose_has_conventions_for_every_metric(metric):
    said = pose.conventions(dataset("pose", metric=metric), rescore="release")
    assert said["score"] == "OKS of the person, %"
    assert (said.get("rescore") == "release") == (metric == "keypoint_ap")
