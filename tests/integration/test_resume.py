"""A run that is killed and resumed ends as if nothing had happened, to the last bit."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

TRAIN = Path(__file__).parents[2] / "tools" / "train_net.py"


def command(config, root, output, *more):
    words = [sys.executable, TRAIN, "--config", config, *more]
    words += ["DATA.ROOT", root, "OUTPUT_DIR", output, "SOLVER.MAX_ITERATIONS", 60, "TRAIN.EVAL_AT_END", False]
    return list(map(str, words))


def last_weights(output):
    return load_file(max((output / "checkpoints").glob("iteration_*")) / "weights.safetensors")


def iterations(output):
    path = output / "metrics.jsonl"
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_killed_and_resumed_run_ends_with_the_same_bits(toy_config, toy_root, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(toy_config, toy_root, whole), check=True, capture_output=True, timeout=300)
    # SIGKILL at a random place; checkpoints are written every 5 of 60 iterations.
    kill_after = random.SystemRandom().randint(6, 50)
    process = subprocess.Popen(
        command(toy_config, toy_root, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while max(iterations_or_nothing(broken), default=-1) < kill_after:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "checkpoints" / "iteration_00000060").exists()

    subprocess.run(command(toy_config, toy_root, broken, "--resume"), check=True, capture_output=True, timeout=300)
    a, b = last_weights(whole), last_weights(broken)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == [], f"killed after iteration {kill_after}"
    # Lines that the killed run wrote after its last checkpoint are written once.
    logged = iterations(broken)
    assert sorted(logged) == sorted(list(range(60)) * 5)


def iterations_or_nothing(output):
    try:
        return iterations(output)
    except json.JSONDecodeError:  # a line is being written
        return []
