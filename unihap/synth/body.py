"""The bare body: Anny's parametric model (code Apache-2.0, MakeHuman shapes CC0) with what dressing it needs.

``Body`` is the only place that knows Anny.  Rotations are those of its ``local-ref`` parameterisation: about the
axes of the body at rest, relative to the parent bone, so that the same numbers give the same pose to every shape.
"""

import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from unihap.data.skeletons import SKELETONS
from unihap.synth.structures import LIP

logger = logging.getLogger(__name__)

# Faces that nobody sees and that would only cost rays.
INNER_SEGMENTS = ("eye_back.L", "eye_back.R", "eye_cavity.L", "eye_cavity.R", "mouth_cavity", "tongue")
LIMBS = {"upperarm": "arm", "lowerarm": "arm", "wrist": "arm", "finger": "arm", "metacarpal": "arm", "upperleg": "leg",
         "lowerleg": "leg", "foot": "leg", "toe": "leg"}  # fmt: skip
KEPT_RESTS = 64  # the last ones asked for; 0.4 MB each
SIDES = {"L": "left", "R": "right"}


class MissingExtraError(ImportError):
    """The optional packages of the generator are not installed."""

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(f'rendering people needs the package {package}; install it with: pip install "unihap[synth]"')

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str]]:
        return type(self), (self.package,)  # it crosses from worker processes


@dataclass(frozen=True)
class RestBody:
    """A body of some shape in Anny's rest pose (arms 45 degrees down, a little in front).

    Attributes:
        vertices: (V, 3) float32, metres, feet at z = 0.
        normals: (V, 3) float32, outwards.
        heads: (J, 3) float32, where every bone begins.
        height: metres.
        origin: (3,) float32, added to Anny's own coordinates to put the feet on the ground.
    """

    vertices: np.ndarray
    normals: np.ndarray
    heads: np.ndarray
    height: float
    origin: np.ndarray
    _coefficients: torch.Tensor
    _poses: torch.Tensor


@dataclass(frozen=True)
class Posed:
    """A body in a pose, the root bone at (0, 0, 0).

    Attributes:
        transforms: (J, 4, 4) float32, rest pose (``RestBody.vertices``) to posed.
        vertices: (V, 3) float32.
        keypoints: (17, 3) float64, COCO order.
    """

    transforms: np.ndarray
    vertices: np.ndarray
    keypoints: np.ndarray


class Body:
    """Anny as numpy arrays.

    Attributes:
        bones: (J) names, e.g. ``upperarm01.L``.
        parents: (J,) bone numbers, -1 for the root.
        faces: (F, 3) int32 of the outer skin.
        weights: (V, J) float32, rows sum to 1.
        bone_of_vertex: (V,) the bone with the largest weight.
        segment_of_face: (F,) names: ``head``, ``neck``, ``torso``, ``left_arm``, ``left_hand``, ``left_leg``,
            ``left_foot``, ``eye`` and the right ones.
        part_of_face: (F,) uint8, class of LIP of the bare skin: face, arms, legs; neck counts as face, the torso as
            upper_clothes, since nobody is ever seen without (LIP has no class for it).
    """

    def __init__(self) -> None:
        model = _anny()
        self._model = model
        keypoints = _keypoint_regressor(model)
        self.bones: tuple[str, ...] = tuple(model.bone_labels)
        self.parents = np.asarray(model.bone_parents, dtype=np.int64)
        self.weights = model.dense_vertex_bone_weights.numpy()
        self.bone_of_vertex = self.weights.argmax(axis=1)
        self._keypoints = keypoints
        inner = _segment(model, INNER_SEGMENTS)
        self._kept = np.flatnonzero(~inner)
        faces = model.faces.numpy().astype(np.int32)
        self.faces = faces[self._kept]
        self.segment_of_face = self._segments(faces)[self._kept]
        self.part_of_face = np.array([_part(segment) for segment in self.segment_of_face], dtype=np.uint8)
        self._rests: OrderedDict[tuple[tuple[str, float], ...], RestBody] = OrderedDict()

    def bone(self, name: str) -> int:
        """Number of a bone."""
        return self.bones.index(name)

    def rest(self, shape: Mapping[str, float]) -> RestBody:
        """The body at rest.

        Args:
            shape: Anny's phenotypes, 0-1: gender (0 male, 1 female), age (1/3 child, 2/3 young adult, 1 old),
                muscle, weight, height, proportions.

        Raises:
            ValueError: a phenotype that the model does not have.
        """
        key = tuple(sorted(shape.items()))
        if key not in self._rests:
            model = self._model
            # Anny's own parsing of the shape, so that the coefficients are exactly those of its forward pass.
            *_, phenotypes, changes, actions = model.get_tensor_inputs(None, dict(shape), None, None)
            coefficients = model._get_phenotype_blendshape_coefficients(phenotypes, changes, actions)
            output = model.get_rest_model(coefficients)
            vertices = output["rest_vertices"][0].numpy()
            origin = np.array([0.0, 0.0, -vertices[:, 2].min()], dtype=np.float32)
            vertices = vertices + origin
            self._rests[key] = RestBody(
                vertices=vertices,
                normals=vertex_normals(vertices, self.faces),
                heads=output["rest_bone_heads"][0].numpy() + origin,
                height=float(np.ptp(vertices[:, 2])),
                origin=origin,
                _coefficients=coefficients,
                _poses=output["rest_bone_poses"],
            )
            if len(self._rests) > KEPT_RESTS:
                self._rests.popitem(last=False)
        return self._rests[key]

    def pose(self, rest: RestBody, rotations: Mapping[str, np.ndarray]) -> Posed:
        """Poses a body.

        Args:
            rest: the shape.
            rotations: bone -> (3,) rotation vector in radians; bones that are not named keep their rest rotation.

        Raises:
            ValueError: a bone that the model does not have.
        """
        unknown = sorted(set(rotations) - set(self.bones))
        if unknown:
            raise ValueError(f"no bone {unknown[0]!r}; the bones are {', '.join(self.bones)}")
        delta = torch.eye(4).repeat(1, len(self.bones), 1, 1)
        for name, vector in rotations.items():
            delta[0, self.bone(name), :3, :3] = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix()).float()
        transforms = self._model.get_bone_transforms(delta, rest._poses)[0][0].numpy().copy()
        transforms[:, :3, 3] -= transforms[:, :3, :3] @ rest.origin  # they act on the body that stands on the ground
        vertices = skin(rest.vertices, self.weights, transforms)
        keypoints = self._keypoints @ vertices.astype(np.float64)
        return Posed(transforms, vertices, keypoints)

    def _segments(self, faces: np.ndarray) -> np.ndarray:
        bones = self.bone_of_vertex[faces[:, 0]]
        names = []
        for bone in bones:
            stem, _, side = self.bones[bone].partition(".")
            limb = next((part for start, part in LIMBS.items() if stem.startswith(start)), None)
            names.append(f"{SIDES[side]}_{limb}" if limb else "torso")
        segments = np.array(names, dtype="<U16")
        neck = np.isin(bones, [i for i, name in enumerate(self.bones) if name.startswith("neck")])
        segments[neck & (segments == "torso")] = "neck"
        segments[_segment(self._model, ("head",))] = "head"
        for side, word in SIDES.items():
            segments[_segment(self._model, (f"hand.{side}",))] = f"{word}_hand"
            segments[_segment(self._model, (f"foot.{side}",))] = f"{word}_foot"
            segments[_segment(self._model, (f"eye_front.{side}",))] = "eye"
        return segments


def skin(vertices: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Linear blend skinning.

    Args:
        vertices: (V, 3) at rest.
        weights: (V, J), rows sum to 1.
        transforms: (J, 4, 4), rest to posed.

    Returns:
        (V, 3) float32.
    """
    blend = (weights.astype(np.float32, copy=False) @ transforms[:, :3].reshape(len(transforms), 12)).reshape(-1, 3, 4)
    return np.einsum("vij,vj->vi", blend[:, :, :3], vertices).astype(np.float32) + blend[:, :, 3]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals of vertices: means of the faces around them, by area.  (V, 3) float32; 0 for unused vertices."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    (x1, y1, z1), (x2, y2, z2) = (b - a).T, (c - a).T
    normals = (y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2)  # np.cross takes a third longer
    corners = faces.ravel().astype(np.intp)
    total = np.stack([np.bincount(corners, np.repeat(along, 3), len(vertices)) for along in normals], axis=1)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


@functools.lru_cache(maxsize=16)
def faces_of(body: Body, *segments: str) -> np.ndarray:
    """Numbers of the faces of some segments, see ``Body.segment_of_face``; rising."""
    return np.flatnonzero(np.isin(body.segment_of_face, segments))


@functools.lru_cache(maxsize=16)
def vertices_of(body: Body, *segments: str) -> np.ndarray:
    """Numbers of the vertices of the faces of some segments; rising."""
    return np.unique(body.faces[faces_of(body, *segments)])


def _part(segment: str) -> int:
    if segment in ("head", "neck", "eye"):
        return LIP["face"]
    if segment == "torso":
        return LIP["upper_clothes"]
    side, _, limb = segment.partition("_")
    return LIP[f"{side}_{'arm' if limb in ('arm', 'hand') else 'leg'}"]


def _anny() -> Any:
    try:
        import warp

        warp.config.log_level = warp.LOG_WARNING  # Anny imports it; its greeting would be printed by every worker
        import anny
    except ImportError as error:
        raise MissingExtraError(error.name or "anny") from error
    cache = Path(os.environ.get("ANNY_CACHE_DIR", Path.home() / ".cache" / "anny"))
    if not any(cache.glob("*/build_compact_model_data_*.safetensors")):
        logger.info(
            "building the body model for the first time: about 2-4 minutes, 2.2 GB of memory and 800 MB in %s; "
            "later runs start at once",
            cache,
        )
    return anny.Anny(local_changes="none", skinning_method="lbs", pose_parameterization="local-ref").to(torch.float32)


def _keypoint_regressor(model: Any) -> np.ndarray:
    """(17, V) float64."""
    import anny

    return anny.KeypointsRegressor.coco(model, labels=list(SKELETONS["coco"].names)).regression_weights.double().numpy()


def _segment(model: Any, names: tuple[str, ...]) -> np.ndarray:
    from anny.face_segmentation import get_face_segmentation_mask

    return get_face_segmentation_mask(model, list(names)).numpy()
