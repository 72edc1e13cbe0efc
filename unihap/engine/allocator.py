"""Keeping freed memory on Linux CPUs, where glibc otherwise gives every large block back and faults it in again.

Detection at full size spends up to 45 % of a forward pass in page faults without this (see benchmarks/model.py).
"""

import ctypes
import os
import sys

# Parameters of mallopt(3), from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_heap() -> bool:
    """Asks glibc to keep freed memory for the next allocation; call it before the first large tensor.

    ``UNIHAP_KEEP_HEAP=0`` leaves the allocator alone.

    Returns:
        Whether glibc agreed; False with other C libraries and on other systems.
    """
    if os.environ.get("UNIHAP_KEEP_HEAP", "1") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl and others have no mallopt
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 * 2**20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
