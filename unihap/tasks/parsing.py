"""Human parsing: one query per class, read as a mask and as the probability that the class occurs."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from unihap.data.images import BadImageError
from unihap.data.transforms import parsing_transform
from unihap.evaluation import parsing as evaluation
from unihap.losses.masks import count_masks, point_mask_losses, present_classes
from unihap.losses.probability import weighted_bce
from unihap.structures import Batch, Dataset, ParsingLabel, Prediction, Record, Supervision, Target, TaskSpec, Unit
from unihap.tasks.task import Criterion, Result, Statistics, Task, TaskOptions, ratio_tensor


class ParsingCriterion(Criterion):
    """Weighted presence of every class, and point-wise BCE and dice of the masks of present ones (UniHCP Eq. 12).

    Args:
        positive_ratio: (Q,) share of training images in which each class occurs.
        loss_weights: PROBABILITY, MASK and DICE.
        num_points: points a mask is sampled at.
        ignored_pixels: ``ignore`` or ``release``.
    """

    positive_ratio: Tensor

    def __init__(
        self,
        positive_ratio: Tensor,
        probability_weight: float,
        mask_weight: float,
        dice_weight: float,
        num_points: int,
        ignored_pixels: str,
    ) -> None:
        super().__init__()
        self.register_buffer("positive_ratio", positive_ratio)
        self.probability_weight = probability_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points
        self.ignored_pixels = ignored_pixels

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """See ``Criterion``; ``num_items`` counts masks."""
        assert target.label_map is not None
        present = present_classes(target.label_map, len(self.positive_ratio))
        probability, mask, dice = [], [], []
        for p in predictions:
            assert p.heatmap is not None
            assert p.logit is not None
            probability.append(weighted_bce(p.logit, present.to(p.logit.dtype), self.positive_ratio).mean())
            mask_loss, dice_loss = point_mask_losses(
                p.heatmap,
                target.label_map,
                num_masks=num_items,
                num_points=self.num_points,
                ignore=self.ignored_pixels,
            )
            mask.append(mask_loss)
            dice.append(dice_loss)
        return {
            "probability": self.probability_weight * torch.stack(probability),
            "mask": self.mask_weight * torch.stack(mask),
            "dice": self.dice_weight * torch.stack(dice),
        }


def present(record: Record, dataset: Dataset) -> list[int]:
    """The classes that cover at least one pixel, background too; reads the label map.

    Raises:
        BadImageError: the label map cannot be used.
    """
    assert dataset.read_label_map is not None
    label_map = dataset.read_label_map(cast(ParsingLabel, record.label).path)
    return np.flatnonzero(np.bincount(label_map.ravel(), minlength=256)[: len(dataset.classes)]).tolist()


def statistics(dataset: Dataset, on_bad_image: str = "error") -> Statistics:
    """The share of images in which each class occurs; reads every label map once.

    Raises:
        BadImageError: a label map cannot be used; with ``on_bad_image`` ``skip`` only when none can.
    """
    count, num_read = torch.zeros(len(dataset.classes)), 0
    for record in tqdm(dataset.records, desc=f"classes of {dataset.name}", disable=None):
        try:
            occurring = present(record, dataset)
        except BadImageError:
            if on_bad_image == "error" or (num_read == 0 and record is dataset.records[-1]):
                raise
            continue  # the loader reports it
        num_read += 1
        count[occurring] += 1
    return Statistics(positive_ratio=count / num_read)


def encode(label: ParsingLabel, input_size: tuple[int, int]) -> dict[str, Tensor]:
    """The class of every input pixel."""
    assert label.label_map is not None
    return {"label_map": torch.from_numpy(np.ascontiguousarray(label.label_map))}


def decode(prediction: Prediction, batch: Batch) -> list[Result]:
    """The likeliest class of every source pixel: mask probability times the class's global probability.

    As in the release: masks are resized to the network input, multiplied, resized to the source image, compared.
    """
    assert prediction.heatmap is not None
    assert prediction.logit is not None
    results = []
    for heatmap, logit, source_size in zip(prediction.heatmap, prediction.logit, batch.source_sizes, strict=True):
        logits = F.interpolate(
            heatmap[None].float(), size=batch.images.shape[-2:], mode="bilinear", align_corners=False
        )
        probability = logits.sigmoid() * logit.float().sigmoid()[:, None, None]
        probability = F.interpolate(probability, size=source_size, mode="bilinear", align_corners=False)
        results.append({"label_map": probability[0].argmax(0).to(torch.uint8).cpu().numpy()})
    return results


def parsing_task(
    name: str,
    options: TaskOptions,
    *,
    num_classes: int,
    mirror: tuple[tuple[int, int], ...] = (),
    classes: tuple[str, ...] = (),
    train_datasets: tuple[str, ...] = (),
    test_datasets: tuple[str, ...] = (),
) -> Task:
    """A parsing task; ``mirror`` holds the pairs of left and right classes, ``classes`` their names where known."""
    size = options.size((480, 480))
    weights = options.loss_weights["parsing"]
    return Task(
        spec=TaskSpec(name, num_classes, frozenset({Unit.PROBABILITY, Unit.HEATMAP}), Supervision.LAYERS_AND_QUERIES),
        kind="parsing",
        train_datasets=train_datasets,
        test_datasets=test_datasets,
        loss_lambda=1.0,
        transform=lambda **how: parsing_transform(size, mirror=mirror, **how),
        encode=encode,
        present=present,
        statistics=partial(statistics, on_bad_image=options.on_bad_image),
        criterion=lambda known, width: ParsingCriterion(
            ratio_tensor(known, num_classes, name),
            weights["probability"],
            weights["mask"],
            weights["dice"],
            options.num_points,
            options.ignored_pixels,
        ),
        count_items=lambda target: count_masks(cast(Tensor, target.label_map), num_classes),
        decode=decode,
        evaluator=evaluation,
        main_metric="mIoU",
        input_size=size,
        classes=classes,
    )
