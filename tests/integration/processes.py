"""Starts ``tools/train_net.py`` as several processes on one machine, importing everything once.

usage: python processes.py NUM_PROCESSES PORT ARGUMENT ...
"""

import os
import sys
from pathlib import Path

os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", OMP_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import torch
import train_net

if __name__ == "__main__":
    number, port = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)  # no thread pool may exist when the process forks
    children = []
    for rank in range(number):
        child = os.fork()
        if child == 0:
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(number),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            )
            status = 1
            try:
                status = train_net.main(sys.argv[3:])
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(statuses))
