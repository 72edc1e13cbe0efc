"""Pedestrian detection: anchored queries, read as a person probability and a box each."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torchvision.ops import box_convert

from unihap.data.geometry import invert, transform_boxes
from unihap.data.transforms import SHORT_CHOICES, detection_transform
from unihap.evaluation import detection as evaluation
from unihap.losses.detection import detection_losses
from unihap.structures import (
    Batch,
    Dataset,
    DetectionLabel,
    Prediction,
    Record,
    Supervision,
    Target,
    TaskSpec,
    Unit,
)
from unihap.tasks.task import Criterion, Result, Row, Statistics, Task, TaskOptions


class DetectionCriterion(Criterion):
    """Focal, L1 and GIoU losses after Hungarian matching, for every layer (UniHCP, section 3.3).

    Args:
        class_weight: weight of the focal loss, in the loss and in the matching cost.
        l1_weight: weight of the L1 distance, in both.
        giou_weight: weight of the generalised IoU, in both.
    """

    def __init__(self, class_weight: float, l1_weight: float, giou_weight: float) -> None:
        super().__init__()
        self.weights = {"class": class_weight, "l1": l1_weight, "giou": giou_weight}

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """See ``Criterion``; ``num_items`` counts people."""
        assert target.box is not None
        assert target.ignore_box is not None
        layers = []
        for p in predictions:
            assert p.logit is not None
            assert p.box is not None
            layers.append(
                detection_losses(
                    p.logit,
                    p.box,
                    target.box,
                    target.ignore_box,
                    num_boxes=num_items,
                    weights=(self.weights["class"], self.weights["l1"], self.weights["giou"]),
                )
            )
        return {term: weight * torch.stack([terms[term] for terms in layers]) for term, weight in self.weights.items()}


def present(record: Record, dataset: Dataset) -> list[int]:
    """The one class, people, where there is anybody."""
    return [0] if len(cast(DetectionLabel, record.label).boxes) else []


def encode(label: DetectionLabel, input_size: tuple[int, int]) -> dict[str, Tensor]:
    """People and ignored regions as cxcywh in input pixels (``collate`` makes them fractions of the padded input)."""
    return {
        "box": box_convert(torch.from_numpy(label.boxes).float().reshape(-1, 4), "xyxy", "cxcywh"),
        "ignore_box": box_convert(torch.from_numpy(label.ignore).float().reshape(-1, 4), "xyxy", "cxcywh"),
    }


def decode(prediction: Prediction, batch: Batch, patch_size: int = 16) -> list[Result]:
    """Every query's box in source pixels and its score, best first; no non-maximum suppression.

    Boxes are fractions of the batch padded to whole patches: token positions have the same frame.
    """
    assert prediction.logit is not None
    assert prediction.box is not None
    height, width = (-(-side // patch_size) * patch_size for side in batch.images.shape[-2:])
    pixels = box_convert(prediction.box.double(), "cxcywh", "xyxy") * torch.tensor(
        [width, height, width, height], device=prediction.box.device
    )
    scores = prediction.logit.float().sigmoid()
    order = scores.argsort(dim=1, descending=True, stable=True)
    results = []
    for boxes, score, rank, matrix, size in zip(pixels, scores, order, batch.matrices, batch.source_sizes, strict=True):
        corners = transform_boxes(invert(matrix), boxes[rank].cpu().numpy())
        results.append({"boxes": corners, "scores": score[rank].cpu().numpy(), "size": size})
    return results


class DetectionEvaluator:
    """``unihap.evaluation.detection`` with a chosen lowest score.

    Args:
        score: boxes below it are not evaluated.
    """

    def __init__(self, score: float) -> None:
        self.score = score

    def row(self, result: Result, record: Record, dataset: Dataset) -> Row:
        """See ``unihap.evaluation.detection.row``."""
        return evaluation.row(result, record, dataset, threshold=self.score)

    def summary(self, rows: list[Row], dataset: Dataset) -> dict[str, float]:
        """See ``unihap.evaluation.detection.summary``."""
        return evaluation.summary(rows, dataset)

    def scores(self, rows: list[Row], dataset: Dataset) -> list[float | None]:
        """See ``unihap.evaluation.detection.scores``."""
        return evaluation.scores(rows, dataset)

    def conventions(self, dataset: Dataset) -> dict[str, Any]:
        """See ``unihap.evaluation.detection.conventions``."""
        return evaluation.conventions(dataset, threshold=self.score)

    def chance(self, dataset: Dataset) -> dict[str, float]:
        """See ``unihap.evaluation.detection.chance``."""
        return evaluation.chance(dataset)


def detection_task(
    name: str, options: TaskOptions, *, train_datasets: tuple[str, ...], test_datasets: tuple[str, ...]
) -> Task:
    """A detection task."""
    short, long = options.size((800, 1333))
    weights = options.loss_weights["detection"]
    return Task(
        spec=TaskSpec(
            name,
            options.num_patterns,
            frozenset({Unit.PROBABILITY, Unit.BOX}),
            Supervision.LAYERS,
            num_anchors=options.num_anchors,
        ),
        kind="detection",
        train_datasets=train_datasets,
        test_datasets=test_datasets,
        loss_lambda=2.0,
        transform=lambda **how: detection_transform(
            short=short,
            long=long,
            **how,
            short_choices=[round(short * choice / max(SHORT_CHOICES)) for choice in SHORT_CHOICES],
        ),
        encode=encode,
        present=present,
        statistics=lambda dataset: Statistics(),
        criterion=lambda known, width: DetectionCriterion(weights["class"], weights["l1"], weights["giou"]),
        count_items=lambda target: sum(len(boxes) for boxes in cast(list[Tensor], target.box)),
        decode=partial(decode, patch_size=options.patch_size),
        evaluator=DetectionEvaluator(options.detection_score),
        main_metric="AP",
        input_size=(short, long),
        pad_multiple=options.patch_size,
    )
