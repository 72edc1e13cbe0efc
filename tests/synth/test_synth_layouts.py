"""Every layout, written with a drawn picture and read back by the adapter of the real dataset."""

import gzip
import io
import json
import pickle
from collections import Counter
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_studio import FakeStudio
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from unihap.data.catalog import load_dataset
from unihap.data.images import read_image, read_index_map
from unihap.data.pose import clip_coco_box, coco_pose
from unihap.data.skeletons import SKELETONS
from unihap.synth.amounts import PER_100_PEOPLE, PRESETS, amounts
from unihap.synth.attributes import ATTRIBUTES, attributes
from unihap.synth.captions import captions
from unihap.synth.generate import generate
from unihap.synth.layouts import LAYOUTS
from unihap.synth.layouts.base import TRIES, Amount, Item, whole
from unihap.synth.layouts.scenes import in_order
from unihap.synth.request import Request
from unihap.synth.structures import LIP
from unihap.synth.workers import take_picture

SMALL = {
    "market1501": Amount({"train": 3, "test": 2}, (32, 16), images=6),
    "pa100k": Amount({"train": 5, "val": 2, "test": 3}, (32, 16)),
    "lip": Amount({"train": 9, "val": 2}, (48, 32)),
    "coco_keypoints": Amount({"train": 4, "val": 2}, (64, 80), people=(1, 3)),
    "crowdhuman": Amount({"train": 4, "val": 2}, (64, 96), people=(0, 4)),
    "prcc": Amount({"train": 2, "val": 1, "test": 2}, (32, 16), images=2),
    "luperson": Amount({"train": 5}, (32, 16)),
    "cuhkpedes": Amount({"train": 2, "val": 1, "test": 2}, (32, 16), images=2),
    "threedpw": Amount({"train": 2, "val": 1, "test": 1}, (64, 80), images=3, people=(1, 2)),
}
SEED = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    generate(folder, Request(SMALL, SEED), workers=0, studio=FakeStudio)
    return folder


@pytest.fixture(scope="module")
def root_b(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered_b")
    datasets = {name: SMALL[name] for name in ("coco_keypoints", "pa100k")}
    generate(folder, Request(datasets, SEED, domain="b"), workers=0, studio=FakeStudio)
    return folder


@lru_cache
def plan() -> dict[str, list[Item]]:
    return Request(SMALL, SEED).plan()


def taken(item: Item, domain: str = "a"):
    """The picture of an item, once more."""
    return take_picture(FakeStudio(SEED, domain), item)[0]


def test_every_layout_has_amounts_and_is_tested():
    assert set(SMALL) == set(PER_100_PEOPLE) == set(LAYOUTS)
    for table in (PER_100_PEOPLE, *PRESETS.values()):
        assert all(set(amount.counts) == set(LAYOUTS[name].splits) for name, amount in table.items())


def test_nobody_and_no_picture_is_shared():
    people, keys, files = {}, set(), set()
    for dataset, items in plan().items():
        for item in items:
            assert item.split in LAYOUTS[dataset].splits
            assert item.key % TRIES == 0
            assert item.key not in keys
            assert (dataset, item.name) not in files
            keys.add(item.key)
            files.add((dataset, item.name))
            for identity, _ in item.people:
                assert people.setdefault(identity, (dataset, item.split)) == (dataset, item.split)
    assert min(people) >= 1


def test_a_plan_does_not_depend_on_the_other_datasets():
    alone = Request({"lip": SMALL["lip"]}, SEED).plan()
    assert alone == {"lip": plan()["lip"]}
    assert Request({"lip": SMALL["lip"]}, SEED + 1).plan() != alone


def test_images_are_stored_with_the_quality_of_their_camera(root):
    item = plan()["pa100k"][0]
    picture = taken(item)
    decoded = read_image(root / "PA-100K" / item.name)
    assert decoded.shape == (32, 16, 3)
    _, data = cv2.imencode(
        ".jpg",
        picture.image[..., ::-1],
        [cv2.IMWRITE_JPEG_QUALITY, picture.camera.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    )
    assert (root / "PA-100K" / item.name).read_bytes() == data.tobytes()


# Market-1501


def test_market_has_queries_with_answers_by_other_cameras(root):
    assert (root / "Market-1501-v15.09.15/bounding_box_train").is_dir()
    train = load_dataset("market1501_train", root)
    assert Counter(record.label.identity for record in train.records) == {1: 6, 2: 6, 3: 6}
    assert all(len({r.label.camera for r in train.records if r.label.identity == i}) == 6 for i in (1, 2, 3))
    query, gallery = load_dataset("market1501_query", root), load_dataset("market1501_gallery", root)
    pairs = Counter((record.label.identity, record.label.camera) for record in query.records)
    assert {identity for identity, _ in pairs} == {4, 5}
    assert set(pairs.values()) == {1}
    answers = {(record.label.identity, record.label.camera) for record in gallery.records}
    assert pairs.keys() <= answers  # every query has same-camera junk
    assert all(any(i == identity and c != camera for i, c in answers) for identity, camera in pairs)
    distractors = [record for record in gallery.records if record.label.identity == 0]
    assert len(distractors) == 2  # a tenth of 12, rounded up


def test_market_shows_who_its_names_say(root):
    for item in plan()["market1501"]:
        name = item.name.rpartition("/")[2]
        assert int(name[6]) == item.camera
        person = item.people[0][0]
        shown = {i.people[0][0] for i in plan()["market1501"] if i.name.rpartition("/")[2][:4] == name[:4]}
        assert shown == {person} or name.startswith("0000")


# PRCC


def test_prcc_changes_clothes_before_camera_c_only(root):
    outfits = {"A": set(), "B": set(), "C": set()}
    for item in plan()["prcc"]:
        parts = item.name.split("/")
        letter = parts[2] if parts[1] == "test" else parts[3][0]
        outfits[letter].add(item.people[0][1])
        assert (root / "prcc" / item.name).is_file()
    assert outfits == {"A": {0}, "B": {0}, "C": {1}}
    assert (root / "prcc/rgb/train/001/A_cropped_rgb001.jpg").is_file()
    assert (root / "prcc/rgb/val/003/C_cropped_rgb002.jpg").is_file()
    assert (root / "prcc/rgb/test/B/005/cropped_rgb002.jpg").is_file()


def test_prcc_reads_back(root):
    items = {item.name: item for item in plan()["prcc"]}
    people = {}
    for name, cameras, count in (
        ("prcc_train", {1: "train", 2: "train", 3: "train"}, 12),
        ("prcc_val", {1: "gallery", 3: "query"}, 4),
        ("prcc_test", {1: "gallery", 3: "query"}, 8),
        ("prcc_same_clothes_test", {1: "gallery", 2: "query"}, 8),
    ):
        records = load_dataset(name, root).records
        assert len(records) == count
        assert {record.label.camera: record.label.role for record in records} == cameras
        for record in records:
            item = items[Path(record.image).relative_to(root / "prcc").as_posix()]
            (person, outfit), label = item.people[0], record.label
            assert label.camera == item.camera
            assert outfit == (label.camera == 3)
            assert people.setdefault(label.identity, person) == person
    assert sorted(people) == [1, 2, 3, 4, 5]
    assert len(set(people.values())) == 5


@pytest.mark.parametrize(("name", "folder"), [("synth_prcc", "synth_mini"), ("synth_b_prcc", "synth_b")])
def test_prcc_is_found_among_the_rendered_datasets(root, tmp_path, name, folder):
    (tmp_path / folder).symlink_to(root)
    for suffix in ("train", "val", "test", "same_clothes_test"):
        dataset, real = load_dataset(f"{name}_{suffix}", tmp_path), load_dataset(f"prcc_{suffix}", root)
        assert dataset.name == f"{name}_{suffix}"
        assert [(r.id, r.label) for r in dataset.records] == [(r.id, r.label) for r in real.records]


# PA-100K


@pytest.mark.parametrize("domain", ["a", "b"])
def test_attributes_read_back(request, domain):
    folder = request.getfixturevalue("root" if domain == "a" else "root_b")
    items = {item.name: item for item in plan()["pa100k"]}
    for split in ("train", "val", "test"):
        dataset = load_dataset(f"pa100k_{split}", folder)
        assert dataset.classes == tuple(ATTRIBUTES[domain])
        assert len(dataset.records) == SMALL["pa100k"].counts[split]
        for record in dataset.records:
            item = items[f"data/{record.id}.jpg"]
            assert item.split == split
            picture = taken(item, domain)
            truth = attributes(picture.people[0].figure, picture.camera, domain)
            assert record.label.values.tolist() == np.asarray(truth).astype(int).tolist()


# LIP


def test_label_maps_hold_the_person_in_the_middle_alone(root):
    items = {item.facts["id"]: item for item in plan()["lip"]}
    somebody_else = False
    for split in ("train", "val"):
        dataset = load_dataset(f"lip_{split}", root)
        assert len(dataset.records) == SMALL["lip"].counts[split]
        for record in dataset.records:
            picture = taken(items[record.id])
            label_map = dataset.read_label_map(record.label.path)
            assert label_map.shape == picture.part.shape
            assert (label_map == np.where(picture.owner == 0, picture.part, 0)).all()
            assert LIP["face"] in label_map
            somebody_else |= bool((picture.owner > 0).any())
    assert somebody_else


def test_label_maps_are_grey_and_know_no_bag(root):
    path = next((root / "LIP/TrainVal_parsing_annotations/train_segmentations").iterdir())
    assert path.read_bytes()[24:26] == bytes([8, 0])  # bits and colour type
    assert read_index_map(path).max() < 20


# COCO


def test_people_read_back_with_their_keypoints_and_boxes(root):
    items = [item for item in plan()["coco_keypoints"] if item.split == "train"]
    dataset = load_dataset("coco_keypoints_train", root)
    by_image = Counter(record.label.image_id for record in dataset.records)
    path = root / "coco/annotations/person_keypoints_train2017.json"
    entries = {entry["id"]: entry for entry in json.loads(path.read_text())["annotations"]}
    for item in items:
        picture = taken(item)
        assert by_image[item.facts["id"]] == sum(
            bool((picture.owner == i).sum() >= 40) for i in range(len(picture.people))
        )
    for record in dataset.records:
        item = next(item for item in items if item.facts["id"] == record.label.image_id)
        entry = entries[int(record.id.partition("_")[2])]
        picture = taken(item)
        index = [seen.figure.person.identity for seen in picture.people].index(entry["person_id"])
        seen = picture.people[index]
        labelled = seen.keypoints[:, 2] > 0
        assert record.label.keypoints[labelled, :2] == pytest.approx(seen.keypoints[labelled, :2], abs=0.01)
        assert (record.label.keypoints[:, 2] > 0).tolist() == labelled.tolist()
        assert entry["keypoints"][2::3] == seen.keypoints[:, 2].tolist()
        x1, y1, x2, y2 = seen.visible_box
        box = clip_coco_box(np.array([x1, y1, x2 - x1, y2 - y1]), 80, 64)
        assert record.label.box.tolist() == pytest.approx(box.tolist())
        mask = picture.owner == index
        assert record.label.area == entry["area"] == mask.sum()
        assert (coco_mask.decode(entry["segmentation"]) == mask).all()


def test_joints_in_space_project_onto_the_keypoints(root):
    content = json.loads((root / "coco/annotations/person_keypoints_val2017.json").read_text())
    matrices = {image["id"]: np.array(image["camera_matrix"]) for image in content["images"]}
    assert content["annotations"]
    for entry in content["annotations"]:
        points = np.array(entry["keypoints"]).reshape(-1, 3)
        projected = np.array(entry["joints_camera"]) @ matrices[entry["image_id"]].T
        apart = np.linalg.norm(projected[:, :2] / projected[:, 2:] - points[:, :2], axis=1)
        assert apart[points[:, 2] > 0].max() < 0.05


def test_cocos_own_reader_takes_the_file(root, capsys):
    coco = COCO(str(root / "coco/annotations/person_keypoints_train2017.json"))
    assert coco.loadCats(1)[0]["keypoints"] == list(SKELETONS["coco"].names)
    annotation = coco.loadAnns(coco.getAnnIds())[0]
    assert coco.annToMask(annotation).sum() == annotation["area"]


def test_the_other_domain_has_its_own_keypoints_and_says_so(root_b):
    name = "coco/annotations/person_keypoints_train2017.json"
    body = SKELETONS["synth_b"]
    content = json.loads((root_b / name).read_text())
    assert content["categories"][0]["keypoints"] == list(body.names)
    assert content["info"]["keypoint_order"] == f"synth_b: {' '.join(body.names)}"
    dataset = coco_pose(root_b, name, "coco/train2017", name="b", title="COCO", skeleton="synth_b")
    assert all(record.label.keypoints.shape == (15, 3) for record in dataset.records)


def test_keypoints_of_the_other_domain_are_those_of_coco_and_middles():
    picture = taken(plan()["coco_keypoints"][0])
    seen, names = picture.people[0], SKELETONS["synth_b"].names
    coco = {name: i for i, name in enumerate(SKELETONS["coco"].names)}
    points, joints = in_order(seen, picture.camera.matrix, names)
    assert points[names.index("left_knee")] == pytest.approx(seen.keypoints[coco["left_knee"]])
    assert joints[names.index("right_wrist")] == pytest.approx(seen.joints[coco["right_wrist"]])
    hips = [coco["left_hip"], coco["right_hip"]]
    assert joints[names.index("pelvis")] == pytest.approx(seen.joints[hips].mean(0))
    # both hips are equally far in the drawn pictures, so the middle in space is the middle in the picture
    assert points[names.index("pelvis"), :2] == pytest.approx(seen.keypoints[hips, :2].mean(0), abs=1e-3)
    assert points[names.index("pelvis"), 2] == seen.keypoints[hips, 2].min()


# CrowdHuman


def test_boxes_read_back_and_hold_each_other(root):
    items = [item for item in plan()["crowdhuman"] if item.split == "train"]
    dataset = load_dataset("crowdhuman_train", root)
    assert [record.id for record in dataset.records] == [item.name[7:-4] for item in items]
    for record, item in zip(dataset.records, items, strict=True):
        picture = taken(item)
        shown = [seen for seen in picture.people if seen.visible_share >= 0.05]
        assert len(record.label.boxes) == len(shown)
        for box, seen in zip(record.label.boxes, shown, strict=True):
            x, y, w, h = whole(seen.full_box)
            assert box.tolist() == [x, y, x + w, y + h]
    lines = (root / "CrowdHuman/annotation_train.odgt").read_text().splitlines()
    for entry in map(json.loads, lines):
        for person in entry["gtboxes"]:
            (x, y, w, h), (vx, vy, vw, vh) = person["fbox"], person["vbox"]
            assert x <= vx
            assert y <= vy
            assert x + w >= vx + vw
            assert y + h >= vy + vh
            assert person["hbox"][2] > 0


def test_whole_boxes_hold_the_exact_ones():
    assert whole(np.array([1.5, -2.25, 3.0, 4.75], dtype=np.float32)) == [1, -3, 2, 8]
    assert whole(np.array([1.0, 2.0, 3.0, 4.0])) == [1, 2, 2, 2]


# LUPerson, CUHK-PEDES, 3DPW


def test_unlabelled_crops_have_a_list_and_an_array_of_keypoints(root):
    names = (root / "LUPerson/list.txt").read_text().split()
    content = np.load(root / "LUPerson/keypoints.npz")
    assert content["names"].tolist() == names
    assert content["keypoints"].shape == (5, 17, 3)
    assert set(np.unique(content["keypoints"][..., 2])) <= {0.0, 0.5, 1.0}
    for item, points in zip(plan()["luperson"], content["keypoints"], strict=True):
        assert (root / "LUPerson" / item.name).is_file()
        assert points[:, :2] == pytest.approx(taken(item).people[0].keypoints[:, :2], abs=0.01)


def test_captions_are_two_and_their_tokens_are_words(root):
    entries = json.loads((root / "CUHK-PEDES/reid_raw.json").read_text())
    assert Counter(entry["split"] for entry in entries) == {"train": 4, "val": 2, "test": 4}
    assert sorted({entry["id"] for entry in entries}) == [1, 2, 3, 4, 5]
    for entry, item in zip(entries, plan()["cuhkpedes"], strict=True):
        picture = taken(item)
        rng = np.random.default_rng((SEED, item.key))
        assert entry["captions"] == list(captions(picture.people[0].figure, picture.camera, rng))
        assert len(set(entry["captions"])) == 2
        assert (root / "CUHK-PEDES/imgs" / entry["file_path"]).is_file()
        for text, tokens in zip(entry["captions"], entry["processed_tokens"], strict=True):
            assert all(token.isalnum() and token == token.lower() for token in tokens)
            assert tokens[0] == text.split()[0].lower().strip(",.")


def test_sequences_have_the_joints_of_every_actor_in_every_frame(root):
    found = sorted((root / "3DPW/sequenceFiles").rglob("*.pkl"))
    assert [str(path.relative_to(root / "3DPW/sequenceFiles")) for path in found] == [
        "test/synth_0003.pkl", "train/synth_0000.pkl", "train/synth_0001.pkl", "validation/synth_0002.pkl",
    ]  # fmt: skip
    for path in found:
        sequence = pickle.loads(path.read_bytes())
        actors = len(sequence["betas"])
        assert len(list((root / "3DPW/imageFiles" / sequence["sequence"]).iterdir())) == 3
        assert len(sequence["poses2d"]) == len(sequence["jointPositions"]) == len(sequence["poses"]) == actors
        for i in range(actors):
            assert sequence["poses2d"][i].shape == (3, 3, 18)
            joints = sequence["jointPositions"][i].reshape(3, 17, 3)
            projected = np.einsum("fij,fkj->fki", sequence["cam_intrinsics"], joints)
            nose = projected[:, 0, :2] / projected[:, 0, 2:]
            assert nose == pytest.approx(sequence["poses2d"][i][:, :2, 0], abs=0.05)
            assert sequence["poses"][i].shape == (3, 3 * len(sequence["bone_names"]))


# what the layouts have no place for


def test_extra_lines_tell_outfits_shapes_and_cameras(root):
    lines = gzip.open(root / "prcc/extra.jsonl.gz", "rt").read().splitlines()
    entries = {entry["file"]: entry for entry in map(json.loads, lines)}
    assert set(entries) == {item.name for item in plan()["prcc"]}
    a, c = (entries[f"rgb/train/001/{letter}_cropped_rgb001.jpg"] for letter in "AC")
    assert a["people"][0]["person"] == c["people"][0]["person"]
    assert a["people"][0]["shape"] == c["people"][0]["shape"]
    assert a["people"][0]["outfit"] != c["people"][0]["outfit"]
    assert np.array(a["camera_matrix"]).shape == (3, 3)
    assert a["people"][0]["rotations"] == {"upperarm01.L": [0.0, 0.7, 0.0]}


@pytest.mark.parametrize(("level", "there"), [("brief", True), ("none", False)])
def test_extra_lines_can_be_shorter_or_left_out(tmp_path, level, there):
    generate(tmp_path, Request({"lip": SMALL["lip"]}, extra=level), workers=0, studio=FakeStudio)
    path = tmp_path / "LIP/extra.jsonl.gz"
    assert path.is_file() == there
    if there:
        entry = json.loads(io.TextIOWrapper(gzip.open(path)).readline())
        assert "outfit" in entry["people"][0]
        assert "rotations" not in entry["people"][0]


# amounts


def test_people_scale_every_dataset():
    assert amounts(250)["market1501"].counts == {"train": 250, "test": 100}
    assert amounts(1)["threedpw"].counts == {"train": 1, "val": 1, "test": 1}
    assert amounts(100) == PER_100_PEOPLE
    assert list(amounts(5, ["lip", "pa100k", "lip"])) == ["pa100k", "lip"]


def test_counts_replace_the_proportion():
    chosen = amounts(10, ["pa100k", "market1501", "luperson"], {"pa100k": (8, 6), "luperson": (3,)})
    assert chosen["pa100k"].counts == {"train": 8, "val": 2, "test": 6}
    assert chosen["luperson"].counts == {"train": 3}
    assert chosen["market1501"].counts == {"train": 10, "test": 4}
    assert amounts(10, ["pa100k"], {"pa100k": (8, 1, 6)})["pa100k"].counts == {"train": 8, "val": 1, "test": 6}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "0 people make no dataset"),
        ((None,), "how many people"),
        ((5, ["market1502"]), r"unknown dataset 'market1502'; did you mean market1501\?"),
        ((5, ["lip"], {"pa100k": (1, 1)}), "given for pa100k, which is not among"),
        ((5, ["lip"], {"lip": (1, 0)}), "lip: its val split needs at least 1 of its pictures, got 0"),
        ((5, ["lip"], {"lip": (1, 2, 3)}), "lip has the splits train, val; got the counts 1, 2, 3"),
        ((5, ["lip"], {"lip": (10**9, 1)}), "more than the 10000000 numbers"),
        ((5, [], None), "no dataset asked for"),
        ((5, ["all"], None, "mini"), "leave the number of people out"),
        ((None, ["all"], None, "mni"), r"unknown preset 'mni'; did you mean mini\?"),
        ((None, ["prcc"], None, "mini"), "unknown dataset of the preset mini 'prcc'"),
    ],
)
def test_amounts_that_make_no_dataset_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        amounts(*arguments)
