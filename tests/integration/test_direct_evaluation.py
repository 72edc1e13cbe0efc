"""One checkpoint on any list of datasets: the same files from any number of processes, and every protocol by config."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

HERE = Path(__file__).parent


def run(*words):
    return train_net.main(list(map(str, words)))


def read(path):
    return json.loads(path.read_text())


def files(output):
    """What an evaluation wrote, by name, without the config, which names OUTPUT_DIR."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "config.yaml"
    }


@pytest.fixture(scope="module")
def root(toy_root, tmp_path_factory):
    """The toy datasets with unreadable test images inside batches, Human3.6M, OCHuman, SenseReID and boxes."""
    root = tmp_path_factory.mktemp("direct") / "data"
    shutil.copytree(toy_root, root)
    people = root / "coco" / "annotations" / "person_keypoints_val2017.json"
    for folder, name in (
        ("ochuman", "annotations/ochuman_coco_format_test_range_0.00_1.00.json"),
        ("h36m", "annotation_body2d/h36m_coco_test.json"),
    ):
        (root / folder / name).parent.mkdir(parents=True)
        shutil.copy(people, root / folder / name)
        shutil.copytree(toy_root / "coco" / "val2017", root / folder / "images")
    for image in ("PA-100K/data/000010.jpg", "coco/val2017/000000000003.jpg", "h36m/images/000000000002.jpg"):
        (root / image).write_bytes((root / image).read_bytes()[:300])

    market = toy_root / "Market-1501-v15.09.15"
    for folder, name in (("query", "test_probe"), ("bounding_box_test", "test_gallery")):
        (root / "SenseReID" / name).mkdir(parents=True)
        for crop in (market / folder).iterdir():
            person, camera = crop.name.split("_")[:2]
            shutil.copy(crop, root / "SenseReID" / name / f"0{person}_0{camera[1]}.jpg")

    found = {"category_id": 1, "bbox": [18, 8, 44, 64], "score": 0.75}
    boxes = [found | {"image_id": number} for number in (1, 2, 4)] + [found | {"image_id": 1, "bbox": [2, 2, 20, 20]}]
    (root / "boxes.json").write_text(json.dumps(boxes))
    return root


@pytest.fixture(scope="module")
def weights(toy_config, root, tmp_path_factory):
    """A checkpoint of all five toy tasks and of one whose metric is a mean of distances."""
    output = tmp_path_factory.mktemp("weights") / "out"
    words = ["SOLVER.MAX_ITERATIONS", 2, "SOLVER.WARMUP_ITERATIONS", 1, "TRAIN.EVAL_AT_END", False]
    words += [
        "DATA.ON_BAD_IMAGE",
        "skip",
        "TRAIN.TASKS",
        json.dumps([*TASKS, "h36m_pose"]),
        *H36M,
        "TASKS.h36m_pose.TRAIN",
        "[h36m_pose_test]",
    ]
    assert run("--config", toy_config, "DATA.ROOT", root, "OUTPUT_DIR", output, *words) == 0
    return max((output / "checkpoints").iterdir())


TASKS = ("general_reid", "pa100k_attributes", "coco_pose", "lip_parsing", "pedestrian_detection")
H36M = ("TASKS.h36m_pose.BATCH_SIZE", 4, "TASKS.h36m_pose.INPUT_SIZE", "[64, 48]")
COMMON = ("--eval-only", "TRAIN.PRECISION", "float32", "TEST.VISUALIZE", 3, "DATA.ON_BAD_IMAGE", "skip")
BATCHES = ("TASKS.pa100k_attributes.BATCH_SIZE", 3, "TASKS.lip_parsing.BATCH_SIZE", 2)


@pytest.mark.dist
def test_one_and_three_processes_write_the_same_bytes_and_so_does_evaluating_twice(toy_config, root, weights, tmp_path):
    """The end point error of Human3.6M shows the last digits; other shares of its records change it."""

    def words(name):
        return ["--config", toy_config, *COMMON, *BATCHES, *H36M, "TEST.TASKS",
                json.dumps([*TASKS, "h36m_pose"]), "DATA.ROOT", root, "MODEL.WEIGHTS", weights, "OUTPUT_DIR",
                tmp_path / name]  # fmt: skip

    assert run(*words("one")) == 0
    assert run(*words("again"), "DATA.NUM_WORKERS", 1) == 0
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, HERE / "processes.py", 3, port, *words("three")]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]

    one, again, three = (files(tmp_path / name) for name in ("one", "again", "three"))
    assert {"results.json", "protocols.json", "visualizations/coco_keypoints_val_best.jpg"} <= one.keys()
    assert len(read(tmp_path / "one" / "results.json")) == 6
    unreadable = {name: entry["num_unreadable"] for name, entry in read(tmp_path / "one" / "protocols.json").items()}
    assert {name for name, number in unreadable.items() if number} == {
        "pa100k_test", "coco_keypoints_val", "h36m_pose_test"
    }  # fmt: skip
    for other in (again, three):
        assert other.keys() == one.keys()
        assert [name for name in one if other[name] != one[name]] == []


def test_unseen_datasets_boxes_and_re_ranking_are_chosen_by_config_alone(toy_config, root, weights, tmp_path):
    words = ["--config", toy_config, *COMMON, "DATA.ROOT", root, "MODEL.WEIGHTS", weights, "TEST.VISUALIZE", 0]
    words += [
        "TASKS.coco_pose.TEST",
        "[coco_keypoints_val, ochuman_test]",
        "TASKS.coco_pose.BOXES",
        "['boxes.json', '']",
    ]
    words += ["TASKS.general_reid.TEST", "[market1501_test, sensereid_test]"]
    for name, rerank in (("plain", False), ("reranked", True)):
        assert run(*words, "OUTPUT_DIR", tmp_path / name, "TEST.RERANK", rerank) == 0
    plain, reranked = (read(tmp_path / name / "results.json") for name in ("plain", "reranked"))
    assert plain.keys() == {
        "market1501_test", "sensereid_test", "coco_keypoints_val", "ochuman_test", "pa100k_test", "lip_val",
        "crowdhuman_val",
    }  # fmt: skip
    assert plain["sensereid_test"] == plain["market1501_test"]  # the same crops under other names
    assert {name for name in plain if plain[name] != reranked[name]} <= {"market1501_test", "sensereid_test"}
    assert "PCK@0.2" in plain["ochuman_test"]
    assert "PCK@0.2" not in plain["coco_keypoints_val"]  # boxes of a detector have no keypoints

    protocols, other = (read(tmp_path / name / "protocols.json") for name in ("plain", "reranked"))
    assert protocols["coco_keypoints_val"]["boxes"]["file"] == "boxes.json"
    assert protocols["coco_keypoints_val"]["num_records"] == 4
    assert protocols["ochuman_test"]["boxes"] == "labelled"
    assert protocols["ochuman_test"]["task"] == "coco_pose"
    assert protocols["sensereid_test"]["conventions"]["rerank"] is None
    assert other["sensereid_test"]["conventions"]["rerank"]["k1"] == 50
    (entry,) = protocols["lip_val"]["weights"]
    assert entry["file"] == f"{weights.name}/weights.safetensors"
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["TASKS.coco_pose.BOXES", "['a.json', 'b.json']"], "BOXES names 2 files for 1 test sets (coco_keypoints_val)"),
        (["TASKS.coco_pose.BOXES", "['none.json']"], "none.json"),
        (
            ["TASKS.lip_parsing.BOXES", "['boxes.json']"],
            "lip_val is no dataset of people in images; its kind is parsing",
        ),
        (["TASKS.general_reid.TEST", "[market1501_test, market1501_test]"], "market1501_test is to be evaluated twice"),
    ],
)
def test_an_impossible_evaluation_is_refused(toy_config, root, weights, tmp_path, capsys, words, message):
    arguments = ["--config", toy_config, *COMMON, "DATA.ROOT", root, "MODEL.WEIGHTS", weights]
    assert run(*arguments, "OUTPUT_DIR", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_sheets_of_cases_show_people_and_queries_that_have_a_score(toy_config, root, weights, tmp_path):
    words = ["--config", toy_config, *COMMON, "DATA.ROOT", root, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path]
    assert run(*words, "TASKS.coco_pose.BOXES", "['boxes.json']") == 0
    sheets = {path.name for path in (tmp_path / "visualizations").iterdir()}
    assert {"market1501_test.jpg", "market1501_test_best.jpg", "market1501_test_worst.jpg"} <= sheets
    assert "coco_keypoints_val.jpg" in sheets
    assert "coco_keypoints_val_best.jpg" not in sheets  # nothing is labelled in a detector's boxes
