"""Top-down pose models as ONNX files: RTMPose (SimCC) and ViTPose (heatmaps), run by onnxruntime.

Both take a person crop with 1.25 times the extent of the box at the aspect of their input, RGB, normalised by
ImageNet's mean and deviation.  They differ in where they cut it out: ViTPose was trained with UDP's map (see
``unihap.data.crops``), RTMPose with the plain one, in which the region spans the whole width of the input.  RTMPose
answers with two rows of bins for each keypoint, some to a pixel (SimCC, Li et al. 2022, arXiv:2107.03332); the score is
the smaller of the two maxima, as in mmpose.  ViTPose answers with heatmaps, which are decoded as ours (UDP-DARK).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from unihap.data.crops import Transformed, box_region, crop_matrix
from unihap.data.geometry import invert, transform_points
from unihap.data.keypoint_index import NUM_KEYPOINTS
from unihap.data.transforms import Transform
from unihap.models.encoder import PIXEL_MEAN, PIXEL_STD
from unihap.structures import Batch, Label
from unihap.tasks.heatmap import HeatmapCodec

logger = logging.getLogger(__name__)

# Numbers of keypoints of which the first 17 are COCO's: COCO, Halpe (20, 26, 136), COCO-WholeBody (133).
COCO_FIRST = (17, 20, 26, 133, 136)
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class MissingOnnxRuntimeError(ImportError):
    """onnxruntime is not installed."""

    def __init__(self) -> None:
        super().__init__('ONNX models need onnxruntime; install it with: pip install onnxruntime (or "unihap[export]")')


class Session(Protocol):
    """What is used of ``onnxruntime.InferenceSession``."""

    def get_inputs(self) -> Sequence[Any]:
        """Inputs with ``name``, ``type`` and ``shape``."""

    def get_outputs(self) -> Sequence[Any]:
        """Outputs with ``name`` and ``shape``."""

    def run(self, output_names: Sequence[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of an input."""


def open_session(path: Path) -> Session:
    """A session on the fastest device that onnxruntime has.

    Raises:
        MissingOnnxRuntimeError: it is not installed.
        FileNotFoundError: no such file.
        ValueError: not a model that it can read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX model {path}")
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as faults
    except ImportError:
        raise MissingOnnxRuntimeError from None
    try:
        session: Session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except (faults.Fail, faults.InvalidProtobuf, faults.InvalidGraph, faults.NotImplemented, faults.NoModel) as error:
        raise ValueError(f"{path} is no ONNX model that onnxruntime can run ({error}); download it again") from None
    return session


@dataclass(frozen=True)
class OnnxTransform:
    """The whole crop as the person's box, cut out for a model.

    Attributes:
        size: (height, width) of the model's input.
        udp: cut out by UDP's map or by the plain one.
    """

    size: tuple[int, int]
    udp: bool

    def __call__(self, image: np.ndarray, label: Label, rng: np.random.Generator) -> Transformed:
        """Warps (H, W, 3) uint8."""
        source_height, source_width = image.shape[:2]
        height, width = self.size
        centre, extent = box_region(np.array([0, 0, source_width, source_height]), self.size)
        if self.udp:
            matrix = crop_matrix(centre, extent, 0.0, self.size)
        else:
            scale = np.array([width, height]) / extent
            matrix = np.hstack([np.diag(scale), (scale * (extent / 2 - centre))[:, None]])
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return Transformed(crop, label, matrix)


def decode_simcc(x: np.ndarray, y: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Keypoints from SimCC's rows of bins.

    Args:
        x: (B, K, bins of the width).
        y: (B, K, bins of the height).
        size: (height, width) of the model's input; a pixel has as many bins in both directions.

    Returns:
        (B, K, 3) x, y in input pixels and the score.
    """
    bins = x.shape[2] / size[1]
    score = np.minimum(x.max(axis=2), y.max(axis=2))
    return np.stack([x.argmax(axis=2) / bins, y.argmax(axis=2) / bins, score], axis=2)


def simcc_order(first: np.ndarray, second: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Which of two outputs is x and which is y, by the bins of a pixel; ``None`` when neither fits."""
    for x, y in ((first, second), (second, first)):
        if x.ndim == y.ndim == 3 and x.shape[:2] == y.shape[:2] and x.shape[2] * size[0] == y.shape[2] * size[1]:
            return x, y
    return None


class OnnxDetector:
    """A top-down pose model whose kind is read from its outputs: one of heatmaps, or two of SimCC.

    Args:
        session: the model.
        name: for messages, e.g. the file's name.
        source: see ``unihap.engine.extract.Detector``.
        input_size: (height, width), where the model leaves it open.

    Raises:
        ValueError: inputs or outputs of another kind of model, or an input size that is open or contradicts.
    """

    def __init__(self, session: Session, *, name: str, source: str, input_size: tuple[int, int] | None = None) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in FLOATS:
            shown = ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs)
            raise ValueError(f"{name} must have one input of images (B, 3, H, W) of floats, not {shown}")
        if len(outputs) not in (1, 2):
            shown = ", ".join(entry.name for entry in outputs)
            raise ValueError(
                f"{name} must have one output (heatmaps) or two (SimCC x and y), not {len(outputs)}: {shown}"
            )
        self.session = session
        self.name = name
        self.source = source
        self.input = inputs[0].name
        self.dtype = FLOATS[inputs[0].type]
        batch = inputs[0].shape[0]
        self.fixed_batch = batch if isinstance(batch, int) and batch > 0 else 0
        self.size = self._size(inputs[0].shape[2:], input_size)
        self.transform: Transform = OnnxTransform(self.size, udp=len(outputs) == 1)

    def _size(self, sides: Sequence[Any], given: tuple[int, int] | None) -> tuple[int, int]:
        fixed = [side if isinstance(side, int) and side > 0 else 0 for side in sides]  # 0: left open
        if given is None and 0 in fixed:
            raise ValueError(f"{self.name} leaves the size of its input open ({list(sides)}); give --input-size H W")
        height, width = fixed if given is None else given
        if any(side not in (0, wanted) for side, wanted in zip(fixed, (height, width), strict=True)):
            raise ValueError(f"{self.name} takes inputs of {list(sides)} pixels, not {[height, width]}")
        return height, width

    def __call__(self, batch: Batch) -> np.ndarray:
        """See ``unihap.engine.extract.Detector``.

        Raises:
            ValueError: the model's answer is neither heatmaps nor SimCC of COCO's keypoints.
        """
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        images = ((batch.images.float() - mean) / deviation).numpy().astype(self.dtype)
        keypoints = self._decode([np.asarray(output, dtype=np.float32) for output in self._run(images)])
        inverse = [invert(matrix) for matrix in batch.matrices]
        keypoints[..., :2] = [transform_points(m, points[:, :2]) for m, points in zip(inverse, keypoints, strict=True)]
        return keypoints

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs for (B, 3, H, W), in parts where the model's batch is fixed."""
        if not self.fixed_batch:
            return self.session.run(None, {self.input: images})
        missing = -len(images) % self.fixed_batch
        padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        parts = [self.session.run(None, {self.input: p}) for p in np.split(padded, len(padded) // self.fixed_batch)]
        return [np.concatenate(outputs)[: len(images)] for outputs in zip(*parts, strict=True)]

    def _decode(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """(B, 17, 3) float64 x, y in input pixels and score."""
        shown = ", ".join(str(output.shape) for output in outputs)
        if outputs[0].ndim < 2 or outputs[0].shape[1] not in COCO_FIRST:
            raise ValueError(
                f"{self.name} answers {shown}; its keypoints must begin with COCO's {NUM_KEYPOINTS}, so that their "
                f"number is one of {', '.join(map(str, COCO_FIRST))}"
            )
        if len(outputs) == 1 and outputs[0].ndim == 4:
            heatmap = torch.from_numpy(outputs[0][:, :NUM_KEYPOINTS])
            codec = HeatmapCodec(self.size, (heatmap.shape[2], heatmap.shape[3]))
            points, peaks = codec.decode(heatmap)
            return torch.cat([points, peaks[..., None]], dim=2).double().numpy()
        rows = simcc_order(outputs[0], outputs[1], self.size) if len(outputs) == 2 else None
        if rows is None:
            raise ValueError(
                f"{self.name} answers {shown} for an input of {self.size} pixels, neither heatmaps (B, K, h, w) nor "
                "SimCC (B, K, bins of the width) and (B, K, bins of the height)"
            )
        return decode_simcc(rows[0][:, :NUM_KEYPOINTS], rows[1][:, :NUM_KEYPOINTS], self.size).astype(np.float64)
