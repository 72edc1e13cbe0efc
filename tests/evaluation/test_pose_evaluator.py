import json
import math
from pathlib import Path

import numpy as np
import pytest

from unihap.evaluation import EVALUATORS, main_metric, pose
from unihap.structures import Dataset, PoseLabel, Record

SIGMAS = (0.05, 0.05)
X = np.array([[10.0, 10.0], [110.0, 210.0]])  # two joints of a person
AREA = 100.0 * 100
SHIFT_TO_072 = math.sqrt(-math.log(0.72) * 2 * AREA * (2 * SIGMAS[0]) ** 2)  # pixels that leave an OKS of 0.72


def dataset(metric: str = "keypoint_ap", num_people: int = 2, **more: object) -> Dataset:
    """People two to an image, each 100 pixels right of the one before."""
    records = []
    for i in range(num_people):
        keypoints = np.column_stack([X + np.array([100 * i, 0]), [1.0, 1.0]])
        box = np.array([100.0 * i, 0, 100 * i + 200, 300])
        label = PoseLabel(keypoints, box, image_id=i // 2, box_score=0.5, area=AREA, head_size=10.0)
        records.append(Record(str(i), "x.jpg", label))
    return Dataset("toy_val", "pose", records, classes=("head", "foot"), sigmas=SIGMAS, metric=metric, **more)


def result(label: PoseLabel, shift: float = 0.0, peak: tuple = (0.8, 0.6), probability: tuple = (1.0, 0.5)) -> dict:
    keypoints = np.column_stack([label.keypoints[:, :2] + (shift, 0), peak])
    return {"keypoints": keypoints, "probability": np.array(probability)}


def rows_of(data: Dataset, shift: float = 0.0) -> list[dict]:
    return [pose.row(result(record.label, shift), record, data) for record in data.records]


def test_the_score_is_the_mean_confidence_above_a_floor_times_the_box_score():
    data = dataset()
    record = data.records[0]
    assert pose.row(result(record.label), record, data)["score"] == pytest.approx(0.5 * (0.8 + 0.3) / 2)
    # the release's first pass is kept in: peaks above 0.2 are averaged and multiplied too
    released = pose.row(result(record.label), record, data, rescore="release")
    assert released["score"] == pytest.approx(0.5 * (0.8 + 0.3) / 2 * (0.8 + 0.6) / 2)
    # 0.4 * 0.1 = 0.04 is not above the floor of 0.05, a peak of 0.15 not above that of 0.2
    faint = result(record.label, peak=(0.4, 0.15), probability=(0.1, 1.0))
    assert pose.row(faint, record, data)["score"] == pytest.approx(0.5 * 0.15)
    assert pose.row(faint, record, data, rescore="release")["score"] == pytest.approx(0.5 * 0.15 * 0.4)
    assert pose.row(result(record.label, peak=(0, 0)), record, data)["score"] == 0


def test_a_row_is_a_coco_result_with_the_raw_peaks():
    data = dataset()
    made = rows_of(data)[1]
    assert made["keypoints"] == [110, 10, 0.8, 210, 210, 0.6]
    assert (made["id"], made["image_id"], made["category_id"]) == ("1", 0, 1)
    # the crop: 225 x 300 widened to 3:4, then 1.25 times each side
    assert made["area"] == pytest.approx(225 * 300 * 1.25**2)
    assert json.loads(json.dumps(made)) == made


def test_impossible_results_are_refused():
    data = dataset()
    record = data.records[0]
    with pytest.raises(ValueError, match=r"unknown rescore 'best' \(known: fixed, release\)"):
        pose.row(result(record.label), record, data, rescore="best")
    with pytest.raises(ValueError, match=r"0: keypoints \(3, 3\) and probabilities \(2,\) do not fit 2 keypoints"):
        pose.row({"keypoints": np.zeros((3, 3)), "probability": np.zeros(2)}, record, data)


def test_summary_of_keypoint_ap_reads_the_labels_when_there_is_no_annotation_file(tmp_path: Path):
    data = dataset(num_people=4)
    made = rows_of(data, SHIFT_TO_072)
    summary = pose.summary(made, data)
    assert summary["AP"] == pytest.approx(50)
    assert "APM" not in summary  # undefined: nobody has that size
    assert pose.summary(made[::-1], data) == pytest.approx(summary)
    people = [
        {
            "image_id": r.label.image_id,
            "keypoints": (r.label.keypoints * (1, 1, 2)).ravel().tolist(),
            "bbox": [100 * i, 0, 200, 300],
            "area": AREA,
        }
        for i, r in enumerate(data.records)
    ]
    path = tmp_path / "gt.json"
    path.write_text(
        json.dumps({"images": [{"id": i} for i in (0, 1, 99)], "annotations": [*people, people[0] | {"image_id": 99}]})
    )
    # image 99 has no record and does not count
    assert pose.summary(made, dataset(num_people=4, annotation=str(path))) == pytest.approx(summary)


def test_a_person_without_a_row_is_missed():
    data = dataset(num_people=4)
    assert pose.summary(rows_of(data)[:2], data)["AR"] == pytest.approx(50)


def test_summary_drops_repeated_poses():
    data = dataset(num_people=2)
    first, second = rows_of(data)
    second["keypoints"] = first["keypoints"]
    second["score"] = 0.01
    truth = data.records[0]
    alone = Dataset(**{**vars(data), "records": [truth, Record("1", "x.jpg", truth.label)]})
    # two annotations of one person: with the repetition dropped, only one of them is found
    assert pose.summary([first, second], alone)["AR"] == pytest.approx(50)


def test_summary_of_the_other_metrics_is_against_the_labels_of_the_records():
    error = dataset("end_point_error")
    assert pose.summary(rows_of(error, 3.0)[::-1], error) == {"EPE": pytest.approx(3)}
    with pytest.raises(ValueError, match="2 joints; PCKh is defined on MPII's 16"):
        pose.summary(rows_of(dataset("pckh")), dataset("pckh"))
    with pytest.raises(ValueError, match=r"asks for the metric 'pck' \(known: keypoint_ap"):
        pose.summary(rows_of(dataset("pck")), dataset("pck"))


def mpii_dataset() -> Dataset:
    keypoints = np.column_stack([7.0 * np.arange(16), 9.0 * np.arange(16), np.ones(16)])
    label = PoseLabel(keypoints, np.array([0.0, 0, 300, 300]), image_id=0, head_size=10.0)
    return Dataset("toy_val", "pose", [Record("0", "x", label)], classes=tuple("abcdefghijklmnop"), metric="pckh")


def test_summary_of_pckh():
    data = mpii_dataset()
    made = result(data.records[0].label, shift=4.0, peak=(1.0,) * 16, probability=(1.0,) * 16)
    summary = pose.summary([pose.row(made, data.records[0], data)], data)
    assert (summary["PCKh"], summary["PCKh@0.1"]) == (100, 0)


def test_chance_is_the_mean_pose_in_every_box():
    # everybody stands alike in the box: the blind guess is right
    assert pose.chance(dataset()) == {"AP": pytest.approx(100)}
    assert pose.chance(dataset("end_point_error")) == {"EPE": pytest.approx(0)}
    assert pose.chance(mpii_dataset()) == {"PCKh": 100}
    # two people whose joints are 20 pixels apart within their boxes: the mean is 10 off for both
    data = dataset("end_point_error")
    data.records[1].label.keypoints[:, 0] += 20
    assert pose.chance(data) == {"EPE": pytest.approx(10)}


def test_keypoint_ap_comes_with_pck_where_the_keypoints_have_a_torso():
    data = dataset(num_people=2)
    torso = Dataset(**{**vars(data), "classes": ("left_shoulder", "right_hip")})
    labels = [record.label.keypoints for record in data.records]
    diameter = np.linalg.norm(labels[0][0, :2] - labels[0][1, :2])
    near = rows_of(torso, 0.1 * diameter)
    assert pose.summary(near, torso)["PCK@0.2"] == 100
    assert pose.summary(rows_of(torso, 10 * diameter), torso)["PCK@0.2"] == 0
    assert pose.chance(torso)["PCK@0.2"] == 100
    assert "PCK@0.2" not in pose.summary(near, data)


def test_chance_without_labelled_keypoints_is_0():
    data = dataset()
    for record in data.records:
        record.label.keypoints[:, 2] = 0
    assert pose.chance(data) == {"AP": 0.0}


def test_every_kind_has_an_evaluator_and_pose_a_main_metric_by_dataset():
    assert set(EVALUATORS) == {"reid", "attributes", "pose", "parsing", "detection"}
    for evaluator in EVALUATORS.values():
        assert all(callable(getattr(evaluator, name)) for name in ("row", "summary", "chance"))
    assert [main_metric(dataset(metric)) for metric in pose.MAIN_METRICS] == ["AP", "PCKh", "EPE"]
    assert main_metric(Dataset("x", "parsing", [])) == "mIoU"
