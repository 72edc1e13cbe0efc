"""Conversion between UniHCP's per-task checkpoints and this model's weights.

A UniHCP file is ``{"step", "state_dict", "optimizer"}``; its state dict holds a whole copy of the shared weights and
the private weights of one task, under names of its own.  One rule per name, used in both directions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

DECODER = "decoder_module.predictor"
# A layer's parts: upstream (one list of modules per part) and here (one list of layers).
PARTS = {
    "transformer_cross_attention_layers.{}.multihead_attn": "layers.{}.cross_attention",
    "transformer_cross_attention_layers.{}.norm": "layers.{}.cross_norm",
    "transformer_self_attention_layers.{}.self_attn": "layers.{}.self_attention",
    "transformer_self_attention_layers.{}.norm": "layers.{}.self_norm",
    "transformer_ffn_layers.{}.linear1": "layers.{}.feedforward.0",
    "transformer_ffn_layers.{}.linear2": "layers.{}.feedforward.2",
    "transformer_ffn_layers.{}.norm": "layers.{}.feedforward_norm",
}
# Prefix upstream -> prefix here.  ``private.`` stands for ``private.<task>.``.
PREFIXES = {
    "backbone_module.patch_embed": "shared.encoder.patch_embed",
    "backbone_module.blocks": "shared.encoder.blocks",
    "backbone_module.norm": "shared.encoder.norm",
    "neck_module.mask_map.0": "shared.interpreter.upsample.0",
    "neck_module.mask_map.1": "shared.interpreter.upsample.1",
    "neck_module.mask_map.3": "shared.interpreter.to_pixel",
    f"{DECODER}.input_proj.0": "shared.decoder.project",
    f"{DECODER}.adapt_pos2d": "shared.decoder.project_position",
    f"{DECODER}.decoder_norm": "shared.decoder.norm",
    f"{DECODER}.class_embed": "shared.interpreter.to_logit",
    # torchvision's MLP is a sequence linear, activation, dropout, linear, ...
    **{f"{DECODER}.mask_embed.layers.{i}": f"shared.interpreter.to_kernel.{j}" for i, j in enumerate((0, 3, 6))},
    **{f"{DECODER}.bbox_embed.layers.{i}": f"shared.interpreter.to_box.{j}" for i, j in enumerate((0, 3, 6))},
    "decoder_module.loss.norm": "private.feature_norm",
    "decoder_module.loss.SoftmaxLoss.classifier": "private.criterion.classifier",
}
EXACT = {
    "backbone_module.pos_embed": "shared.encoder.position.table",
    f"{DECODER}.level_embed.weight": "shared.decoder.level",
    f"{DECODER}.query_feat.weight": "private.content",
    f"{DECODER}.static_query.weight": "private.content",  # old files
}
# Read by nothing: an unused class weight, the neck's norm under a second name.
DROPPED = re.compile(r"decoder_module\.loss\.fd_loss\.empty_weight|neck_module\.mask_map\.1\.ln\.")


@dataclass
class Report:
    """What became of every key.

    Attributes:
        used: source key -> our key.
        dropped: source keys that have no counterpart here.
        unfilled: keys of ours that no source filled.
    """

    used: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    unfilled: list[str] = field(default_factory=list)


def our_name(key: str, shape: tuple[int, ...]) -> str | None:
    """Our name of an upstream key (without ``module.``), ``private.`` for the task's own; None for dropped keys.

    Raises:
        ValueError: a key that UniHCP does not have.
    """
    if DROPPED.match(key):
        return None
    if key in EXACT:
        return EXACT[key]
    if key == f"{DECODER}.query_embed.weight":  # (Q, C) positions, or (A, 2) anchors in detection
        return "private.anchor" if shape[-1] == 2 else "private.position"
    stem, _, leaf = key.rpartition(".")
    for theirs, ours in PREFIXES.items():
        if stem == theirs or stem.startswith(f"{theirs}."):
            return f"{ours}{stem[len(theirs) :]}.{leaf}"
    layer = re.fullmatch(rf"{re.escape(DECODER)}\.(\w+)\.(\d+)\.(.+)", key)
    if layer:
        name, number, rest = layer.groups()
        for theirs, ours in PARTS.items():
            prefix = theirs.format(number)
            if f"{name}.{number}.{rest}".startswith(f"{prefix}."):
                return f"shared.decoder.{ours.format(number)}{f'{name}.{number}.{rest}'[len(prefix) :]}"
    raise ValueError(f"{key!r} is not a key of a UniHCP checkpoint")


def _to_ours(name: str, value: Tensor, grid: tuple[int, int]) -> Tensor:
    if name == "shared.encoder.position.table":  # (1, h * w, D) -> (1, D, h, w)
        return value.transpose(1, 2).unflatten(2, grid).contiguous()
    if name == "shared.decoder.project.weight":  # 1 x 1 convolution -> linear
        return value.flatten(1)
    return value


def _to_theirs(name: str, value: Tensor) -> Tensor:
    if name == "shared.encoder.position.table":
        return value.flatten(2).transpose(1, 2).contiguous()
    if name == "shared.decoder.project.weight":
        return value[..., None, None]
    return value


def from_unihcp(
    checkpoints: Mapping[str, Mapping[str, Tensor]], grid: tuple[int, int] = (84, 84), tolerance: float = 1e-5
) -> tuple[dict[str, Tensor], Report]:
    """Merges per-task state dicts into one set of weights.

    Args:
        checkpoints: task name -> state dict of its upstream file.
        grid: (h, w) of the encoder's position table.
        tolerance: how far (absolute) the copies of a shared weight may differ between files.

    Returns:
        Weights under our names, and what became of every source key (prefixed ``<task>:``).

    Raises:
        ValueError: unknown key, or files of different training runs (shared weights differ).
    """
    weights: dict[str, Tensor] = {}
    report = Report()
    for task, state in checkpoints.items():
        for full_key, value in state.items():
            key = full_key.removeprefix("module.")
            name = our_name(key, tuple(value.shape))
            if name is None:
                report.dropped.append(f"{task}:{full_key}")
                continue
            name = name.replace("private.", f"private.{task}.", 1)
            value = _to_ours(name, value, grid)
            if name in weights and not torch.allclose(weights[name], value, rtol=0, atol=tolerance):
                raise ValueError(
                    f"{full_key} of task {task} differs from the other files by up to "
                    f"{(weights[name] - value).abs().max():.3g}; give checkpoints of one training run"
                )
            weights.setdefault(name, value)
            report.used[f"{task}:{full_key}"] = name
    return weights, report


def to_unihcp(weights: Mapping[str, Tensor], task: str, *, box_unit: bool) -> dict[str, Tensor]:
    """The upstream state dict of one task, the inverse of ``from_unihcp``.

    Args:
        weights: under our names.
        task: the task whose private weights to write.
        box_unit: whether the task opens the box unit; upstream stores that unit with detection alone.
    """
    state: dict[str, Tensor] = {}
    mine = f"private.{task}."
    for name, value in weights.items():
        if name.startswith(mine):
            key = _their_name("private." + name[len(mine) :])
        elif name.startswith("private.") or (name.startswith("shared.interpreter.to_box.") and not box_unit):
            continue
        else:
            key = _their_name(name)
        if key is None:
            continue
        state[f"module.{key}"] = _to_theirs(name, value)
        if key.startswith("neck_module.mask_map.1."):
            state["module." + key.replace("mask_map.1.", "mask_map.1.ln.")] = value
    return state


def _their_name(name: str) -> str | None:
    """Upstream key of one of our names; None for what upstream does not store (positive ratios)."""
    for theirs, ours in EXACT.items():
        if name == ours:
            return theirs
    if name in ("private.position", "private.anchor"):
        return f"{DECODER}.query_embed.weight"
    for theirs, ours in PREFIXES.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    layer = re.fullmatch(r"shared\.decoder\.(layers\.(\d+)\..+)", name)
    if layer:
        for theirs, ours in PARTS.items():
            prefix = ours.format(layer[2])
            if layer[1].startswith(f"{prefix}."):
                return f"{DECODER}.{theirs.format(layer[2])}{layer[1][len(prefix) :]}"
    return None
