"""A rank that dies ends the others, soon and with a message that says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "tools" / "train_net.py"


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.dist
@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc")
def test_a_killed_rank_ends_the_run_within_a_minute(toy_config, toy_root, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 3, TRAIN]
    words += ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out"]
    words += ["SOLVER.MAX_ITERATIONS", 100000, "TRAIN.CHECKPOINT_PERIOD", 100000]
    log = tmp_path / "log.txt"
    with open(log, "w") as file:
        process = subprocess.Popen(
            list(map(str, words)), stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    deadline = time.monotonic() + 240
    while not (tmp_path / "out" / "metrics.jsonl").is_file():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - killed < 60
    said = log.read_text()
    assert "stops because another process of this run was killed or failed" in said
    assert "--resume" in said
