"""What ``TASKS.<name>.SHOTS`` leaves of a training set, and what is written about it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

from unihap.build import build_task
from unihap.build.data import build_train_dataset
from unihap.build.few_shot import take_shots
from unihap.config import get_cfg
from unihap.data.images import BadImageError


@pytest.fixture
def config(toy_config, toy_root):
    def make(*words):
        cfg = get_cfg()
        cfg.merge_from_file(toy_config)
        cfg.merge_from_list(["DATA.ROOT", str(toy_root), *words])
        return cfg

    return make


def records(cfg, task):
    return [record.id for record in build_train_dataset(cfg, build_task(cfg, task)).records]


def test_without_shots_a_training_set_is_whole_and_with_them_it_keeps_its_order(config):
    everything = records(config(), "pa100k_attributes")
    few = records(config("TASKS.pa100k_attributes.SHOTS", 1), "pa100k_attributes")
    assert len(few) <= len(everything)
    assert few == [record for record in everything if record in few]
    assert records(config("TASKS.pa100k_attributes.SHOTS", 100), "pa100k_attributes") == everything


def test_reid_keeps_some_crops_of_everybody(config):
    cfg = config("TASKS.general_reid.SHOTS", 2, "TASKS.general_reid.SHOT_SEED", 7)
    kept = build_train_dataset(cfg, build_task(cfg, "general_reid")).records
    assert sorted(record.label.identity for record in kept) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_detection_keeps_pictures_with_people(config):
    block = "TASKS.pedestrian_detection"
    draws = [
        records(config(f"{block}.SHOTS", 2, f"{block}.SHOT_SEED", seed), "pedestrian_detection") for seed in range(20)
    ]
    assert all(len(set(drawn)) == 2 for drawn in draws)
    assert {record for drawn in draws for record in drawn} == {f"train{i}" for i in (0, 2, 3, 4, 5)}  # 1 is empty


def test_an_unreadable_label_map_stops_or_shows_nothing(config):
    cfg = config("TASKS.lip_parsing.SHOTS", 9)
    task = build_task(cfg, "lip_parsing")
    whole = build_train_dataset(config(), task)

    def read(path):
        if "0_train" in path:
            raise BadImageError(f"{path} is broken")
        return whole.read_label_map(path)

    broken = replace(whole, read_label_map=read)
    with pytest.raises(BadImageError, match="is broken"):
        take_shots(cfg, task, broken)
    cfg.DATA.ON_BAD_IMAGE = "skip"
    assert len(take_shots(cfg, task, broken).records) == len(whole.records) - 1


def test_any_training_run_may_be_few_shot_and_writes_what_it_drew(toy_config, toy_root, tmp_path):
    words = ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out", "SOLVER.MAX_ITERATIONS", 1]
    words += ["SOLVER.WARMUP_ITERATIONS", 0, "TRAIN.EVAL_AT_END", False]
    words += ["TASKS.coco_pose.SHOTS", 1, "TASKS.lip_parsing.SHOTS", 2, "TASKS.lip_parsing.SHOT_SEED", 4]
    assert train_net.main(list(map(str, words))) == 0
    drawn = json.loads((tmp_path / "out" / "shots.json").read_text())
    assert set(drawn) == {"coco_pose", "lip_parsing"}
    assert (drawn["lip_parsing"]["shots"], drawn["lip_parsing"]["seed"]) == (2, 4)
    assert 2 <= len(drawn["lip_parsing"]["records"]) <= 5
    assert drawn["coco_pose"]["dataset"] == "coco_keypoints_train"
