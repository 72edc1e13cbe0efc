"""Person re-identification: six queries whose states, side by side, describe a person."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unihap.data.transforms import reid_transform
from unihap.evaluation import reid as evaluation
from unihap.losses.triplet import soft_margin_triplet
from unihap.structures import Batch, Dataset, Prediction, Record, ReIDLabel, Supervision, Target, TaskSpec, Unit
from unihap.tasks.task import Criterion, Result, Row, Statistics, Task, TaskOptions


class ReIDCriterion(Criterion):
    """Identity classification of the normed feature plus a batch-hard triplet loss of the raw one (UniHCP Eq. 8).

    Args:
        feature_width: Q * C.
        num_identities: people in the training set.
        identity_weight: weight of the cross entropy.
        triplet_weight: weight of the triplet loss.
    """

    def __init__(self, feature_width: int, num_identities: int, identity_weight: float, triplet_weight: float) -> None:
        super().__init__()
        if num_identities < 2:
            raise ValueError(f"ReID needs at least 2 training identities, got {num_identities}")
        self.classifier = nn.Linear(feature_width, num_identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)
        self.identity_weight = identity_weight
        self.triplet_weight = triplet_weight

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """See ``Criterion``."""
        (p,) = predictions  # the last layer alone is supervised
        assert p.feature is not None
        assert p.normed_feature is not None
        assert target.identity is not None
        identity = F.cross_entropy(self.classifier(p.normed_feature), target.identity)
        triplet = soft_margin_triplet(p.feature, target.identity)
        return {"identity": self.identity_weight * identity[None], "triplet": self.triplet_weight * triplet[None]}


def merge(datasets: Sequence[Dataset]) -> Dataset:
    """One training set in which identities count 0, 1, ... through all datasets; people of two sets are different."""
    if not datasets:
        raise ValueError("no training dataset given; set TASKS.<name>.TRAIN")
    numbers: dict[tuple[str, int], int] = {}
    records: list[Record] = []
    for dataset in datasets:
        for record in dataset.records:
            label = record.label
            assert isinstance(label, ReIDLabel)
            number = numbers.setdefault((dataset.name, label.identity), len(numbers))
            record_id = record.id if len(datasets) == 1 else f"{dataset.name}/{record.id}"
            records.append(replace(record, id=record_id, label=replace(label, identity=number)))
    return replace(datasets[0], name="+".join(d.name for d in datasets), records=records)


def statistics(dataset: Dataset) -> Statistics:
    """The number of training identities."""
    labels = [record.label for record in dataset.records]
    return Statistics(num_identities=len({label.identity for label in labels if isinstance(label, ReIDLabel)}))


def present(record: Record, dataset: Dataset) -> list[int]:
    """The one identity, counted from 0 as ``merge`` has it."""
    return [cast(ReIDLabel, record.label).identity]


def encode(label: ReIDLabel, input_size: tuple[int, int]) -> dict[str, Tensor]:
    """The training identity."""
    return {"identity": torch.tensor(label.identity)}


def decode(prediction: Prediction, batch: Batch) -> list[Result]:
    """One descriptor per image, before the feature norm, as the release compares them."""
    assert prediction.feature is not None
    return [{"feature": feature} for feature in prediction.feature.float().cpu().numpy()]


class ReIDEvaluator:
    """``unihap.evaluation.reid`` with or without re-ranking.

    Args:
        rerank: order the gallery by re-ranked distances.
    """

    def __init__(self, rerank: bool) -> None:
        self.rerank = rerank

    def row(self, result: Result, record: Record, dataset: Dataset) -> Row:
        """See ``unihap.evaluation.reid.row``."""
        return evaluation.row(result, record, dataset)

    def summary(self, rows: list[Row], dataset: Dataset) -> dict[str, float]:
        """See ``unihap.evaluation.reid.summary``."""
        return evaluation.summary(rows, dataset, rerank=self.rerank)

    def scores(self, rows: list[Row], dataset: Dataset) -> list[float | None]:
        """See ``unihap.evaluation.reid.scores``."""
        return evaluation.scores(rows, dataset, rerank=self.rerank)

    def company(self, chosen: Sequence[int], rows: list[Row], dataset: Dataset) -> list[int]:
        """See ``unihap.evaluation.reid.company``."""
        return evaluation.company(chosen, rows, dataset)

    def conventions(self, dataset: Dataset) -> dict[str, Any]:
        """See ``unihap.evaluation.reid.conventions``."""
        return evaluation.conventions(dataset, rerank=self.rerank)

    def chance(self, dataset: Dataset) -> dict[str, float]:
        """See ``unihap.evaluation.reid.chance``."""
        return evaluation.chance(dataset)


def reid_task(
    name: str, options: TaskOptions, *, train_datasets: tuple[str, ...], test_datasets: tuple[str, ...]
) -> Task:
    """A ReID task."""
    size = options.size((256, 128))
    spec = TaskSpec(name, options.num_feature_queries, frozenset({Unit.FEATURE}), Supervision.LAST, feature_norm=True)

    def criterion(known: Statistics, width: int) -> Criterion:
        return ReIDCriterion(
            options.num_feature_queries * width,
            known.num_identities,
            options.loss_weights["reid"]["identity"],
            options.loss_weights["reid"]["triplet"],
        )

    return Task(
        spec=spec,
        kind="reid",
        train_datasets=train_datasets,
        test_datasets=test_datasets,
        loss_lambda=10.0,
        transform=lambda **how: reid_transform(size, **how),
        encode=encode,
        present=present,
        merge=merge,
        statistics=statistics,
        criterion=criterion,
        decode=decode,
        evaluator=ReIDEvaluator(options.rerank),
        main_metric="mAP",
        input_size=size,
        identity_batches=True,
    )
