"""Top-down 2D pose: one query per keypoint, read as a heatmap and as the probability that it is there."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from unihap.data.geometry import invert, mirror_order, transform_points
from unihap.data.skeletons import SKELETONS
from unihap.data.transforms import pose_transform
from unihap.evaluation import pose as evaluation
from unihap.losses.heatmap import heatmap_mse
from unihap.losses.probability import weighted_bce
from unihap.structures import Batch, Dataset, PoseLabel, Prediction, Record, Supervision, Target, TaskSpec, Unit
from unihap.tasks.heatmap import HeatmapCodec
from unihap.tasks.task import Criterion, Result, Row, Statistics, Task, TaskOptions, ratio_tensor

CELLS_PER_PATCH = 4  # heatmap cells along a side of a patch: the interpreter upsamples so much


class PoseCriterion(Criterion):
    """Squared error of the heatmaps plus weighted presence (UniHCP Eq. 11), for every supervised layer.

    Args:
        positive_ratio: (Q,) share of training people whose keypoint is labelled.
        heatmap_weight: weight of the squared error.
        probability_weight: weight of the presence loss.
    """

    positive_ratio: Tensor

    def __init__(self, positive_ratio: Tensor, heatmap_weight: float, probability_weight: float) -> None:
        super().__init__()
        self.register_buffer("positive_ratio", positive_ratio)
        self.heatmap_weight = heatmap_weight
        self.probability_weight = probability_weight

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """See ``Criterion``."""
        truth, present = target.heatmap, target.heatmap_weight
        assert truth is not None
        assert present is not None
        heatmap, probability = [], []
        for p in predictions:
            assert p.heatmap is not None
            assert p.logit is not None
            heatmap.append(heatmap_mse(p.heatmap, truth, present))
            probability.append(weighted_bce(p.logit, present, self.positive_ratio).mean())
        return {
            "heatmap": self.heatmap_weight * torch.stack(heatmap),
            "probability": self.probability_weight * torch.stack(probability),
        }


def statistics(dataset: Dataset) -> Statistics:
    """The share of people in whom each keypoint is labelled."""
    visible = np.stack([cast(PoseLabel, record.label).keypoints[:, 2] > 0 for record in dataset.records])
    return Statistics(positive_ratio=torch.from_numpy(visible.mean(0)).float())


def present(record: Record, dataset: Dataset) -> list[int]:
    """The labelled keypoints."""
    return np.flatnonzero(cast(PoseLabel, record.label).keypoints[:, 2] > 0).tolist()


def encode(label: PoseLabel, input_size: tuple[int, int], codec: HeatmapCodec) -> dict[str, Tensor]:
    """A Gaussian per keypoint, and whether it is labelled and inside the crop."""
    heatmap, weight = codec.encode(label.keypoints)
    return {"heatmap": heatmap, "heatmap_weight": weight}


def decode(prediction: Prediction, batch: Batch, codec: HeatmapCodec) -> list[Result]:
    """Keypoints (x, y, peak of the heatmap) in source pixels and the probability of each."""
    assert prediction.heatmap is not None
    assert prediction.logit is not None
    points, peaks = codec.decode(prediction.heatmap.float())
    probabilities = prediction.logit.float().sigmoid().cpu().numpy()
    results = []
    for xy, peak, probability, matrix in zip(
        points.double().cpu().numpy(), peaks.cpu().numpy(), probabilities, batch.matrices, strict=True
    ):
        keypoints = np.concatenate([transform_points(invert(matrix), xy), peak[:, None]], axis=1)
        results.append({"keypoints": keypoints, "probability": probability})
    return results


def unflip(prediction: Prediction, order: Tensor) -> Prediction:
    """The prediction of a mirrored person, mirrored back: columns reversed, left and right exchanged."""
    assert prediction.heatmap is not None
    assert prediction.logit is not None
    return Prediction(logit=prediction.logit[:, order], heatmap=prediction.heatmap[:, order].flip(-1))


class PoseEvaluator:
    """``unihap.evaluation.pose`` with a chosen score rule.

    Args:
        rescore: ``fixed`` or ``release``.
    """

    def __init__(self, rescore: str) -> None:
        self.rescore = rescore

    def row(self, result: Result, record: Record, dataset: Dataset) -> Row:
        """See ``unihap.evaluation.pose.row``."""
        return evaluation.row(result, record, dataset, rescore=self.rescore)

    def summary(self, rows: list[Row], dataset: Dataset) -> dict[str, float]:
        """See ``unihap.evaluation.pose.summary``."""
        return evaluation.summary(rows, dataset)

    def scores(self, rows: list[Row], dataset: Dataset) -> list[float | None]:
        """See ``unihap.evaluation.pose.scores``."""
        return evaluation.scores(rows, dataset)

    def conventions(self, dataset: Dataset) -> dict[str, Any]:
        """See ``unihap.evaluation.pose.conventions``."""
        return evaluation.conventions(dataset, rescore=self.rescore)

    def chance(self, dataset: Dataset) -> dict[str, float]:
        """See ``unihap.evaluation.pose.chance``."""
        return evaluation.chance(dataset)


def pose_task(
    name: str,
    options: TaskOptions,
    *,
    skeleton: str,
    train_datasets: tuple[str, ...] = (),
    test_datasets: tuple[str, ...] = (),
    main_metric: str = "AP",
) -> Task:
    """A pose task for one set of keypoints, a key of ``SKELETONS``.

    Raises:
        ValueError: the input is not whole patches.
    """
    body = SKELETONS[skeleton]
    height, width = size = options.size((256, 192))
    patch = options.patch_size
    if height % patch or width % patch:
        raise ValueError(f"TASKS.{name}.INPUT_SIZE {list(size)} is not whole patches of {patch} pixels")
    codec = HeatmapCodec(size, (height // patch * CELLS_PER_PATCH, width // patch * CELLS_PER_PATCH))
    num_keypoints = len(body.names)
    order = torch.as_tensor(mirror_order(num_keypoints, body.mirror))

    return Task(
        spec=TaskSpec(name, num_keypoints, frozenset({Unit.PROBABILITY, Unit.HEATMAP}), Supervision.LAYERS_AND_QUERIES),
        kind="pose",
        train_datasets=train_datasets,
        test_datasets=test_datasets,
        loss_lambda=2000.0,
        transform=lambda **how: pose_transform(size, mirror=body.mirror, upper_body=body.upper_body, **how),
        encode=partial(encode, codec=codec),
        present=present,
        statistics=statistics,
        criterion=lambda known, width: PoseCriterion(
            ratio_tensor(known, num_keypoints, name),
            options.loss_weights["pose"]["heatmap"],
            options.loss_weights["pose"]["probability"],
        ),
        decode=partial(decode, codec=codec),
        evaluator=PoseEvaluator(options.pose_rescore),
        main_metric=main_metric,
        input_size=size,
        classes=body.names,
        unflip=partial(unflip, order=order),
    )
