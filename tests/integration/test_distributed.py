"""One process or many: the same mathematics (the equation in ``unihap.engine.groups``)."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(num_processes, config, root, output, *overrides):
    words = [sys.executable, HERE / "processes.py", num_processes, free_port(), "--config", config]
    words += ["DATA.ROOT", root, "OUTPUT_DIR", output, "TRAIN.PRECISION", "float64", *overrides]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = load_file(max((output / "checkpoints").iterdir()) / "weights.safetensors")
    # Running statistics are updated by each process's own batches; nothing that is trained depends on them.
    return {name: value for name, value in weights.items() if "running_" not in name and "num_batches" not in name}


# Every task has the same slots in every plan; only who plays them differs.  (gpus, accumulate) by task.
TASKS = ("general_reid", "pa100k_attributes", "coco_pose", "lip_parsing", "pedestrian_detection")
ONE_EACH = {task: (1, 1 if task == "general_reid" else 2) for task in TASKS}
EIGHT = {
    "general_reid": (1, 1),
    "pa100k_attributes": (2, 1),
    "coco_pose": (1, 2),
    "lip_parsing": (2, 1),
    "pedestrian_detection": (2, 1),
}


def shares(plan):
    return [
        word
        for task, (gpus, accumulate) in plan.items()
        for word in (f"TASKS.{task}.GPUS", gpus, f"TASKS.{task}.ACCUMULATE", accumulate)
    ]


@pytest.mark.dist
def test_twenty_steps_are_the_same_for_one_five_and_eight_processes(toy_config, toy_root, tmp_path):
    common = ["TRAIN.EVAL_AT_END", "False", "SOLVER.MAX_ITERATIONS", "20"]
    one = run(1, toy_config, toy_root, tmp_path / "1", *common, *shares(ONE_EACH))
    assert all(value.dtype == torch.float64 for name, value in one.items() if "criterion.positive" not in name)
    for number, plan in ((5, ONE_EACH), (8, EIGHT), (3, EIGHT)):
        many = run(number, toy_config, toy_root, tmp_path / str(number), *common, *shares(plan))
        assert many.keys() == one.keys()
        worst = max(float((one[name] - many[name]).abs().max()) for name in one)
        assert worst < 1e-9


@pytest.mark.dist
def test_evaluation_is_the_same_for_one_and_three_processes(toy_config, toy_root, tmp_path):
    """Rows are gathered once; a record that no process or two processes judged would change the numbers."""
    from json import loads

    run(1, toy_config, toy_root, tmp_path / "train", "SOLVER.MAX_ITERATIONS", "3")
    newest = max((tmp_path / "train" / "checkpoints").iterdir())
    words = [sys.executable, HERE / "processes.py", 3, free_port(), "--config", toy_config, "--eval-only"]
    words += ["DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "3", "MODEL.WEIGHTS", newest]
    done = subprocess.run(
        list(map(str, [*words, "TRAIN.PRECISION", "float64"])), capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, three = (loads((tmp_path / name / "results.json").read_text()) for name in ("train", "3"))
    assert one.keys() == three.keys()
    assert len(one) == 5
    for dataset, metrics in one.items():
        assert three[dataset] == pytest.approx(metrics, nan_ok=True), dataset
