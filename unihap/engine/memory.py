"""The memory that one of several runs in the same process needs at its peak."""

import ctypes
import gc
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


class PeakMemory:
    """Peak memory since this object was made, beyond what the process held then.

    On a GPU it is what torch allocated.  On a Linux CPU it is resident memory, whose peak the kernel lets a process
    start anew; memory that was freed but kept for later is given back first.  Elsewhere nothing is measured.

    Args:
        device: where the run computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: float | None = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device) / 2**20
            return
        try:
            ctypes.CDLL(None).malloc_trim(0)
            CLEAR.write_text(RESET_PEAK)
        except (OSError, AttributeError):  # another system, another C library, or a container that forbids it
            return
        self._before = _resident("VmRSS")

    def megabytes(self) -> float | None:
        """The peak until now in MiB, or ``None`` where it is not measured."""
        if self._before is None:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20 - self._before
        return _resident("VmHWM") - self._before


def _resident(key: str) -> float:
    """A line of the process's status in MiB."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 2**10
    raise AssertionError(f"{STATUS} has no {key}")
