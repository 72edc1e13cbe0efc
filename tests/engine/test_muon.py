import pytest
import torch
from timm.optim import Muon
from torch import nn

from unihap.engine.muon import BatchedMuon

SHAPES = [(8, 8), (24, 8), (8, 8), (8, 32), (24, 8)]


def trained(kind, dtype, num_steps=3):
    """Weights after some steps on fixed gradients: two groups of matrices, of which some share a shape, and a bias."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(*shape, generator=generator).to(dtype)) for shape in [*SHAPES, (8,)]]
    groups = [
        {"params": weights[:2], "lr": 0.1, "weight_decay": 0.05, "use_fallback": False},
        {"params": weights[2:5], "lr": 0.02, "weight_decay": 0.0, "use_fallback": False},
        {"params": weights[5:], "lr": 0.1, "weight_decay": 0.0, "use_fallback": True},
    ]
    optimizer = kind(groups, lr=0.1, momentum=0.95, nesterov=True, fallback_lr_scale=0.3)
    for _ in range(num_steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).to(dtype)
        optimizer.step()
    return weights


def test_steps_are_those_of_timm_but_for_its_rounding_to_bfloat16():
    """Three steps of 0.1 with 0.2 sqrt(32) move an entry by up to 0.3; bfloat16 has 8 bits."""
    start = trained(BatchedMuon, torch.float32, num_steps=0)
    for ours, timms, first in zip(
        trained(BatchedMuon, torch.float32), trained(Muon, torch.float32), start, strict=True
    ):
        moved = (timms - first).abs().max()
        assert (ours - timms).abs().max() < 0.03 * moved
        assert moved > 0.01


def test_a_cpu_computes_in_the_precision_of_the_weights():
    single, double = trained(BatchedMuon, torch.float32), trained(BatchedMuon, torch.float64)
    for a, b in zip(single, double, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_gradients_are_there_after_a_step_and_weights_without_one_stay():
    weight, idle = nn.Parameter(torch.eye(4)), nn.Parameter(torch.eye(4))
    optimizer = BatchedMuon([{"params": [weight, idle], "use_fallback": False}], lr=0.1)
    weight.grad = torch.eye(4)
    loss = optimizer.step(lambda: 3.0)
    assert loss == 3.0
    assert torch.equal(weight.grad, torch.eye(4))
    assert torch.equal(idle, torch.eye(4))
    # The gradient is orthogonal already, so the step is 0.2 sqrt(4) times the rate against it.
    assert weight[0, 0].item() == pytest.approx(1 - 0.1 * 0.2 * 2, abs=0.005)
