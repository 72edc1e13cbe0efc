import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from unihap.data.catalog import load_dataset
from unihap.data.coco import CocoImages
from unihap.data.label_maps import LabelMapReader
from unihap.data.people import PeopleRecords
from unihap.data.standard_dicts import dataset_dicts
from unihap.structures import AttributesLabel, Dataset, DetectionLabel, ParsingLabel, PoseLabel, Record, ReIDLabel

CLASSES = ("background", "hat", "hair")


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    assert cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    return str(path)


def person(image: str, number: int, x: float) -> Record:
    points = np.array([[x, 5, 1], [7, 8, 0]], dtype=np.float32)
    return Record(f"4_{number}", image, PoseLabel(points, np.array([1.0, 2, 11, 12]), image_id=4))


def test_the_people_of_an_image_are_together(image):
    (entry,) = dataset_dicts(Dataset("toy", "pose", [person(image, 1, 3), person(image, 2, 9)], ("nose", "left_eye")))
    assert {key: entry[key] for key in ("file_name", "height", "width", "image_id")} == {
        "file_name": image,
        "height": 20,
        "width": 30,
        "image_id": 4,
    }
    first, second = entry["annotations"]
    assert first["bbox"] == [1, 2, 11, 12]
    assert (first["bbox_mode"], first["category_id"], first["iscrowd"]) == (0, 0, 0)
    # half a pixel further, and nothing where nothing is labelled
    assert first["keypoints"] == [3.5, 5.5, 2, 0, 0, 0]
    assert second["keypoints"] == [9.5, 5.5, 2, 0, 0, 0]


def test_images_without_labelled_people_are_there_too(tmp_path, image):
    empty = tmp_path / "empty.png"
    assert cv2.imwrite(str(empty), np.zeros((5, 6, 3), np.uint8))
    images = CocoImages(tmp_path, np.array([8, 4]), ["empty.png", "image.png"])
    records = PeopleRecords(images, np.array([1]), np.array([1]), np.ones((1, 2, 3)), np.array([[1, 2, 3, 4]]))
    entries = dataset_dicts(Dataset("toy", "pose", records, ("nose", "left_eye")))
    assert [(entry["image_id"], len(entry["annotations"])) for entry in entries] == [(8, 0), (4, 1)]


def test_ignored_regions_are_crowds(image):
    label = DetectionLabel(np.array([[-1.0, 2, 3, 4]]), np.array([[5.0, 6, 7, 8]]))
    (entry,) = dataset_dicts(Dataset("toy", "detection", [Record("a", image, label)]))
    assert [(a["bbox"], a["iscrowd"]) for a in entry["annotations"]] == [([-1, 2, 3, 4], 0), ([5, 6, 7, 8], 1)]


@pytest.mark.parametrize(("record_id", "image_id"), [("139", 139), ("0139", "0139"), ("a1", "a1")])
def test_image_numbers_of_coco_are_numbers(image, record_id, image_id):
    label = DetectionLabel(np.zeros((0, 4)), np.zeros((0, 4)))
    (entry,) = dataset_dicts(Dataset("toy", "detection", [Record(record_id, image, label)]))
    assert entry["image_id"] == image_id
    assert entry["annotations"] == []


def parsing_entry(image: str, label_map: Image.Image, folder: Path, values=(0, 1, 2), **reader):
    path = folder / "label.png"
    label_map.save(path)
    record = Record("a", image, ParsingLabel(str(path)))
    read = LabelMapReader(tuple(values), **reader)
    return dataset_dicts(Dataset("toy", "parsing", [record], CLASSES, read_label_map=read))[0], str(path)


GREY = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8))


def test_grey_class_numbers_are_read_by_detectron2(image, tmp_path):
    entry, path = parsing_entry(image, GREY, tmp_path)
    assert entry["sem_seg_file_name"] == path
    assert "label_map_file_name" not in entry


@pytest.mark.parametrize(
    ("label_map", "options"),
    [
        (GREY, {"values": (0, 6, 7)}),
        (GREY, {"unlisted": "release"}),
        (GREY.convert("P"), {}),
        (GREY.convert("1"), {}),
    ],
    ids=["other numbers in the file", "ignored pixels become background", "palette", "one bit"],
)
def test_label_maps_that_detectron2_would_misread_have_another_key(image, tmp_path, caplog, label_map, options):
    with caplog.at_level(logging.WARNING):
        entry, path = parsing_entry(image, label_map, tmp_path, **options)
    assert entry["label_map_file_name"] == path
    assert "sem_seg_file_name" not in entry
    assert "toy: its label maps" in caplog.text


def test_attributes_and_identities_keep_their_names(image):
    attributes = Dataset("toy", "attributes", [Record("a", image, AttributesLabel(np.array([1, 0, -1], np.int8)))])
    reid = Dataset("toy", "reid", [Record("a", image, ReIDLabel(7, 2, "query"))])
    assert dataset_dicts(attributes)[0]["attributes"] == [1, 0, -1]
    entry = dataset_dicts(reid)[0]
    assert (entry["identity"], entry["camera"], entry["role"]) == (7, 2, "query")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"unknown kind of dataset 'poses'.*did you mean pose"):
        dataset_dicts(Dataset("toy", "poses", []))


def test_real_datasets_have_every_image_once(dev_data):
    for name, num_images, num_people in (("coco_keypoints_val", 12, 19), ("aic_train", 2, 6), ("mpii_val", 3, 3)):
        entries = dataset_dicts(load_dataset(name, dev_data))
        assert len({entry["file_name"] for entry in entries}) == len(entries) == num_images
        assert sum(len(entry["annotations"]) for entry in entries) == num_people
