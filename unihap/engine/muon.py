"""Muon for models of many small matrices: those of one shape at once, in a precision that the machine is fast in."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import muon as timm_muon
from torch import Tensor

# The quintic of Jordan et al. (2024), as timm's default has it.
COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]


class BatchedMuon(timm_muon.Muon):
    """timm's Muon with its Newton-Schulz iterations in batches of equal shapes.

    timm orthogonalises one matrix after the other, always in bfloat16.  Where a processor has no instructions for
    bfloat16 this was 39 % of the time of an iteration of ``configs/quick/joint_cpu.yaml``.  Here a CPU computes in the
    precision of the weights and a GPU in bfloat16.  The step is otherwise timm's, and weights of groups with
    ``use_fallback`` take timm's own.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; see ``torch.optim.Optimizer.step``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            if not group["use_fallback"]:
                gradients |= {p: p.grad for p in group["params"] if p.grad is not None}
                self._step_hidden(group)
        for parameter in gradients:
            parameter.grad = None  # timm's step passes over weights without a gradient
        super().step()
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        return loss

    def _step_hidden(self, group: dict[str, Any]) -> None:
        """Moves the matrices of one group."""
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            updates = torch.stack([self._momentum(parameter, group) for parameter in parameters])
            steps = timm_muon.zeropower_via_newtonschulz(
                updates,
                group["ns_steps"],
                COEFFICIENTS,
                eps=group["eps"],
                dtype=torch.bfloat16 if updates.is_cuda else updates.dtype,
            )
            size = group["lr"] * timm_muon.get_lr_scale(shape, group["adjust_lr_fn"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, [s.to(p.dtype) for s, p in zip(steps, parameters, strict=True)], alpha=-size)

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The running mean of the gradients with the last one, looking ahead as Nesterov's."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        assert parameter.grad is not None
        buffer.lerp_(parameter.grad, 1 - group["momentum"])
        return parameter.grad.lerp(buffer, group["momentum"])
