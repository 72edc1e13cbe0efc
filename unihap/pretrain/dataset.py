"""Person crops for pre-training: a random crop that knows about keypoints, and masks drawn from them.

After HAP (Yuan et al., NeurIPS 2023), section 3 and appendix.  Everything random about a sample depends on
(seed, draw number) alone, as in joint training, and is drawn where the image is read, in the data workers.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from unihap.data.crop_records import CropLabel
from unihap.data.crops import Transformed
from unihap.data.geometry import is_mirrored, mirror_order, resize_matrix, transform_points
from unihap.data.loader import TaskDataset, train_loader
from unihap.data.samplers import ShuffledBatches, SlotSampler
from unihap.data.skeletons import SKELETONS
from unihap.pretrain.part_masking import Masking, release_masks
from unihap.pretrain.structures import PretrainBatch, PretrainSample
from unihap.structures import Dataset, Label, Sample

ABSENT = -1.0
NUM_KEYPOINTS = 17
MIRROR = mirror_order(NUM_KEYPOINTS, SKELETONS["coco"].mirror)
RATIO = (3 / 4, 4 / 3)  # of a crop's aspect to that of the network input
ENDLESS = 2**40
SHRINKING = ("part", "keypoint")  # guidances of which the released code asks for fewer and fewer along a batch


@dataclass(frozen=True)
class MaskedLabel(Label):
    """A crop's label in network input: keypoints (17, 3) as in ``PretrainSample`` and masks (V, gh, gw) bool."""

    keypoints: np.ndarray
    masks: np.ndarray


def sanitise(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Keypoints outside an image of (height, width), or without a finite position, become -1, -1, -1.

    A keypoint is inside when 0 <= x < width and 0 <= y < height (the released code's rule); its score is not asked.

    Returns:
        A (17, 3) float64 copy.
    """
    keypoints = np.array(keypoints, dtype=np.float64)
    x, y = keypoints[:, 0], keypoints[:, 1]
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])  # False for nan
    keypoints[~inside] = ABSENT
    return np.nan_to_num(keypoints, nan=0.0)  # a score of nan, of a keypoint that is there


class CropTransform:
    """Random resized crop and horizontal flip, keypoints with them, and the masks.

    Left and right keypoints change places in a flipped crop.  albumentations makes the picture and carries three
    corners along, from which the map is read; its resize lacks the half-pixel shift of pixel centres, which is put
    right here (1.5 pixels of the crop where an image grows fourfold).

    Args:
        masking: how masks are drawn.
        size: (height, width) of the network input.
        num_views: masks of a crop.
        crop_scale: smallest and largest area of a crop as a share of the image, uniform.
        crop_ratio: smallest and largest aspect width / height of a crop, uniform in its logarithm.
        flip: probability of a flip.
        augment: False takes the whole image as it is, resized; masks are drawn all the same.
    """

    def __init__(
        self,
        masking: Masking,
        size: tuple[int, int],
        *,
        num_views: int,
        crop_scale: tuple[float, float],
        crop_ratio: tuple[float, float],
        flip: float,
        augment: bool,
    ) -> None:
        self.masking = masking
        self.size = size
        self.num_views = num_views
        self.compose: A.Compose | None = None
        if augment:
            crop = A.RandomResizedCrop(size, scale=crop_scale, ratio=crop_ratio, interpolation=cv2.INTER_CUBIC, p=1)
            keypoint_params = A.KeypointParams(format="xy", remove_invisible=False)
            self.compose = A.Compose([crop, A.HorizontalFlip(p=flip)], keypoint_params=keypoint_params)

    def __call__(self, image: np.ndarray, label: Label, rng: np.random.Generator) -> Transformed:
        """Crops (H, W, 3) uint8; a label other than ``CropLabel`` says nothing about keypoints."""
        given = label.keypoints if isinstance(label, CropLabel) else None
        source_size = (image.shape[0], image.shape[1])
        image, matrix = self._crop(image, rng)
        keypoints = np.full((NUM_KEYPOINTS, 3), ABSENT)
        if given is not None:
            keypoints = self._move(sanitise(given, source_size), matrix)
        masks = [self.masking.draw(keypoints, rng) for _ in range(self.num_views)]
        return Transformed(image, MaskedLabel(keypoints.astype(np.float32), np.stack(masks)), matrix)

    def _crop(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The network input and its map."""
        height, width = image.shape[:2]
        if self.compose is None:
            resized = cv2.resize(image, (self.size[1], self.size[0]), interpolation=cv2.INTER_CUBIC)
            return resized, resize_matrix((height, width), self.size)
        # one stream for all transforms, see unihap.data.transforms
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        corners = np.array([[0, 0], [width, 0], [0, height]], dtype=np.float64)
        outputs = self.compose(image=image, keypoints=corners)
        origin, right, bottom = np.asarray(outputs["keypoints"], dtype=np.float64)
        matrix = np.stack([(right - origin) / width, (bottom - origin) / height, origin], axis=1)
        scale = np.diag(matrix)  # nothing is rotated; negative where x is mirrored
        matrix[:, 2] += (scale - np.sign(scale)) / 2
        return outputs["image"], matrix

    def _move(self, keypoints: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """(17, 3) keypoints of the source, sanitised, as keypoints of the crop."""
        absent = keypoints[:, 0] == ABSENT
        keypoints[:, :2] = transform_points(matrix, keypoints[:, :2])
        keypoints[absent] = ABSENT
        if is_mirrored(matrix):
            keypoints = keypoints[MIRROR]
        return sanitise(keypoints, self.size)


def _encode(label: Label, size: tuple[int, int]) -> dict[str, Tensor]:
    assert isinstance(label, MaskedLabel)
    return {"keypoints": torch.from_numpy(label.keypoints), "masks": torch.from_numpy(label.masks)}


def _check_rising(what: str, limits: tuple[float, float], highest: float) -> None:
    if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= highest:
        raise ValueError(f"{what} must be two rising numbers above 0 and at most {highest:g}, got {tuple(limits)}")


class PersonCrops(TorchDataset[PretrainSample]):
    """The samples of pre-training.

    A key (draw, index) asks for record ``index`` with random numbers of (seed, draw); a key ``index`` is (index,
    index).  An image that cannot be read is an error, or the next readable one takes its place.

    Args:
        dataset: crops; of labels only the keypoints of ``CropLabel`` are used.  See ``unihap.data.unlabelled`` for
            how to read and ``join`` several.
        masking: how masks are drawn; its grid and patch fix the network input.
        size: (height, width) of the network input in pixels.
        num_views: independent masks of the same crop, V.
        crop_scale: smallest and largest area of the random crop as a share of the image (the paper's "scaling
            ratio" is the smallest).
        crop_ratio: smallest and largest aspect width / height of the crop; 3/4 and 4/3 of the input's by default,
            (0.375, 0.6667) for 256x128.
        flip: probability of a horizontal flip.
        seed: of everything random, also of the order.
        on_bad_image: ``error`` or ``skip``.
        augment: False takes whole images instead of random crops.

    Raises:
        ValueError: an impossible value.
    """

    def __init__(
        self,
        dataset: Dataset,
        masking: Masking,
        *,
        size: tuple[int, int] = (256, 128),
        num_views: int = 2,
        crop_scale: tuple[float, float] = (0.8, 1.0),
        crop_ratio: tuple[float, float] | None = None,
        flip: float = 0.5,
        seed: int,
        on_bad_image: str = "error",
        augment: bool = True,
    ) -> None:
        height, width = size
        if (height, width) != (masking.grid[0] * masking.patch, masking.grid[1] * masking.patch):
            raise ValueError(
                f"network input of {height} x {width} pixels is not the grid {tuple(masking.grid)} of patches of "
                f"{masking.patch} pixels"
            )
        if crop_ratio is None:
            crop_ratio = (RATIO[0] * width / height, RATIO[1] * width / height)
        _check_rising("crop scale", crop_scale, 1.0)
        _check_rising("crop ratio", crop_ratio, float("inf"))
        if not 0 <= flip <= 1:
            raise ValueError(f"the probability of a flip must be from 0 to 1, got {flip}")
        if num_views < 1:
            raise ValueError(f"a crop needs at least one mask, got {num_views}")
        transform = CropTransform(
            masking,
            (height, width),
            num_views=num_views,
            crop_scale=(crop_scale[0], crop_scale[1]),
            crop_ratio=(crop_ratio[0], crop_ratio[1]),
            flip=flip,
            augment=augment,
        )
        self.masking = masking
        self.seed = seed
        self.samples = TaskDataset(dataset, transform, _encode, seed=seed, on_bad_image=on_bad_image)

    def __len__(self) -> int:
        return len(self.samples)

    def share(self) -> "PersonCrops":
        """The same samples, with records that worker processes do not copy."""
        shared = copy.copy(self)
        shared.samples = self.samples.share()
        return shared

    def __getitem__(self, key: tuple[int, int] | int) -> PretrainSample:
        """One sample.

        Raises:
            BadImageError: a record could not be read and ``on_bad_image`` is ``error``, or none in a row could.
            ValueError: keypoints that are no keypoints.
        """
        draw, index = key if isinstance(key, tuple) else (key, key)
        sample = self.samples[draw, index]
        assert isinstance(sample, Sample)
        return PretrainSample(
            image=sample.image,
            masks=sample.target["masks"],
            keypoints=sample.target["keypoints"],
            path=sample.record.image,
            draw=draw,
            skipped=sample.skipped,
        )

    def collate(self, samples: Sequence[PretrainSample]) -> PretrainBatch:
        """Stacks samples, all of one batch.

        In the released code the number of body parts shrinks along a batch (``release_masks``), so that with
        ``compat="release"`` the masks can only be drawn here.
        """
        batch = collate(samples)
        if self.masking.compat != "release" or self.masking.guidance not in SHRINKING or self.masking.num_range[0] > 0:
            return batch
        # as many numbers as no other generator of a run is seeded with, see unihap.data.samplers
        rng = np.random.default_rng([self.seed, 3, samples[0].draw, 1])
        people = [keypoints.numpy() for keypoints in batch.keypoints]
        views = [release_masks(people, self.masking, rng) for _ in range(batch.masks.shape[1])]
        return replace(batch, masks=torch.from_numpy(np.stack(views, axis=1)))


def collate(samples: Sequence[PretrainSample]) -> PretrainBatch:
    """Stacks samples as they are; ``PersonCrops.collate`` is the one to train with."""
    return PretrainBatch(
        images=torch.stack([sample.image for sample in samples]),
        masks=torch.stack([sample.masks for sample in samples]),
        keypoints=torch.stack([sample.keypoints for sample in samples]),
        paths=tuple(sample.path for sample in samples),
        skipped=tuple(record for sample in samples for record in sample.skipped),
    )


def pretrain_batches(
    crops: PersonCrops,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    first_iteration: int = 0,
    last_iteration: int | None = None,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """The batches of one process, shuffled anew every epoch; iterating gives one ``PretrainBatch`` after another.

    An iteration takes world_size * accumulate batches; over all of them every epoch holds each crop once.  Nothing
    has to be saved to go on: the same arguments and a later ``first_iteration`` give the batches that would have
    come then, for any number of workers.

    Args:
        crops: the samples; their seed is that of the order.
        batch_size: samples in a batch of one process.
        rank: number of this process.
        world_size: number of processes.
        accumulate: batches of each process in an iteration, one after the other.
        first_iteration: where to start.
        last_iteration: where to stop; ``None`` never stops.
        num_workers: processes that read; 0 reads in this one.

    Raises:
        ValueError: no crops, no such process, or numbers that are not positive.
    """
    if not 0 <= rank < world_size or accumulate < 1:
        raise ValueError(f"process {rank} of {world_size} cannot take {accumulate} batches of an iteration")
    slots = range(rank * accumulate, (rank + 1) * accumulate)
    batches = ShuffledBatches(len(crops), batch_size, crops.seed)
    last = ENDLESS if last_iteration is None else last_iteration
    sampler = SlotSampler(batches, slots, world_size * accumulate, first_iteration, last)
    return train_loader(crops, sampler, crops.collate, num_workers)
