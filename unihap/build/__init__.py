"""From a config to objects.  The only package that reads a config; everything else takes plain values."""

from unihap.build.adapt import describe_adaptation, load_for_evaluation
from unihap.build.data import build_dataset, datasets_root
from unihap.build.evaluation import build_evaluation, evaluated_files
from unihap.build.model import Device, build_device, build_model, build_plan, build_task, dry_run, train_tasks
from unihap.build.pretrain import build_pretraining, describe_pretraining
from unihap.build.training import build_training

__all__ = [
    "Device",
    "build_dataset",
    "build_device",
    "build_evaluation",
    "build_model",
    "build_plan",
    "build_pretraining",
    "build_task",
    "build_training",
    "datasets_root",
    "describe_adaptation",
    "describe_pretraining",
    "dry_run",
    "evaluated_files",
    "load_for_evaluation",
    "train_tasks",
]
