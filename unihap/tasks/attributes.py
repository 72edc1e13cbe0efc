"""Pedestrian attributes: one query per attribute, read as a global probability."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from unihap.data.transforms import attributes_transform
from unihap.evaluation import attributes as evaluation
from unihap.losses.probability import weighted_bce
from unihap.structures import AttributesLabel, Batch, Dataset, Prediction, Record, Supervision, Target, TaskSpec, Unit
from unihap.tasks.task import Criterion, Result, Statistics, Task, TaskOptions, ratio_tensor


class AttributesCriterion(Criterion):
    """Weighted binary cross entropy, summed over attributes, mean over images (UniHCP Eq. 9 and 10).

    Args:
        positive_ratio: (Q,) share of training images that have each attribute.
        weight: weight of the loss.
    """

    positive_ratio: Tensor

    def __init__(self, positive_ratio: Tensor, weight: float) -> None:
        super().__init__()
        self.register_buffer("positive_ratio", positive_ratio)
        self.weight = weight

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """See ``Criterion``."""
        (p,) = predictions  # the last layer alone is supervised
        assert p.logit is not None
        assert target.probability is not None
        loss = weighted_bce(p.logit, target.probability, self.positive_ratio).sum(1).mean()
        return {"probability": self.weight * loss[None]}


def statistics(dataset: Dataset) -> Statistics:
    """The share of positive labels per attribute among the known ones; 0 for an attribute nobody has."""
    values = np.stack([cast(AttributesLabel, record.label).values for record in dataset.records])
    known = np.maximum((values >= 0).sum(0), 1)
    return Statistics(positive_ratio=torch.from_numpy((values == 1).sum(0) / known).float())


def present(record: Record, dataset: Dataset) -> list[int]:
    """The attributes somebody has; who was drawn for others serves as the negative of the rest."""
    return np.flatnonzero(cast(AttributesLabel, record.label).values == 1).tolist()


def encode(label: AttributesLabel, input_size: tuple[int, int]) -> dict[str, Tensor]:
    """The attribute labels; -1 stays unknown."""
    return {"probability": torch.from_numpy(label.values.astype(np.float32))}


def decode(prediction: Prediction, batch: Batch) -> list[Result]:
    """The probability of every attribute."""
    assert prediction.logit is not None
    return [{"probability": p} for p in prediction.logit.float().sigmoid().cpu().numpy()]


def attributes_task(
    name: str,
    options: TaskOptions,
    *,
    num_attributes: int,
    train_datasets: tuple[str, ...] = (),
    test_datasets: tuple[str, ...] = (),
) -> Task:
    """An attribute task."""
    size = options.size((256, 192))
    return Task(
        spec=TaskSpec(name, num_attributes, frozenset({Unit.PROBABILITY}), Supervision.LAST),
        kind="attributes",
        train_datasets=train_datasets,
        test_datasets=test_datasets,
        loss_lambda=0.01,
        transform=lambda **how: attributes_transform(size, **how),
        encode=encode,
        present=present,
        statistics=statistics,
        criterion=lambda known, width: AttributesCriterion(
            ratio_tensor(known, num_attributes, name), options.loss_weights["attributes"]["probability"]
        ),
        decode=decode,
        evaluator=evaluation,
        main_metric="mA",
        input_size=size,
    )
