"""What a task is: a specification for the model and a page of plain functions for everything else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unihap.structures import Batch, Dataset, Label, Prediction, Record, Target, TaskSpec

Result = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class TaskOptions:
    """The choices a config makes for a task, as plain values.

    Attributes:
        input_size: (height, width) of the network input; for detection (short side, longest long side); () takes the
            task's own.
        patch_size: side of the encoder's patches, pixels.
        loss_weights: weight of every loss term, by kind of task and term.
        num_feature_queries: queries of a ReID task.
        num_patterns: content queries of a detection task.
        num_anchors: anchors of a detection task.
        num_points: points a parsing mask is sampled at.
        ignored_pixels: ``ignore`` or ``release``, see ``unihap.losses.masks``.
        pose_rescore: ``fixed`` or ``release``, see ``unihap.evaluation.pose``.
        rerank: whether ReID orders the gallery by re-ranked distances, see ``unihap.evaluation.reid``.
        detection_score: lowest score of a box that is evaluated.
        on_bad_image: ``error`` or ``skip``, see ``unihap.data.loader.TaskDataset``.
    """

    input_size: tuple[int, ...] = ()
    patch_size: int = 16
    loss_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    num_feature_queries: int = 6
    num_patterns: int = 3
    num_anchors: int = 300
    num_points: int = 12544
    ignored_pixels: str = "ignore"
    pose_rescore: str = "fixed"
    rerank: bool = False
    detection_score: float = 0.05
    on_bad_image: str = "error"

    def size(self, default: tuple[int, int]) -> tuple[int, int]:
        """``input_size``, or the task's own.

        Raises:
            ValueError: not two positive numbers.
        """
        if not self.input_size:
            return default
        if len(self.input_size) != 2 or min(self.input_size) < 1:
            raise ValueError(f"INPUT_SIZE must be two positive numbers, got {list(self.input_size)}")
        return self.input_size[0], self.input_size[1]


@dataclass(frozen=True)
class Statistics:
    """What a criterion needs to know about the whole training set.

    Attributes:
        positive_ratio: (Q,) share of training samples in which each query's answer is yes (gamma of UniHCP Eq. 10).
        num_identities: people in the training set (ReID).
    """

    positive_ratio: Tensor | None = None
    num_identities: int = 0


class Transform(Protocol):
    """See ``unihap.data.transforms``."""

    def __call__(self, image: np.ndarray, label: Label, rng: np.random.Generator) -> Any:
        """Image and label in source pixels to image, label and matrix in input pixels."""


class Evaluator(Protocol):
    """The judge of one kind of task; its functions are pure.

    An evaluator may also have (``unihap.evaluation`` describes them):

        scores(rows, dataset) -> list[float | None]    for the sheets of best and worst cases
        company(chosen, rows, dataset) -> list[int]    places of rows that pictures of the chosen ones need as well
        conventions(dataset) -> dict                   for ``protocols.json``
    """

    def row(self, result: Result, record: Record, dataset: Dataset) -> Row:
        """Judges one image, on any process."""

    def summary(self, rows: list[Row], dataset: Dataset) -> dict[str, float]:
        """Judges all rows, once."""

    def chance(self, dataset: Dataset) -> dict[str, float]:
        """What a blind guess scores."""


class Criterion(nn.Module):
    """A task's loss; it may own weights that only training needs (ReID's classifier), private to the task."""

    def forward(self, predictions: Sequence[Prediction], target: Target, num_items: float) -> dict[str, Tensor]:
        """The weighted loss terms.

        Args:
            predictions: one per supervised layer.
            target: the truth.
            num_items: people or masks per batch, averaged over the task's batches of this iteration; the loss
                itself does no communication.

        Returns:
            Term name to (L,) values, one per supervised layer; their sum is the task's loss.
        """
        raise AssertionError("a criterion defines forward")


@dataclass(frozen=True)
class Task:
    """Everything that is special about a task.

    Attributes:
        spec: what the model learns about it.
        kind: reid | attributes | pose | parsing | detection.
        train_datasets: names of its own training sets.
        test_datasets: names of its own test sets.
        loss_lambda: UniHCP's lambda, the weight of one sample in the objective.
        transform: ``transform(train=...)`` gives the train or test transform, ``flip_alone=True`` a mild one.
        encode: label in input pixels and (H, W) to the fields of ``Target``.
        present: the classes that a record shows, of which a few-shot training set draws some records each (see
            ``unihap.data.few_shot``); by default all records show the same one.
        classes: names of its queries where every dataset of the task has the same, in query order.
        merge: training sets to one training set.
        statistics: one training set to what the criterion must know about it.
        criterion: statistics and decoder width C to the loss.
        count_items: what the loss divides by, counted in one batch's target.
        decode: the last prediction of a batch to results in source-image pixels.
        evaluator: the judge.
        main_metric: the metric to quote.
        input_size: (height, width) of the network input; for detection (short side, longest long side); for the record
            of an evaluation alone.
        identity_batches: whether batches hold several images of each person.
        pad_multiple: side lengths of a batch of mixed sizes are rounded up to this.
        unflip: turns the prediction of a mirrored image round, where flip testing is meant.
    """

    spec: TaskSpec
    kind: str
    train_datasets: tuple[str, ...]
    test_datasets: tuple[str, ...]
    loss_lambda: float
    transform: Callable[..., Transform]
    encode: Callable[[Any, tuple[int, int]], dict[str, Tensor]]
    statistics: Callable[[Dataset], Statistics]
    criterion: Callable[[Statistics, int], Criterion]
    decode: Callable[[Prediction, Batch], list[Result]]
    evaluator: Evaluator
    main_metric: str
    input_size: tuple[int, ...] = ()
    present: Callable[[Record, Dataset], list[int]] = lambda record, dataset: [0]
    classes: tuple[str, ...] = ()
    merge: Callable[[Sequence[Dataset]], Dataset] = field(default_factory=lambda: concatenate)
    count_items: Callable[[Target], int] = lambda target: 1
    identity_batches: bool = False
    pad_multiple: int = 1
    unflip: Callable[[Prediction], Prediction] | None = None


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """One training set from several of the same classes.

    Raises:
        ValueError: no datasets, or datasets of different kinds or classes.
    """
    if not datasets:
        raise ValueError("no training dataset given; set TASKS.<name>.TRAIN")
    first = datasets[0]
    for other in datasets[1:]:
        if (other.kind, other.classes) != (first.kind, first.classes):
            raise ValueError(
                f"datasets {first.name} and {other.name} differ in kind or classes; train them as two tasks"
            )
    if len(datasets) == 1:
        return first
    records = [replace(record, id=f"{dataset.name}/{record.id}") for dataset in datasets for record in dataset.records]
    return replace(first, name="+".join(d.name for d in datasets), records=records)


def ratio_tensor(statistics: Statistics, num_queries: int, task: str) -> Tensor:
    """The positive ratios of a task, checked.

    Raises:
        ValueError: missing, of another length, or outside 0 ... 1.
    """
    ratio = statistics.positive_ratio
    if ratio is None or ratio.shape != (num_queries,):
        shape = None if ratio is None else tuple(ratio.shape)
        raise ValueError(f"task {task} needs {num_queries} positive ratios, got {shape}; see POSITIVE_RATIO")
    if not bool(((ratio >= 0) & (ratio <= 1)).all()):
        raise ValueError(f"positive ratios of task {task} must lie in 0 ... 1, got {ratio.tolist()}")
    return ratio.to(torch.float32)
