"""What a frozen encoder knows about people: ReID without training, attributes and keypoints by ridge regression.

The encoder is taken as joint training takes it, without a class token, in eval mode and float32.  Every picture is
resized (ReID, attributes) or cut out of its image (keypoints, UDP's crop of the labelled box) to one size, without
augmentation.  Nothing is drawn, so the same encoder always gets the same numbers.

- ReID: the mean over the tokens, L2-normalised; Market-1501's protocol on the test split, nothing is fitted.
- Attributes: mean and maximum over the tokens -> 0 or 1 by ridge regression in which the people who have an attribute
  weigh as much as those who do not, because mA does; present above 0.5.  mA on the test split.
- Keypoints: all tokens in their places -> x and y of every keypoint as fractions of the crop, by ridge regression on
  the labelled ones.  PCK@0.2 of the torso in source pixels on the test split.

Features of a regression are standardised by the mean and deviation of the training split.  Its strength is the one of
``ridge.STRENGTHS`` that predicts the last fifth of the training split best from the rest (a validation split may be too
small for that: the embedded PA-100K's has 20 people), then everything is fitted with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unihap.data.geometry import invert, transform_points
from unihap.data.loader import TaskDataset, collate, evaluation_loader
from unihap.data.samplers import EvaluationSampler
from unihap.data.transforms import Transform, attributes_transform, pose_transform, reid_transform
from unihap.engine.extract import encode_nothing
from unihap.engine.ridge import fit_chosen
from unihap.evaluation import attributes, pose, reid
from unihap.evaluation.pose_metrics import pck
from unihap.models.encoder import Encoder
from unihap.structures import AttributesLabel, Batch, Dataset, PoseLabel

METRICS = ("reid_mAP", "attributes_mA", "keypoints_PCK")


@dataclass(frozen=True)
class ProbeSets:
    """Labelled pictures that no encoder was pre-trained on.

    Attributes:
        reid: queries and gallery.
        attributes: to fit, and to judge.
        keypoints: to fit, and to judge.
    """

    reid: Dataset
    attributes: tuple[Dataset, Dataset]
    keypoints: tuple[Dataset, Dataset]


def reid_probe(features: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Ranks (N, F) features of a dataset's records; ``reid_mAP`` and ``reid_rank1`` in percent."""
    rows = [{"id": record.id, "feature": feature} for record, feature in zip(dataset.records, features, strict=True)]
    metrics = reid.summary(rows, dataset)
    return {f"reid_{name}": metrics[name] for name in ("mAP", "rank1")}


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """(N, A) weights of labels 1, 0 and -1: present and absent weigh 1 each in sum, unknown nothing."""
    present, absent = labels == 1, labels == 0
    counts = [np.maximum(which.sum(axis=0), 1) for which in (present, absent)]
    return present / counts[0] + absent / counts[1]


def attributes_probe(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Fits attributes on one split and judges them on another.

    Args:
        features: (N, F).
        labels: (N, A), 1 present, 0 absent, -1 unknown.
        test_features: (M, F).
        test_labels: (M, A).

    Returns:
        ``attributes_mA`` in percent and ``attributes_strength``.
    """
    fit, strength = fit_chosen(features, labels, balanced_weights(labels))
    predicted = fit(test_features).clip(0, 1)
    return {
        "attributes_mA": attributes.attribute_metrics(test_labels, predicted)["mA"],
        "attributes_strength": strength,
    }


@dataclass(frozen=True)
class Poses:
    """Labelled people in crops of one size.

    Attributes:
        keypoints: (N, K, 3) x, y in source pixels, labelled (1) or not (0).
        matrices: (N, 2, 3) source pixels to crop pixels.
        size: (height, width) of a crop.
    """

    keypoints: np.ndarray
    matrices: np.ndarray
    size: tuple[int, int]

    def fractions(self) -> np.ndarray:
        """(N, 2 K) x and y of every keypoint as fractions of its crop's width and height."""
        points = [transform_points(m, p) for m, p in zip(self.matrices, self.keypoints[..., :2], strict=True)]
        return (np.stack(points) / (self.size[1], self.size[0])).reshape(len(points), -1)

    def to_source(self, fractions: np.ndarray) -> np.ndarray:
        """(N, K, 2) source pixels of (N, 2 K) fractions."""
        points = fractions.reshape(*self.keypoints.shape[:2], 2) * (self.size[1], self.size[0])
        return np.stack([transform_points(invert(m), p) for m, p in zip(self.matrices, points, strict=True)])


def keypoints_probe(
    features: np.ndarray, poses: Poses, test_features: np.ndarray, test_poses: Poses, torso: tuple[int, int]
) -> dict[str, float]:
    """Fits keypoints on one split and judges them on another.

    Args:
        features: (N, F).
        poses: of N people.
        test_features: (M, F).
        test_poses: of M people.
        torso: numbers of the left shoulder and the right hip.

    Returns:
        ``keypoints_PCK`` in percent (NaN if nobody has a torso) and ``keypoints_strength``.
    """
    targets, weights = poses.fractions(), np.repeat(poses.keypoints[..., 2] > 0, 2, axis=1).astype(np.float64)
    fit, strength = fit_chosen(features, targets, weights)
    predicted = test_poses.to_source(fit(test_features))
    found = pck(predicted, test_poses.keypoints[..., :2], test_poses.keypoints[..., 2] > 0, torso)
    return {"keypoints_PCK": found, "keypoints_strength": strength}


# ------------------------------------------------------------------------------------------- from an encoder

Pool = Callable[[Tensor], Tensor]


def mean_pool(maps: Tensor) -> Tensor:
    """(B, D) of (B, D, h, w)."""
    return maps.mean(dim=(-2, -1))


def mean_max_pool(maps: Tensor) -> Tensor:
    """(B, 2 D) of (B, D, h, w)."""
    return torch.cat([mean_pool(maps), maps.amax(dim=(-2, -1))], dim=1)


def keep_places(maps: Tensor) -> Tensor:
    """(B, D * h * w) of (B, D, h, w)."""
    return maps.flatten(1)


@torch.inference_mode()
def features_of(
    encoder: Encoder, dataset: Dataset, transform: Transform, pool: Pool, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Features of all records, in their order.

    Args:
        encoder: frozen, in eval mode, on its device.
        dataset: the records.
        transform: to the size that the encoder sees.
        pool: token maps to features.
        batch_size: pictures encoded at once.

    Returns:
        (N, F) float32, and (N, 2, 3) maps from source to input pixels.

    Raises:
        BadImageError: a picture cannot be read; results on fewer pictures would not be comparable.
    """
    samples = TaskDataset(dataset, transform, encode_nothing, seed=0)
    sampler = EvaluationSampler(len(dataset.records), batch_size)
    device = next(encoder.parameters()).device
    features, matrices = [], []
    batch: Batch
    for batch in evaluation_loader(samples, sampler, partial(collate, dataset.name), num_workers=0):
        features.append(pool(encoder(batch.images.to(device))).float().cpu().numpy())
        matrices.append(batch.matrices)
    return np.concatenate(features), np.concatenate(matrices)


def probe(encoder: Encoder, sets: ProbeSets, size: tuple[int, int]) -> dict[str, float]:
    """Everything of this module on one encoder, which is left in eval mode.

    Args:
        encoder: on its device.
        sets: see ``ProbeSets``.
        size: (height, width) of every crop, the one it was pre-trained on.

    Returns:
        ``METRICS`` in percent, ``reid_rank1``, and the chosen strengths.

    Raises:
        BadImageError: a picture cannot be read.
        ValueError: a dataset that cannot be judged; ``blind_guess`` says so early.
    """
    encoder.eval()
    result = reid_probe(features_of(encoder, sets.reid, reid_transform(size, train=False), mean_pool)[0], sets.reid)
    as_attributes = attributes_transform(size, train=False)
    train, test = (features_of(encoder, dataset, as_attributes, mean_max_pool)[0] for dataset in sets.attributes)
    result |= attributes_probe(train, _labels(sets.attributes[0]), test, _labels(sets.attributes[1]))
    posed = [_poses(encoder, dataset, size) for dataset in sets.keypoints]
    return result | keypoints_probe(*posed[0], *posed[1], _torso(sets.keypoints[1]))


def blind_guess(sets: ProbeSets) -> dict[str, float]:
    """``METRICS`` in percent without looking: a random ranking, a constant answer, one pose for everybody's box.

    Raises:
        ValueError: a dataset on which one of them has no value.
    """
    people = sets.keypoints[1]
    guessed = pose.chance(people)
    if pose.PCK not in guessed:
        raise ValueError(f"nobody in {people.name} has a torso ({' and '.join(pose.TORSO)}) to measure by")
    guesses = (reid.chance(sets.reid)[reid.MAIN_METRIC], attributes.chance(sets.attributes[1])[attributes.MAIN_METRIC])
    return dict(zip(METRICS, (*guesses, guessed[pose.PCK]), strict=True))


def _labels(dataset: Dataset) -> np.ndarray:
    """(N, A) attributes of the records."""
    labels = [record.label.values for record in dataset.records if isinstance(record.label, AttributesLabel)]
    assert len(labels) == len(dataset.records)
    return np.stack(labels)


def _poses(encoder: Encoder, dataset: Dataset, size: tuple[int, int]) -> tuple[np.ndarray, Poses]:
    """Features and labels of a pose dataset."""
    transform = pose_transform(size, mirror=dataset.mirror, upper_body=dataset.upper_body, train=False)
    features, matrices = features_of(encoder, dataset, transform, keep_places)
    labels = [record.label for record in dataset.records if isinstance(record.label, PoseLabel)]
    assert len(labels) == len(features)
    return features, Poses(np.stack([label.keypoints for label in labels]).astype(np.float64), matrices, size)


def _torso(dataset: Dataset) -> tuple[int, int]:
    """Numbers of the keypoints that span the torso."""
    shoulder, hip = (dataset.classes.index(name) for name in pose.TORSO)
    return shoulder, hip
