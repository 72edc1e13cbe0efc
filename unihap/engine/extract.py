"""Keypoints for a folder of person crops: a detector looks at every crop once and fills the index."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from unihap.data.crop_records import CropRecords
from unihap.data.crops import Transformed
from unihap.data.keypoint_index import NUM_KEYPOINTS, KeypointIndex, make_index, read_index, write_index
from unihap.data.loader import TaskDataset, collate, evaluation_loader
from unihap.data.samplers import EvaluationSampler
from unihap.data.transforms import Transform
from unihap.engine.evaluate import predict_batch
from unihap.engine.events import duration
from unihap.models.unihap import UniHAP
from unihap.structures import Batch, Dataset, Label, PoseLabel
from unihap.tasks.task import Task

logger = logging.getLogger(__name__)


class Detector(Protocol):
    """Finds the one person of a crop.

    Attributes:
        name: for messages.
        source: which detector this is, in words that two detectors do not share.
        transform: a crop to the detector's input.
    """

    name: str
    source: str
    transform: Transform

    def __call__(self, batch: Batch) -> np.ndarray:
        """(B, 17, 3) x, y, score of each keypoint in source pixels, COCO's order."""


@dataclass(frozen=True)
class WholeCrop:
    """Gives a pose transform the whole image as the person's box.

    The corner is the last pixel, as in boxes clipped to their image (``unihap.data.pose.clip_coco_box``).
    """

    transform: Transform

    def __call__(self, image: np.ndarray, label: Label, rng: np.random.Generator) -> Transformed:
        """Transforms (H, W, 3) uint8."""
        height, width = image.shape[:2]
        box = np.array([0.0, 0.0, max(width - 1, 1), max(height - 1, 1)])
        return self.transform(image, PoseLabel(np.zeros((NUM_KEYPOINTS, 3)), box, image_id=0), rng)


class TaskDetector:
    """A pose task of ours, decoded as its evaluation does; the score is the peak of a keypoint's heatmap.

    Args:
        model: on its device, in eval mode.
        task: a pose task with COCO's keypoints.
        flip: average with the mirrored crop.
        autocast: dtype of the model's matrix products, or ``None``.
        source: see ``Detector``.

    Raises:
        ValueError: the model does not serve the task, or the task has other keypoints.
    """

    def __init__(
        self, model: UniHAP, task: Task, *, flip: bool = False, autocast: torch.dtype | None = None, source: str
    ) -> None:
        self.name = task.spec.name
        if self.name not in model.tasks:
            raise ValueError(f"the model has no task {self.name}; it has {', '.join(model.tasks)}")
        if task.kind != "pose" or task.spec.num_queries != NUM_KEYPOINTS:
            raise ValueError(f"task {self.name} does not predict COCO's {NUM_KEYPOINTS} keypoints; use one that does")
        self.model = model
        self.task = task
        self.flip = flip
        self.autocast = autocast
        self.source = source
        self.transform: Transform = WholeCrop(task.transform(train=False))

    def __call__(self, batch: Batch) -> np.ndarray:
        """See ``Detector``."""
        results = predict_batch(self.model, self.task, batch, self.flip, self.autocast)
        return np.stack([result["keypoints"] for result in results])


def encode_nothing(label: Label, size: tuple[int, int]) -> dict[str, Tensor]:
    """For samples without a target."""
    return {}


@dataclass
class Extraction:
    """What an extraction did.

    Attributes:
        num_known: crops that the index had before.
        num_new: crops that came to it.
        num_without_person: those of them in which nobody was found.
        unreadable: ids of crops that could not be read; they are not in the index.
    """

    num_known: int = 0
    num_new: int = 0
    num_without_person: int = 0
    unreadable: tuple[str, ...] = ()


class OtherDetectorError(ValueError):
    """An index that another detector began."""


def begin_index(path: Path, source: str, precision: str) -> KeypointIndex:
    """The index that is there, or an empty one, written at once to see that it can be.

    Raises:
        ValueError: it is no index.
        OtherDetectorError: another detector began it.
    """
    if not path.is_file():
        write_index(path, make_index([], [], precision, source))
    index = read_index(path)
    if index.source != source:
        raise OtherDetectorError(
            f"{path} lacks crops and was begun by {index.source or 'another source'}, not by {source}; "
            "give another --out"
        )
    return index


def missing_names(names: Sequence[str], path: Path) -> list[str]:
    """Those of some names that an index file does not have; all of them when there is no file."""
    known = set(read_index(path).names.tolist()) if path.is_file() else set()
    return [name for name in names if name.encode() not in known]


def extract(
    folder: Path,
    names: Sequence[str],
    path: Path,
    detector: Detector,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    precision: str = "float32",
    min_score: float = 0.0,
    on_bad_image: str = "skip",
    save_period: float = 300.0,
) -> Extraction:
    """Adds the crops that an index lacks; stopped at any moment, it goes on from the last save.

    Args:
        folder: of the crops.
        names: their paths under it.
        path: the index, new or begun by the same detector.
        detector: who finds the keypoints.
        batch_size: crops in a batch.
        num_workers: processes that read.
        precision: of a new index.
        min_score: a crop has nobody when its best keypoint scores less.
        on_bad_image: ``skip`` leaves unreadable crops out and counts them, ``error`` raises.
        save_period: seconds between two saves; the index is also saved at the end and on any error.

    Raises:
        BadImageError: an unreadable crop, with ``error``.
        OtherDetectorError: the index lacks crops and another detector began it.
        RuntimeError: the detector gave numbers that are not finite.
    """
    todo = missing_names(names, path)
    done = Extraction(num_known=len(names) - len(todo))
    if not todo:
        return done
    index = begin_index(path, detector.source, precision)
    crops = Dataset(str(folder), "unlabelled", CropRecords(folder, todo))
    samples = TaskDataset(crops, detector.transform, encode_nothing, seed=0, on_bad_image=on_bad_image)
    loader = evaluation_loader(
        samples, EvaluationSampler(len(todo), batch_size), partial(collate, detector.name), num_workers
    )
    new_names: list[str] = []
    people: list[np.ndarray | None] = []
    start = saved = time.monotonic()
    progress = tqdm(total=len(names), initial=done.num_known, desc="keypoints", unit="crop", disable=None)
    try:
        for batch in loader:
            done.unreadable += batch.skipped
            if len(batch):
                people += found(detector(batch), batch, min_score)
                new_names += [record.id for record in batch.records]
            progress.update(len(batch) + len(batch.skipped))
            if time.monotonic() - saved >= save_period:
                index = save(path, index, new_names, people, done)
                saved = time.monotonic()
                log_progress(done, len(todo), saved - start)
    finally:
        progress.close()
        if new_names:
            save(path, index, new_names, people, done)
    return done


def found(keypoints: np.ndarray, batch: Batch, min_score: float) -> list[np.ndarray | None]:
    """(17, 3) of each crop, ``None`` where no keypoint reaches ``min_score``.

    Raises:
        RuntimeError: a number is not finite.
    """
    for points, record in zip(keypoints, batch.records, strict=True):
        if not np.isfinite(points).all():
            raise RuntimeError(f"the detector gave numbers that are not finite for {record.image}; use other weights")
    return [points if points[:, 2].max() >= min_score else None for points in keypoints]


def save(
    path: Path, index: KeypointIndex, names: list[str], people: list[np.ndarray | None], done: Extraction
) -> KeypointIndex:
    """Writes the index with what was found since the last save, which is counted and forgotten."""
    index = index.extended(make_index(names, people, str(index.keypoints.dtype)))
    write_index(path, index)
    done.num_new += len(names)
    done.num_without_person += sum(person is None for person in people)
    names.clear()
    people.clear()
    return index


def log_progress(done: Extraction, num_todo: int, seconds: float) -> None:
    """Count, rate and time left."""
    finished = done.num_new + len(done.unreadable)
    rate = finished / seconds
    logger.info(
        "%d of %d crops, %.1f a second, %s left", finished, num_todo, rate, duration((num_todo - finished) / rate)
    )


def summary(done: Extraction, path: Path, shown: int = 5) -> Sequence[str]:
    """Lines that say what an extraction did."""
    lines = [f"{path}: {done.num_known} crops were there, {done.num_new} are new"]
    if done.num_without_person:
        lines.append(f"nobody was found in {done.num_without_person} of the new ones")
    if done.unreadable:
        lines.append(f"{len(done.unreadable)} crops cannot be read: {', '.join(done.unreadable[:shown])}")
    return lines
