"""Pre-training as commands: killed and resumed, and on several processes."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import crops
import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
TRAIN = HERE.parents[1] / "tools" / "train_net.py"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Arguments of the toy run."""
    root = tmp_path_factory.mktemp("pretrain")
    (root / "toy.yaml").write_text(crops.CONFIG)
    folder = crops.make(root / "people")
    return ["--config", root / "toy.yaml", "PRETRAIN.DATASETS", f"[{folder}]"]


def last_weights(output):
    return load_file(max((output / "checkpoints").glob("iteration_????????")) / "weights.safetensors")


def iterations(output):
    try:
        return [json.loads(line)["iteration"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    except (FileNotFoundError, json.JSONDecodeError):  # not yet, or a line is being written
        return []


def test_a_killed_and_resumed_run_ends_with_the_same_bits(given, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def command(output, *more):
        words = [sys.executable, TRAIN, *given, "OUTPUT_DIR", output, "PRETRAIN.EPOCHS", 20, *more]
        return list(map(str, words))

    subprocess.run(command(whole), check=True, capture_output=True, timeout=540)
    process = subprocess.Popen(command(broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 540
    while max(iterations(broken), default=-1) < 7:  # of 60; checkpoints are written every 2
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "checkpoints" / "iteration_00000060").exists()

    subprocess.run(command(broken, "--resume"), check=True, capture_output=True, timeout=540)
    a, b = last_weights(whole), last_weights(broken)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert iterations(broken) == list(range(60))


def run(number, output, *words):
    """A run in float64 on some processes; its weights and its lines."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = [sys.executable, HERE / "processes.py", number, port, *words, "OUTPUT_DIR", output]
    words += ["TRAIN.PRECISION", "float64"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return last_weights(output), [[line[key] for key in ("iteration", "epoch", "loss", "lr")] for line in lines]


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.dist
def test_it_does_not_matter_who_does_a_pass_where_no_loss_compares_samples(given, tmp_path):
    """2 processes x 2 passes x 2 samples = 1 process x 4 passes x 2 samples, in weights and in what is logged."""
    words = [*given, "PRETRAIN.ALIGN.WEIGHT", 0.0]
    one, logged_by_one = run(1, tmp_path / "1", *words, "PRETRAIN.ACCUMULATE", 4)
    two, logged_by_two = run(2, tmp_path / "2", *words, "PRETRAIN.ACCUMULATE", 2)
    assert largest_difference(one, two) < 1e-9
    assert len(logged_by_one) == 3
    assert torch.tensor(logged_by_one).sub(torch.tensor(logged_by_two)).abs().max() < 1e-6


@pytest.mark.dist
def test_alignment_compares_the_samples_of_all_processes(given, tmp_path):
    """2 processes x 2 samples = 1 process x 4 samples."""
    words = [*given, "PRETRAIN.ACCUMULATE", 1, "PRETRAIN.ALIGN.WEIGHT", 1.0, "MODEL.ENCODER.DROP_PATH", 0.0]
    one, _ = run(1, tmp_path / "1", *words, "PRETRAIN.BATCH_SIZE", 4)
    two, _ = run(2, tmp_path / "2", *words, "PRETRAIN.BATCH_SIZE", 2)
    assert largest_difference(one, two) < 1e-9
