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


def moments(output):
    """AdamW's first moment of every weight: its gradients, averaged, at their true scale."""
    state = torch.load(max((output / "checkpoints").iterdir()) / "training_state.pth", weights_only=True)
    return {name: values["exp_avg"] for name, values in state["optimizer"].items()}


@pytest.mark.dist
@pytest.mark.parametrize(
    ("sharing", "both"),
    [("private_interpreter", "general_reid"), ("private_decoder", "coco_pose"), ("by_kind", "coco_pose")],
)
def test_decoders_of_tasks_and_kinds_get_the_same_gradients_from_one_and_two_processes(
    sharing, both, toy_config, toy_root, tmp_path
):
    """``both`` processes train one task, and two more each.

    Most decoders belong to a task that only one process trains, and most units to nobody; ReID uses none at all.
    """
    others = [task for task in TASKS if task != both]
    order = [*others[:2], both, *others[2:]]
    common = ["TRAIN.EVAL_AT_END", "False", "SOLVER.MAX_ITERATIONS", "3", "SOLVER.WARMUP_ITERATIONS", "1"]
    common += ["MODEL.SHARING", sharing, "TRAIN.TASKS", f"[{', '.join(order)}]"]
    plan = shares({**dict.fromkeys(others, (1, 1)), both: (2, 2)})
    one = run(1, toy_config, toy_root, tmp_path / "1", *common, *plan)
    two = run(2, toy_config, toy_root, tmp_path / "2", *common, *plan)
    assert two.keys() == one.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9
    gradients, summed = moments(tmp_path / "1"), moments(tmp_path / "2")
    owner = "shared.branches.pose." if sharing == "by_kind" else "private.coco_pose."
    assert float(gradients[f"{owner}interpreter.to_kernel.0.weight"].abs().max()) > 1e-6
    assert f"{owner}interpreter.to_box.0.weight" not in gradients
    assert summed.keys() == gradients.keys()
    assert max(float((gradients[name] - summed[name]).abs().max()) for name in gradients) < 1e-9
