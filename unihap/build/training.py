"""From a config to a training run, fresh or resumed."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unihap.build.data import build_batches, build_criterion, build_train_dataset
from unihap.build.model import Device, build_architecture, build_model, build_task, task_block, train_tasks
from unihap.config import CfgNode
from unihap.engine.checkpoint import (
    Checkpoints,
    base_card,
    criterion_weights,
    load_criterion,
    load_into,
    read_weights,
    spec_to_json,
)
from unihap.engine.groups import Groups, TaskPlan
from unihap.engine.loop import Run
from unihap.engine.optimizer import build_optimizer, load_state_by_name, parameter_groups, schedule
from unihap.engine.train import JointObjective
from unihap.models.unihap import UniHAP
from unihap.structures import Batch
from unihap.tasks import Criterion


def build_card(cfg: CfgNode, names: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    tasks = {}
    for name in names:
        task = build_task(cfg, name)
        block = task_block(cfg, name)
        tasks[name] = {
            "kind": task.kind,
            "spec": spec_to_json(task.spec),
            "trained_on": list(block.TRAIN) or list(task.train_datasets),
        }
    return {**base_card(build_architecture(cfg), tasks), "git_commit": git_commit()}


def git_commit() -> str:
    """Commit of this source tree, or ``unknown`` for an installed package."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def build_training(cfg: CfgNode, groups: Groups, device: Device, *, resume: bool) -> tuple[UniHAP, Run]:
    """A model and everything that its training needs.

    Args:
        cfg: the config.
        groups: who trains what.
        device: of this process.
        resume: go on from the newest complete checkpoint in ``OUTPUT_DIR``, if there is one.

    Raises:
        FileNotFoundError: a dataset or checkpoint is missing.
        ValueError: the config asks for something impossible.
    """
    names = train_tasks(cfg)
    tasks = {name: build_task(cfg, name) for name in names}
    model = build_model(cfg).to(device.device, device.dtype)
    datasets = {plan.task: build_train_dataset(cfg, tasks[plan.task]) for plan in groups.mine}
    criteria = {
        name: build_criterion(cfg, tasks[name], dataset).to(device.device, device.dtype)
        for name, dataset in datasets.items()
    }
    checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints", cfg.TRAIN.KEEP_CHECKPOINTS)
    found = checkpoints.newest() if resume else None
    if cfg.MODEL.WEIGHTS and found is None:
        start_criteria(criteria, cfg.MODEL.WEIGHTS)
    optimizer = optimizer_of(cfg, model, criteria)
    first = 0
    if found is not None:
        path, weights, state = found
        load_into(model, weights, str(path))
        for name, criterion in criteria.items():
            load_criterion(criterion, weights, name, str(path))
        load_state_by_name(optimizer, state["optimizer"])
        first = state["iteration"]

    def endless(plan: TaskPlan) -> Iterator[Batch]:
        slots = plan.slots_of(groups.ranks)
        return iter(build_batches(cfg, tasks[plan.task], plan, datasets[plan.task], slots, first))

    solver = cfg.SOLVER
    objective = JointObjective(
        model=model,
        tasks=tasks,
        criteria=criteria,
        batches={plan.task: endless(plan) for plan in groups.mine},
        autocast=device.autocast,
        checkpoint_activations=frozenset(n for n in names if task_block(cfg, n).CHECKPOINT_ACTIVATIONS),
        log_layers=cfg.TRAIN.LOG_LAYERS,
    )
    run = Run(
        objective=objective,
        groups=groups,
        optimizer=optimizer,
        schedule=schedule(
            warmup_start=solver.WARMUP_LR / solver.BASE_LR, warmup=solver.WARMUP_ITERATIONS / solver.MAX_ITERATIONS
        ),
        base_lr=solver.BASE_LR,
        first_iteration=first,
        last_iteration=solver.MAX_ITERATIONS,
        clip_norm=solver.CLIP_GRADIENT_NORM,
        seed=cfg.SEED,
        output=Path(cfg.OUTPUT_DIR),
        card=build_card(cfg, model.tasks),
        checkpoints=checkpoints,
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        log_period=cfg.TRAIN.LOG_PERIOD,
    )
    return model, run


def start_criteria(criteria: Mapping[str, Criterion], source: str) -> None:
    """Takes up the criteria of ``source`` that belong to the same training set; the others start afresh."""
    weights, _ = read_weights(source)
    for name, criterion in criteria.items():
        mine = {key: value.shape for key, value in criterion.state_dict().items()}
        if {key: value.shape for key, value in criterion_weights(weights, name).items()} == mine:
            load_criterion(criterion, weights, name, source)


def optimizer_of(cfg: CfgNode, model: UniHAP, criteria: Mapping[str, Criterion]) -> torch.optim.Optimizer:
    """The optimiser of the shared weights and of the private ones of some tasks."""
    trained: list[tuple[str, nn.Parameter]] = [(f"shared.{n}", p) for n, p in model.shared.named_parameters()]
    for name, criterion in criteria.items():
        trained += [(f"private.{name}.{n}", p) for n, p in model.private[name].named_parameters()]
        trained += [(f"private.{name}.criterion.{n}", p) for n, p in criterion.named_parameters()]
    solver = cfg.SOLVER
    groups = parameter_groups(
        trained,
        model.shared.encoder,
        weight_decay=solver.WEIGHT_DECAY,
        layer_decay=solver.LAYER_DECAY,
        layer_decay_rule=solver.LAYER_DECAY_RULE,
    )
    return build_optimizer(solver.OPTIMIZER, groups, lr=solver.BASE_LR, beta1=solver.BETA1, beta2=solver.BETA2)
