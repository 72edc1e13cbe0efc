import json
from dataclasses import replace

import numpy as np
import pytest

from unihap.build import build_task
from unihap.config import get_cfg
from unihap.data.catalog import load_dataset
from unihap.engine.protocol import describe_protocol, file_entry, protocol_line, split_checksum
from unihap.structures import AttributesLabel, Dataset, ParsingLabel, PoseLabel, Record, ReIDLabel


def reid(*labels, root="/data", **fields):
    records = [Record(f"r{i}", f"{root}/crops/{i}.jpg", ReIDLabel(*label)) for i, label in enumerate(labels)]
    return Dataset("toy", "reid", records, **fields)


PEOPLE = ((1, 2, "query"), (1, 3, "gallery"))


def test_the_checksum_of_a_split_does_not_depend_on_the_root_or_the_name():
    first = split_checksum(reid(*PEOPLE))
    assert first == split_checksum(replace(reid(*PEOPLE, root="/elsewhere"), name="other"))
    assert first == split_checksum(reid(*PEOPLE))


@pytest.mark.parametrize(
    "other",
    [
        reid(*PEOPLE[::-1]),
        reid(PEOPLE[0]),
        reid((1, 2, "query"), (1, 4, "gallery")),
        reid((1, 2, "query"), (1, 3, "query")),
        reid(*PEOPLE, classes=("a",)),
    ],
    ids=["order", "fewer", "camera", "role", "classes"],
)
def test_the_checksum_of_a_split_changes_with(other):
    assert split_checksum(other) != split_checksum(reid(*PEOPLE))


def test_arrays_count_by_value_type_and_shape():
    def checksum(values):
        return split_checksum(Dataset("toy", "attributes", [Record("a", "a.jpg", AttributesLabel(values))]))

    values = np.array([1, 0, -1], dtype=np.int8)
    assert checksum(values) == checksum(values.copy()) == checksum(np.repeat(values, 2)[::2])
    changed = [values[::-1], values.astype(np.int16), values[None]]
    assert len({checksum(v) for v in [values, *changed]}) == 4
    big = np.array([1, 2], dtype=">i4")
    assert checksum(big) == checksum(big.astype("<i4"))


def test_a_label_map_counts_by_the_name_of_its_file():
    def checksum(path):
        return split_checksum(Dataset("toy", "parsing", [Record("a", "a.jpg", ParsingLabel(path))]))

    assert checksum("/x/maps/a.png") == checksum("D:\\y\\a.png") != checksum("/x/maps/b.png")


def test_every_kind_of_dataset_has_a_checksum(toy_root):
    names = ["market1501_test", "pa100k_test", "coco_keypoints_val", "lip_val", "crowdhuman_val"]
    checksums = [split_checksum(load_dataset(name, toy_root)) for name in names]
    assert len(set(checksums)) == 5
    assert checksums == [split_checksum(load_dataset(name, toy_root)) for name in names]


def test_a_checkpoint_folder_stands_for_its_weights(tmp_path):
    folder = tmp_path / "iteration_00000007"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing
    assert file_entry(folder) == {"file": "iteration_00000007/weights.safetensors", "sha256": empty}
    assert file_entry(folder / "weights.safetensors") == file_entry(folder)


def described(name, dataset, words=(), **changes):
    cfg = get_cfg()
    cfg.merge_from_list(list(words))
    options = {"boxes": "", "flip": True, "batch_size": 8, "precision": "float32", "num_unreadable": 0, "weights": []}
    return describe_protocol(build_task(cfg, name), dataset, **{**options, **changes})


def test_a_pose_protocol_names_boxes_annotation_and_rescoring(tmp_path):
    boxes, annotation = tmp_path / "boxes.json", tmp_path / "annotation.json"
    boxes.write_text("[]")
    annotation.write_text("{}")
    label = PoseLabel(np.zeros((17, 3)), np.zeros(4), 1)
    data = Dataset("toy", "pose", [Record("a", "a.jpg", label)], metric="keypoint_ap", annotation=str(annotation))
    protocol = described("coco_pose", data, ["TEST.POSE_RESCORE", "release"], boxes=str(boxes))
    assert protocol["boxes"]["file"] == "boxes.json"
    assert described("coco_pose", data)["boxes"] == "labelled"
    assert protocol["annotation"]["file"] == "annotation.json"
    assert protocol["flip"] is True
    assert protocol["conventions"]["rescore"] == "release"
    assert "boxes boxes.json, input 256 x 192, flip, float32" in protocol_line(protocol)
    assert json.loads(json.dumps(protocol)) == protocol


def test_a_reid_protocol_tells_re_ranking_and_its_numbers():
    plain, reranked = (described("general_reid", reid(*PEOPLE), ["TEST.RERANK", value]) for value in (False, True))
    assert plain["conventions"]["rerank"] is None
    assert reranked["conventions"]["rerank"] == {"k1": 50, "k2": 15, "distance_weight": 0.3}
    assert "re-ranked k1=50 k2=15 distance_weight=0.3" in protocol_line(reranked)
    assert "re-ranked" not in protocol_line(plain)


def test_a_detection_protocol_names_the_lowest_score():
    data = Dataset("toy", "detection", [])
    assert described("pedestrian_detection", data, ["TEST.DETECTION_SCORE", 0.2])["conventions"]["lowest_score"] == 0.2
    assert described("pedestrian_detection", data)["input_size"] == [800, 1333]


def test_unreadable_records_show_in_the_line():
    weights = [{"file": "w", "sha256": "0123456789"}]
    line = protocol_line(described("general_reid", reid(*PEOPLE), num_unreadable=1, weights=weights))
    assert line.startswith("2 records, 1 unreadable, split ")
    assert line.endswith("float32, weights 01234567")
