"""The rendered people that travel with the repository: complete, small, and with labels that agree."""

import gzip
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from unihap.data.catalog import load_dataset
from unihap.data.images import read_image, read_index_map
from unihap.structures import AttributesLabel, DetectionLabel, ParsingLabel, PoseLabel, ReIDLabel
from unihap.synth.amounts import PRESETS
from unihap.synth.manifest import manifest_faults

ROOT = Path(__file__).parents[2] / "datasets"
MINI = ROOT / "synth_mini"
FOLDERS = ("Market-1501-v15.09.15", "PA-100K", "LIP", "coco", "CrowdHuman")
LIMIT = 12_000_000  # bytes


def extra(folder: str) -> list[dict]:
    with gzip.open(MINI / folder / "extra.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def coco(split: str) -> dict:
    return json.loads((MINI / "coco" / "annotations" / f"person_keypoints_{split}2017.json").read_text())


def test_every_file_is_as_it_was_rendered_and_all_are_small():
    assert manifest_faults(MINI) == []
    # sheets that somebody drew are not part of the repository
    paths = (path for path in MINI.rglob("*") if path.is_file() and "sheets" not in path.parts)
    assert sum(path.stat().st_size for path in paths) <= LIMIT


@pytest.mark.parametrize(
    ("name", "layout", "split"),
    [
        ("synth_pa100k_train", "pa100k", "train"),
        ("synth_pa100k_test", "pa100k", "test"),
        ("synth_lip_train", "lip", "train"),
        ("synth_lip_val", "lip", "val"),
        ("synth_crowdhuman_train", "crowdhuman", "train"),
        ("synth_crowdhuman_val", "crowdhuman", "val"),
    ],
)
def test_it_has_as_many_pictures_as_its_preset_says(name: str, layout: str, split: str):
    amount = PRESETS["mini"][layout]
    records = load_dataset(name, ROOT).records
    assert len(records) == amount.counts[split]
    assert read_image(records[0].image).shape[:2] == amount.size


def test_no_person_and_no_outfit_is_in_two_splits():
    seen: dict[tuple[str, int], set[str]] = {}
    for folder in FOLDERS:
        for picture in extra(folder):
            for person in picture["people"]:
                for what in ("person", "outfit"):
                    seen.setdefault((what, person[what]), set()).add(f"{folder}/{picture['split']}")
    assert len(seen) > 2000
    assert all(len(where) == 1 for where in seen.values())


def test_no_place_of_a_test_split_is_seen_in_training():
    places: dict[str, set[tuple]] = {}
    for folder in FOLDERS:
        for picture in extra(folder):
            places.setdefault(picture["split"], set()).add(tuple(picture["camera_position"]))
    assert not places["train"] & (places["test"] | places["val"])


def test_reid_identities_are_disjoint_and_every_query_has_an_answer():
    train, test = (load_dataset(f"synth_market1501_{split}", ROOT) for split in ("train", "test"))
    labels = [record.label for record in test.records]
    assert all(isinstance(label, ReIDLabel) for label in labels)
    identities = {record.label.identity for record in train.records}
    assert not identities & {label.identity for label in labels}
    gallery = {(label.identity, label.camera) for label in labels if label.role == "gallery"}
    for label in labels:
        if label.role == "query":
            assert any(identity == label.identity and camera != label.camera for identity, camera in gallery)


def test_attributes_are_consistent_and_none_is_rare():
    dataset = load_dataset("synth_pa100k_train", ROOT)
    assert all(isinstance(record.label, AttributesLabel) for record in dataset.records)
    values = np.stack([record.label.values for record in dataset.records])
    of = {name: values[:, i] for i, name in enumerate(dataset.classes)}
    assert len(of) >= 20
    for group in (
        ("Front", "Side", "Back"),
        ("AgeOver60", "Age18-60", "AgeLess18"),
        ("Trousers", "Shorts", "Skirt&Dress"),
        ("ShortSleeve", "LongSleeve"),
    ):
        assert (sum(of[name] for name in group) == 1).all(), group
    assert (values.mean(axis=0) > 0.04).all()


def test_keypoints_reproject_from_3d_and_lie_on_the_mask_of_their_person():
    right = total = 0
    for split in ("train", "val"):
        content = coco(split)
        images = {image["id"]: image for image in content["images"]}
        for person in content["annotations"]:
            image = images[person["image_id"]]
            points = np.reshape(person["keypoints"], (-1, 3))
            projected = np.array(person["joints_camera"]) @ np.array(image["camera_matrix"]).T
            projected = projected[:, :2] / projected[:, 2:]
            labelled = points[:, 2] > 0
            assert np.abs(projected - points[:, :2])[labelled].max(initial=0) < 0.5
            mask = coco_mask.decode(person["segmentation"]).astype(bool)
            y, x = np.nonzero(mask)
            x1, y1, width, height = person["bbox"]
            assert (x1, y1, x1 + width, y1 + height) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert person["area"] == mask.sum()
            visible = np.rint(points[points[:, 2] == 2, :2]).astype(int)
            right += mask[visible[:, 1], visible[:, 0]].sum()
            total += len(visible)
    assert total > 3000
    assert right / total >= 0.99


def test_pose_and_detection_have_people_in_every_picture():
    pose = load_dataset("synth_coco_keypoints_val", ROOT)
    for record in pose.records:
        assert isinstance(record.label, PoseLabel)
    detection = load_dataset("synth_crowdhuman_train", ROOT)
    counts = Counter()
    for record in detection.records:
        assert isinstance(record.label, DetectionLabel)
        counts[len(record.label.boxes)] += 1
    assert counts[0] < 0.02 * len(detection.records)
    assert max(counts) == 4


def test_visible_boxes_lie_in_full_boxes():
    for split in ("train", "val"):
        for line in (MINI / "CrowdHuman" / f"annotation_{split}.odgt").read_text().splitlines():
            for person in json.loads(line)["gtboxes"]:
                (x, y, w, h), (vx, vy, vw, vh) = person["fbox"], person["vbox"]
                assert x <= vx
                assert y <= vy
                assert vx + vw <= x + w
                assert vy + vh <= y + h


def test_label_maps_hold_classes_of_lip_with_left_and_right():
    dataset = load_dataset("synth_lip_train", ROOT)
    pixels = np.zeros(256, np.int64)
    for record in dataset.records:
        assert isinstance(record.label, ParsingLabel)
        label_map = read_index_map(record.label.path)
        assert label_map.shape == cv2.imread(record.image).shape[:2]
        pixels += np.bincount(label_map.ravel(), minlength=256)
    found = {dataset.classes[value] for value in np.flatnonzero(pixels)}
    assert pixels[len(dataset.classes) :].sum() == 0
    assert found >= {"hat", "hair", "upper_clothes", "dress", "coat", "pants", "skirt", "face"}
    for part in ("arm", "leg", "shoe"):
        left, right = (pixels[dataset.classes.index(f"{side}_{part}")] for side in ("left", "right"))
        assert 0.7 < left / right < 1.4
