import json

import numpy as np
import pytest
import torch
from torch import nn

from unihap.checkpoints.unihcp import our_name
from unihap.engine.optimizer import (
    MUON_REST,
    build_optimizer,
    layer_scale,
    load_state_by_name,
    parameter_groups,
    schedule,
    set_rate,
    state_by_name,
)
from unihap.models.encoder import Encoder
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit


@pytest.fixture(scope="module")
def encoder():
    return Encoder("vit_tiny_patch16", (4, 4))  # 12 blocks


def test_the_rate_of_a_block_is_a_power_of_the_decay(encoder):
    """BEiT's rule: 14 layers, the norm and everything above at 1."""
    scale = {n: layer_scale(f"shared.encoder.{n}", encoder, 0.75, "corrected") for n, _ in encoder.named_parameters()}
    assert scale["norm.weight"] == scale["position.table"] == 1.0
    assert scale["blocks.11.mlp.fc1.weight"] == 0.75
    assert scale["blocks.0.norm1.bias"] == pytest.approx(0.75**12)
    assert scale["patch_embed.proj.weight"] == pytest.approx(0.75**13)
    assert layer_scale("shared.decoder.level", encoder, 0.75, "corrected") == 1.0


def test_an_unknown_rule_is_refused(encoder):
    with pytest.raises(ValueError, match=r"unknown SOLVER\.LAYER_DECAY_RULE 'realease'.*did you mean release"):
        layer_scale("shared.encoder.blocks.0.norm1.bias", encoder, 0.75, "realease")


def test_the_release_rule_gives_every_parameter_the_recorded_rate_and_decay(golden):
    told = json.loads((golden / "optim" / "param_groups.json").read_text())
    spec = TaskSpec("t", 3, frozenset({Unit.PROBABILITY, Unit.BOX}), Supervision.LAYERS, num_anchors=300)
    with torch.device("meta"):
        model = Architecture("vit_tiny_patch16").make([spec])
    named = [(f"shared.{n}", p) for n, p in model.shared.named_parameters()]
    named += [(f"private.t.{n}", p) for n, p in model.private["t"].named_parameters()]
    groups = parameter_groups(
        named, model.shared.encoder, weight_decay=0.05, layer_decay=0.75, layer_decay_rule="release"
    )
    ours = {name: (g["lr_scale"], g["weight_decay"]) for g in groups for name in g["names"]}
    compared = 0
    for key, scale, decay in told["rows"]:
        shape = (300, 2) if key.endswith("query_embed.weight") else (1, 1)
        name = our_name(key.removeprefix("module."), shape)
        assert name is not None
        name = name.replace("private.", "private.t.")
        assert ours[name] == (pytest.approx(scale), decay), key
        compared += 1
    assert compared == len(told["rows"]) == len(ours)


def test_corrected_groups_leave_norms_biases_queries_and_positions_undecayed(encoder):
    spec = TaskSpec("t", 3, frozenset({Unit.HEATMAP}), Supervision.LAST)
    model = Architecture("vit_pico_patch16", (4, 4), width=32, num_heads=2, num_layers=1, feedforward=8).make([spec])
    groups = parameter_groups(model.named_parameters(), model.shared.encoder, weight_decay=0.1, layer_decay=1.0)
    decay = {name: g["weight_decay"] for g in groups for name in g["names"]}
    assert decay["private.t.content"] == decay["private.t.position"] == decay["shared.encoder.position.table"] == 0
    assert decay["shared.interpreter.upsample.1.weight"] == decay["shared.decoder.level"] == 0
    assert decay["shared.encoder.blocks.0.attn.qkv.bias"] == 0
    assert decay["shared.encoder.blocks.0.attn.qkv.weight"] == decay["shared.interpreter.to_pixel.weight"] == 0.1
    assert len(decay) == len(list(model.named_parameters()))


def test_frozen_parameters_are_left_out(encoder):
    for p in encoder.patch_embed.parameters():
        p.requires_grad_(False)
    groups = parameter_groups(
        ((f"shared.encoder.{n}", p) for n, p in encoder.named_parameters()), encoder, weight_decay=0, layer_decay=1
    )
    assert not any("patch_embed" in name for g in groups for name in g["names"])


# ------------------------------------------------------------------------------------------------- schedule


def test_the_schedule_by_hand():
    """1e-5 to 1e-3 over 1500 of 104816 iterations, then half a cosine (UniHCP's settings)."""
    rate = schedule(warmup_start=0.01, warmup=1500 / 104816)
    by_iteration = {it: 1e-3 * rate(it / 104816) for it in (0, 750, 1500, 53158, 104815)}
    assert by_iteration == pytest.approx({0: 1e-5, 750: 5.05e-4, 1500: 1e-3, 53158: 5e-4, 104815: 2.3e-13}, rel=2e-2)
    assert by_iteration[53158] == pytest.approx(5e-4, rel=1e-6)


def test_the_schedule_is_the_recorded_one(golden):
    told = json.loads((golden / "optim" / "lr_schedule.json").read_text())
    rate = schedule(warmup_start=0.01, warmup=1500 / told["max_iter"])
    ours = [100 * rate(int(it) / told["max_iter"]) for it in told["lr"]]
    assert ours == pytest.approx(list(told["lr"].values()), rel=1e-6, abs=1e-8)


def test_no_warmup_is_a_cosine_from_the_start():
    rate = schedule(warmup_start=0.01, warmup=0)
    assert [rate(x) for x in (0.0, 0.5)] == pytest.approx([1.0, 0.5])


def test_a_linear_decay_by_hand():
    """A fifth warms up from a tenth; halfway through the rest half of the rate is left."""
    rate = schedule(warmup_start=0.1, warmup=0.2, decay="linear")
    assert [rate(x) for x in (0.0, 0.1, 0.2, 0.6, 0.9)] == pytest.approx([0.1, 0.55, 1.0, 0.5, 0.125])
    with pytest.raises(ValueError, match=r"SOLVER\.DECAY.*'linea'.*linear"):
        schedule(warmup_start=0.1, warmup=0.2, decay="linea")


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match=r"SOLVER\.WARMUP_ITERATIONS must be less than MAX_ITERATIONS"):
        schedule(warmup_start=0.01, warmup=1.5)


# ------------------------------------------------------------------------------------------------ optimisers


def single(value, scale=1.0, decay=0.0):
    parameter = nn.Parameter(torch.tensor(value))
    return parameter, [{"params": [parameter], "names": ["p"], "lr_scale": scale, "weight_decay": decay}]


def test_first_adafactor_step_by_hand():
    """One number per row and column: u = g / |g| = 1, clipped at 1, momentum 0.1, minus lr * 0.1."""
    parameter, groups = single([[2.0]], scale=0.5)
    optimizer = build_optimizer("adafactor", groups, lr=0.1, beta1=0.9, beta2=0.999)
    parameter.grad = torch.tensor([[3.0]])
    optimizer.step()
    assert parameter.item() == pytest.approx(2.0 - 0.05 * 0.1)


def test_set_rate_keeps_the_scales():
    _, groups = single([1.0], scale=0.25)
    optimizer = build_optimizer("adamw", groups, lr=1.0, beta1=0.9, beta2=0.999)
    set_rate(optimizer, 0.4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_unknown_optimizers_are_refused():
    with pytest.raises(ValueError, match=r"unknown SOLVER\.OPTIMIZER 'adam'; did you mean adamw"):
        build_optimizer("adam", single([1.0])[1], lr=1, beta1=0.9, beta2=0.999)


def test_muon_makes_steps_of_hidden_matrices_orthogonal_and_leaves_the_rest_to_adamw():
    """The singular values of a hidden matrix's step are alike, 0.2 sqrt(8) times the rate, as AdamW's steps have them.

    AdamW's first step is its rate in every entry, times 1 + 0.9 because Nesterov's looks ahead.
    """
    gradient = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    hidden, table = nn.Parameter(torch.zeros(8, 8)), nn.Parameter(torch.zeros(8, 8))
    names = ["shared.encoder.blocks.0.mlp.fc1.weight", "private.coco_pose.content"]
    groups = [{"params": [hidden, table], "names": names, "lr_scale": 1.0, "weight_decay": 0.0}]
    optimizer = build_optimizer("muon", groups, lr=0.1, beta1=0.9, beta2=0.95)
    assert sorted(len(group["names"]) for group in optimizer.param_groups) == [1, 1]
    hidden.grad, table.grad = gradient.clone(), gradient.clone()
    optimizer.step()
    values = torch.linalg.svdvals(hidden.detach())
    torch.testing.assert_close(values, torch.full((8,), 0.2 * 8**0.5 * 0.1), rtol=0.05, atol=0)
    assert torch.linalg.svdvals(gradient).max() > 5 * torch.linalg.svdvals(gradient).min()
    torch.testing.assert_close(table.detach(), -1.9 * MUON_REST * 0.1 * gradient.sign(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["adafactor", "adamw", "muon"])
def test_an_optimizer_goes_on_from_its_state_by_name(name):
    """Two steps in one go equal one step, save, load, one step."""

    def step(parameter, optimizer, gradient):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()

    first, groups = single([[1.0, 2.0], [3.0, 4.0]], decay=0.05)
    groups[0]["names"] = ["shared.decoder.layers.0.p"]
    a = build_optimizer(name, groups, lr=0.1, beta1=0.9, beta2=0.999)
    step(first, a, [[1.0, -1.0], [2.0, 0.5]])
    second = nn.Parameter(first.detach().clone())
    copied = [{"params": [second], "names": ["shared.decoder.layers.0.p"], "lr_scale": 1.0, "weight_decay": 0.05}]
    b = build_optimizer(name, copied, lr=0.1, beta1=0.9, beta2=0.999)
    load_state_by_name(b, {k: {n: v.clone() if torch.is_tensor(v) else v for n, v in s.items()}
                           for k, s in state_by_name(a).items()})  # fmt: skip
    for parameter, optimizer in ((first, a), (second, b)):
        step(parameter, optimizer, [[0.5, 1.0], [-2.0, 0.1]])
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    # Matrices, vectors and the position table agree to rounding; convolutions are factored over other axes, which
    # moves a few of their values by a good part of the 1e-3 that one step may take.
    [("mat", 1e-6), ("vec", 1e-6), ("pos", 1e-6), ("conv", 5e-3), ("deconv", 5e-3)],
)
def test_adafactor_against_six_recorded_steps(golden, name, tolerance):
    told = json.loads((golden / "optim" / "adafactor.json").read_text())
    arrays = np.load(golden / "optim" / "adafactor.npz")
    parameter = nn.Parameter(torch.from_numpy(arrays[f"init.{name}"]))
    groups = [{"params": [parameter], "names": [name], "lr_scale": 1.0, "weight_decay": told["weight_decay"][name]}]
    optimizer = build_optimizer("adafactor", groups, lr=told["lr"][name], beta1=0.9, beta2=0.999)
    worst = []
    for step in range(6):
        parameter.grad = torch.from_numpy(arrays[f"grad{step}.{name}"])
        optimizer.step()
        worst.append(float((parameter.detach() - torch.from_numpy(arrays[f"after{step}.{name}"])).abs().max()))
    assert max(worst) < tolerance
