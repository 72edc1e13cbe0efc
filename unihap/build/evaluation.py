"""From a config to evaluations."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from unihap.build.data import build_dataset, datasets_root
from unihap.build.model import build_task, task_block, test_tasks
from unihap.config import CfgNode
from unihap.data.loader import TaskDataset, collate, evaluation_loader
from unihap.data.samplers import EvaluationSampler
from unihap.engine.evaluate import EvaluationJob
from unihap.structures import Batch, Dataset
from unihap.tasks import Task


def build_evaluation(cfg: CfgNode, process: int = 0, num_processes: int = 1) -> list[EvaluationJob]:
    """The evaluations a config asks for, with this process's share of each.

    Raises:
        FileNotFoundError: a dataset or a file of boxes is missing.
        ValueError: a dataset does not fit its task, or is to be evaluated twice.
    """
    jobs: list[EvaluationJob] = []
    for name in test_tasks(cfg):
        task = build_task(cfg, name)
        batch_size = task_block(cfg, name).BATCH_SIZE
        for dataset, boxes in _datasets(cfg, task):
            samples = TaskDataset(
                dataset, task.transform(train=False), task.encode, seed=cfg.SEED, on_bad_image=cfg.DATA.ON_BAD_IMAGE
            )
            join = partial(collate, name, pad_multiple=task.pad_multiple)
            loader = evaluation_loader(
                samples,
                EvaluationSampler(len(dataset.records), batch_size, process, num_processes),
                join,
                cfg.DATA.NUM_WORKERS,
            )
            load = partial(_load, samples, join, batch_size)
            jobs.append(EvaluationJob(task, dataset, loader, cfg.TEST.FLIP, load, batch_size, boxes))
    if not jobs:
        raise ValueError("nothing to evaluate: no task of TEST.TASKS has a test dataset; set TASKS.<name>.TEST")
    _refuse_repeats(jobs)
    return jobs


def _load(samples: TaskDataset, join: Callable[..., Batch], batch_size: int, numbers: Sequence[int]) -> Iterable[Batch]:
    """Batches of some records, read in this process."""
    for start in range(0, len(numbers), batch_size):
        yield join([samples[number] for number in numbers[start : start + batch_size]])


def _datasets(cfg: CfgNode, task: Task) -> Iterable[tuple[Dataset, str]]:
    """The test sets of a task, each with the file of its boxes ("" for labelled boxes)."""
    block = task_block(cfg, task.spec.name)
    names = list(block.TEST) or list(task.test_datasets)
    files = list(block.BOXES) or [""] * len(names)
    if len(files) != len(names):
        raise ValueError(
            f"TASKS.{task.spec.name}.BOXES names {len(files)} files for {len(names)} test sets ({', '.join(names)}); "
            'give one for each, "" for labelled boxes'
        )
    for name, file in zip(names, files, strict=True):
        boxes = _find(file, datasets_root(cfg))
        yield build_dataset(cfg, name, task, boxes), boxes


def _find(file: str, root: Path) -> str:
    """A file of boxes as it is named, else under the datasets root."""
    path = Path(file).expanduser()
    return str(path if path.is_file() else root / file) if file else ""


def _refuse_repeats(jobs: Sequence[EvaluationJob]) -> None:
    """Refuses a dataset that occurs twice: results are kept by the names of datasets."""
    tasks: dict[str, str] = {}
    for job in jobs:
        name, task = job.dataset.name, job.task.spec.name
        if name in tasks:
            raise ValueError(
                f"dataset {name} is to be evaluated twice, by {tasks[name]} and by {task}, but results.json has one "
                "place for it; take it out of one TASKS.<name>.TEST, or evaluate each in an OUTPUT_DIR of its own"
            )
        tasks[name] = task


def evaluated_files(cfg: CfgNode, checkpoint: str, *, prompts: bool) -> list[str]:
    """The files of the weights that are evaluated, in the order in which they were loaded.

    Args:
        cfg: the config.
        checkpoint: of the run itself; "" for none.
        prompts: whether ``MODEL.PROMPTS`` are among them.
    """
    base = cfg.MODEL.WEIGHTS if cfg.TRAIN.MODE == "prompt" or not checkpoint else ""
    return [file for file in (base, *(cfg.MODEL.PROMPTS if prompts else ()), checkpoint) if file]
