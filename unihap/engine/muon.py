"""Muon for models of many small matrices: those of one shape at once, in a precision that the machine is fast in."""

from collections import defaultdict
from typing import Any

import torch
from timm.optim import muon as timm_muon
from torch import Tensor

# One odd polynomial a X + b X^3 + c X^5 per iteration: timm's default, which leaves singular values nearer to 1 than
# the five equal ones of Jordan et al. (2024) do.
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


class BatchedMuon(timm_muon.Muon):
    """timm's Muon with its Newton-Schulz iterations in batches of equal shapes.

    timm orthogonalises one matrix after the other, always in bfloat16.  Where a processor has no instructions for
    bfloat16 this was 39 % of the time of an iteration of ``configs/quick/joint_cpu.yaml``.  Here a CPU computes in the
    precision of the weights and a GPU in bfloat16.  The step is otherwise timm's, and weights of groups with
    ``use_fallback`` take timm's own.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
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
            torch._foreach_add_(parameters, list(steps.to(updates.dtype)), alpha=-size)

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The running mean of the gradients with the last one, looking ahead as Nesterov's."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        assert parameter.grad is not None
        buffer.lerp_(parameter.grad, 1 - group["momentum"])
        return parameter.grad.lerp(buffer, group["momentum"])
