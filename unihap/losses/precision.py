"""The arithmetic precision that every loss shares."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or unchanged when it is float32 or float64 already."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
