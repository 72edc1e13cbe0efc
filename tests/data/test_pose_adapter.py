import json
import pickle
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from unihap.data.catalog import load_dataset
from unihap.data.mpii import SC_BIAS
from unihap.data.pose import clip_coco_box, with_detector_boxes
from unihap.evaluation.pose import summary


def person(number, image_id=1, box=(10, 20, 30, 40), visible=(2, 1), num_keypoints=17, **rest):
    """A COCO annotation whose first keypoints have the given visibility."""
    keypoints = [0] * (3 * num_keypoints)
    for k, v in enumerate(visible):
        keypoints[3 * k : 3 * k + 3] = [11 + k, 22 + k, v]
    return {
        "id": number, "image_id": image_id, "bbox": list(box), "keypoints": keypoints, "iscrowd": 0, "area": 700.0,
        "segmentation": [[0, 0, 1, 1]],
    } | rest  # fmt: skip


def coco(root, *people, annotation="coco/annotations/person_keypoints_val2017.json", images="coco/val2017"):
    """An annotation file of two images of 100x80 pixels, ids 1 and 7."""
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / images / "a.jpg").write_bytes(b"never decoded here")
    sizes = {"width": 100, "height": 80}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"} | sizes, {"id": 7, "file_name": "b.jpg"} | sizes],
        "annotations": list(people),
        "categories": [{"id": 1, "name": "person"}],
    }
    path = root / annotation
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return root


def test_record_is_one_person(tmp_path):
    dataset = load_dataset("coco_keypoints_val", coco(tmp_path, person(5, image_id=7), person(6)))
    assert [r.id for r in dataset.records] == ["7_5", "1_6"]
    record = dataset.records[0]
    assert record.image == str(tmp_path / "coco" / "val2017" / "b.jpg")
    assert record.label.image_id == 7
    assert (record.label.area, record.label.box_score, record.label.head_size) == (700.0, 1.0, 0.0)
    assert (dataset.metric, dataset.use_area) == ("keypoint_ap", True)
    assert Path(dataset.annotation).is_file()


def test_hidden_and_visible_keypoints_both_count_as_labelled(tmp_path):
    (record,) = load_dataset("coco_keypoints_val", coco(tmp_path, person(5, visible=(2, 1, 0)))).records
    assert record.label.keypoints[:3].tolist() == [[11, 22, 1], [12, 23, 1], [13, 24, 0]]
    assert record.label.keypoints.shape == (17, 3)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((10, 20, 30, 40), [10, 20, 39, 59]),  # the last pixel is x + w - 1
        ((-5, 20, 30, 40), [0, 20, 29, 59]),  # the published rule adds the width to the clipped corner
        ((90, 70, 30, 40), [90, 70, 99, 79]),  # the image ends at pixel 99, 79
        ((10, 20, 1, 40), None),
    ],
)
def test_box_is_clipped_by_the_published_rule(box, clipped):
    result = clip_coco_box(np.array(box, dtype=float), 100, 80)
    assert (result.tolist() if result is not None else None) == clipped


def test_everything_left_out_is_counted_by_reason(tmp_path):
    root = coco(
        tmp_path,
        person(1),
        person(2, iscrowd=1),
        person(3, visible=()),
        person(4, num_keypoints=0) | {"num_keypoints": 0},
        person(5, area=0),
        person(6, box=(10, 20, 0, 40)),
        person(7, box=(100, 20, 30, 40)),
        person(8, box=(-30, 20, 30, 40)),
        person(9, box=(10, 20, 1, 40)),
    )
    dataset = load_dataset("coco_keypoints_val", root)
    assert [r.id for r in dataset.records] == ["1_1"]
    assert dataset.skipped == {
        "area of zero": 1, "box of one pixel": 1, "box of zero area": 1, "box outside the image": 2, "crowd": 1,
        "no labelled keypoint": 2,
    }  # fmt: skip


def test_reasons_are_logged_once(tmp_path, caplog):
    with caplog.at_level("INFO", logger="unihap"):
        load_dataset("coco_keypoints_val", coco(tmp_path, person(1), person(2, iscrowd=1), person(3, iscrowd=1)))
    assert caplog.messages == ["coco_keypoints_val: left out 2 x crowd"]


def test_broken_annotations_are_named(tmp_path):
    for broken, message in (
        (person(5, image_id=3), r"val2017\.json: annotation 5: image_id 3 is not among the images"),
        (person(5, num_keypoints=14), r"annotation 5: expected 17 keypoints \(x, y, v\), got 14"),
        (person(5, box=(1, 2, 3)), r"annotation 5: expected 4 finite numbers, got \[1, 2, 3\]"),
        (person(5, box=(1, 2, 3, float("nan"))), "annotation 5: expected 4 finite numbers"),
        (person(5, area="big"), "annotation 5: area must be a number, got 'big'"),
        ({"id": 5, "image_id": 1, "bbox": [1, 2, 3, 4]}, "annotation 5: no key 'keypoints'"),
        ({"bbox": [1, 2, 3, 4]}, r"annotations\[0\]: no key 'image_id'"),
        ("person", r"annotations\[0\]: expected an object, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset("coco_keypoints_val", coco(tmp_path, broken))


def test_repeated_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 annotations have the id 5"):
        load_dataset("coco_keypoints_val", coco(tmp_path, person(5), person(5)))
    path = coco(tmp_path, person(5)) / "coco/annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    content["images"][1]["id"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="two images have the id 1"):
        load_dataset("coco_keypoints_val", tmp_path)


def test_file_that_is_not_json_or_labels_nobody_is_refused(tmp_path):
    path = coco(tmp_path, person(1, iscrowd=1)) / "coco/annotations/person_keypoints_val2017.json"
    with pytest.raises(FileNotFoundError, match=r'labels nobody: .*json; see "COCO"'):
        load_dataset("coco_keypoints_val", tmp_path)
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"val2017\.json is not valid JSON"):
        load_dataset("coco_keypoints_val", tmp_path)


def test_posetrack_loses_the_unlabelled_ears(tmp_path):
    root = coco(
        tmp_path,
        person(1, visible=range(17)),
        person(2, visible=(0, 0, 0, 2, 2)),  # the ears alone
        annotation="posetrack18/annotations/posetrack18_val.json",
        images="posetrack18",
    )
    dataset = load_dataset("posetrack18_val", root)
    (record,) = dataset.records
    assert record.label.keypoints[:, 0].tolist() == [11 + k for k in range(17) if k not in (3, 4)]
    assert dataset.skipped == {"no labelled keypoint": 1}
    assert dataset.annotation == ""  # its keypoints are not those of the file


def test_halpe_keeps_the_body(tmp_path):
    root = coco(
        tmp_path,
        person(1, num_keypoints=136),
        annotation="halpe/annotations/halpe_val_v1.json",
        images="halpe/val2017",
    )
    assert load_dataset("halpe_val", root).records[0].label.keypoints.shape == (20, 3)


def test_records_behave_like_a_list(tmp_path):
    records = load_dataset("coco_keypoints_val", coco(tmp_path, *(person(i) for i in range(5)))).records
    assert len(records) == 5
    assert [r.id for r in records] == ["1_0", "1_1", "1_2", "1_3", "1_4"]
    assert [r.id for r in records[1:-1]] == ["1_1", "1_2", "1_3"]
    assert records[-1].id == records[np.int64(4)].id == "1_4"
    with pytest.raises(IndexError, match="record 5 of 5"):
        records[5]
    copied = pickle.loads(pickle.dumps(records))
    assert [r.id for r in copied] == [r.id for r in records]


def test_changing_a_label_does_not_change_the_dataset(tmp_path):
    records = load_dataset("coco_keypoints_val", coco(tmp_path, person(1))).records
    records[0].label.keypoints[:] = -1
    assert records[0].label.keypoints[0].tolist() == [11, 22, 1]


def detections(path, *entries):
    path.write_text(json.dumps(list(entries)))
    return path


def test_detector_boxes_replace_people(tmp_path):
    dataset = load_dataset("coco_keypoints_val", coco(tmp_path, person(5)))
    found = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
    file = detections(
        tmp_path / "boxes.json",
        found | {"score": 0.1},
        found,
        found | {"category_id": 3},
        found | {"image_id": 99},
        found | {"bbox": [1, 2, 0, 5]},
    )
    boxes = with_detector_boxes(dataset, file, threshold=0.2)
    (record,) = boxes.records
    assert record.id == "7_1"
    assert record.image.endswith("b.jpg")  # an image without labelled people
    assert record.label.box.tolist() == [1, 2, 31, 42]
    assert record.label.box_score == 0.5
    assert record.label.keypoints.shape == (17, 3)
    assert not record.label.keypoints.any()
    assert boxes.skipped == {
        "box of zero area": 1, "image not in the dataset": 1, "not a person": 1, "score below the threshold": 1,
    }  # fmt: skip
    assert boxes.annotation == dataset.annotation
    assert set(boxes.image_ids) == set(dataset.records.images.ids.tolist()) > {record.label.image_id}
    assert len(with_detector_boxes(dataset, file).records) == 2  # every score


def test_people_in_images_without_a_detected_box_are_missed(tmp_path):
    """Two people in two images, one found to the pixel: half of the recall, whichever images have boxes."""
    dataset = load_dataset("coco_keypoints_val", coco(tmp_path, person(5), person(6, image_id=7)))
    found = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
    boxes = with_detector_boxes(dataset, detections(tmp_path / "boxes.json", found))
    (record,) = boxes.records
    row = {"id": record.id, "image_id": 1, "category_id": 1, "score": 0.5, "area": 900.0}
    row["keypoints"] = dataset.records[0].label.keypoints.astype(float).ravel().tolist()
    assert summary([row], boxes)["AR"] == pytest.approx(50)
    assert summary([row], replace(boxes, image_ids=()))["AR"] == pytest.approx(100)


def test_detector_boxes_are_refused_where_the_labels_are_the_truth(tmp_path):
    dataset = load_dataset("coco_keypoints_val", coco(tmp_path, person(5)))
    with pytest.raises(ValueError, match="cannot be evaluated with a detector's boxes"):
        with_detector_boxes(replace(dataset, annotation=""), tmp_path / "boxes.json")


def test_broken_detector_files_are_refused(tmp_path):
    dataset = load_dataset("coco_keypoints_val", coco(tmp_path, person(5)))
    with pytest.raises(ValueError, match=r"boxes\.json: entry 0: no key 'score'"):
        with_detector_boxes(dataset, detections(tmp_path / "boxes.json", {"image_id": 1, "bbox": [1, 2, 3, 4]}))
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.json"):
        with_detector_boxes(dataset, tmp_path / "none.json")


def mpii(root, *entries, heads=None):
    (root / "mpii" / "images").mkdir(parents=True, exist_ok=True)
    (root / "mpii" / "images" / "a.jpg").write_bytes(b"x")
    (root / "mpii" / "annotations").mkdir(exist_ok=True)
    (root / "mpii" / "annotations" / "mpii_val.json").write_text(json.dumps(entries))
    if heads is not None:
        scipy.io.savemat(root / "mpii" / "annotations" / "mpii_gt_val.mat", {"headboxes_src": heads})
    return root


ENTRY = {
    "image": "a.jpg",
    "center": [101.0, 201.0],
    "scale": 2.0,
    "joints": [[1.0, 1.0]] + [[11.0, 21.0]] * 14 + [[-1.0, -1.0]],
    "joints_vis": [1] * 15 + [0],
}


def test_mpii_counts_pixels_from_zero_and_lowers_the_centre(tmp_path):
    heads = np.array([[[1.0], [1.0]], [[31.0], [41.0]]])  # a diagonal of 50
    dataset = load_dataset("mpii_val", mpii(tmp_path, ENTRY, heads=heads))
    (record,) = dataset.records
    assert record.label.keypoints[[0, 1]].tolist() == [[0, 0, 1], [10, 20, 1]]
    assert record.label.keypoints[15, 2] == 0
    # centre (101 - 1, 201 + 15 * 2 - 1) = (100, 230), side 200 * 2
    assert record.label.box.tolist() == [-100, 30, 300, 430]
    assert record.label.head_size == pytest.approx(SC_BIAS * 50)
    assert dataset.metric == "pckh"


def test_mpii_without_head_boxes_has_no_head_sizes(tmp_path):
    assert load_dataset("mpii_val", mpii(tmp_path, ENTRY)).records[0].label.head_size == 0


def test_mpii_people_without_keypoints_keep_the_head_boxes_in_step(tmp_path):
    empty = deepcopy(ENTRY) | {"joints_vis": [0] * 16}
    heads = np.zeros((2, 2, 3))
    heads[1, 0] = [10, 20, 30]
    dataset = load_dataset("mpii_val", mpii(tmp_path, ENTRY, empty, ENTRY, heads=heads))
    assert [r.id for r in dataset.records] == ["0_0", "0_2"]
    assert [r.label.head_size for r in dataset.records] == pytest.approx([6, 18])


def test_mpii_head_boxes_of_another_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 head boxes for 1 people"):
        load_dataset("mpii_val", mpii(tmp_path, ENTRY, heads=np.zeros((2, 2, 2))))


def test_mpii_broken_entries_are_named(tmp_path):
    for change, message in (
        ({"scale": 0}, r"mpii_val\.json: entry 0: scale must be positive"),
        ({"joints": [[1, 2]]}, "entry 0: expected 32 finite numbers"),
        ({"joints_vis": None}, "entry 0: expected 16 finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset("mpii_val", mpii(tmp_path, ENTRY | change))


# MPII: right ankle, knee, hip, left hip, knee, ankle, pelvis, thorax, neck, head top, right wrist, elbow, shoulder,
# left shoulder, elbow, wrist
NUMBERED = ENTRY | {"joints": [[j + 1.0, 101.0] for j in range(16)], "joints_vis": [1] * 16}


def test_mpii_in_cocos_keypoints_has_the_twelve_that_both_label(tmp_path):
    heads = np.array([[[1.0], [1.0]], [[31.0], [41.0]]])
    root = mpii(tmp_path, NUMBERED, heads=heads)
    own, mapped = load_dataset("mpii_val", root).records[0], load_dataset("mpii_coco_keypoints_val", root).records[0]
    keypoints = mapped.label.keypoints
    assert keypoints[:5].tolist() == [[0, 0, 0]] * 5  # nose, eyes, ears
    # shoulders, elbows, wrists, hips, knees, ankles; of each the left one first
    assert keypoints[5:, 0].tolist() == [13, 12, 14, 11, 15, 10, 3, 2, 4, 1, 5, 0]
    assert keypoints[5:, 1:].tolist() == [[100, 1]] * 12
    assert (mapped.id, mapped.image) == (own.id, own.image)
    assert mapped.label.box.tolist() == own.label.box.tolist()
    assert mapped.label.head_size == own.label.head_size


def test_mpii_in_cocos_keypoints_is_measured_as_coco_without_areas(tmp_path):
    dataset = load_dataset("mpii_coco_keypoints_val", mpii(tmp_path, NUMBERED))
    coco_dataset = load_dataset("coco_keypoints_val", coco(tmp_path, person(1)))
    for field in ("kind", "classes", "mirror", "sigmas", "upper_body", "metric"):
        assert getattr(dataset, field) == getattr(coco_dataset, field)
    assert not dataset.use_area
    assert dataset.annotation == ""  # MPII's file is not in COCO's format


def test_mpii_people_who_show_their_head_alone_are_left_out_of_cocos_keypoints(tmp_path):
    head = NUMBERED | {"joints_vis": [0] * 6 + [1] * 4 + [0] * 6}
    nothing = NUMBERED | {"joints_vis": [0] * 16}
    dataset = load_dataset("mpii_coco_keypoints_val", mpii(tmp_path, head, nothing, NUMBERED))
    assert [r.id for r in dataset.records] == ["0_2"]
    assert dataset.skipped == {"no labelled keypoint": 2}
    with pytest.raises(ValueError, match="nobody in mpii_val has a labelled keypoint that mpii_coco_keypoints_val has"):
        load_dataset("mpii_coco_keypoints_val", mpii(tmp_path, head))


def test_real_coco(dev_data):
    train, val = (load_dataset(f"coco_keypoints_{split}", dev_data) for split in ("train", "val"))
    assert (len(train.records), len(val.records)) == (53, 19)
    content = json.loads(Path(val.annotation).read_text())
    labelled = {f"{a['image_id']}_{a['id']}": a for a in content["annotations"]}
    assert {r.id for r in val.records} == {k for k, a in labelled.items() if a["num_keypoints"] and not a["iscrowd"]}
    for record in val.records:
        truth = np.reshape(labelled[record.id]["keypoints"], (17, 3))
        np.testing.assert_array_equal(record.label.keypoints[:, :2], truth[:, :2])
        assert record.label.keypoints[:, 2].sum() == labelled[record.id]["num_keypoints"]
        assert Path(record.image).is_file()


def test_real_aic(dev_data):
    dataset = load_dataset("aic_train", dev_data)
    assert len(dataset.records) == 6
    assert not dataset.use_area
    assert dataset.records[0].label.box.tolist() == [279, 55, 279 + 213 - 1, 55 + 544 - 1]
    with pytest.raises(FileNotFoundError, match='see "AI Challenger"'):
        load_dataset("aic_val", dev_data)


def test_real_mpii_head_sizes(dev_data):
    dataset = load_dataset("mpii_val", dev_data)
    assert len(dataset.records) == 3
    first = dataset.records[0].label
    assert first.head_size == pytest.approx(0.6 * np.hypot(1031 - 914, 237 - 79), abs=1e-4)
    assert first.keypoints[0].tolist() == [803, 710, 1]
    assert dataset.records[2].label.keypoints[0, 2] == 0
