"""From a config to datasets and training batches."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unihap.build.few_shot import take_shots
from unihap.build.model import task_block
from unihap.config import CfgNode
from unihap.data.catalog import dataset_root, load_dataset
from unihap.data.loader import TaskDataset, collate, train_loader
from unihap.data.pose import with_detector_boxes
from unihap.data.samplers import IdentityBatches, ShuffledBatches, SlotSampler
from unihap.engine.groups import TaskPlan
from unihap.lookup import lookup
from unihap.structures import Dataset, ReIDLabel
from unihap.tasks import Criterion, Statistics, Task

# TASKS.<name>.AUGMENT -> arguments of the task's transform.
AUGMENTATIONS: dict[str, dict[str, bool]] = {
    "full": {"train": True},
    "flip": {"train": True, "flip_alone": True},
    "none": {"train": False},
}


def datasets_root(cfg: CfgNode) -> Path:
    """``DATA.ROOT`` or the environment's."""
    return Path(cfg.DATA.ROOT).expanduser() if cfg.DATA.ROOT else dataset_root()


def build_dataset(cfg: CfgNode, name: str, task: Task, boxes: str = "") -> Dataset:
    """One dataset of a task, cut to the task's ``MAX_RECORDS``.

    Args:
        cfg: the config.
        name: of the dataset.
        task: whose ``TASKS`` block counts.
        boxes: file of a detector's boxes to take instead of the labelled people, see ``with_detector_boxes``.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: unknown, broken, or unfit for the task.
    """
    dataset = load_dataset(name, datasets_root(cfg))
    check_dataset(dataset, task)
    if boxes:
        dataset = with_detector_boxes(dataset, boxes)
    limit = task_block(cfg, task.spec.name).MAX_RECORDS
    return replace(dataset, records=dataset.records[:limit], image_ids=()) if limit else dataset


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
    """All training data of a task as one dataset, or the few records that ``SHOTS`` asks for.

    Raises:
        ValueError: no dataset, or one of another kind or other classes.
    """
    names = list(task_block(cfg, task.spec.name).TRAIN) or list(task.train_datasets)
    datasets = [build_dataset(cfg, name, task) for name in names]
    if not datasets:
        raise ValueError(f"task {task.spec.name} has no training dataset; set TASKS.{task.spec.name}.TRAIN")
    return take_shots(cfg, task, task.merge(datasets))


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


def build_criterion(cfg: CfgNode, task: Task, dataset: Dataset | None) -> Criterion:
    """A task's loss, its weights drawn from ``SEED``."""
    statistics = build_statistics(cfg, task, dataset)
    torch.manual_seed(cfg.SEED)
    return task.criterion(statistics, cfg.MODEL.DECODER.WIDTH)


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
        task.transform(**lookup(AUGMENTATIONS, block.AUGMENT, f"TASKS.{plan.task}.AUGMENT")),
        task.encode,
        seed=cfg.SEED,
        on_bad_image=cfg.DATA.ON_BAD_IMAGE,
    )
    sampler = SlotSampler(batches, slots, plan.num_slots, first, cfg.SOLVER.MAX_ITERATIONS)
    join = partial(collate, plan.task, pad_multiple=task.pad_multiple)
    return train_loader(samples, sampler, join, cfg.DATA.NUM_WORKERS)
