"""The words that every part of unihap shares: records, samples, batches, targets and predictions.

Letters for shapes, used in every docstring:

    B        images of a batch              Q        queries of a task
    C        decoder width                  D        encoder width
    (H, W)   pixels of the network input    (h, w)   cells of a token grid or a heatmap
    K        keypoints                      N        people in an image

Frames: images are RGB, 0-255.  Boxes are (cx, cy, w, h) fractions of the padded network input inside the
model and (x1, y1, x2, y2) pixels of the source image outside it.  A pixel position (x, y) names a point of
the continuous plane in which the centre of the first pixel is (0, 0), as UDP defines it; a box names edges
between pixels, so the box of a whole image is (0, 0, width, height) (see ``unihap.data.geometry``).
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Unit(enum.Enum):
    """The four output units of the task-guided interpreter (UniHCP, section 3.2)."""

    FEATURE = "feature"
    PROBABILITY = "probability"
    HEATMAP = "heatmap"
    BOX = "box"


class Supervision(enum.Enum):
    """Which decoder states the interpreter reads in training."""

    LAST = "last"  # the last layer only (ReID, attributes)
    LAYERS = "layers"  # every layer (detection)
    LAYERS_AND_QUERIES = "layers_and_queries"  # the learned queries themselves, then every layer (pose, parsing)


@dataclass(frozen=True)
class TaskSpec:
    """Everything the model learns about a task.

    Attributes:
        name: the task, e.g. ``coco_pose``; also its name in ``model.private``.
        num_queries: learned content queries; for detection the number of patterns.
        units: the output units the task opens (its gates).
        supervision: the decoder states that training supervises.
        num_anchors: learned anchors, each met by every pattern (Q = num_queries * num_anchors); 0 gives every
            query a learned position of its own instead (Q = num_queries).
        feature_norm: whether the task owns a batch normalisation of its feature (ReID).
    """

    name: str
    num_queries: int
    units: frozenset[Unit]
    supervision: Supervision
    num_anchors: int = 0
    feature_norm: bool = False


@dataclass
class Prediction:
    """What the interpreter reads from one decoder state; a closed unit is ``None``.

    Attributes:
        feature: (B, Q * C), the descriptor, not normalised.
        normed_feature: (B, Q * C), the descriptor after the task's batch normalisation.
        logit: (B, Q), the global probability before the sigmoid.
        heatmap: (B, Q, h, w), the local map at stride 4: raw for pose, logits for parsing.
        box: (B, Q, 4), cxcywh fractions of the padded input.
    """

    feature: Tensor | None = None
    normed_feature: Tensor | None = None
    logit: Tensor | None = None
    heatmap: Tensor | None = None
    box: Tensor | None = None


@dataclass
class Target:
    """The truth, a mirror of ``Prediction``; fields that a kind of task does not use are ``None``.

    Attributes:
        identity: (B,) int64, training identity 0 ... number of identities - 1.
        probability: (B, Q) float, 1 present, 0 absent, -1 unknown (left out of the loss).
        heatmap: (B, Q, h, w) float, Gaussian targets of pose.
        heatmap_weight: (B, Q) float, 1 for keypoints that are labelled and inside the crop, else 0.
        label_map: (B, H, W) uint8, class of every input pixel, 255 = ignored.
        box: per image (N, 4) float, cxcywh fractions of the padded input.
        ignore_box: per image (M, 4) float, regions in which an unmatched box is not a mistake.
    """

    identity: Tensor | None = None
    probability: Tensor | None = None
    heatmap: Tensor | None = None
    heatmap_weight: Tensor | None = None
    label_map: Tensor | None = None
    box: list[Tensor] | None = None
    ignore_box: list[Tensor] | None = None

    def to(self, device: torch.device) -> "Target":
        """A copy with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Target":
        """A copy in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Target":
        mapped: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                value = function(value)
            elif value is not None:
                value = [function(v) for v in value]
            mapped[f.name] = value
        return Target(**mapped)


@dataclass(frozen=True)
class Label:
    """What a record says about its image, in source-image pixels.

    One subclass per kind of task; transforms return a label of the same class in network-input pixels.
    """


@dataclass(frozen=True)
class ReIDLabel(Label):
    """One person crop.

    Attributes:
        identity: the dataset's own identity number (0 = distractor of the gallery).
        camera: camera number.
        role: ``train``, ``query`` or ``gallery``.
    """

    identity: int
    camera: int
    role: str


@dataclass(frozen=True)
class AttributesLabel(Label):
    """(A,) int8 in query order: 1 present, 0 absent, -1 unknown."""

    values: np.ndarray


@dataclass(frozen=True)
class PoseLabel(Label):
    """One person.

    Attributes:
        keypoints: (K, 3) float: x, y, visible (1 labelled, 0 not labelled).
        box: (4,) float xyxy, the person box the crop is made from.
        image_id: image number in the dataset's annotation file.
        box_score: detector confidence; 1 for a labelled box.
        area: OKS area in square pixels, or 0 when the dataset has none.
        head_size: PCKh reference length in pixels, or 0 when the dataset has none.
    """

    keypoints: np.ndarray
    box: np.ndarray
    image_id: int
    box_score: float = 1.0
    area: float = 0.0
    head_size: float = 0.0


@dataclass(frozen=True)
class ParsingLabel(Label):
    """Class of every pixel.

    Attributes:
        path: file of the label map; how it is read and re-numbered is the dataset's ``read_label_map``.
        label_map: (H, W) uint8 once read, 255 = ignored; ``None`` before.
    """

    path: str
    label_map: np.ndarray | None = None


@dataclass(frozen=True)
class DetectionLabel(Label):
    """Everyone in an image.

    Attributes:
        boxes: (N, 4) float xyxy full-body boxes; they may leave the image.
        ignore: (M, 4) float xyxy regions that count neither for nor against a detector.
    """

    boxes: np.ndarray
    ignore: np.ndarray


@dataclass(frozen=True)
class Record:
    """One line of a dataset; the image is not read yet.

    Attributes:
        id: unique within its dataset; evaluation drops a second result for the same id.
        image: path of the image file.
        label: what is known about it, in source-image pixels.
    """

    id: str
    image: str
    label: Label


class ReadLabelMap(Protocol):
    """Reads a label map and re-numbers its values to query order."""

    def __call__(self, path: str) -> np.ndarray:
        """Returns (H, W) uint8 in query order, 255 = ignored."""


@dataclass(frozen=True)
class Dataset:
    """The records of one split and what its labels mean.

    Attributes:
        name: ``<dataset>_<split>``.
        kind: reid | attributes | pose | parsing | detection, or unlabelled (crops for pre-training).
        records: one entry per sample (per person for pose).
        classes: names in query order: keypoints, attributes or parsing classes.
        mirror: pairs of class numbers that a horizontal flip exchanges.
        sigmas: OKS constant of every keypoint (pose).
        upper_body: keypoint numbers of the upper body (pose; the others are the lower body).
        metric: the official metric where a kind has several: ``keypoint_ap``, ``pckh`` or ``end_point_error``.
        use_area: whether OKS uses the labelled area (COCO) or the box area (AI Challenger).
        annotation: official ground-truth file, if the metric reads one.
        image_ids: images that the metric looks at, where records do not tell: a detector's boxes may leave out an image
            whose people then count as missed (pose).
        read_label_map: how to read a label map (parsing).
        skipped: why and how many annotations were left out while reading, e.g. ``{"box outside the image": 2}``.
    """

    name: str
    kind: str
    records: Sequence[Record]
    classes: tuple[str, ...] = ()
    mirror: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    upper_body: tuple[int, ...] = ()
    metric: str = ""
    use_area: bool = True
    annotation: str = ""
    image_ids: tuple[int, ...] = ()
    read_label_map: ReadLabelMap | None = None
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One network input, before batching.

    Attributes:
        record: where it came from.
        image: (3, H, W) uint8.
        target: the fields of ``Target`` without their batch axis; boxes are (N, 4) cxcywh in input *pixels* here
            and become fractions in ``collate``, where the padded size is known.
        matrix: (2, 3) float64, maps source-image pixels (x, y, 1) to network-input pixels.
        source_size: (height, width) of the source image.
        skipped: ids of unreadable records that this sample stands in for (training only).
    """

    record: Record
    image: Tensor
    target: dict[str, Tensor]
    matrix: np.ndarray
    source_size: tuple[int, int]
    skipped: tuple[str, ...] = ()


@dataclass
class Batch:
    """Samples of one task.

    Attributes:
        task: the one task that every sample belongs to.
        images: (B, 3, H, W) uint8, padded right and bottom to a common size.
        sizes: (B, 2) int64 (height, width) before padding, or ``None`` when nothing was padded.
        target: the truth.
        records: B records.
        matrices: (B, 2, 3) float64, source pixels to input pixels.
        source_sizes: B pairs (height, width).
        skipped: ids of unreadable records; training put others in their place, evaluation left them out.
    """

    task: str
    images: Tensor
    sizes: Tensor | None
    target: Target
    records: list[Record]
    matrices: np.ndarray
    source_sizes: list[tuple[int, int]]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory; ``DataLoader`` calls this by its name."""
        return replace(
            self,
            images=self.images.pin_memory(),
            sizes=None if self.sizes is None else self.sizes.pin_memory(),
            target=self.target.pin_memory(),
        )
