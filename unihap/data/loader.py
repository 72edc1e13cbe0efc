"""From records to batches: reading, transforming, encoding, and the worker processes that do it."""

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from typing import Any, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from unihap.data.crop_records import is_packed
from unihap.data.images import BadImageError, read_image
from unihap.data.samplers import EvaluationSampler, SlotSampler
from unihap.data.shared import SharedRecords
from unihap.data.transforms import Transform
from unihap.structures import Batch, Dataset, Label, ParsingLabel, Record, Sample, Target

logger = logging.getLogger(__name__)

Encode = Callable[[Label, tuple[int, int]], dict[str, Tensor]]
Key = tuple[int, int] | int
Collate = Callable[[list[Any]], Any]

MAX_REPLACEMENTS = 100  # more unreadable images in a row than this are no accident


class Shareable(Protocol):
    """Samples by (draw, index) that can be handed to worker processes without copying their records."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> Any:
        """One sample."""

    def share(self) -> "Shareable":
        """The same samples, with records that worker processes do not copy."""


@dataclass(frozen=True)
class Unreadable:
    """Stands where a sample should be whose image could not be read at evaluation."""

    record: Record


class TaskDataset(TorchDataset[Sample | Unreadable]):
    """The samples of one task.

    A key (draw, index) asks for record ``index`` augmented with random numbers that depend on (seed, draw) alone;
    draws are numbered by ``SlotSampler``.  A key ``index`` asks for the record as evaluation needs it: a record
    that cannot be read is then never replaced by another.

    Workers receive this object by pickling: ``transform``, ``encode`` and ``dataset.read_label_map`` must be
    module-level functions or ``partial`` of such.

    Args:
        dataset: the records.
        transform: source image to network input.
        encode: label in input pixels and (H, W) to the fields of ``Target``, without a batch axis.
        seed: of all augmentation.
        on_bad_image: ``error`` raises; ``skip`` takes the next readable record (training) or gives ``Unreadable``
            (evaluation).

    Raises:
        ValueError: ``on_bad_image`` is neither.
    """

    def __init__(
        self, dataset: Dataset, transform: Transform, encode: Encode, *, seed: int, on_bad_image: str = "error"
    ) -> None:
        if on_bad_image not in ("error", "skip"):
            raise ValueError(f"on_bad_image must be error or skip, not {on_bad_image!r}")
        self.dataset = dataset
        self.transform = transform
        self.encode = encode
        self.seed = seed
        self.on_bad_image = on_bad_image
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self.dataset.records)

    def share(self) -> "TaskDataset":
        """The same samples, with records that worker processes do not copy."""
        records = self.dataset.records
        dataset = replace(self.dataset, records=records if is_packed(records) else SharedRecords(records))
        return TaskDataset(dataset, self.transform, self.encode, seed=self.seed, on_bad_image=self.on_bad_image)

    def __getitem__(self, key: Key) -> Sample | Unreadable:
        """One sample.

        Raises:
            BadImageError: a record could not be read and ``on_bad_image`` is ``error``, or none in a row could.
            ValueError: the transform refused the record's label.
        """
        training = isinstance(key, tuple)
        draw, index = key if isinstance(key, tuple) else (key, key)
        skipped: list[str] = []
        while True:
            record = self.dataset.records[index]
            try:
                image, label = self._read(record)
                break
            except BadImageError as error:
                self._report(record, error)
                if not training:
                    return Unreadable(record)
                skipped.append(record.id)
                if len(skipped) >= min(len(self), MAX_REPLACEMENTS):
                    raise BadImageError(f"{len(skipped)} records in a row cannot be read; the last: {error}") from error
                index = (index + 1) % len(self)
        return self._sample(record, image, label, np.random.default_rng([self.seed, draw]), tuple(skipped))

    def _read(self, record: Record) -> tuple[np.ndarray, Label]:
        """Image and label with everything that is in files."""
        image = read_image(record.image)
        label = record.label
        if isinstance(label, ParsingLabel) and label.label_map is None and self.dataset.read_label_map is not None:
            label_map = self.dataset.read_label_map(label.path)
            if label_map.shape != image.shape[:2]:
                raise BadImageError(
                    f"label map {label.path} is {label_map.shape} and its image {record.image} {image.shape[:2]} pixels"
                )
            label = replace(label, label_map=label_map)
        return image, label

    def _report(self, record: Record, error: BadImageError) -> None:
        """Raises, or logs every record once."""
        message = f"record {record.id} of {self.dataset.name}, image {record.image}: {error}"
        if self.on_bad_image == "error":
            raise BadImageError(f"{message} (DATA.ON_BAD_IMAGE skip goes on without it)") from error
        if record.id not in self._reported:
            self._reported.add(record.id)
            logger.warning("skipped %s", message)

    def _sample(
        self, record: Record, image: np.ndarray, label: Label, rng: np.random.Generator, skipped: tuple[str, ...]
    ) -> Sample:
        try:
            transformed = self.transform(image, label, rng)
        except ValueError as error:
            raise ValueError(f"record {record.id} of {self.dataset.name}: {error}") from error
        pixels = np.ascontiguousarray(transformed.image.transpose(2, 0, 1))
        height, width = pixels.shape[1:]
        return Sample(
            record=record,
            image=torch.from_numpy(pixels),
            target=self.encode(transformed.label, (height, width)),
            matrix=transformed.matrix,
            source_size=(image.shape[0], image.shape[1]),
            skipped=skipped,
        )


# ---------------------------------------------------------------------------------------------- batching


def _pad(tensor: Tensor, size: tuple[int, int], value: int) -> Tensor:
    """(..., H, W) padded right and bottom to ``size``."""
    bottom, right = size[0] - tensor.shape[-2], size[1] - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, right, 0, bottom), value=value)


def collate(task: str, samples: Sequence[Sample | Unreadable], pad_multiple: int = 1) -> Batch:
    """Stacks samples to a batch.

    Images of different sizes are padded right and bottom with black, label maps with 255, to the smallest common
    size whose sides are multiples of ``pad_multiple``.  Boxes become fractions of that size.

    Args:
        task: of all samples.
        samples: one or more; ``Unreadable`` ones are left out and named in ``Batch.skipped``.
        pad_multiple: see above.

    Returns:
        The batch; when all samples are ``Unreadable`` its length is 0 and it has no pixels.
    """
    readable = [sample for sample in samples if isinstance(sample, Sample)]
    skipped = [sample.record.id for sample in samples if isinstance(sample, Unreadable)]
    skipped += [record_id for sample in readable for record_id in sample.skipped]
    sizes = torch.tensor([sample.image.shape[-2:] for sample in readable], dtype=torch.int64).reshape(-1, 2)
    if readable:
        height, width = (-(-int(side) // pad_multiple) * pad_multiple for side in sizes.max(dim=0).values)
    else:
        height, width = 0, 0
    is_padded = bool((sizes != torch.tensor([height, width])).any())
    images = [_pad(sample.image, (height, width), 0) for sample in readable]
    return Batch(
        task=task,
        images=torch.stack(images) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        sizes=sizes if is_padded else None,
        target=_collate_targets([sample.target for sample in readable], (height, width)),
        records=[sample.record for sample in readable],
        matrices=np.array([sample.matrix for sample in readable], dtype=np.float64).reshape(-1, 2, 3),
        source_sizes=[sample.source_size for sample in readable],
        skipped=tuple(skipped),
    )


def _collate_targets(targets: Sequence[dict[str, Tensor]], size: tuple[int, int]) -> Target:
    height, width = size
    batched: dict[str, Tensor | list[Tensor]] = {}
    for name in targets[0] if targets else ():
        values = [target[name] for target in targets]
        if name in ("box", "ignore_box"):
            batched[name] = [box / box.new_tensor([width, height, width, height]) for box in values]
        elif name == "label_map":
            batched[name] = torch.stack([_pad(value, size, 255) for value in values])
        else:
            batched[name] = torch.stack(values)
    return Target(**batched)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------- workers


def train_loader(dataset: Shareable, sampler: SlotSampler, collate_fn: Collate, num_workers: int) -> DataLoader[Any]:
    """Loads the batches of ``sampler`` for training.

    Args:
        dataset: the samples.
        sampler: which batches.
        collate_fn: ``partial(collate, task, pad_multiple=...)`` with the task's arguments.
        num_workers: processes that read; 0 reads in this one.  The batches do not depend on it.
    """
    return _loader(dataset, sampler, collate_fn, num_workers, keep_workers=True)


def evaluation_loader(
    dataset: Shareable, sampler: EvaluationSampler, collate_fn: Collate, num_workers: int
) -> DataLoader[Any]:
    """Loads this process's share of an evaluation; arguments as in ``train_loader``.

    Its workers end with the last batch: a process may evaluate many datasets in turn.
    """
    return _loader(dataset, sampler, collate_fn, num_workers, keep_workers=False)


def _loader(
    dataset: Shareable,
    sampler: SlotSampler | EvaluationSampler,
    collate_fn: Collate,
    num_workers: int,
    *,
    keep_workers: bool,
) -> DataLoader[Any]:
    return DataLoader(
        cast("TorchDataset[Any]", dataset.share() if num_workers else dataset),
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=num_workers,
        multiprocessing_context=_worker_context() if num_workers else None,
        persistent_workers=keep_workers and num_workers > 0,
        worker_init_fn=_prepare_worker,
        pin_memory=torch.cuda.is_available(),
    )


def _worker_context() -> BaseContext:
    """How worker processes start: never by forking this process, which may hold threads and a CUDA context.

    A fork server is a clean process that imports this module once; its forks start in a fraction of the seconds
    that importing torch takes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _prepare_worker(worker: int) -> None:
    """Workers are the parallelism; OpenCV's threads would compete for the same cores (torch limits its own)."""
    cv2.setNumThreads(0)
