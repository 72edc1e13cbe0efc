"""What needs no detectron2 comes first; the rest runs against the real one, where it is installed."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unihap import detectron2_bridge as bridge
from unihap.data.catalog import DATASETS, load_dataset
from unihap.data.pose import with_detector_boxes
from unihap.data.skeletons import SKELETONS
from unihap.structures import Dataset

POINTS = np.array([[10.0, 20.0, 0.9], [30.0, 50.0, 0.5]])
POSE = {"keypoints": POINTS, "probability": np.array([0.8, 0.4])}
DETECTION = {"boxes": np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]), "scores": np.array([0.9, 0.4]), "size": (60, 80)}
LABEL_MAP = np.zeros((6, 8), np.uint8)
LABEL_MAP[1:3, 2:5], LABEL_MAP[4, 7], LABEL_MAP[5, 0] = 3, 7, 255


class PlainInstances:
    """As much of detectron2's ``Instances`` as reading predictions takes."""

    def __init__(self, image_size, **fields):
        self.image_size, self.fields = image_size, fields
        self.__dict__.update(fields)

    def has(self, name):
        return name in self.fields

    def to(self, device):
        return self

    def __getitem__(self, keep):
        boxes = {"pred_boxes": SimpleNamespace(tensor=self.pred_boxes.tensor[keep])} if self.has("pred_boxes") else {}
        rest = {name: value[keep] for name, value in self.fields.items() if name != "pred_boxes"}
        return PlainInstances(self.image_size, **rest, **boxes)


def plain(image_size, fields) -> PlainInstances:
    return PlainInstances(image_size, **fields | {"pred_boxes": SimpleNamespace(tensor=fields["pred_boxes"])})


# without detectron2


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is not None, reason="detectron2 is installed")
@pytest.mark.parametrize(
    "call", [bridge.register_datasets, lambda: bridge.to_instances(DETECTION, "detection")], ids=["datasets", "results"]
)
def test_without_detectron2_the_remedy_is_named(call):
    with pytest.raises(ImportError, match=r'pip install "unihap\[detectron2\]"'):
        call()


def test_metadata_of_a_pose_dataset_names_keypoints_mirror_pairs_and_limbs():
    body = SKELETONS["coco"]
    dataset = Dataset("toy", "pose", [], body.names, body.mirror, body.sigmas, annotation="a/person.json")
    metadata = bridge.dataset_metadata(dataset)
    assert metadata["thing_classes"] == ["person"]
    assert metadata["keypoint_names"] == list(body.names)
    assert ("left_eye", "right_eye") in metadata["keypoint_flip_map"]
    assert len(metadata["keypoint_flip_map"]) == 8
    assert len(metadata["keypoint_connection_rules"]) == 19
    assert all({a, b} <= set(body.names) and len(colour) == 3 for a, b, colour in metadata["keypoint_connection_rules"])
    assert metadata["json_file"] == "a/person.json"
    assert metadata["thing_dataset_id_to_contiguous_id"] == {1: 0}


def test_only_files_in_the_format_of_coco_are_named_as_such():
    for annotation in ("", "annotation_val.odgt"):
        assert "json_file" not in bridge.dataset_metadata(Dataset("toy", "detection", [], annotation=annotation))


def test_metadata_of_a_parsing_dataset_has_a_colour_per_class():
    metadata = bridge.dataset_metadata(Dataset("toy", "parsing", [], ("background", "hat", "hair")))
    assert metadata["stuff_classes"] == ["background", "hat", "hair"]
    assert len(set(metadata["stuff_colors"])) == 3
    assert metadata["ignore_label"] == 255


def test_metadata_is_the_same_when_a_dataset_is_read_again(dev_data):
    # MetadataCatalog refuses another value under the same key
    for name in ("coco_keypoints_val", "ccp_as_lip_val", "crowdhuman_mot17_val", "pa100k_test"):
        first, second = (bridge.dataset_metadata(load_dataset(name, dev_data)) for _ in range(2))
        assert first == second


def test_detections_become_fields():
    fields = bridge.instance_fields(DETECTION, "detection")
    assert fields["pred_boxes"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert fields["pred_classes"].tolist() == [0, 0]
    torch.testing.assert_close(fields["scores"], torch.tensor([0.9, 0.4]))


def test_a_pose_becomes_fields_half_a_pixel_further():
    fields = bridge.instance_fields(POSE, "pose")
    torch.testing.assert_close(fields["pred_keypoints"], torch.tensor([[[10.5, 20.5, 0.9], [30.5, 50.5, 0.5]]]))
    torch.testing.assert_close(fields["scores"], torch.tensor([0.7]))
    assert fields["pred_boxes"].tolist() == [[10.5, 20.5, 30.5, 50.5]]
    assert bridge.instance_fields(POSE, "pose", box=np.array([1, 2, 3, 4]))["pred_boxes"].tolist() == [[1, 2, 3, 4]]


def test_a_label_map_becomes_a_mask_per_class():
    fields = bridge.instance_fields({"label_map": LABEL_MAP}, "parsing")
    assert fields["pred_classes"].tolist() == [3, 7]
    assert fields["pred_masks"].sum((1, 2)).tolist() == [6, 1]
    assert fields["pred_boxes"].tolist() == [[2, 1, 5, 3], [7, 4, 8, 5]]


def test_an_empty_label_map_has_no_instances():
    fields = bridge.instance_fields({"label_map": np.zeros((6, 8), np.uint8)}, "parsing")
    assert fields["pred_masks"].shape == (0, 6, 8)
    assert fields["pred_boxes"].shape == (0, 4)
    (result,) = bridge.from_instances(plain((6, 8), fields), "parsing")
    assert (result["label_map"] == np.zeros((6, 8))).all()


@pytest.mark.parametrize("kind", ["attributes", "reid"])
def test_kinds_without_places_have_no_instances(kind):
    with pytest.raises(ValueError, match=f"unknown kind with instances '{kind}'"):
        bridge.instance_fields({}, kind)


def test_results_come_back_from_their_fields():
    fields = bridge.instance_fields(DETECTION, "detection")
    (detection,) = bridge.from_instances(plain((60, 80), fields), "detection")
    np.testing.assert_allclose(detection["boxes"], DETECTION["boxes"])
    assert detection["size"] == (60, 80)
    (pose,) = bridge.from_instances(plain((60, 80), bridge.instance_fields(POSE, "pose")), "pose")
    np.testing.assert_allclose(pose["keypoints"], POINTS, rtol=1e-6)
    np.testing.assert_allclose(pose["probability"], [0.8, 0.4], rtol=1e-6)
    fields = bridge.instance_fields({"label_map": LABEL_MAP}, "parsing")
    (parsing,) = bridge.from_instances(plain((6, 8), fields), "parsing")
    assert (parsing["label_map"] == np.where(LABEL_MAP == 255, 0, LABEL_MAP)).all()


def test_detections_of_other_things_are_left_out_and_the_best_comes_first():
    fields = {
        "pred_boxes": torch.arange(12.0).reshape(3, 4),
        "scores": torch.tensor([0.2, 0.9, 0.6]),
        "pred_classes": torch.tensor([1, 0, 1]),
    }
    (result,) = bridge.from_instances(plain((60, 80), fields), "detection", person_class=1)
    assert result["boxes"].tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]


def test_a_keypoint_score_stands_in_for_an_unknown_probability():
    keypoints = torch.tensor([[[5.5, 6.5, 1.7], [1.5, 2.5, 0.3]]])
    (result,) = bridge.from_instances(PlainInstances((60, 80), pred_keypoints=keypoints), "pose")
    np.testing.assert_allclose(result["keypoints"], [[5, 6, 1.7], [1, 2, 0.3]], rtol=1e-6)
    np.testing.assert_allclose(result["probability"], [1, 0.3], rtol=1e-6)


def test_the_surer_mask_lies_on_top():
    masks = torch.ones(2, 4, 4, dtype=torch.bool)
    instances = PlainInstances(
        (4, 4), pred_masks=masks, scores=torch.tensor([0.9, 0.2]), pred_classes=torch.tensor([5, 6])
    )
    (result,) = bridge.from_instances(instances, "parsing")
    assert (result["label_map"] == 5).all()


def test_instances_that_lack_a_field_are_refused():
    with pytest.raises(ValueError, match=r"pose results need the fields pred_keypoints; .* lack \['pred_keypoints'\]"):
        bridge.from_instances(PlainInstances((4, 4), scores=torch.ones(1)), "pose")


class Detector:
    """Finds a person in the upper left corner and a dog, if the image is red first and blue last."""

    metadata = SimpleNamespace(thing_classes=["dog", "person"])

    def __init__(self, make=plain):
        self.make = make

    def __call__(self, image: np.ndarray):
        assert image.flags["C_CONTIGUOUS"]
        fields = {
            "pred_boxes": torch.tensor([[0.0, 0, 9, 9], [1, 2, 11, 22], [3, 4, 5, 8]]),
            "scores": torch.tensor([0.95, 0.3, float(image[0, 0, 0]) / 255]),  # blue comes first
            "pred_classes": torch.tensor([0, 1, 1]),
        }
        return {"instances": self.make(image.shape[:2], fields)}


def test_person_boxes_are_the_sure_people_of_an_rgb_image():
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 2] = 204
    boxes, scores = bridge.person_boxes(Detector(), image, threshold=0.5)
    assert boxes.tolist() == [[3, 4, 5, 8]]
    np.testing.assert_allclose(scores, [0.8], rtol=1e-6)
    assert bridge.person_boxes(Detector(), image, threshold=0.1)[0].tolist() == [[3, 4, 5, 8], [1, 2, 11, 22]]


def test_a_detector_of_other_things_is_refused():
    detector = Detector()
    detector.metadata = SimpleNamespace(thing_classes=["dog", "cat"])
    with pytest.raises(ValueError, match="finds dog, cat"):
        bridge.person_boxes(detector, np.zeros((30, 40, 3), np.uint8))


def test_written_person_boxes_are_boxes_for_pose_evaluation(toy_root, tmp_path):
    dataset = load_dataset("coco_keypoints_val", toy_root)
    path = tmp_path / "new" / "boxes.json"
    bridge.write_person_boxes(Detector(), dataset, path, threshold=0.25)
    entries = json.loads(path.read_text())
    assert {entry["image_id"] for entry in entries} == set(dataset.records.images.ids.tolist())
    assert [1.0, 2.0, 10.0, 20.0] in [entry["bbox"] for entry in entries]
    detected = with_detector_boxes(dataset, path)
    assert len(detected.records) == len(entries)
    assert [1, 2, 11, 22] in [record.label.box.tolist() for record in detected.records]


def test_boxes_are_written_for_pose_datasets_alone(toy_root, tmp_path):
    with pytest.raises(ValueError, match="pa100k_test is no dataset of people in images; its kind is attributes"):
        bridge.write_person_boxes(Detector(), load_dataset("pa100k_test", toy_root), tmp_path / "boxes.json")


# with detectron2


@pytest.fixture
def catalogs():
    """detectron2's catalogues, emptied of our datasets afterwards."""
    data = pytest.importorskip("detectron2.data", reason="detectron2 is not installed")
    yield data
    for name in DATASETS:
        for catalog in (data.DatasetCatalog, data.MetadataCatalog):
            if name in catalog:
                catalog.remove(name)


@pytest.fixture
def structures():
    return pytest.importorskip("detectron2.structures", reason="detectron2 is not installed")


def test_every_dataset_is_registered_without_reading_it(catalogs, tmp_path):
    names = bridge.register_datasets(tmp_path / "nothing there")
    assert set(names) == set(DATASETS) <= set(catalogs.DatasetCatalog.list())
    with pytest.raises(FileNotFoundError, match="nothing there"):
        catalogs.DatasetCatalog.get("lip_val")


def test_registering_again_changes_the_root(catalogs, toy_root, tmp_path):
    bridge.register_datasets(tmp_path / "nothing there")
    bridge.register_datasets(toy_root)
    for name in ("coco_keypoints_val", "lip_val", "crowdhuman_val", "pa100k_test", "market1501_test"):
        assert len(catalogs.DatasetCatalog.get(name)) == len(catalogs.DatasetCatalog.get(name)) > 0
    assert catalogs.MetadataCatalog.get("lip_val").stuff_classes[:2] == ["background", "hat"]


def test_the_name_of_somebody_elses_dataset_is_not_taken(catalogs, tmp_path):
    catalogs.DatasetCatalog.register("lip_val", list)
    with pytest.raises(ValueError, match="DatasetCatalog already has lip_val"):
        bridge.register_datasets(tmp_path)
    assert catalogs.DatasetCatalog["lip_val"] is list


def test_detectron2_reads_our_poses(catalogs, structures, toy_root):
    utils = pytest.importorskip("detectron2.data.detection_utils")
    bridge.register_datasets(toy_root)
    entries = catalogs.DatasetCatalog.get("coco_keypoints_val")
    entry = next(entry for entry in entries if entry["annotations"])
    instances = utils.annotations_to_instances(entry["annotations"], (entry["height"], entry["width"]))
    assert len(instances) == len(entry["annotations"])
    assert instances.gt_keypoints.tensor.shape[1:] == (17, 3)
    assert entry["annotations"][0]["bbox_mode"] is structures.BoxMode.XYXY_ABS
    flipped = utils.create_keypoint_hflip_indices(["coco_keypoints_val"])
    assert list(flipped) == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


@pytest.mark.parametrize("name", ["coco_keypoints_val", "lip_val", "crowdhuman_val"])
def test_detectron2_draws_our_datasets(catalogs, toy_root, name):
    visualizer = pytest.importorskip("detectron2.utils.visualizer")
    bridge.register_datasets(toy_root)
    entry = max(catalogs.DatasetCatalog.get(name), key=lambda entry: len(entry.get("annotations", "")))
    image = catalogs.detection_utils.read_image(entry["file_name"], "RGB")
    drawn = visualizer.Visualizer(image, catalogs.MetadataCatalog.get(name)).draw_dataset_dict(entry).get_image()
    assert (drawn != image).any()


@pytest.mark.parametrize(
    ("kind", "result", "options"),
    [("detection", DETECTION, {}), ("pose", POSE, {"image_size": (60, 80)}), ("parsing", {"label_map": LABEL_MAP}, {})],
)
def test_results_survive_the_way_through_instances(structures, kind, result, options):
    instances = bridge.to_instances(result, kind, **options)
    assert isinstance(instances, structures.Instances)
    assert isinstance(instances.pred_boxes, structures.Boxes)
    assert instances.image_size == ((6, 8) if kind == "parsing" else (60, 80))
    (back,) = bridge.from_instances(instances, kind)
    for name, value in result.items():
        np.testing.assert_allclose(back[name], np.where(np.equal(value, 255), 0, value), rtol=1e-6)


def test_the_people_of_an_image_are_put_together(structures):
    people = [bridge.to_instances(POSE, "pose", image_size=(60, 80)) for _ in range(3)]
    assert len(bridge.from_instances(structures.Instances.cat(people), "pose")) == 3


def test_a_pose_needs_the_size_of_its_image(structures):
    with pytest.raises(ValueError, match="give image_size"):
        bridge.to_instances(POSE, "pose")


def test_a_detector_returns_real_instances(structures):
    def make(size, fields):
        return structures.Instances(size, **fields | {"pred_boxes": structures.Boxes(fields["pred_boxes"])})

    boxes, _ = bridge.person_boxes(Detector(make), np.full((30, 40, 3), 255, np.uint8))
    assert boxes.tolist() == [[3, 4, 5, 8]]


def test_the_official_evaluation_gives_full_marks_to_the_truth(catalogs, structures, toy_root, tmp_path: Path):
    evaluation = pytest.importorskip("detectron2.evaluation")
    bridge.register_datasets(toy_root)
    name = "coco_keypoints_val"
    entries = catalogs.DatasetCatalog.get(name)
    dataset = load_dataset(name, toy_root)
    evaluator = evaluation.COCOEvaluator(
        name, tasks=("keypoints",), distributed=False, output_dir=str(tmp_path), kpt_oks_sigmas=dataset.sigmas
    )
    evaluator.reset()
    for entry in entries:
        people = []
        for record in dataset.records:
            if record.label.image_id == entry["image_id"]:
                points = record.label.keypoints
                result = {"keypoints": points, "probability": points[:, 2]}
                people.append(bridge.to_instances(result, "pose", (entry["height"], entry["width"])))
        if people:
            evaluator.process([entry], [{"instances": structures.Instances.cat(people)}])
    assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(100, abs=1e-3)
