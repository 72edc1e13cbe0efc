import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from unihap.evaluation import detection
from unihap.evaluation.detection import crowd_metrics, crowd_metrics_of
from unihap.structures import Dataset, DetectionLabel, Record

FIRST, SECOND = [50, 50, 20, 60], [150, 50, 20, 60]  # two people, x, y, width, height
ELSEWHERE = [250, 50, 20, 60]
TINY = 1e-4  # the tools' epsilon in the denominators


def image(*people: list, ignore: tuple = (), name: str = "a", **size: int) -> dict:
    boxes = [{"tag": "person", "fbox": box} for box in people]
    boxes += [{"tag": "mask", "fbox": box, "extra": {"ignore": 1}} for box in ignore]
    return {"ID": name, "gtboxes": boxes, **(size or {"width": 400, "height": 200})}


def found(*boxes: tuple[list, float], name: str = "a", **size: int) -> dict:
    return {"ID": name, "dtboxes": [{"box": box, "score": score, "tag": 1} for box, score in boxes], **size}


def test_perfect_detections():
    people = [[x, 20, 10, 40] for x in range(0, 400, 20)]
    result = crowd_metrics_of([image(*people)], [found(*((box, 0.95) for box in people))])
    # 20 people: the area under the curve starts at the first detection, at a recall of 1/20
    assert result == pytest.approx({"AP": 95, "MR-2": 0, "JI": 100, "recall": 100}, abs=TINY)


def test_nothing_detected():
    assert crowd_metrics_of([image(FIRST)], [found()]) == {"AP": 0, "MR-2": 100, "JI": 0, "recall": 0}
    assert crowd_metrics_of([image(FIRST)], []) == {"AP": 0, "MR-2": 100, "JI": 0, "recall": 0}


def test_everything_beside_the_people():
    result = crowd_metrics_of([image(FIRST)], [found((ELSEWHERE, 0.9))])
    assert result == {"AP": 0, "MR-2": 100, "JI": 0, "recall": 0}


def test_hand_computed_scene():
    result = crowd_metrics_of([image(FIRST, SECOND)], [found((FIRST, 0.9), (ELSEWHERE, 0.8), (SECOND, 0.7))])
    # recall 1/2, 1/2, 1 and precision 1, 1/2, 2/3: one trapezoid, 1/2 wide
    assert result["AP"] == pytest.approx(100 * 0.5 * (1 / 2 + 2 / 3) / 2)
    # the curve reaches every FPPI from 0.01 on with the second detection, where half the people are missed
    assert result["MR-2"] == pytest.approx(50)
    # below 0.7 all three count: 2 / (3 + 2 - 2); above, 1 / (2 + 2 - 1)
    assert result["JI"] == pytest.approx(100 * 2 / 3, abs=TINY)
    assert result["recall"] == 100


def test_a_second_detection_of_a_person_is_false():
    result = crowd_metrics_of([image(FIRST, SECOND)], [found((FIRST, 0.9), (FIRST, 0.8), (SECOND, 0.7))])
    assert result["AP"] == pytest.approx(100 * 0.5 * (1 / 2 + 2 / 3) / 2)


def test_an_iou_of_a_half_is_not_enough():
    # 20 of 40 pixels of width shared: IoU 1/2 and a hair less for the epsilon
    assert crowd_metrics_of([image([50, 50, 40, 60])], [found(([50, 50, 20, 60], 0.9))])["recall"] == 0
    assert crowd_metrics_of([image([50, 50, 40, 60])], [found(([50, 50, 21, 60], 0.9))])["recall"] == 100


def test_detections_in_ignore_regions_are_neither_hits_nor_mistakes():
    region = [240, 40, 60, 100]
    with_region = crowd_metrics_of(
        [image(FIRST, SECOND, ignore=[region])], [found((FIRST, 0.9), (ELSEWHERE, 0.8), (SECOND, 0.7))]
    )
    without = crowd_metrics_of([image(FIRST, SECOND)], [found((FIRST, 0.9), (SECOND, 0.7))])
    assert with_region == pytest.approx(without)


def test_a_person_is_matched_before_an_ignore_region_swallows_the_detection():
    result = crowd_metrics_of([image(FIRST, ignore=[[0, 0, 400, 200]])], [found((FIRST, 0.9))])
    assert result["recall"] == 100


def test_a_missed_person_inside_an_ignore_region_does_not_count_in_the_jaccard_index():
    result = crowd_metrics_of([image(FIRST, SECOND, ignore=[SECOND])], [found((FIRST, 0.9))])
    assert result["JI"] == pytest.approx(100, abs=TINY)
    assert result["recall"] == 50


def test_the_jaccard_index_assigns_best_pairs_where_ap_is_greedy():
    # a overlaps both people (IoU 95/105 and 80/120), b the first alone (89/111): greedy a takes the person b needs
    first, second, a, b = ([x, 50, 100, 60] for x in (100, 125, 105, 89))
    result = crowd_metrics_of([image(first, second)], [found((a, 0.9), (b, 0.8))])
    assert result["recall"] == 50
    assert result["JI"] == pytest.approx(100, abs=TINY)


def test_the_jaccard_index_divides_by_all_images():
    truth = [image(FIRST), image(FIRST, name="b"), image(FIRST, name="c"), image(FIRST, name="d")]
    assert crowd_metrics_of(truth, [found((FIRST, 0.95))])["JI"] == pytest.approx(25, abs=TINY)


def test_a_score_equal_to_a_threshold_of_the_jaccard_index_is_not_above_it():
    # above 0.9 the false detection is gone: 1 / (1 + 2 - 1) instead of 1 / (2 + 2 - 1)
    result = crowd_metrics_of([image(FIRST, SECOND)], [found((FIRST, 0.95), (ELSEWHERE, 0.9))])
    assert result["JI"] == pytest.approx(50, abs=TINY)


def test_boxes_are_clipped_to_the_image():
    # half of the person is outside on the left; the detection stops at the border
    result = crowd_metrics_of([image([-40, 50, 80, 60])], [found(([0, 50, 40, 60], 0.9))])
    assert result["recall"] == 100
    # what lies wholly beyond the right border becomes the last column, not nothing
    result = crowd_metrics_of([image([450, 50, 20, 60])], [found(([500, 50, 30, 60], 0.9))])
    assert result["recall"] == 100


def test_false_detections_in_an_image_without_people_count():
    truth = [image(FIRST, SECOND), image(name="empty")]
    clean = crowd_metrics_of(truth, [found((FIRST, 0.9), (SECOND, 0.8))])
    false = crowd_metrics_of(truth, [found((FIRST, 0.9), (SECOND, 0.8)), found((FIRST, 0.85), name="empty")])
    assert clean["AP"] == pytest.approx(50)
    assert false["AP"] == pytest.approx(100 * 0.5 * (1 / 2 + 2 / 3) / 2)


def test_equal_scores_follow_the_order_of_the_truth_then_of_the_boxes():
    hit_first = crowd_metrics_of([image(FIRST, SECOND)], [found((FIRST, 0.5), (SECOND, 0.5), (ELSEWHERE, 0.5))])
    hit_last = crowd_metrics_of([image(FIRST, SECOND)], [found((ELSEWHERE, 0.5), (FIRST, 0.5), (SECOND, 0.5))])
    assert hit_first["AP"] > hit_last["AP"]
    truth = [image(FIRST), image(SECOND, name="b")]
    lines = [found((FIRST, 0.5)), found((ELSEWHERE, 0.5), (SECOND, 0.5), name="b")]
    assert crowd_metrics_of(truth, lines) == crowd_metrics_of(truth, lines[::-1])


def test_the_size_may_stand_in_the_detections():
    truth = [{"ID": "a", "gtboxes": [{"tag": "person", "fbox": FIRST}]}]
    assert crowd_metrics_of(truth, [found((FIRST, 0.9), width=400, height=200)])["recall"] == 100
    with pytest.raises(ValueError, match="image 'a' has width None and height None"):
        crowd_metrics_of(truth, [found((FIRST, 0.9))])


@pytest.mark.parametrize(
    ("truth", "found_", "message"),
    [
        ([image()], [], "1 images holds no person that counts"),
        ([image(ignore=[FIRST])], [], "no person that counts"),
        ([], [], "0 images holds no person"),
        ([image(FIRST), image(SECOND)], [], "'a' occurs twice in the ground truth"),
        ([image(FIRST)], [found(), found()], "'a' occurs twice in the detections"),
        ([image(FIRST)], [found(name="z")], "name no ground-truth image, e.g. ID 'z'"),
        ([{"gtboxes": []}], [], "has no 'ID'"),
        ([{"ID": "a"}], [], "image 'a' does not follow .* KeyError.'gtboxes'"),
        ([image(FIRST)], [{"ID": "a", "dtboxes": [{"box": FIRST}]}], "KeyError.'score'"),
        ([image(FIRST)], [found((FIRST, 1.5))], "scores from 1.5 to 1.5"),
        ([image(FIRST)], [found((FIRST, float("nan")))], "impossible box"),
        ([image([0, 0, -5, 9])], [], r"impossible box \[0.0, 0.0, -5.0, 9.0\]"),
        ([image([0, 0, 5])], [], "boxes of shape"),
        ([image([0, 0, 5, "x"])], [], "not 4 numbers"),
    ],
)
def test_impossible_input_is_refused(truth, found_, message):
    with pytest.raises(ValueError, match=message):
        crowd_metrics_of(truth, found_)


def test_both_forms_of_odgt_files_are_read(tmp_path: Path):
    truth = [image(FIRST), image(SECOND, name="b")]
    lines, one_line, dets = tmp_path / "lines.odgt", tmp_path / "list.odgt", tmp_path / "dets.odgt"
    lines.write_text("\n".join(map(json.dumps, truth)) + "\n\n")
    one_line.write_text(json.dumps(truth))
    dets.write_text(json.dumps(found((FIRST, 0.9))))
    expected = crowd_metrics_of(truth, [found((FIRST, 0.9))])
    assert crowd_metrics(lines, dets) == crowd_metrics(str(one_line), str(dets)) == expected


def test_broken_files_are_refused(tmp_path: Path):
    broken, numbers = tmp_path / "broken.odgt", tmp_path / "numbers.odgt"
    broken.write_text('{"ID": "a", "gtboxes": []}\n{"ID": ')
    numbers.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"broken.odgt, line 2 is not JSON"):
        crowd_metrics(broken, broken)
    with pytest.raises(ValueError, match=r"numbers.odgt, line 1 holds something else"):
        crowd_metrics(numbers, numbers)
    with pytest.raises(FileNotFoundError, match=r"missing.odgt"):
        crowd_metrics(tmp_path / "missing.odgt", broken)


@pytest.fixture
def data() -> Dataset:
    def record(name: str, boxes: list, ignore: list) -> Record:
        label = DetectionLabel(
            np.array(boxes, dtype=float).reshape(-1, 4), np.array(ignore, dtype=float).reshape(-1, 4)
        )
        return Record(name, f"{name}.jpg", label)

    records = [record("a", [[50, 50, 70, 110], [150, 50, 170, 110]], [[240, 40, 300, 140]]), record("b", [], [])]
    return Dataset("toy_val", "detection", records)


def test_a_row_keeps_confident_boxes_in_crowdhumans_format(data):
    result = {"boxes": [[50, 50, 70, 110], [0, 0, 9, 9]], "scores": np.array([0.05, 0.04]), "size": (200, 400)}
    made = detection.row(result, data.records[0], data)
    assert made["dtboxes"] == [{"box": FIRST, "score": 0.05, "tag": 1}]
    assert (made["id"], made["ID"], made["height"], made["width"]) == ("a", "a", 200, 400)
    assert len(detection.row(result, data.records[0], data, threshold=0)["dtboxes"]) == 2
    assert json.loads(json.dumps(made)) == made


def test_boxes_and_scores_that_do_not_fit_are_refused(data):
    with pytest.raises(ValueError, match=r"a: boxes of shape \(1, 4\) and scores of shape \(2,\)"):
        detection.row({"boxes": np.zeros((1, 4)), "scores": np.zeros(2), "size": (9, 9)}, data.records[0], data)


def test_summary_compares_with_the_labels_of_the_records_in_any_order(data):
    boxes = np.array([[50.0, 50, 70, 110], [250, 50, 270, 110], [150, 50, 170, 110]])
    results = [
        {"boxes": boxes, "scores": np.array([0.9, 0.8, 0.7]), "size": (200, 400)},
        {"boxes": boxes[:1], "scores": np.array([0.85]), "size": (200, 400)},
    ]
    made = [detection.row(result, record, data) for result, record in zip(results, data.records, strict=True)]
    assert detection.summary(made, data) == detection.summary(made[::-1], data)
    # the box in the ignore region is dropped, the one in the image without people is false
    assert detection.summary(made, data)["AP"] == pytest.approx(100 * 0.5 * (1 / 2 + 2 / 3) / 2)
    # image a could not be read: its people are missed
    assert detection.summary(made[1:], data)["recall"] == 0


def test_chance_sees_nobody(data):
    empty = [
        detection.row({"boxes": np.empty((0, 4)), "scores": np.empty(0), "size": (9, 9)}, r, data) for r in data.records
    ]
    assert detection.chance(data) == {"AP": detection.summary(empty, data)["AP"]}


def read_lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_detection_agrees_with_unihcp_and_iter_e2edet(golden: Path):
    truth = read_lines(golden / "metrics" / "crowdhuman_gt_lines.odgt.gz")
    dets = read_lines(golden / "metrics" / "crowdhuman_dt.odgt.gz")
    expected = json.loads((golden / "metrics" / "golden.json").read_text())["det"]["expected"]
    result = crowd_metrics_of(truth, dets)
    for ours, theirs in {"AP": "AP", "MR-2": "MR", "JI": "JI", "recall": "recall"}.items():
        assert result[ours] / 100 == pytest.approx(expected[theirs], abs=1e-9)
    random.Random(0).shuffle(dets)
    assert crowd_metrics_of(truth, dets) == result
