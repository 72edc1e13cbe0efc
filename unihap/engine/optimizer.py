"""Parameter groups with layer-wise learning rates, the optimisers, and the schedule as a function of progress."""

from collections.abc import Iterable, Mapping

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from timm.optim import AdafactorBigVision
from torch import nn

from unihap.engine.muon import BatchedMuon
from unihap.engine.parts import part_of
from unihap.lookup import lookup
from unihap.models.encoder import Encoder

ENCODER = "shared.encoder."
# Muon takes the matrices inside of transformer layers; maps at the ends of the network and tables go to AdamW.
HIDDEN = ("blocks.", "layers.", "to_kernel.", "decoder.project.")
MUON_REST = 0.3  # AdamW's rate beside Muon's
# Learned tables that are matrices but no maps: decay would pull positions and queries to zero for nothing.
NO_DECAY = (
    "position.table",
    "decoder.level",
    ".content",
    ".position",
    ".anchor",
    ".prompts.decoder",
    ".prompts.encoder",
)


def layer_scale(name: str, encoder: Encoder, decay: float, rule: str) -> float:
    """Learning-rate multiplier of one parameter.

    ``corrected``: the encoder's final norm and everything above it train at 1, the last block at ``decay``, each block
    below at ``decay`` times the one above, the patch embedding last (BEiT, timm).  ``release``: two steps less decay,
    so that the last block trains at 1 / decay; UniHCP counted 12 layers where there are 14.  The position table trains
    at the full rate in both, since it is new (resized from another grid).

    Args:
        name: full parameter name.
        encoder: knows the depth of its parameters.
        decay: multiplier per layer.
        rule: ``corrected`` or ``release``.
    """
    if not name.startswith(ENCODER):
        return 1.0
    depth, top = encoder.depth_of(name[len(ENCODER) :]), len(encoder.blocks) + 1
    if depth == top:
        return 1.0
    return decay ** (top - depth - lookup({"corrected": 0, "release": 2}, rule, "SOLVER.LAYER_DECAY_RULE"))


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    encoder: Encoder,
    *,
    weight_decay: float,
    layer_decay: float,
    layer_decay_rule: str = "corrected",
    part_scale: Mapping[str, float] | None = None,
) -> list[dict[str, object]]:
    """Trainable parameters by learning-rate scale and weight decay.

    Biases, norms, learned queries, positions and anchors do not decay.

    Args:
        parameters: full name and parameter.
        encoder: see ``layer_scale``.
        weight_decay: of the parameters that decay.
        layer_decay: see ``layer_scale``.
        layer_decay_rule: see ``layer_scale``.
        part_scale: learning-rate multiplier of every part of a model (``unihap.engine.parts``), on top of it.

    Returns:
        Groups with ``params``, ``names``, ``lr_scale`` and ``weight_decay``.
    """
    groups: dict[tuple[float, float], dict[str, object]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not name.endswith(NO_DECAY)
        if layer_decay_rule == "release" and name == "shared.interpreter.upsample.1.weight":
            decays = True  # the release does not recognise its hand-written norm as one
        scale = layer_scale(name, encoder, layer_decay, layer_decay_rule) * (part_scale or {}).get(part_of(name), 1.0)
        key = (scale, weight_decay if decays else 0.0)
        group = groups.setdefault(key, {"params": [], "names": [], "lr_scale": key[0], "weight_decay": key[1]})
        for entry, value in (("params", parameter), ("names", name)):
            values = group[entry]
            assert isinstance(values, list)
            values.append(value)
    return list(groups.values())


def build_optimizer(
    name: str, groups: list[dict[str, object]], *, lr: float, beta1: float, beta2: float
) -> torch.optim.Optimizer:
    """Adafactor as in the release, AdamW, or Muon.

    Adafactor is timm's big_vision variant with the release's settings (second-moment decay 1 - t^-0.8 up to
    ``beta2``, updates clipped to a root mean square of 1, momentum 0.9 in full precision, no relative step).  Two
    differences from the release's own: the rate multiplies the momentum instead of entering it (equal for a constant
    rate; when the rate moves, the release's last steps keep the rate they were taken at), and tensors of more than
    two dimensions are factored over their two largest ones instead of their last two.  Against six recorded steps of
    the release at a constant rate of 1e-3, matrices, vectors and a position table agree within 6e-8, convolutions of
    4 x 4 within 8e-4 and of 2 x 2 within 3e-3 (``tests/engine/test_optimizer.py``).

    Muon (Jordan et al. 2024) makes the momentum of every hidden matrix orthogonal, at the size of AdamW's steps
    (``BatchedMuon``).  For runs of minutes from random weights: pose alone, 250 iterations, AP 29.9 against 19.9.

    Args:
        name: ``adafactor``, ``adamw`` or ``muon``.
        groups: see ``parameter_groups``.
        lr: rate of a group of scale 1.
        beta1: momentum.
        beta2: (largest) decay of the second moment.

    Raises:
        ValueError: unknown name.
    """
    for group in groups:
        scale = group["lr_scale"]
        assert isinstance(scale, float)
        group["lr"] = lr * scale

    def adafactor() -> torch.optim.Optimizer:
        return AdafactorBigVision(
            groups,
            lr=lr,
            min_dim_size_to_factor=1,
            decay_rate=0.8,
            beta2_cap=beta2,
            momentum=beta1,
            momentum_dtype=torch.float64 if _is_double(groups) else torch.float32,
            clipping_threshold=1.0,
        )

    def adamw() -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), fused=True)

    def muon() -> torch.optim.Optimizer:
        return BatchedMuon(
            [part for group in groups for part in _split_hidden(group)],
            lr=lr,
            momentum=0.95,
            nesterov=True,
            betas=(beta1, beta2),
            fallback_lr_scale=MUON_REST,
        )

    return lookup({"adafactor": adafactor, "adamw": adamw, "muon": muon}, name, "SOLVER.OPTIMIZER")()


def _split_hidden(group: dict[str, object]) -> list[dict[str, object]]:
    """A group as the hidden matrices, for Muon, and the rest, for AdamW."""
    names, parameters = group["names"], group["params"]
    assert isinstance(names, list)
    assert isinstance(parameters, list)
    parts = []
    for rest in (False, True):
        chosen = [
            (name, parameter)
            for name, parameter in zip(names, parameters, strict=True)
            if rest is not (parameter.ndim == 2 and any(f".{part}" in name for part in HIDDEN))
        ]
        if chosen:
            kept = {"names": [name for name, _ in chosen], "params": [parameter for _, parameter in chosen]}
            parts.append({**group, **kept, "use_fallback": rest})
    return parts


def _is_double(groups: list[dict[str, object]]) -> bool:
    parameters = groups[0]["params"]
    assert isinstance(parameters, list)
    return parameters[0].dtype == torch.float64


def schedule(*, warmup_start: float, warmup: float, decay: str = "cosine") -> ParamScheduler:
    """Linear warm-up, then a decay to zero, as a multiplier of the base rate by progress in [0, 1).

    Args:
        warmup_start: multiplier at progress 0.
        warmup: share of the run that warms up.
        decay: ``cosine``, half of one, or ``linear``.

    Raises:
        ValueError: the warm-up is as long as the run, or an unknown decay.
    """
    kinds = {"cosine": CosineParamScheduler, "linear": LinearParamScheduler}
    falling = lookup(kinds, decay, "SOLVER.DECAY")(1.0, 0.0)
    if warmup == 0:
        return falling
    if not 0 < warmup < 1:
        raise ValueError(
            f"the warm-up takes {warmup:.3g} of the run; SOLVER.WARMUP_ITERATIONS must be less than MAX_ITERATIONS"
        )
    return CompositeParamScheduler(
        [LinearParamScheduler(warmup_start, 1.0), falling],
        lengths=[warmup, 1 - warmup],
        interval_scaling=["rescaled", "rescaled"],
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group ``rate`` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def state_by_name(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, object]]:
    """The optimiser's state by parameter name, so that another number of processes can take it up."""
    return {
        name: dict(optimizer.state[parameter])
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if parameter in optimizer.state
    }


def load_state_by_name(optimizer: torch.optim.Optimizer, state: Mapping[str, dict[str, object]]) -> None:
    """The inverse of ``state_by_name``; parameters without a state (never used so far) start afresh."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name in state:
                optimizer.state[parameter] = dict(state[name])
