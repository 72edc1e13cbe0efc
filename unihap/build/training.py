"""From a config to a training run, fresh or resumed."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unihap.build.adapt import Adaptation, build_adaptation, build_adapted_model
from unihap.build.data import build_batches, build_criterion, build_train_dataset
from unihap.build.few_shot import write_shots
from unihap.build.model import (
    Device,
    build_architecture,
    build_model,
    build_task,
    prompt_lengths,
    task_block,
    train_tasks,
)
from unihap.checkpoints.files import CARD
from unihap.checkpoints.prompts import SHARED, shared_digest
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
from unihap.engine.groups import Groups, TaskPlan, gather
from unihap.engine.loop import Run
from unihap.engine.optimizer import build_optimizer, load_state_by_name, parameter_groups, schedule
from unihap.engine.parts import freeze
from unihap.engine.train import JointObjective
from unihap.models.unihap import UniHAP
from unihap.structures import Batch
from unihap.tasks import Criterion


def build_card(cfg: CfgNode, names: Sequence[str], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a checkpoint says about itself; ``classes`` are those of the training sets, by task."""
    tasks = {}
    lengths = prompt_lengths(cfg) if cfg.TRAIN.MODE == "prompt" else {}
    for name in names:
        task = build_task(cfg, name)
        block = task_block(cfg, name)
        tasks[name] = {
            "kind": task.kind,
            "spec": spec_to_json(task.spec),
            "trained_on": list(block.TRAIN) or list(task.train_datasets),
            "classes": list(classes.get(name, task.classes)) or None,
            **lengths,
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
    adaptation = build_adaptation(cfg)
    names = train_tasks(cfg)
    tasks = {name: build_task(cfg, name) for name in names}
    datasets = {plan.task: build_train_dataset(cfg, tasks[plan.task]) for plan in groups.mine}
    model, card = start_model(cfg, adaptation, {name: dataset.classes for name, dataset in datasets.items()})
    model.to(device.device, device.dtype)
    criteria = {
        name: build_criterion(cfg, tasks[name], dataset).to(device.device, device.dtype)
        for name, dataset in datasets.items()
    }
    freeze_for_good(model, criteria, adaptation)
    checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints", cfg.TRAIN.KEEP_CHECKPOINTS)
    found = checkpoints.newest() if resume else None
    if cfg.MODEL.WEIGHTS and found is None:
        start_criteria(criteria, cfg.MODEL.WEIGHTS, card)
    optimizer = optimizer_of(cfg, model, criteria, adaptation)
    first = 0
    if found is not None:
        path, weights, state = found
        resume_weights(model, weights, path, card if adaptation.private_alone else {})
        for name, criterion in criteria.items():
            load_criterion(criterion, weights, name, str(path))
        load_state_by_name(optimizer, state["optimizer"])
        first = state["iteration"]

    def endless(plan: TaskPlan) -> Iterator[Batch]:
        slots = plan.slots_of(groups.ranks)
        return iter(build_batches(cfg, tasks[plan.task], plan, datasets[plan.task], slots, first))

    objective = JointObjective(
        model=model,
        tasks=tasks,
        criteria=criteria,
        batches={plan.task: endless(plan) for plan in groups.mine},
        autocast=device.autocast,
        checkpoint_activations=frozenset(n for n in names if task_block(cfg, n).CHECKPOINT_ACTIVATIONS),
        log_layers=cfg.TRAIN.LOG_LAYERS,
        freeze_iterations=adaptation.freeze_iterations,
        private_alone=adaptation.private_alone,
    )
    run = build_run(cfg, objective, groups, optimizer, checkpoints, card, first)
    write_shots(cfg, datasets)  # last, so that a refused run leaves nothing behind
    return model, run


def start_model(
    cfg: CfgNode, adaptation: Adaptation, classes: Mapping[str, Sequence[str]]
) -> tuple[UniHAP, dict[str, Any]]:
    """The model that a run starts from, and the card of its checkpoints.

    Args:
        cfg: the config.
        adaptation: what of it trains.
        classes: of the training sets of this process, by task.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: it does not fit.
    """
    model = build_adapted_model(cfg, classes) if adaptation.from_trained else build_model(cfg)
    card = build_card(cfg, train_tasks(cfg) if adaptation.private_alone else model.tasks, gather_classes(classes))
    if adaptation.private_alone:
        card[SHARED] = shared_digest(model)  # in the precision of the file
    return model, card


def build_run(
    cfg: CfgNode,
    objective: JointObjective,
    groups: Groups,
    optimizer: torch.optim.Optimizer,
    checkpoints: Checkpoints,
    card: dict[str, Any],
    first: int,
) -> Run:
    """The run from iteration ``first`` on."""
    solver = cfg.SOLVER
    return Run(
        objective=objective,
        groups=groups,
        optimizer=optimizer,
        schedule=schedule(
            warmup_start=solver.WARMUP_LR / solver.BASE_LR,
            warmup=solver.WARMUP_ITERATIONS / solver.MAX_ITERATIONS,
            decay=solver.DECAY,
        ),
        base_lr=solver.BASE_LR,
        first_iteration=first,
        last_iteration=solver.MAX_ITERATIONS,
        clip_norm=solver.CLIP_GRADIENT_NORM,
        seed=cfg.SEED,
        output=Path(cfg.OUTPUT_DIR),
        card=card,
        checkpoints=checkpoints,
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        log_period=cfg.TRAIN.LOG_PERIOD,
    )


def start_criteria(criteria: Mapping[str, Criterion], source: str, card: Mapping[str, Any]) -> None:
    """Takes up the criteria of ``source`` that belong to the same training set; the others start afresh."""
    weights, before = read_weights(source)
    for name, criterion in criteria.items():
        mine = card["tasks"][name]["trained_on"]
        if before.get("tasks", {}).get(name, {}).get("trained_on", mine) != mine:
            continue
        shapes = {key: value.shape for key, value in criterion.state_dict().items()}
        if {key: value.shape for key, value in criterion_weights(weights, name).items()} == shapes:
            load_criterion(criterion, weights, name, source)


def gather_classes(classes: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Class names of the tasks of all processes on process 0, which writes cards; nothing elsewhere."""
    return {name: names for part in gather(dict(classes)) or [] for name, names in part.items()}


def freeze_for_good(model: UniHAP, criteria: Mapping[str, Criterion], adaptation: Adaptation) -> None:
    """Takes the gradients of parts that never train, so that they get no state in the optimiser."""
    freeze(model, adaptation.frozen)
    if "private" in adaptation.frozen:
        for criterion in criteria.values():
            criterion.requires_grad_(False)


def resume_weights(model: UniHAP, weights: Mapping[str, Tensor], path: Path, prompt_card: Mapping[str, Any]) -> None:
    """Takes up a run's own checkpoint.

    Args:
        model: on its device; for a prompt with the shared weights of ``MODEL.WEIGHTS``.
        weights: of the checkpoint.
        path: its folder, for messages.
        prompt_card: of this run if its checkpoints hold private weights alone, else empty.

    Raises:
        ValueError: another architecture, or a prompt of other shared weights.
    """
    if not prompt_card:
        load_into(model, weights, str(path))
        return
    before = json.loads((path / CARD).read_text(encoding="utf-8"))
    if before.get(SHARED) != prompt_card[SHARED]:
        raise ValueError(f"{path} was trained with other shared weights than MODEL.WEIGHTS has; give the same ones")
    missing = load_into(model, weights, str(path), partial=True)
    lacking = [name for name in missing if name.startswith(tuple(f"private.{task}." for task in prompt_card["tasks"]))]
    if lacking:
        raise ValueError(f"{path} lacks {lacking[0]}; check PROMPT.DECODER_LENGTH and PROMPT.ENCODER_LENGTH")


def optimizer_of(
    cfg: CfgNode, model: UniHAP, criteria: Mapping[str, Criterion], adaptation: Adaptation
) -> torch.optim.Optimizer:
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
        part_scale=adaptation.scale,
    )
    return build_optimizer(solver.OPTIMIZER, groups, lr=solver.BASE_LR, beta1=solver.BETA1, beta2=solver.BETA2)
