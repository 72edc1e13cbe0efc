"""Whole runs on damaged or unusual data: what happens is defined, and said."""

import io
import json
import logging
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

PARTS = {
    "general_reid": "Market-1501-v15.09.15",
    "pa100k_attributes": "PA-100K",
    "coco_pose": "coco",
    "lip_parsing": "LIP",
    "pedestrian_detection": "CrowdHuman",
}


@pytest.fixture
def run(toy_config, toy_root, tmp_path):
    """Trains some toy tasks for two iterations on data of which ``change(root)`` was a copy to be damaged."""
    config = tmp_path / "tiny.yaml"

    def start(tasks, change, *words):
        text = toy_config.read_text().splitlines()
        blocks = [line for line in text if not any(f"{task}:" in line for task in PARTS if task not in tasks)]
        blocks = [line for line in blocks if "general_reid" in tasks or "market1501_train" not in line]
        config.write_text("\n".join(blocks))
        root = tmp_path / "data"
        for task in tasks:
            shutil.copytree(toy_root / PARTS[task], root / PARTS[task])
        change(root)
        arguments = ["--config", config, "DATA.ROOT", root, "OUTPUT_DIR", tmp_path / "out"]
        arguments += ["TRAIN.TASKS", json.dumps(list(tasks)), "SOLVER.MAX_ITERATIONS", 2, "SOLVER.WARMUP_ITERATIONS", 1]
        return train_net.main(list(map(str, [*arguments, *words])))

    return start


def losses(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


def rewrite(path, **how):
    """Stores a JPEG's pixels in another way under the same name."""
    image = Image.open(path).convert("RGB")
    content = io.BytesIO()
    if how.get("mode") == "16 bit":
        array = np.asarray(image.convert("L"), dtype=np.uint16) * 257
        content.write(cv2.imencode(".png", array)[1].tobytes())
    elif how.get("orientation"):
        exif = Image.Exif()
        exif[0x0112] = how["orientation"]
        image.save(content, "JPEG", exif=exif)
    else:
        image.convert(how["mode"]).save(content, how["format"])
    path.write_bytes(content.getvalue())


def test_unusual_images_go_through_a_whole_run_and_its_evaluation(run, tmp_path):
    def change(root):
        kinds = [
            {"mode": "L", "format": "JPEG"},
            {"mode": "RGBA", "format": "PNG"},
            {"mode": "16 bit"},
            {"orientation": 6},  # a quarter turn, which would no longer fit its label map
        ]
        for part in PARTS.values():
            images = sorted((root / part).rglob("*.jpg"))
            assert images
            for number, image in enumerate(images):
                rewrite(image, **kinds[number % len(kinds)])

    assert run(PARTS, change) == 0
    assert np.isfinite(losses(tmp_path / "out")).all()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) == {"market1501_test", "pa100k_test", "coco_keypoints_val", "lip_val", "crowdhuman_val"}


def test_an_empty_dataset_folder_is_refused_with_its_name(run, capsys):
    def change(root):
        for image in (root / PARTS["general_reid"] / "bounding_box_train").iterdir():
            image.unlink()

    assert run(["general_reid"], change) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the folder is empty" in said
    assert "bounding_box_train" in said
    assert 'see "Market-1501" in datasets/README.md' in said


def test_people_without_a_usable_box_are_skipped_and_counted(run, tmp_path, caplog):
    def change(root):
        path = root / "coco" / "annotations" / "person_keypoints_train2017.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"] = [200, 8, 44, 64]  # images are 80 pixels wide
        content["annotations"][1]["bbox"] = [18, 8, 0, 64]
        path.write_text(json.dumps(content))

    with caplog.at_level(logging.INFO):
        assert run(["coco_pose"], change, "TRAIN.EVAL_AT_END", False) == 0
    assert "box outside the image" in caplog.text
    assert "box of zero area" in caplog.text
    assert np.isfinite(losses(tmp_path / "out")).all()


def test_detection_trains_and_evaluates_where_no_image_shows_anybody_in_training(run, tmp_path):
    def change(root):
        path = root / "CrowdHuman" / "annotation_train.odgt"
        lines = [json.loads(line) | {"gtboxes": []} for line in path.read_text().splitlines()]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    assert run(["pedestrian_detection"], change) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss_class"] > 0 and line["loss_l1"] == line["loss_giou"] == 0 for line in lines)
    assert "AP" in json.loads((tmp_path / "out" / "results.json").read_text())["crowdhuman_val"]


def out_of_range(split):
    def change(root):
        folder = root / "LIP" / "TrainVal_parsing_annotations" / f"{split}_segmentations"
        label = np.zeros((72, 56), np.uint8)
        label[10:20] = 77
        assert cv2.imwrite(str(folder / f"2_{split}.png"), label)

    return change


def test_a_parsing_label_out_of_range_is_refused_naming_file_and_value(run, capsys):
    assert run(["lip_parsing"], out_of_range("train")) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "2_train.png holds the value 77, but the classes are 0-19" in said


def test_a_parsing_label_out_of_range_in_the_test_set_fails_the_evaluation_with_its_name(run, capsys):
    # A worker process finds it: its traceback must not hide the reason.
    assert run(["lip_parsing"], out_of_range("val"), "DATA.NUM_WORKERS", 1) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the run failed: record 2_val of lip_val" in said
    assert "holds the value 77" in said


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_parsing_label_out_of_range_can_be_skipped(run, tmp_path, split, caplog):
    assert run(["lip_parsing"], out_of_range(split), "DATA.ON_BAD_IMAGE", "skip") == 0
    assert np.isfinite(losses(tmp_path / "out")).all()
    assert "mIoU" in json.loads((tmp_path / "out" / "results.json").read_text())["lip_val"]
    if split == "val":
        assert "lip_val: 1 of 5 records have no result because their image could not be read: 2_val" in caplog.text


def test_an_identity_with_one_image_trains(run, tmp_path):
    def change(root):
        images = sorted((root / PARTS["general_reid"] / "bounding_box_train").glob("0001_*.jpg"))
        for image in images[1:]:
            image.unlink()

    words = ["TASKS.general_reid.BATCH_SIZE", 8, "TRAIN.EVAL_AT_END", False]  # all four people in every batch
    assert run(["general_reid"], change, *words) == 0
    assert np.isfinite(losses(tmp_path / "out")).all()


def test_a_reid_batch_of_one_person_is_refused(run, capsys):
    assert run(["general_reid"], lambda root: None, "TASKS.general_reid.BATCH_SIZE", 2) == 2
    assert "IMAGES_PER_PERSON 2 and hold at least two people" in capsys.readouterr().err


def test_a_refused_run_leaves_nothing_that_would_refuse_the_next_one(run, tmp_path):
    words = ["TASKS.pa100k_attributes.POSITIVE_RATIO", "[0.5]", "TRAIN.EVAL_AT_END", False]
    assert run(["pa100k_attributes"], lambda root: None, *words) == 2
    assert not (tmp_path / "out").exists()


def test_an_attribute_that_is_never_positive_trains_and_evaluates(run, tmp_path):
    def change(root):
        path = root / "PA-100K" / "annotation.mat"
        content = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
        for split in ("train", "val", "test"):
            content[f"{split}_label"][:, 5] = 0
        scipy.io.savemat(path, content)

    assert run(["pa100k_attributes"], change) == 0
    assert np.isfinite(losses(tmp_path / "out")).all()
    assert 0 <= json.loads((tmp_path / "out" / "results.json").read_text())["pa100k_test"]["mA"] <= 100


def test_fewer_processes_than_ranks_work(run, tmp_path):
    words = ["TASKS.pa100k_attributes.GPUS", 3, "TRAIN.EVAL_AT_END", False]
    assert run(["pa100k_attributes"], lambda root: None, *words) == 0
    assert len(losses(tmp_path / "out")) == 2


@pytest.mark.dist
def test_more_processes_than_ranks_are_refused_by_all_of_them(toy_config, toy_root, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = [sys.executable, Path(__file__).with_name("processes.py"), 6, port, "--config", toy_config]
    words += ["DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    message = "the plan has 5 ranks (the sum of TASKS.<name>.GPUS) but 6 processes were started; start at most 5"
    assert done.stderr.count(message) == 6
    assert "Traceback" not in done.stderr
