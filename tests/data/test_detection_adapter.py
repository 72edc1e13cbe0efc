import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unihap.data.catalog import load_dataset

PERSON = {"tag": "person", "fbox": [-10, 20, 30, 40], "extra": {"occ": 1}}


def crowdhuman(root, *lines, as_list=False):
    base = root / "CrowdHuman"
    (base / "Images").mkdir(parents=True, exist_ok=True)
    (base / "Images" / "a.jpg").write_bytes(b"never decoded here")
    text = json.dumps(list(lines)) if as_list else "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    (base / "annotation_val.odgt").write_text(text)
    return root


@pytest.mark.parametrize("as_list", [False, True])
def test_both_forms_of_the_file_are_read(tmp_path, as_list):
    entries = ({"ID": "a", "gtboxes": [PERSON]}, {"ID": "b", "gtboxes": []})
    dataset = load_dataset("crowdhuman_val", crowdhuman(tmp_path, *entries, as_list=as_list))
    assert [r.id for r in dataset.records] == ["a", "b"]
    assert dataset.records[0].image == str(tmp_path / "CrowdHuman" / "Images" / "a.jpg")
    assert dataset.annotation == str(tmp_path / "CrowdHuman" / "annotation_val.odgt")


def test_boxes_leave_the_image_where_the_body_does(tmp_path):
    (record,) = load_dataset("crowdhuman_val", crowdhuman(tmp_path, {"ID": "a", "gtboxes": [PERSON]})).records
    assert record.label.boxes.tolist() == [[-10, 20, 20, 60]]
    assert record.label.ignore.shape == (0, 4)


def test_masks_and_marked_boxes_are_ignored_regions(tmp_path):
    boxes = [
        PERSON | {"tag": "mask"},
        PERSON | {"extra": {"ignore": 1}},
        PERSON | {"extra": {"ignore": 0}},
        {"tag": "person", "fbox": [1, 2, 3, 4]},
    ]
    (record,) = load_dataset("crowdhuman_val", crowdhuman(tmp_path, {"ID": "a", "gtboxes": boxes})).records
    assert len(record.label.ignore) == 2
    assert record.label.boxes.tolist() == [[-10, 20, 20, 60], [1, 2, 4, 6]]


def test_images_without_people_stay(tmp_path):
    (record,) = load_dataset("crowdhuman_val", crowdhuman(tmp_path, {"ID": "a", "gtboxes": []})).records
    assert record.label.boxes.shape == record.label.ignore.shape == (0, 4)
    assert record.label.boxes.dtype == np.float32


def test_useless_boxes_are_counted(tmp_path):
    boxes = [PERSON, PERSON | {"fbox": [1, 2, 0, 4]}, PERSON | {"fbox": [100, 2, 5, 5]}]
    root = crowdhuman(tmp_path, {"ID": "a", "gtboxes": boxes, "width": 100, "height": 80})
    dataset = load_dataset("crowdhuman_val", root)
    assert len(dataset.records[0].label.boxes) == 1
    assert dataset.skipped == {"box of zero area": 1, "box outside the image": 1}


def test_broken_lines_are_named_by_number(tmp_path):
    good = {"ID": "a", "gtboxes": [PERSON]}
    for broken, message in (
        ('{"ID": "b", "gtb', r"annotation_val\.odgt line 2 is not valid JSON"),
        ({"gtboxes": []}, "line 2: no key 'ID'"),
        ({"ID": "b"}, "line 2: no key 'gtboxes'"),
        ({"ID": "b", "gtboxes": [{"tag": "person"}]}, "line 2: no key 'fbox'"),
        ({"ID": "b", "gtboxes": [{"tag": "person", "fbox": [1, 2, 3]}]}, "line 2: expected 4 finite numbers"),
        (good, "line 2: the image a was listed before"),
    ):
        with pytest.raises(ValueError, match=message):
            load_dataset("crowdhuman_val", crowdhuman(tmp_path, good, broken))


def coco(root, *people, kind="person_keypoints", category="person"):
    base = root / "coco"
    (base / "val2017").mkdir(parents=True, exist_ok=True)
    (base / "val2017" / "a.jpg").write_bytes(b"x")
    (base / "annotations").mkdir(exist_ok=True)
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (1, 2)],
        "annotations": list(people),
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": category}],
    }
    (base / "annotations" / f"{kind}_val2017.json").write_text(json.dumps(content))
    return root


def annotation(number, box=(1, 2, 3, 4), **rest):
    return {"id": number, "image_id": 1, "category_id": 1, "bbox": list(box), "iscrowd": 0} | rest


@pytest.mark.parametrize("kind", ["person_keypoints", "instances"])
def test_coco_people_are_boxes_and_crowds_are_ignored_regions(tmp_path, kind):
    people = annotation(1), annotation(2, iscrowd=1), annotation(3, category_id=3), annotation(4, (1, 2, 0, 4))
    root = coco(tmp_path, *people, kind=kind)
    dataset = load_dataset("coco_person_val", root)
    assert [r.id for r in dataset.records] == ["1", "2"]
    assert dataset.records[0].label.boxes.tolist() == [[1, 2, 4, 6]]
    assert dataset.records[0].label.ignore.tolist() == [[1, 2, 4, 6]]
    assert len(dataset.records[1].label.boxes) == 0
    assert dataset.skipped == {"box of zero area": 1}


def test_coco_file_without_people_as_a_category_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no category is named 'person'"):
        load_dataset("coco_person_val", coco(tmp_path, category="dog"))


def test_coco_annotation_of_an_unknown_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="annotation 9: image_id 77 is not among the images"):
        load_dataset("coco_person_val", coco(tmp_path, annotation(9, image_id=77)))


def penn_fudan(root, name="FudanPed00001", announced=1, box="(10, 20) - (30, 60)"):
    base = root / "PennFudanPed"
    for folder in ("PNGImages", "Annotation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "PNGImages" / f"{name}.png").write_bytes(b"x")
    (base / "Annotation" / f"{name}.txt").write_text(
        f'Objects with ground truth : {announced} {{ "PASpersonWalking" }}\n'
        f'Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : {box}\n'
    )
    return root


def test_penn_fudan_boxes_include_their_last_pixel_and_count_from_one(tmp_path):
    (record,) = load_dataset("pennfudan_train", penn_fudan(tmp_path)).records
    assert record.label.boxes.tolist() == [[9, 19, 30, 60]]


def test_penn_fudan_splits_at_fixed_numbers(tmp_path):
    for name in ("FudanPed00059", "FudanPed00060", "PennPed00077", "PennPed00078"):
        penn_fudan(tmp_path, name)
    assert [r.id for r in load_dataset("pennfudan_train", tmp_path).records] == ["FudanPed00059", "PennPed00077"]
    assert [r.id for r in load_dataset("pennfudan_test", tmp_path).records] == ["FudanPed00060", "PennPed00078"]


def test_penn_fudan_annotation_with_missing_boxes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"FudanPed00001\.txt: expected 2 boxes, found 1"):
        load_dataset("pennfudan_train", penn_fudan(tmp_path, announced=2))


def test_real_mot17(dev_data):
    train, val = (load_dataset(f"crowdhuman_mot17_{split}", dev_data) for split in ("train", "val"))
    assert (len(train.records), sum(len(r.label.boxes) for r in train.records)) == (8, 112)
    assert (len(val.records), sum(len(r.label.boxes) for r in val.records)) == (6, 45)
    assert all(Path(r.image).is_file() for r in train.records)
    lines = Path(val.annotation).read_text().splitlines()
    marked = sum(box["tag"] == "mask" for line in lines for box in json.loads(line)["gtboxes"])
    assert sum(len(r.label.ignore) for r in val.records) == marked


def test_real_coco_people(dev_data):
    train, val = (load_dataset(f"coco_person_{split}", dev_data) for split in ("train", "val"))
    assert (len(train.records), len(val.records)) == (21, 12)
    assert sum(len(r.label.boxes) + len(r.label.ignore) for r in train.records) == 87
    assert sum(len(r.label.boxes) == 0 for r in train.records) == 2


def test_real_penn_fudan_boxes_surround_their_masks(dev_data):
    train, test = (load_dataset(f"pennfudan_{split}", dev_data) for split in ("train", "test"))
    assert len(train.records) + len(test.records) == 114
    record = test.records[0]
    with Image.open(dev_data / "PennFudanPed" / "PedMasks" / f"{record.id}_mask.png") as image:
        mask = np.asarray(image)
    rows, columns = np.nonzero(mask == 1)
    x1, y1, x2, y2 = record.label.boxes[0]
    assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
