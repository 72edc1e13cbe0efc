import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from unihap.evaluation.oks import oks_nms
from unihap.evaluation.pose import keypoint_ap

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


def test_poses_too_similar_to_a_better_one_are_dropped():
    shift = shift_of(0.92)
    poses = X + np.array([0, shift, 3 * shift])[:, None, None] * (1, 0)
    kept = oks_nms(poses, np.array([0.5, 0.9, 0.1]), np.full(3, AREA), SIGMAS)
    assert kept.tolist() == [1, 2]  # the first is 0.92 similar to the second; 2 shifts apart it is 0.92 ** 4 = 0.72
    assert oks_nms(poses, np.array([0.5, 0.9, 0.1]), np.full(3, AREA), SIGMAS, threshold=0.7).tolist() == [1]
    assert oks_nms(poses, np.array([0.5, 0.9, 0.1]), np.full(3, AREA), SIGMAS, threshold=0.95).tolist() == [1, 0, 2]


def test_of_equal_poses_and_scores_the_first_stays():
    assert oks_nms(np.stack([X, X]), [0.5, 0.5], [AREA, AREA], SIGMAS).tolist() == [0]
    # a similarity equal to the threshold is no repetition
    assert oks_nms(np.stack([X, X]), [0.5, 0.5], [AREA, AREA], SIGMAS, threshold=1.0).tolist() == [0, 1]
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
