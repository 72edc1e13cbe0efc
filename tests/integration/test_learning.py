"""All five kinds of task learn together: every loss falls to under half, every metric leaves chance behind."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

# Trained and evaluated on the same few images: what is tested is learning, not generalisation.
TASKS = {
    "general_reid": ("market1501_train", 0.3, "mAP", 90),
    "pa100k_attributes": ("pa100k_train", 0.1, "mA", 75),
    # six small people: AP hangs on fractions of a pixel and is 8 or 10 by the processor; a blind guess has PCK 7.8
    "coco_pose": ("coco_keypoints_train", 1000.0, "PCK@0.2", 30),
    "lip_parsing": ("lip_train", 1.0, "mIoU", 60),
    "pedestrian_detection": ("crowdhuman_train", 1.0, "AP", 50),
}


def test_five_tasks_learn_together(toy_config, toy_root, tmp_path):
    words = ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out"]
    words += ["SOLVER.MAX_ITERATIONS", 400, "SOLVER.WARMUP_ITERATIONS", 10, "TRAIN.CHECKPOINT_PERIOD", 400]
    words += ["SOLVER.BETA2", 0.95, "SOLVER.CLIP_GRADIENT_NORM", 1.0, "SOLVER.LAYER_DECAY", 1.0]
    words += ["MODEL.ENCODER.DROP_PATH", 0.0, "MODEL.DECODER.WIDTH", 64, "MODEL.DECODER.FEEDFORWARD", 128]
    for task, (dataset, weight, _, _) in TASKS.items():
        words += [f"TASKS.{task}.TRAIN", f"[{dataset}]", f"TASKS.{task}.TEST", f"[{dataset}]"]
        words += [f"TASKS.{task}.WEIGHT", weight, f"TASKS.{task}.AUGMENT", "none"]
    assert train_net.main(list(map(str, words))) == 0

    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for task, (dataset, _, metric, enough) in TASKS.items():
        losses = [line["loss"] for line in lines if line["task"] == task]
        assert sum(losses[-5:]) / 5 < losses[0] / 2, task
        assert results[dataset][metric] > enough, (task, results[dataset])
