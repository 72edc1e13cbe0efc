"""From ``TASKS.<name>.SHOTS`` and ``SHOT_SEED`` to a few-shot training set, and the record of what was drawn."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from unihap.build.model import task_block
from unihap.checkpoints.files import write_atomically
from unihap.config import CfgNode
from unihap.data.few_shot import absent_classes, select_shots
from unihap.data.images import BadImageError
from unihap.engine.groups import gather
from unihap.structures import Dataset, Record
from unihap.tasks import Task

logger = logging.getLogger(__name__)

SHOTS = "shots.json"  # in OUTPUT_DIR


def take_shots(cfg: CfgNode, task: Task, dataset: Dataset) -> Dataset:
    """The records that ``SHOTS`` and ``SHOT_SEED`` draw from a task's training set; all of them where ``SHOTS`` is 0.

    Raises:
        BadImageError: a label map cannot be read, and ``DATA.ON_BAD_IMAGE`` is not ``skip``.
        ValueError: a negative number, or no record shows any class.
    """
    name = task.spec.name
    shots, seed = task_block(cfg, name).SHOTS, task_block(cfg, name).SHOT_SEED
    if shots == 0:
        return dataset
    if shots < 0 or seed < 0:
        raise ValueError(f"TASKS.{name}.SHOTS and SHOT_SEED must not be negative, got {shots} and {seed}")

    def present(record: Record) -> list[int]:
        try:
            return task.present(record, dataset)
        except BadImageError:
            if cfg.DATA.ON_BAD_IMAGE == "error":
                raise
            return []  # shows nothing that could be used

    presence = [present(record) for record in tqdm(dataset.records, desc=f"shots of {dataset.name}", disable=None)]
    num_classes = len(dataset.classes) or 1 + max((max(p) for p in presence if p), default=-1)
    chosen = select_shots(presence, num_classes, shots, seed)
    absent = [dataset.classes[c] if dataset.classes else str(c) for c in absent_classes(presence, num_classes)]
    records = [dataset.records[number] for number in chosen]
    logger.info(
        "%s: %d of %d records, %d for each of %d classes by seed %d: %s",
        name, len(records), len(presence), shots, num_classes, seed, " ".join(record.id for record in records),
    )  # fmt: skip
    if absent:
        logger.warning("%s: no record of %s shows %s", name, dataset.name, ", ".join(absent))
    return replace(dataset, records=records)


def write_shots(cfg: CfgNode, datasets: Mapping[str, Dataset]) -> None:
    """Writes the records that were drawn for the few-shot tasks of all processes to ``OUTPUT_DIR/shots.json``.

    All processes take part, the first one writes; nothing is written where no task is few-shot.

    Args:
        cfg: the config.
        datasets: training sets of this process by task, of ``take_shots``.
    """
    mine = {}
    for name, dataset in datasets.items():
        block = task_block(cfg, name)
        if block.SHOTS:
            records = [record.id for record in dataset.records]
            mine[name] = {"dataset": dataset.name, "shots": block.SHOTS, "seed": block.SHOT_SEED, "records": records}
    gathered = gather(mine)
    drawn = {} if gathered is None else {name: values for part in gathered for name, values in part.items()}
    if drawn:
        output = Path(cfg.OUTPUT_DIR)
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / SHOTS, json.dumps(drawn, indent=1) + "\n")
