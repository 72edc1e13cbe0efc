"""Shoes and boots: stacks of convex outlines of the foot, each wide enough for all of the foot above it."""

import functools

import numpy as np
from scipy.spatial import cKDTree

from unihap.synth.body import Body
from unihap.synth.cloth import shell, with_hems
from unihap.synth.fitting import Fit, limb_weights
from unihap.synth.structures import LIP, Garment, Shell

NUM_POINTS = 32
ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
DIRECTIONS = np.stack([np.sin(ANGLES), np.cos(ANGLES)], axis=1)  # begins behind the heel
SOLE = 0.016  # metres below the bare foot
# height over the ground in metres and room around the foot; the first rows are the sole with its welt
SOLE_ROWS = ((-SOLE, 0.004), (-SOLE + 0.003, 0.008), (0.006, 0.009), (0.0075, 0.005))


def boot_top(fit: Fit) -> float:
    """Height in metres at which boots end: the middle of the calf."""
    ankle = float(fit.head("foot.L")[2])
    return ankle + 0.58 * (fit.knee - ankle)


def collar(fit: Fit) -> float:
    """Height in metres at which shoes end, just over the ankle's joint."""
    return float(fit.head("foot.L")[2]) + 0.018 * fit.scale


def footwear(fit: Fit, garment: Garment) -> list[Shell]:
    """A left and a right one; their soles are ``SOLE`` below the ground that the bare feet stand on."""
    top = boot_top(fit) if garment.kind == "boots" else collar(fit)
    left = _left_shoe(fit, garment, top)
    return [left, _mirrored(fit.body, left)]


def _mirrored(body: Body, left: Shell) -> Shell:
    """The right shoe: bodies at rest are symmetric."""
    bones, faces = _other_side(body)
    return Shell(
        vertices=left.vertices * np.array([-1, 1, 1], dtype=np.float32),
        faces=left.faces[:, ::-1],
        weights=left.weights[:, bones],
        part=LIP["right_shoe"],
        material=left.material,
        covers=faces[left.covers],
    )


@functools.lru_cache(maxsize=1)
def _other_side(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Bones and faces by their mirror images."""
    swap = {"L": "R", "R": "L"}
    names = [name[:-1] + swap[name[-1]] if name.endswith((".L", ".R")) else name for name in body.bones]
    vertices = body.rest({}).vertices.astype(np.float64)
    _, vertex = cKDTree(vertices).query(vertices * np.array([-1, 1, 1]))
    keys = {tuple(sorted(face)): number for number, face in enumerate(body.faces.tolist())}
    # -1 would be a face without a mirror image; none of a foot is
    faces = [keys.get(tuple(sorted(face)), -1) for face in vertex[body.faces].tolist()]
    return np.array([body.bone(name) for name in names]), np.array(faces)


def _left_shoe(fit: Fit, garment: Garment, top: float) -> Shell:
    body, rest, scale = fit.body, fit.rest, fit.scale
    own = _left_shin_and_foot(body)
    ankle, knee = fit.head("foot.L"), fit.head("lowerleg01.L")
    slope = (knee - ankle)[:2] / (knee - ankle)[2]

    def axis(height: np.ndarray) -> np.ndarray:
        return ankle[:2] + np.maximum(height - ankle[2], 0)[..., None] * slope

    foot = rest.vertices[own]
    upright = foot[:, :2] - axis(foot[:, 2])
    boots = garment.kind == "boots"
    room = (0.012 if boots else 0.007) * scale
    heights = np.linspace(0.012 * scale, top, max(3, round((top / scale - 0.012) / 0.012)))
    rows = [(height, space * scale, height) for height, space in SOLE_ROWS]
    rows += [(height, room, height - 0.012 * scale) for height in heights]  # room over the instep, too
    rings = []
    for height, space, lowest in rows:
        inside = (foot[:, 2] >= lowest) & (foot[:, 2] <= min(top, max(height, ankle[2]) + 0.08 * scale) + 0.01)
        ring = _outline(upright[inside], space)
        level = np.full((NUM_POINTS, 1), height)
        rings.append(np.concatenate([ring + axis(level[:, 0]), level], axis=1))
    vertices, faces = _loft(np.stack(rings))
    weights = _weights(fit, own, vertices)
    vertices, faces, weights = with_hems(vertices, faces, weights, 0.4 * room)
    hidden = np.zeros(len(body.weights), dtype=bool)
    hidden[own] = foot[:, 2] < top - (0.02 if boots else 0.008) * scale
    covers = np.flatnonzero(hidden[body.faces].all(axis=1))
    return shell(vertices, faces, weights, LIP["left_shoe"], garment.material, covers)


@functools.lru_cache(maxsize=1)
def _left_shin_and_foot(body: Body) -> np.ndarray:
    return np.flatnonzero(limb_weights(body, ("lowerleg", "foot", "toe"))[:, 0] > 0.5)


def _outline(points: np.ndarray, room: float) -> np.ndarray:
    """(NUM_POINTS, 2): the convex hull of points, with room around it, in steps of equal length from the back on."""
    corners = points[(points @ DIRECTIONS.T).argmax(axis=0)] + room * DIRECTIONS
    closed = np.concatenate([corners, corners[:1]])
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    steps = np.arange(NUM_POINTS) * (way[-1] / NUM_POINTS)
    return np.stack([np.interp(steps, way, closed[:, i]) for i in (0, 1)], axis=1)


def _loft(rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A skin over (R, NUM_POINTS, 3) rings from the sole up, closed below."""
    here = np.arange(rings.shape[0] * NUM_POINTS).reshape(-1, NUM_POINTS)
    after = np.roll(here, -1, axis=1)
    a, b, c, d = (part.ravel() for part in (here[:-1], after[:-1], here[1:], after[1:]))
    centre = np.full(NUM_POINTS, here.size)
    faces = [np.stack([a, d, b], axis=1), np.stack([a, c, d], axis=1), np.stack([centre, here[0], after[0]], axis=1)]
    return np.concatenate([rings.reshape(-1, 3), rings[:1].mean(axis=1)]), np.concatenate(faces)


def _weights(fit: Fit, own: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    body = fit.body
    _, nearest = cKDTree(fit.rest.vertices[own]).query(vertices, k=3)
    weights = body.weights[own[nearest]].mean(axis=1)
    toes = [i for i, name in enumerate(body.bones) if name.startswith("toe") and name.endswith(".L")]
    weights[:, body.bone("foot.L")] += weights[:, toes].sum(axis=1)  # soles are stiff
    weights[:, toes] = 0
    return weights
