import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from unihap.evaluation import EVALUATORS, main_metric, pose
from unihap.evaluation.oks import oks_nms
from unihap.evaluation.pose import end_point_error, keypoint_ap, pckh
from unihap.structures import Dataset, PoseLabel, Record

SIGMAS = (0.05, 0.05)
X = np.array([[10.0, 10.0], [110.0, 210.0]])  # two joints of a person
AREA = 100.0 * 100


def person(image: int = 1, shift: float = 0.0, v: tuple[int, int] = (2, 2), **more: object) -> dict:
    keypoints = [float(n) for (x, y), seen in zip(X, v, strict=True) for n in (x + shift, y, seen)]
    return {"image_id": image, "category_id": 1, "keypoints": keypoints, "bbox": [0, 0, 200, 300], "area": AREA} | more


def detected(image: int = 1, shift: float = 0.0, score: float = 0.9) -> dict:
    return {"image_id": image, "category_id": 1, "keypoints": person(image, shift)["keypoints"], "score": score}


def coco(*people: dict, images: tuple[int, ...] = (1, 2)) -> dict:
    return {"images": [{"id": i} for i in images], "annotations": list(people), "categories": [{"id": 1}]}


def shift_of(oks: float, area: float = AREA) -> float:
    """How far all joints must move for an OKS: exp(-d^2 / (2 area (2 sigma)^2)) = oks."""
    return math.sqrt(-math.log(oks) * 2 * area * (2 * SIGMAS[0]) ** 2)


# -------------------------------------------------------------------------------------------------- keypoint AP


def test_perfect_poses_score_100():
    result = keypoint_ap(coco(person(1), person(2)), [detected(1), detected(2)], SIGMAS)
    assert result.pop("APM") != result["APL"]  # nobody of medium size: NaN
    assert result == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75", "APL", "AR"), 100))


def test_an_oks_of_072_passes_five_of_ten_thresholds():
    result = keypoint_ap(coco(person()), [detected(shift=shift_of(0.72))], SIGMAS)
    assert result["AP"] == pytest.approx(50)
    assert (result["AP50"], result["AP75"], result["AR"]) == pytest.approx((100, 0, 50))


def test_without_use_area_the_box_area_times_053_counts():
    truth, box_area = coco(person(area=1.0)), 200 * 300 * 0.53
    result = [detected(shift=shift_of(0.72, box_area))]
    assert keypoint_ap(truth, result, SIGMAS)["AP"] == 0
    assert keypoint_ap(truth, result, SIGMAS, use_area=False)["AP"] == pytest.approx(50)
    # the size class follows: 31800 square pixels are a large person
    assert keypoint_ap(truth, result, SIGMAS, use_area=False)["APL"] == pytest.approx(50)
    del truth["annotations"][0]["area"]
    assert keypoint_ap(truth, result, SIGMAS)["AP"] == pytest.approx(50)


def test_empty_results_score_0():
    assert keypoint_ap(coco(person()), [], SIGMAS) == dict.fromkeys(("AP", "AP50", "AP75", "APM", "APL", "AR"), 0.0)


def test_only_the_chosen_images_count():
    truth, results = coco(person(1), person(2)), [detected(1)]
    assert keypoint_ap(truth, results, SIGMAS)["AR"] == pytest.approx(50)
    assert keypoint_ap(truth, results, SIGMAS, image_ids=[1])["AR"] == pytest.approx(100)
    assert keypoint_ap(truth, results, SIGMAS, image_ids=[2])["AR"] == 0


def test_an_annotation_with_id_0_is_matched():
    assert keypoint_ap(coco(person(id=0)), [detected()], SIGMAS)["AP"] == pytest.approx(100)


def test_unlabelled_people_count_neither_way_and_a_box_in_a_result_is_not_read():
    truth = coco(person(1), person(2, v=(0, 0)))
    results = [detected(1) | {"bbox": [0, 0, 1, 1]}, detected(2, shift=500, score=0.5)]
    assert keypoint_ap(truth, results, SIGMAS)["AP"] == pytest.approx(100)


def test_the_callers_objects_stay_as_they_are_and_nothing_is_printed(capsys):
    truth, results = coco(person()), [detected()]
    before = json.dumps([truth, results])
    keypoint_ap(truth, results, SIGMAS, use_area=False)
    assert json.dumps([truth, results]) == before
    assert capsys.readouterr().out == ""


def test_files_and_objects_give_the_same(tmp_path: Path):
    truth, results = coco(person(), person(2, shift=3)), [detected(shift=shift_of(0.8)), detected(2)]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    from_files = keypoint_ap(str(tmp_path / "gt.json"), tmp_path / "dt.json", SIGMAS)
    assert from_files == pytest.approx(keypoint_ap(truth, results, SIGMAS), nan_ok=True)
    with pytest.raises(FileNotFoundError, match=r"none.json"):
        keypoint_ap(tmp_path / "none.json", results, SIGMAS)


@pytest.mark.parametrize(
    ("truth", "results", "message"),
    [
        (coco(), [], "none of the 2 images has a person"),
        (coco(person(v=(0, 0))), [], "none of the 2 images has a person"),
        (coco(person(iscrowd=1)), [], "none of the 2 images has a person"),
        (coco(person()), [detected(7)], "result 0 is of image 7"),
        (coco(person()), [detected() | {"category_id": 3}], r"category 3; known are \[1\]"),
        (coco(person()), [{"image_id": 1}], "result 0 has no 'category_id'"),
        (coco(person()), [detected(score=float("nan"))], r"scores of the results hold nan"),
        (coco(person()), [detected() | {"keypoints": [1, 2, 3]}], r"come as \[3, 6\] numbers"),
        (coco({"image_id": 1, "bbox": [0, 0, 1, 1]}), [], r"annotation 1 of the ground truth has no \['keypoints'\]"),
        ({"people": []}, [], r"no \['images', 'annotations'\]"),
        ([], [], "holds a list; expected a dict"),
        (coco(person()), {}, "holds a dict; expected a list"),
    ],
)
def test_impossible_annotations_and_results_are_refused(truth, results, message):
    with pytest.raises(ValueError, match=message):
        keypoint_ap(truth, results, SIGMAS)


def test_sigmas_and_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"17 sigmas ask for 51"):
        keypoint_ap(coco(person()), [])
    with pytest.raises(ValueError, match="image 9 is not in the ground truth"):
        keypoint_ap(coco(person()), [], SIGMAS, image_ids=[1, 9])


def read_gzip(path: Path) -> dict:
    with gzip.open(path, "rt") as file:
        return json.load(file)


def test_keypoint_ap_agrees_with_pycocotools_and_xtcocotools(golden: Path):
    expected = json.loads((golden / "metrics" / "golden.json").read_text())["coco"]["expected"]
    truth = read_gzip(golden / "metrics" / "coco_kpt_gt.json.gz")
    results = read_gzip(golden / "metrics" / "coco_kpt_dt.json.gz")
    result = keypoint_ap(truth, results)
    names = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APM": "AP_M", "APL": "AP_L", "AR": "AR"}
    for ours, theirs in names.items():
        assert result[ours] / 100 == pytest.approx(expected[theirs], abs=1e-9)
    assert keypoint_ap(truth, results[::-1])["AP"] == pytest.approx(result["AP"], abs=0.05)  # equal scores only


# ------------------------------------------------------------------------------------------------------ OKS-NMS


def test_poses_too_similar_to_a_better_one_are_dropped():
    shift = shift_of(0.92)
    poses = X + np.array([0, shift, 3 * shift])[:, None, None] * (1, 0)
    kept = oks_nms(poses, np.array([0.5, 0.9, 0.1]), np.full(3, AREA), SIGMAS)
    assert kept.tolist() == [1, 2]  # the first is 0.92 similar to the second; 2 shifts apart it is 0.92 ** 4 = 0.72
    assert oks_nms(poses, np.array([0.5, 0.9, 0.1]), np.full(3, AREA), SIGMAS, threshold=0.7).tolist() == [1]
    assert oks_nms(poses, np.array([0.5, 0.9, 0.1]), np.full(3, AREA), SIGMAS, threshold=0.95).tolist() == [1, 0, 2]


def test_of_equal_poses_and_scores_the_first_stays():
    assert oks_nms(np.stack([X, X]), [0.5, 0.5], [AREA, AREA], SIGMAS).tolist() == [0]
    assert oks_nms(np.empty((0, 2, 2)), [], [], SIGMAS).tolist() == []


def test_poses_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 poses, 2 scores and 1 areas"):
        oks_nms(X[None], [1, 2], [1], SIGMAS)
    with pytest.raises(ValueError, match="17 sigmas for 2 keypoints"):
        oks_nms(X[None], [1], [1])
    with pytest.raises(ValueError, match="area -1"):
        oks_nms(X[None], [1], [-1], SIGMAS)


def test_suppression_keeps_the_poses_that_unihcp_keeps(golden: Path):
    expected = json.loads((golden / "metrics" / "golden.json").read_text())["coco"]["oks_nms"]["expected"]
    results = read_gzip(golden / "metrics" / "coco_kpt_dt.json.gz")
    for image, kept in expected.items():
        mine = [r for r in results if r["image_id"] == int(image)]
        poses = np.reshape([r["keypoints"] for r in mine], (len(mine), 17, 3))
        areas = np.prod(np.ptp(poses[..., :2], axis=1), axis=1)
        scores = np.array([r["score"] for r in mine])
        assert oks_nms(poses, scores, areas, threshold=0.9).tolist() == kept["oks_nms_thr_0_9"]
        assert oks_nms(poses, scores, areas, threshold=0.3).tolist() == kept["oks_nms_thr_0_3"]


# --------------------------------------------------------------------------------------- PCKh and end point error


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


# ----------------------------------------------------------------------------------------------------- evaluator


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
    made = rows_of(data, shift_of(0.72))
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
    path.write_text(json.dumps(coco(*people, person(99), images=(0, 1, 99))))
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
    _, truth, visible, size = mpii({})
    keypoints = np.concatenate([truth[0], visible[0][:, None]], axis=1)
    label = PoseLabel(keypoints, np.array([0.0, 0, 300, 300]), image_id=0, head_size=float(size[0]))
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
