"""What a run tells: JSON lines for machines, a progress line for people, TensorBoard where it is installed."""

import importlib.util
import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unihap.engine.checkpoint import write_atomically

logger = logging.getLogger(__name__)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process: allocated on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not on every platform

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def duration(seconds: float) -> str:
    """``1:02:03``."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


class Events:
    """Averages values between two lines and writes them.

    Args:
        folder: ``OUTPUT_DIR``; ``None`` on processes that write nothing.
        first_iteration: where the run starts or goes on; lines at or after it, left by a run that was killed after its
            last checkpoint, are removed.
        last_iteration: for the time that remains.
    """

    def __init__(self, folder: Path | None, first_iteration: int, last_iteration: int) -> None:
        self.path = folder / "metrics.jsonl" if folder else None
        self.last_iteration = last_iteration
        self._sum: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._count: dict[str, int] = defaultdict(int)
        self._started = self._since = time.perf_counter()
        self._first = self._since_iteration = first_iteration
        self._board: Any = None
        if self.path is None or folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            kept = []
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the last line of a killed run may be cut
                if entry["iteration"] < first_iteration:
                    kept.append(line)
            write_atomically(self.path, "".join(f"{line}\n" for line in kept))
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_iteration)

    def add(self, task: str, values: dict[str, float]) -> None:
        """Counts one batch's values of a task."""
        self._count[task] += 1
        for name, value in values.items():
            self._sum[task][name] += value

    def write(
        self,
        iteration: int,
        *,
        lr: float,
        images: int,
        device: torch.device,
        progress: Mapping[str, float] | None = None,
    ) -> None:
        """Writes a line per task with means since the last line, and one progress line.

        Args:
            iteration: the iteration that just finished, counted from 0.
            lr: rate of a group of scale 1.
            images: images of all processes since the last line.
            device: where this process computes.
            progress: more values of every line, such as the epoch.
        """
        progress = progress or {}
        now = time.perf_counter()
        done = iteration + 1
        rate = images / max(now - self._since, 1e-9)
        remaining = (self.last_iteration - done) * (now - self._since) / max(done - self._since_iteration, 1)
        memory = peak_memory_mb(device)
        shown = []
        lines = []
        for task, sums in self._sum.items():
            means = {name: value / self._count[task] for name, value in sums.items()}
            shown.append(f"{task} {means['loss']:.4g}")
            entry = {
                "iteration": iteration,
                "task": task,
                **progress,
                **means,
                "lr": lr,
                "images_per_second": rate,
                "peak_memory_mb": memory,
            }
            lines.append(json.dumps(entry))
            if self._board:
                for name, value in means.items():
                    self._board.add_scalar(f"{task}/{name}", value, iteration)
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
            logger.info(
                "iteration %d/%d  %slr %.3g  %.1f images/s  ETA %s  loss: %s",
                done,
                self.last_iteration,
                "".join(f"{name} {value:.4g}  " for name, value in progress.items()),
                lr,
                rate,
                duration(remaining),
                ", ".join(shown),
            )
        if self._board:
            self._board.add_scalar("lr", lr, iteration)
            self._board.add_scalar("images_per_second", rate, iteration)
        self._sum.clear()
        self._count.clear()
        self._since, self._since_iteration = now, done

    def take(self) -> dict[str, tuple[int, dict[str, float]]]:
        """Counts and sums of this process, to be merged into the writing one."""
        return {task: (self._count[task], dict(sums)) for task, sums in self._sum.items()}

    def merge(self, others: list[dict[str, tuple[int, dict[str, float]]]]) -> None:
        """Adds what other processes counted."""
        for other in others:
            for task, (count, sums) in other.items():
                self._count[task] += count
                for name, value in sums.items():
                    self._sum[task][name] += value

    def close(self) -> None:
        """Ends the TensorBoard file."""
        if self._board:
            self._board.close()
