"""From a config to a pre-training run (``TRAIN.MODE`` pretrain), fresh or resumed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor

from unihap import __version__
from unihap.build.model import Device
from unihap.build.pretrain_data import build_crops, build_masking, token_grid
from unihap.build.pretrain_model import CLASS_TOKEN, PROTOTYPES, build_pretrain_model, build_tokenizer, start_model
from unihap.build.training import git_commit
from unihap.checkpoints.encoder_file import num_heads
from unihap.checkpoints.files import CARD
from unihap.config import CfgNode, get_cfg
from unihap.engine.checkpoint import Checkpoints
from unihap.engine.groups import Groups, TaskPlan
from unihap.engine.loop import Run
from unihap.engine.optimizer import build_optimizer, load_state_by_name, parameter_groups, schedule
from unihap.engine.pretrain import TASK, PretrainObjective, load_pretraining, named_parameters
from unihap.models.encoder import Encoder
from unihap.pretrain.dataset import pretrain_batches
from unihap.pretrain.tokenizers import RandomProjection, Tokenizer

# Keys of SOLVER that pre-training does not read, and what to set instead.
NOT_READ = {
    "OPTIMIZER": "set PRETRAIN.OPTIMIZER",
    "BASE_LR": "set PRETRAIN.BLR or PRETRAIN.LR",
    "WARMUP_LR": "its warm-up starts at 0",
    "WARMUP_ITERATIONS": "set PRETRAIN.WARMUP_EPOCHS",
    "MAX_ITERATIONS": "set PRETRAIN.EPOCHS",
    "BETA2": "set PRETRAIN.BETA2",
    "LAYER_DECAY": "all its layers have one rate",
    "LAYER_DECAY_RULE": "all its layers have one rate",
}


def check_pretraining(cfg: CfgNode) -> None:
    """Refuses numbers that cannot be, and keys that would have no effect.

    Raises:
        ValueError: naming the key.
    """
    defaults = get_cfg().SOLVER
    for key, remedy in NOT_READ.items():
        if cfg.SOLVER[key] != defaults[key]:
            raise ValueError(f"SOLVER.{key} has no effect in TRAIN.MODE pretrain: {remedy}")
    node = cfg.PRETRAIN
    for key in ("BATCH_SIZE", "ACCUMULATE"):
        if node[key] < 1:
            raise ValueError(f"PRETRAIN.{key} must be at least 1, got {node[key]}")
    if node.EPOCHS <= 0 or not 0 <= node.WARMUP_EPOCHS < node.EPOCHS:
        raise ValueError(
            f"PRETRAIN.WARMUP_EPOCHS {node.WARMUP_EPOCHS:g} must be at least 0 and less than EPOCHS {node.EPOCHS:g}"
        )
    if node.BLR <= 0 or node.LR < 0:
        raise ValueError(f"PRETRAIN.BLR {node.BLR} must be positive and PRETRAIN.LR {node.LR} not negative")
    if node.ALIGN.WEIGHT < 0:
        raise ValueError(f"PRETRAIN.ALIGN.WEIGHT must not be negative, got {node.ALIGN.WEIGHT}")


def pretrain_plan(cfg: CfgNode, num_processes: int) -> TaskPlan:
    """One task on every process."""
    node = cfg.PRETRAIN
    return TaskPlan(TASK, tuple(range(num_processes)), node.BATCH_SIZE, node.ACCUMULATE, 1.0)


def samples_per_iteration(plan: TaskPlan) -> int:
    """Samples of all processes and passes."""
    return plan.batch_size * plan.num_slots


def learning_rate(cfg: CfgNode, plan: TaskPlan) -> float:
    """``PRETRAIN.LR``, or the rule of MAE: BLR * samples per iteration / 256."""
    node = cfg.PRETRAIN
    return float(node.LR or node.BLR * samples_per_iteration(plan) / 256)


def num_iterations(cfg: CfgNode, plan: TaskPlan, num_images: int) -> int:
    """Iterations of a run; batches go across epochs, so that no image is left out."""
    return max(1, round(cfg.PRETRAIN.EPOCHS * num_images / samples_per_iteration(plan)))


def pretrain_card(cfg: CfgNode, encoder: Encoder, plan: TaskPlan, num_images: int) -> dict[str, Any]:
    """What a checkpoint says about itself; ``encoder`` is the model's."""
    return {
        "format": 1,
        "unihap": __version__,
        "kind": TASK,
        "encoder": {
            "name": cfg.MODEL.ENCODER.NAME,
            "num_heads": num_heads(encoder),
            "position_grid": list(token_grid(cfg)),
            "class_token": CLASS_TOKEN,
        },
        "trained_on": list(cfg.PRETRAIN.DATASETS),
        "num_images": num_images,
        "samples_per_iteration": samples_per_iteration(plan),
        "started_from": cfg.MODEL.WEIGHTS or cfg.MODEL.ENCODER.WEIGHTS,
        "settings": yaml.safe_load(cfg.PRETRAIN.dump()),  # which counts as no reading of its keys
        "git_commit": git_commit(),
    }


def check_same_course(path: Path, card: Mapping[str, Any]) -> None:
    """Refuses to resume with batches that would not be those of the run so far.

    Raises:
        ValueError: another number of images, of the training set or of an iteration.
    """
    before = json.loads((path / CARD).read_text(encoding="utf-8"))
    for key, remedy in (
        ("samples_per_iteration", "BATCH_SIZE * ACCUMULATE * processes must stay the same"),
        ("num_images", "the training images must stay the same"),
    ):
        if before.get(key) != card[key]:
            raise ValueError(
                f"cannot resume {path}: its {key} is {before.get(key)}, now {card[key]}; {remedy}, or start a new run "
                f"with MODEL.WEIGHTS {path}"
            )


def build_pretraining(cfg: CfgNode, device: Device, *, resume: bool) -> Run:
    """Everything a pre-training run needs.

    Args:
        cfg: the config.
        device: of this process.
        resume: go on from the newest complete checkpoint in ``OUTPUT_DIR``, if there is one.

    Raises:
        FileNotFoundError: a dataset or checkpoint is missing.
        ValueError: the config asks for something impossible.
    """
    check_pretraining(cfg)
    plan = pretrain_plan(cfg, dist.get_world_size() if dist.is_initialized() else 1)
    groups = Groups([plan])
    crops = build_crops(cfg)
    checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints", cfg.TRAIN.KEEP_CHECKPOINTS)
    found = checkpoints.newest() if resume else None
    prototypes = None if found is None else found[1].pop(PROTOTYPES, None)
    tokenizer: Tokenizer | None = None
    constants: dict[str, Tensor] = {}
    if cfg.PRETRAIN.FRAMEWORK == "cae":
        tokenizer, constants = build_tokenizer(cfg, crops, prototypes)
    model = build_pretrain_model(cfg, tokenizer)
    if found is None:
        start_model(cfg, model)
    model.to(device.device, device.dtype)
    card = pretrain_card(cfg, model.encoder, plan, len(crops))
    solver = cfg.SOLVER
    parameters = parameter_groups(
        named_parameters(model), model.encoder, weight_decay=solver.WEIGHT_DECAY, layer_decay=1.0
    )
    rate = learning_rate(cfg, plan)
    optimizer = build_optimizer(
        cfg.PRETRAIN.OPTIMIZER, parameters, lr=rate, beta1=solver.BETA1, beta2=cfg.PRETRAIN.BETA2
    )
    first = 0
    if found is not None:
        path, weights, state = found
        check_same_course(path, card)
        load_pretraining(model, weights, str(path))
        load_state_by_name(optimizer, state["optimizer"])
        first = state["iteration"]
    last = num_iterations(cfg, plan, len(crops))
    batches = pretrain_batches(
        crops,
        batch_size=plan.batch_size,
        rank=groups.process,
        world_size=groups.num_processes,
        accumulate=plan.accumulate,
        first_iteration=first,
        last_iteration=max(first, last),
        num_workers=cfg.DATA.NUM_WORKERS,
    )
    objective = PretrainObjective(
        model=model,
        batches={TASK: iter(batches)},
        autocast=device.autocast,
        samples_per_iteration=samples_per_iteration(plan),
        samples_per_epoch=len(crops),
        constants=constants,
    )
    return Run(
        objective=objective,
        groups=groups,
        optimizer=optimizer,
        schedule=schedule(warmup_start=0.0, warmup=cfg.PRETRAIN.WARMUP_EPOCHS / cfg.PRETRAIN.EPOCHS),
        base_lr=rate,
        first_iteration=first,
        last_iteration=last,
        clip_norm=solver.CLIP_GRADIENT_NORM,
        seed=cfg.SEED,
        output=Path(cfg.OUTPUT_DIR),
        card=card,
        checkpoints=checkpoints,
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        log_period=cfg.TRAIN.LOG_PERIOD,
    )


def describe_pretraining(cfg: CfgNode, num_processes: int) -> str:
    """The merged config, what an iteration is, and the size of the model; no file is read."""
    check_pretraining(cfg)
    plan, masking = pretrain_plan(cfg, num_processes), build_masking(cfg)
    tokenizer = None
    if cfg.PRETRAIN.FRAMEWORK == "cae":
        with torch.device("cpu"):  # its generator draws nowhere else
            tokenizer = RandomProjection(cfg.PRETRAIN.CAE.VOCABULARY, patch=masking.patch)
    model = build_pretrain_model(cfg, tokenizer)
    rows, columns = masking.grid
    counted = {"shared  encoder": model.encoder, "all": model}
    lines = [
        cfg.dump(),
        f"iteration: {samples_per_iteration(plan)} samples, of {num_processes} processes x {plan.accumulate} passes x "
        f"{plan.batch_size}; learning rate {learning_rate(cfg, plan):.4g}",
        f"starts from: {cfg.MODEL.WEIGHTS or cfg.MODEL.ENCODER.WEIGHTS or 'random weights'}",
        f"crop: {rows} x {columns} patches, {masking.num_masked} masked",
        "",
        f"{'trainable parameters':<34} {'number':>12}",
    ]
    for what, module in counted.items():
        lines.append(f"{what:<34} {sum(p.numel() for p in module.parameters() if p.requires_grad):>12,}")
    return "\n".join(lines)
