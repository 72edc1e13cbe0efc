"""A new kind of task: how many people are in an image.  One query, read as a global probability.

Everything the kind needs is here: label, dataset, network input, target, loss, answer and judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from unihap.data.crops import Transformed
from unihap.data.detection import crowdhuman
from unihap.data.geometry import resize
from unihap.structures import (
    Batch,
    Dataset,
    DetectionLabel,
    Label,
    Prediction,
    Record,
    Supervision,
    Target,
    TaskSpec,
    Unit,
)
from unihap.tasks.task import Criterion, Result, Row, Statistics, Task, TaskOptions

MOST = 10  # people that a probability of 1 stands for


@dataclass(frozen=True)
class CountLabel(Label):
    """People in an image."""

    people: int


def dataset(root: Path, split: str) -> Dataset:
    """The images of CrowdHuman with the number of their people."""
    source = crowdhuman(root, split)
    records = [
        Record(record.id, record.image, CountLabel(len(cast(DetectionLabel, record.label).boxes)))
        for record in source.records
    ]
    return Dataset(f"crowdhuman_count_{split}", "counting", records)


def transform(
    image: np.ndarray, label: Label, rng: np.random.Generator, *, size: tuple[int, int], train: bool
) -> Transformed:
    """Resize; in training half of the images are flipped, which changes no count."""
    image, matrix = resize(image, size)
    if train and rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    return Transformed(image, label, matrix)


def encode(label: CountLabel, input_size: tuple[int, int]) -> dict[str, Tensor]:
    """The share of ``MOST`` people, as the one query's probability."""
    return {"probability": torch.tensor([min(label.people / MOST, 1.0)])}


class CountCriterion(Criterion):
    """Squared error of the share, mean over images."""

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """See ``Criterion``."""
        (p,) = predictions
        assert p.logit is not None
        assert target.probability is not None
        error = p.logit.sigmoid() - target.probability
        return {"count": error.square().mean()[None]}


def decode(prediction: Prediction, batch: Batch) -> list[Result]:
    """The number of people, a fraction."""
    assert prediction.logit is not None
    return [{"people": MOST * share} for share in prediction.logit[:, 0].float().sigmoid().tolist()]


class CountEvaluator:
    """Mean absolute error in people."""

    def row(self, result: Result, record: Record, dataset: Dataset) -> Row:
        """The error of one image."""
        return {"id": record.id, "error": abs(result["people"] - cast(CountLabel, record.label).people)}

    def summary(self, rows: list[Row], dataset: Dataset) -> dict[str, float]:
        """The mean error."""
        return {"MAE": float(np.mean([row["error"] for row in rows]))}

    def chance(self, dataset: Dataset) -> dict[str, float]:
        """The error of the median count for every image."""
        people = np.array([cast(CountLabel, record.label).people for record in dataset.records])
        return {"MAE": float(np.abs(people - np.median(people)).mean())}


def counting_task(
    name: str, options: TaskOptions, *, train_datasets: tuple[str, ...], test_datasets: tuple[str, ...]
) -> Task:
    """A counting task."""
    size = options.size((256, 256))
    return Task(
        spec=TaskSpec(name, 1, frozenset({Unit.PROBABILITY}), Supervision.LAST),
        kind="counting",
        train_datasets=train_datasets,
        test_datasets=test_datasets,
        loss_lambda=1.0,
        transform=lambda train, flip_alone=False: partial(transform, size=size, train=train),
        encode=encode,
        statistics=lambda dataset: Statistics(),
        criterion=lambda known, width: CountCriterion(),
        decode=decode,
        evaluator=CountEvaluator(),
        main_metric="MAE",
    )


DATASETS: dict[str, Any] = {f"crowdhuman_count_{split}": partial(dataset, split=split) for split in ("train", "val")}
TASKS = {
    "crowd_counting": partial(
        counting_task, train_datasets=("crowdhuman_count_train",), test_datasets=("crowdhuman_count_val",)
    )
}
