"""A body at rest as a tailor sees it: without details, with lengths along its limbs."""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags

from unihap.synth.body import Body, RestBody, vertex_normals
from unihap.synth.cloth import compacted

ADULT = 1.8  # metres; lengths of garments are given for this height
ARM = ("upperarm01", "lowerarm01", "wrist")
LEG = ("upperleg01", "lowerleg01", "foot")
CLOTHED = ("torso", "neck", "left_arm", "right_arm", "left_leg", "right_leg")
SMOOTHING_STEPS = 6
WEIGHT_STEPS = 25


@dataclass(frozen=True)
class Pattern:
    """The part of the body's mesh that garments are made from: no head, hands or toes.

    Attributes:
        vertices: (B,) numbers in the whole body.
        faces: (G, 3) int32, in numbers of ``vertices``.
        face_numbers: (G,) numbers of these faces in ``Body.faces``.
        coverable: (G,) whether a garment may hide the face.
        torso: (G,) whether the face is part of the torso.
        arm: (B, 2) float32, how much a vertex follows the left and the right arm.
        leg: (B, 2) float32, the same for legs and feet.
        weights: (B, J) float32, of cloth: softer than those of the skin at the hips, where it has no folds.
        averaging: (B, B), the mean of the neighbours; vertices at an open edge keep their place.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_numbers: np.ndarray
    coverable: np.ndarray
    torso: np.ndarray
    arm: np.ndarray
    leg: np.ndarray
    weights: np.ndarray
    averaging: csr_matrix


@functools.lru_cache(maxsize=1)
def pattern(body: Body) -> Pattern:
    """What depends only on the mesh of the body."""
    coverable = np.isin(body.segment_of_face, CLOTHED)
    kept = coverable.copy()
    for _ in range(7):  # some rows more, so that no garment ends at the edge of the pattern
        touched = np.zeros(len(body.weights), dtype=bool)
        touched[body.faces[kept]] = True
        kept |= touched[body.faces].any(axis=1)
    numbers = np.flatnonzero(kept)
    vertices, faces = compacted(body.faces[numbers], len(body.weights))
    weights, averaging = body.weights[vertices], _averaging(faces, len(vertices))
    arm = limb_weights(body, ("upperarm", "lowerarm", "wrist", "finger", "metacarpal", "shoulder"))[vertices]
    shin = [i for i, name in enumerate(body.bones) if name.startswith(("lowerleg", "foot", "toe"))]
    soft = weights
    for _ in range(WEIGHT_STEPS):
        soft = 0.5 * soft + 0.5 * (averaging @ soft)
    share = np.clip(1 - 5 * arm.max(axis=1), 0, 1) * np.clip(1 - 8 * soft[:, shin].sum(axis=1), 0, 1)
    weights = weights + share[:, None] * (soft - weights)
    return Pattern(
        vertices=vertices,
        faces=faces,
        face_numbers=numbers,
        coverable=coverable[numbers],
        torso=body.segment_of_face[numbers] == "torso",
        arm=limb_weights(body, ("upperarm", "lowerarm", "wrist", "finger", "metacarpal"))[vertices],
        leg=limb_weights(body, ("upperleg", "lowerleg", "foot", "toe"))[vertices],
        weights=(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        averaging=averaging,
    )


def limb_weights(body: Body, stems: tuple[str, ...]) -> np.ndarray:
    """(V, 2) float32: how much vertices follow the left and the right bones of which the names begin so."""
    columns = [
        [i for i, name in enumerate(body.bones) if name.startswith(stems) and name.endswith(side)]
        for side in (".L", ".R")
    ]
    return np.stack([body.weights[:, column].sum(axis=1) for column in columns], axis=1)


@dataclass(frozen=True)
class Limb:
    """An arm or a leg as a tailor measures it; positions along it are 0 at its root, 1 at elbow or knee, 2 at its end.

    Attributes:
        along: (B,) float32, position of vertices; -1 for those of other parts.
        length: metres of one unit of ``along``.
        outwards: (B, 3) float32, unit vectors away from the middle of the limb.
        radius: (B,) float32, distance from the middle.
        stations: (S,) positions at which the limb was measured.
        girth: (S,) mean radius there.
    """

    along: np.ndarray
    length: float
    outwards: np.ndarray
    radius: np.ndarray
    stations: np.ndarray
    girth: np.ndarray


class Fit:
    """A body at rest, measured.

    Attributes:
        pattern: what depends only on the mesh.
        skin: (B, 3) float32, the body's own vertices at rest.
        normals: (B, 3) float32 of the skin.
        smooth: (B, 3) float32, the skin without its details.
        smooth_normals: (B, 3) float32.
        scale: the body's height over that of an adult.
        arm: both arms.
        leg: both legs.
        crotch, armpit, knee: heights in metres.
        middle: y of the upright axis around which skirts hang; its x is 0.
    """

    def __init__(self, body: Body, rest: RestBody) -> None:
        self.body = body
        self.rest = rest
        self.pattern = pattern(body)
        self.skin = rest.vertices[self.pattern.vertices]
        self.normals = rest.normals[self.pattern.vertices]
        self.smooth = self.smoothed(self.skin, SMOOTHING_STEPS)
        self.smooth_normals = vertex_normals(self.smooth, self.pattern.faces)
        self.scale = rest.height / ADULT
        self.arm = self._limb(self.pattern.arm, ARM)
        self.leg = self._limb(self.pattern.leg, LEG)
        middle = (np.abs(self.skin[:, 0]) < 1e-3) & (self.skin[:, 2] > self.head("lowerleg01.L")[2])
        self.crotch = float(self.skin[middle, 2].min())
        self.armpit = float(self.head("upperarm01.L")[2] - 0.1 * self.scale)
        self.knee = float(self.head("lowerleg01.L")[2])
        self.middle = float(self.head("root")[1])

    def head(self, bone: str) -> np.ndarray:
        """(3,) where a bone begins."""
        return self.rest.heads[self.body.bone(bone)]

    def smoothed(self, values: np.ndarray, steps: int) -> np.ndarray:
        """Values of the pattern's vertices, averaged with their neighbours."""
        for _ in range(steps):
            values = 0.5 * values + 0.5 * (self.pattern.averaging @ values)
        return values.astype(np.float32)

    def offset(self, thickness: np.ndarray | float) -> np.ndarray:
        """(B, 3) float32: the smooth body blown up, about ``thickness`` (metres) away from the skin."""
        thickness = np.broadcast_to(thickness, len(self.skin))
        outside = self.smooth + self.smooth_normals * thickness[:, None]
        for _ in range(2):
            outside = self.smoothed(self._pushed(outside, thickness), 1)
        return self._pushed(outside, 0.5 * thickness)

    def hidden(self, field: np.ndarray) -> np.ndarray:
        """Numbers of the body's faces of which all corners have a positive field."""
        inside = (field > 0)[self.pattern.faces].all(axis=1)
        return self.pattern.face_numbers[inside & self.pattern.coverable]

    def _pushed(self, points: np.ndarray, least: np.ndarray) -> np.ndarray:
        gap = np.einsum("vi,vi->v", points - self.skin, self.normals)
        return points + self.normals * np.maximum(least - gap, 0)[:, None]

    def _limb(self, weights: np.ndarray, bones: tuple[str, str, str]) -> Limb:
        along = np.full(len(self.skin), -1.0, dtype=np.float32)
        outwards = np.zeros_like(self.skin)
        stations = np.linspace(0.05, 2.0, 17)
        girths = []
        for side, suffix in enumerate((".L", ".R")):
            root, bend, end = (self.head(bone + suffix) for bone in bones)
            own = np.flatnonzero(weights[:, side] > 0.05)
            points = self.smooth[own]
            position = _project(points, root, bend).clip(None, 1) + _project(points, bend, end).clip(0, None)
            along[own] = position
            near = np.abs(position[:, None] - stations) < 0.12
            middles = near.T @ points / np.maximum(near.sum(axis=0), 1)[:, None]
            centre = np.stack([np.interp(position, stations, middles[:, i]) for i in range(3)], axis=1)
            axis = np.where(position[:, None] < 1, _unit(bend - root), _unit(end - bend))
            away = points - centre
            outwards[own] = away - np.einsum("vi,vi->v", away, axis)[:, None] * axis
            girths.append(near.T @ np.linalg.norm(outwards[own], axis=1) / np.maximum(near.sum(axis=0), 1))
        radius = np.linalg.norm(outwards, axis=1)
        return Limb(
            along=along,
            length=float(np.linalg.norm(bend - root)),
            outwards=outwards / np.maximum(radius, 1e-6)[:, None],
            radius=radius,
            stations=stations,
            girth=np.mean(girths, axis=0),
        )


def _averaging(faces: np.ndarray, size: int) -> csr_matrix:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    links = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(size, size)).tocsr()
    border = np.asarray((links == 1).sum(axis=1)).ravel() > 0  # an edge inside of a mesh belongs to two faces
    links.data[:] = 1.0
    inner = diags((~border) / np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1))
    return (inner @ links + diags(border.astype(float))).tocsr().astype(np.float32)


def _project(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return (points - start) @ (end - start) / float((end - start) @ (end - start))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
