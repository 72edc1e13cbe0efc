"""From a config to objects.  The only module of the package that reads a config; everything else takes plain values."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unihap.config import TASK_DEFAULTS, CfgNode
from unihap.data.catalog import dataset_root, load_dataset
from unihap.data.loader import TaskDataset, collate, evaluation_loader, train_loader
from unihap.data.samplers import EvaluationSampler, IdentityBatches, ShuffledBatches, SlotSampler
from unihap.engine.checkpoint import (
    Checkpoints,
    base_card,
    criterion_weights,
    load_criterion,
    load_into,
    read_weights,
    spec_to_json,
)
from unihap.engine.evaluate import EvaluationJob
from unihap.engine.groups import Groups, TaskPlan, TaskShare, describe, make_plan
from unihap.engine.optimizer import build_optimizer, load_state_by_name, parameter_groups, schedule
from unihap.engine.train import Run
from unihap.lookup import lookup
from unihap.models.private import Private
from unihap.models.unihap import Architecture, UniHAP
from unihap.structures import Batch, Dataset, ReIDLabel
from unihap.tasks import TASKS, Criterion, Statistics, Task, TaskOptions

PRECISIONS: Mapping[str, torch.dtype | None] = {
    "float32": None,
    "float64": None,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Device:
    """Where and how precisely a run computes.

    Attributes:
        device: of this process.
        dtype: of the weights.
        autocast: of the matrix products, or ``None`` for ``dtype``.
    """

    device: torch.device
    dtype: torch.dtype
    autocast: torch.dtype | None


def task_block(cfg: CfgNode, name: str) -> CfgNode:
    """``TASKS.<name>``, or the defaults where a config leaves the task alone."""
    return cfg.TASKS[name] if name in cfg.TASKS else TASK_DEFAULTS


def build_task(cfg: CfgNode, name: str) -> Task:
    """The task ``name`` with the config's choices.

    Raises:
        ValueError: unknown task.
    """
    options = TaskOptions(
        input_size=tuple(task_block(cfg, name).INPUT_SIZE),
        loss_weights={
            "reid": {"identity": cfg.LOSS.REID.IDENTITY, "triplet": cfg.LOSS.REID.TRIPLET},
            "attributes": {"probability": cfg.LOSS.ATTRIBUTES.PROBABILITY},
            "pose": {"heatmap": cfg.LOSS.POSE.HEATMAP, "probability": cfg.LOSS.POSE.PROBABILITY},
            "parsing": {
                "probability": cfg.LOSS.PARSING.PROBABILITY,
                "mask": cfg.LOSS.PARSING.MASK,
                "dice": cfg.LOSS.PARSING.DICE,
            },
            "detection": {
                "class": cfg.LOSS.DETECTION.CLASS,
                "l1": cfg.LOSS.DETECTION.L1,
                "giou": cfg.LOSS.DETECTION.GIOU,
            },
        },
        num_feature_queries=cfg.MODEL.NUM_FEATURE_QUERIES,
        num_patterns=cfg.MODEL.NUM_PATTERNS,
        num_anchors=cfg.MODEL.NUM_ANCHORS,
        num_points=cfg.LOSS.PARSING.NUM_POINTS,
        ignored_pixels=cfg.LOSS.PARSING.IGNORED_PIXELS,
        pose_rescore=cfg.TEST.POSE_RESCORE,
        detection_score=cfg.TEST.DETECTION_SCORE,
        on_bad_image=cfg.DATA.ON_BAD_IMAGE,
    )
    return lookup(TASKS, name, "task")(name, options)


def train_tasks(cfg: CfgNode) -> list[str]:
    """Tasks to train, in rank order.

    Raises:
        ValueError: an unknown task, a task listed twice, or a block of TASKS is used by nothing.
    """
    names = list(cfg.TRAIN.TASKS)
    for name in names:
        lookup(TASKS, name, "task")
    if len(set(names)) < len(names):
        raise ValueError(f"TRAIN.TASKS lists a task twice: {names}")
    unused = sorted(set(cfg.TASKS) - set(names) - set(cfg.TEST.TASKS))
    if unused:
        raise ValueError(f"TASKS.{unused[0]} is set but neither TRAIN.TASKS nor TEST.TASKS lists {unused[0]}")
    return names


def test_tasks(cfg: CfgNode) -> list[str]:
    """Tasks to evaluate."""
    return list(cfg.TEST.TASKS) or train_tasks(cfg)


def build_architecture(cfg: CfgNode) -> Architecture:
    """What the model is made of."""
    rows, columns = cfg.MODEL.ENCODER.POSITION_GRID
    return Architecture(
        encoder=cfg.MODEL.ENCODER.NAME,
        position_grid=(rows, columns),
        drop_path=cfg.MODEL.ENCODER.DROP_PATH,
        width=cfg.MODEL.DECODER.WIDTH,
        num_heads=cfg.MODEL.DECODER.HEADS,
        num_layers=cfg.MODEL.DECODER.LAYERS,
        feedforward=cfg.MODEL.DECODER.FEEDFORWARD,
    )


def build_model(cfg: CfgNode) -> UniHAP:
    """The model of a config, with random weights drawn from ``SEED`` unless ``MODEL.WEIGHTS`` names a checkpoint.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: unknown encoder or task, or a checkpoint of another architecture.
    """
    names = list(dict.fromkeys([*train_tasks(cfg), *test_tasks(cfg)]))
    torch.manual_seed(cfg.SEED)
    model = build_architecture(cfg).make([build_task(cfg, name).spec for name in names])
    if cfg.MODEL.WEIGHTS:
        weights, _ = read_weights(cfg.MODEL.WEIGHTS)
        load_into(model, weights, cfg.MODEL.WEIGHTS, partial=True)
    return model


def build_plan(cfg: CfgNode) -> list[TaskPlan]:
    """Who trains what, and how much each task weighs."""
    shares = []
    for name in train_tasks(cfg):
        block = task_block(cfg, name)
        shares.append(
            TaskShare(
                name,
                block.GPUS,
                block.BATCH_SIZE,
                block.ACCUMULATE,
                block.LAMBDA or build_task(cfg, name).loss_lambda,
                block.WEIGHT,
            )
        )
    return make_plan(shares)


def build_device(cfg: CfgNode, local_rank: int = 0) -> Device:
    """The device of this process and the precision of the run.

    Raises:
        ValueError: unknown precision, or one the device lacks.
    """
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    name = cfg.TRAIN.PRECISION
    if name == "auto":  # bfloat16 is many times slower than float32 on CPUs without instructions for it
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    autocast = lookup(PRECISIONS, name, "TRAIN.PRECISION")
    return Device(device, torch.float64 if name == "float64" else torch.float32, autocast)


def datasets_root(cfg: CfgNode) -> Path:
    """``DATA.ROOT`` or the environment's."""
    return Path(cfg.DATA.ROOT).expanduser() if cfg.DATA.ROOT else dataset_root()


def build_dataset(cfg: CfgNode, name: str, task: Task) -> Dataset:
    """One dataset of a task, cut to the task's ``MAX_RECORDS``.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: unknown, broken, or unfit for the task.
    """
    dataset = load_dataset(name, datasets_root(cfg))
    check_dataset(dataset, task)
    limit = task_block(cfg, task.spec.name).MAX_RECORDS
    return replace(dataset, records=dataset.records[:limit]) if limit else dataset


def check_dataset(dataset: Dataset, task: Task) -> None:
    """Refuses a dataset that a task cannot use.

    Raises:
        ValueError: another kind, or classes that are not the task's queries.
    """
    if dataset.kind != task.kind:
        raise ValueError(f"dataset {dataset.name} is for {dataset.kind}, task {task.spec.name} is {task.kind}")
    # With anchors a query stands for a place, not for a class.
    if dataset.classes and not task.spec.num_anchors and task.spec.num_queries != len(dataset.classes):
        raise ValueError(
            f"dataset {dataset.name} has {len(dataset.classes)} classes but task {task.spec.name} has "
            f"{task.spec.num_queries} queries; use the task made for this dataset, see unihap/tasks/__init__.py"
        )


def build_train_dataset(cfg: CfgNode, task: Task) -> Dataset:
    """All training data of a task as one dataset.

    Raises:
        ValueError: no dataset, or one of another kind or other classes.
    """
    names = list(task_block(cfg, task.spec.name).TRAIN) or list(task.train_datasets)
    datasets = [build_dataset(cfg, name, task) for name in names]
    if not datasets:
        raise ValueError(f"task {task.spec.name} has no training dataset; set TASKS.{task.spec.name}.TRAIN")
    return task.merge(datasets)


def build_statistics(cfg: CfgNode, task: Task, dataset: Dataset | None) -> Statistics:
    """What the criterion must know about the training set: from the config where given, else counted."""
    block = task_block(cfg, task.spec.name)
    if dataset is not None and 0 < block.NUM_IDENTITIES < task.statistics(dataset).num_identities:
        raise ValueError(
            f"TASKS.{task.spec.name}.NUM_IDENTITIES is {block.NUM_IDENTITIES} but the training set has more; "
            f"set 0 to count them"
        )
    if block.POSITIVE_RATIO or block.NUM_IDENTITIES:
        ratio = torch.tensor([float(ratio) for ratio in block.POSITIVE_RATIO]) if block.POSITIVE_RATIO else None
        return Statistics(positive_ratio=ratio, num_identities=block.NUM_IDENTITIES)
    assert dataset is not None
    return task.statistics(dataset)


def build_batches(cfg: CfgNode, task: Task, plan: TaskPlan, dataset: Dataset, slots: Sequence[int], first: int) -> Any:
    """The endless batches of some slots of a task, from iteration ``first`` on."""
    block = task_block(cfg, plan.task)
    records = dataset.records
    batches: ShuffledBatches | IdentityBatches
    if task.identity_batches:
        people, rest = divmod(plan.batch_size, block.IMAGES_PER_PERSON)
        if rest or people < 2:
            raise ValueError(
                f"TASKS.{plan.task}.BATCH_SIZE {plan.batch_size} must be a multiple of IMAGES_PER_PERSON "
                f"{block.IMAGES_PER_PERSON} and hold at least two people, which the triplet loss compares"
            )
        identities = [record.label.identity for record in records if isinstance(record.label, ReIDLabel)]
        batches = IdentityBatches(identities, people, block.IMAGES_PER_PERSON, cfg.SEED)
    else:
        batches = ShuffledBatches(len(records), plan.batch_size, cfg.SEED)
    samples = TaskDataset(
        dataset,
        task.transform(bool(block.AUGMENT)),
        task.encode,
        seed=cfg.SEED,
        on_bad_image=cfg.DATA.ON_BAD_IMAGE,
    )
    sampler = SlotSampler(batches, slots, plan.num_slots, first, cfg.SOLVER.MAX_ITERATIONS)
    join = partial(collate, plan.task, pad_multiple=task.pad_multiple)
    return train_loader(samples, sampler, join, cfg.DATA.NUM_WORKERS)


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


def build_criterion(cfg: CfgNode, task: Task, dataset: Dataset | None) -> Criterion:
    """A task's loss, its weights drawn from ``SEED``."""
    statistics = build_statistics(cfg, task, dataset)
    torch.manual_seed(cfg.SEED)
    return task.criterion(statistics, cfg.MODEL.DECODER.WIDTH)


def build_training(cfg: CfgNode, groups: Groups, device: Device, *, resume: bool) -> Run:
    """Everything a training run needs.

    Args:
        cfg: the config.
        groups: who trains what.
        device: of this process.
        resume: go on from the newest complete checkpoint in ``OUTPUT_DIR``, if there is one.

    Raises:
        FileNotFoundError: a dataset or checkpoint is missing.
        ValueError: the config asks for something impossible.
    """
    output = Path(cfg.OUTPUT_DIR)
    names = train_tasks(cfg)
    tasks = {name: build_task(cfg, name) for name in names}
    model = build_model(cfg)
    datasets = {plan.task: build_train_dataset(cfg, tasks[plan.task]) for plan in groups.mine}
    criteria = {name: build_criterion(cfg, tasks[name], dataset) for name, dataset in datasets.items()}
    if cfg.MODEL.WEIGHTS:  # a criterion of the same training set goes on, one of another starts afresh
        weights, _ = read_weights(cfg.MODEL.WEIGHTS)
        for name, criterion in criteria.items():
            mine = {key: value.shape for key, value in criterion.state_dict().items()}
            if {key: value.shape for key, value in criterion_weights(weights, name).items()} == mine:
                load_criterion(criterion, weights, name, cfg.MODEL.WEIGHTS)

    checkpoints = Checkpoints(output / "checkpoints", cfg.TRAIN.KEEP_CHECKPOINTS)
    found = checkpoints.newest() if resume else None
    first = 0
    if found is not None:
        path, weights, state = found
        load_into(model, weights, str(path))
        for name, criterion in criteria.items():
            load_criterion(criterion, weights, name, str(path))
        first = state["iteration"]
    model.to(device.device, device.dtype)
    for criterion in criteria.values():
        criterion.to(device.device, device.dtype)

    solver = cfg.SOLVER
    trained: list[tuple[str, nn.Parameter]] = [(f"shared.{n}", p) for n, p in model.shared.named_parameters()]
    for name, criterion in criteria.items():
        trained += [(f"private.{name}.{n}", p) for n, p in model.private[name].named_parameters()]
        trained += [(f"private.{name}.criterion.{n}", p) for n, p in criterion.named_parameters()]
    optimizer = build_optimizer(
        solver.OPTIMIZER,
        parameter_groups(
            trained,
            model.shared.encoder,
            weight_decay=solver.WEIGHT_DECAY,
            layer_decay=solver.LAYER_DECAY,
            layer_decay_rule=solver.LAYER_DECAY_RULE,
        ),
        lr=solver.BASE_LR,
        beta1=solver.BETA1,
        beta2=solver.BETA2,
    )
    if found is not None:
        load_state_by_name(optimizer, found[2]["optimizer"])

    def endless(plan: TaskPlan) -> Iterator[Batch]:
        slots = plan.slots_of(groups.ranks)
        return iter(build_batches(cfg, tasks[plan.task], plan, datasets[plan.task], slots, first))

    return Run(
        model=model,
        tasks=tasks,
        criteria=criteria,
        batches={plan.task: endless(plan) for plan in groups.mine},
        groups=groups,
        optimizer=optimizer,
        schedule=schedule(
            warmup_start=solver.WARMUP_LR / solver.BASE_LR, warmup=solver.WARMUP_ITERATIONS / solver.MAX_ITERATIONS
        ),
        base_lr=solver.BASE_LR,
        first_iteration=first,
        last_iteration=solver.MAX_ITERATIONS,
        autocast=device.autocast,
        checkpoint_activations=frozenset(n for n in names if task_block(cfg, n).CHECKPOINT_ACTIVATIONS),
        clip_norm=solver.CLIP_GRADIENT_NORM,
        seed=cfg.SEED,
        output=output,
        card=build_card(cfg, model.tasks),
        checkpoints=checkpoints,
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        log_period=cfg.TRAIN.LOG_PERIOD,
        log_layers=cfg.TRAIN.LOG_LAYERS,
    )


def build_evaluation(cfg: CfgNode, process: int = 0, num_processes: int = 1) -> list[EvaluationJob]:
    """The evaluations a config asks for, with this process's share of each.

    Raises:
        FileNotFoundError: a dataset is missing.
        ValueError: a dataset does not fit its task.
    """
    jobs = []
    for name in test_tasks(cfg):
        task = build_task(cfg, name)
        block = task_block(cfg, name)
        for dataset_name in list(block.TEST) or task.test_datasets:
            dataset = build_dataset(cfg, dataset_name, task)
            samples = TaskDataset(
                dataset, task.transform(False), task.encode, seed=cfg.SEED, on_bad_image=cfg.DATA.ON_BAD_IMAGE
            )
            loader = evaluation_loader(
                samples,
                EvaluationSampler(len(dataset.records), block.BATCH_SIZE, process, num_processes),
                partial(collate, name, pad_multiple=task.pad_multiple),
                cfg.DATA.NUM_WORKERS,
            )
            jobs.append(EvaluationJob(task, dataset, loader, cfg.TEST.FLIP))
    if not jobs:
        raise ValueError("nothing to evaluate: no task of TEST.TASKS has a test dataset; set TASKS.<name>.TEST")
    return jobs


def dry_run(cfg: CfgNode, num_processes: int) -> str:
    """The merged config, who trains what, and how many parameters are shared and private."""
    model = build_model(cfg)
    shared = model.shared
    lines = [cfg.dump(), describe(build_plan(cfg), num_processes), "", f"{'parameters':<34} {'number':>12}"]

    def add(what: str, parameters: Iterable[nn.Parameter]) -> int:
        number = sum(p.numel() for p in parameters)
        lines.append(f"{what:<34} {number:>12,}")
        return number

    private = [module for module in model.private.values() if isinstance(module, Private)]
    norms = [p for module in private if module.feature_norm is not None for p in module.feature_norm.parameters()]
    total = add("shared  encoder", shared.encoder.parameters())
    total += add("shared  decoder", shared.decoder.parameters())
    total += add("shared  interpreter", shared.interpreter.parameters())
    for module in private:
        total += add(
            f"private {module.spec.name}", [p for n, p in module.named_parameters() if not n.startswith("feature_norm")]
        )
    if norms:
        total += add("private feature norms", norms)
    lines.append(f"{'all':<34} {total:>12,}")
    return "\n".join(lines)
