"""What people wear and carry besides clothes: hats, glasses, bags and parcels."""

import numpy as np
from scipy.spatial import cKDTree

from unihap.synth.body import Body, Posed, RestBody, vertices_of
from unihap.synth.cloth import clip, shell
from unihap.synth.hair import Skull
from unihap.synth.structures import BAG, LIP, Material, Outfit, Pose, Shell

NOTHING = np.zeros(0, np.int64)
HAT_LINE = 0.34  # skulls above the eyes
OVER_HAIR = 0.2  # skulls that a hat stands off the scalp
OVER_CLOTH = 0.05  # metres that a strap stands off the skin, outside of a coat
STRAP = 0.024  # metres, half the width of a strap
STRAP_DEPTH = 0.012  # metres, towards the body
HATS = ("cap", "brim", "beanie")


def handbag_side(outfit: Outfit) -> str:
    """``left`` or ``right``: the hand that holds the handbag."""
    return ("left", "right")[outfit.number % 2]


def worn_shells(body: Body, rest: RestBody, outfit: Outfit) -> list[Shell]:
    """Hat, glasses, backpack and shoulder bag, rigged to the body."""
    shells = []
    if outfit.hat is not None:
        shells += _hat(body, rest, HATS[outfit.number % len(HATS)], outfit.hat)
    if outfit.glasses is not None:
        shells.append(_glasses(body, rest, outfit.glasses))
    if outfit.backpack is not None:
        shells += _backpack(body, rest, outfit.backpack)
    if outfit.shoulder_bag is not None:
        shells += _shoulder_bag(body, rest, outfit.shoulder_bag, 1 if outfit.number % 2 else -1)
    return shells


def held_objects(body: Body, rest: RestBody, posed: Posed, outfit: Outfit, pose: Pose) -> list[Shell]:
    """Handbag and parcel, whose places follow from the pose; posed vertices, weights of shape (V, 0)."""
    size = rest.height / 1.75
    shells = []
    if outfit.handbag is not None:
        side = handbag_side(outfit)
        hand = posed.vertices[vertices_of(body, f"{side}_hand")].mean(axis=0)
        outwards = 1 if side == "left" else -1
        # away from the leg, which a hanging hand touches
        middle = hand + np.array([outwards * 0.05, 0.0, -0.27]) * size
        bag = _box(np.array([0.11, 0.30, 0.24]) * size)
        shells.append(_held(bag[0] + middle, bag[1], outfit.handbag))
        top = middle + np.array([0, 0, 0.12]) * size
        for y in (-0.07, 0.07):
            low = top + np.array([0, y, 0]) * size
            shells.append(_held(*_rod(low, hand - np.array([0, 0, 0.02]) * size, 0.009 * size), outfit.handbag))
    if pose.carried is not None:
        left, right = (posed.vertices[vertices_of(body, f"{side}_hand")].mean(axis=0) for side in ("left", "right"))
        across = left - right
        width = max(float(np.linalg.norm(across)) - 0.05 * size, 0.16 * size)
        across = across / max(float(np.linalg.norm(across)), 1e-6)
        up = np.array([0.0, 0.0, 1.0]) - across[2] * across
        up /= np.linalg.norm(up)
        axes = np.stack([across, np.cross(up, across), up])
        vertices, faces = _box(np.array([width, 0.24 * size, 0.22 * size]))
        # in front of the hands' middle, so that it does not stand in the belly
        middle = (left + right) / 2 - 0.06 * size * axes[1]
        shells.append(_held(vertices @ axes + middle, faces, pose.carried))
    return shells


def _held(vertices: np.ndarray, faces: np.ndarray, material: Material) -> Shell:
    return Shell(vertices.astype(np.float32), faces, np.zeros((len(vertices), 0), np.float32), BAG, material)


# ------------------------------------------------------------------------------------------------ head


def _hat(body: Body, rest: RestBody, kind: str, material: Material) -> list[Shell]:
    skull = Skull(body, rest)
    place = skull.of(rest.vertices)
    line = 0.18 + 0.12 * np.clip(0.6 - place[:, 1], -1, 1) if kind == "beanie" else HAT_LINE
    outwards = place - np.array([0.0, 0.7, 0.2])
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    height = 0.12 if kind == "beanie" else 0.05
    lift = OVER_HAIR + height * np.clip(place[:, 2] - HAT_LINE, 0, 1)
    lifted = rest.vertices + outwards * (lift * skull.size)[:, None]
    cut = clip(body.faces[skull.faces], place[:, 2] - line)
    share = cut.fraction[:, None]
    points = (1 - share) * lifted[cut.first] + share * lifted[cut.second]
    crown = _rigid(body, points, cut.faces, "head", LIP["hat"], material)
    if kind == "beanie":
        return [crown]
    angles = np.linspace(-1, 1, 33) * (np.radians(62) if kind == "cap" else np.pi)
    inner = np.stack([np.sin(angles) * 0.80, 0.70 - np.cos(angles) * 1.08, np.full(33, HAT_LINE)], axis=1)
    reach = 0.55 * np.cos(angles * 90 / 62) if kind == "cap" else np.full(33, 0.5)
    direction = np.stack([np.sin(angles), -np.cos(angles), np.full(33, -0.22)], axis=1)
    outer = inner + direction * reach[:, None]
    below = np.array([0, 0, -0.05])
    ring = np.concatenate([inner, outer, outer + below, inner + below])
    return [crown, _rigid(body, skull.at(ring), _bands(4, 33)[:, ::-1], "head", LIP["hat"], material)]


def _glasses(body: Body, rest: RestBody, material: Material) -> Shell:
    """Two lenses, a bridge and temples that reach the ears."""
    skull = Skull(body, rest)
    pieces = []
    for side in (-1, 1):
        eye = skull.of(rest.heads[body.bone("eye.L" if side > 0 else "eye.R")])
        angle, deep = np.arange(12) * np.pi / 6, np.array([0, 0.05, 0])
        bow = 0.10 * np.cos(angle) ** 2 * (np.cos(angle) * side > 0)
        lens = np.stack([0.27 * np.cos(angle), bow, 0.19 * np.sin(angle)], axis=1) + (eye - np.array([0, 0.30, 0]))
        vertices = np.concatenate([lens, lens + deep, lens.mean(axis=0, keepdims=True) - 0.6 * deep])
        i = np.arange(12)
        j = (i + 1) % 12
        faces = np.concatenate([
            np.stack([i, j, np.full(12, 24)], 1), np.stack([i, i + 12, j], 1), np.stack([j, i + 12, j + 12], 1),
        ])  # fmt: skip
        pieces.append((vertices, faces))
        hinge = np.array([eye[0] + 0.26 * side, eye[1] - 0.20, eye[2] + 0.05])
        pieces.append(_rod(hinge, np.array([0.74 * side, 0.75, 0.08]), 0.035))
    middle = (skull.of(rest.heads[body.bone("eye.L")]) + skull.of(rest.heads[body.bone("eye.R")])) / 2
    pieces.append(_rod(middle + np.array([-0.06, -0.34, 0.05]), middle + np.array([0.06, -0.34, 0.05]), 0.035))
    vertices, faces = _merged(pieces)
    return _rigid(body, skull.at(vertices), faces, "head", LIP["sunglasses"], material)


# ------------------------------------------------------------------------------------------------ bags


def _backpack(body: Body, rest: RestBody, material: Material) -> list[Shell]:
    size = rest.height / 1.75
    torso = vertices_of(body, "torso", "neck")
    top, low = rest.heads[body.bone("clavicle.L"), 2], rest.heads[body.bone("spine04"), 2]
    middle = (top + low) / 2 + 0.02 * size
    back = rest.vertices[torso]
    near = back[(np.abs(back[:, 0]) < 0.1 * size) & (np.abs(back[:, 2] - middle) < 0.1 * size), 1].max()
    vertices, faces = _box(np.array([0.29 * size, 0.16 * size, (top - low) * 1.02]), rounded=0.25)
    vertices = vertices + np.array([0, near + 0.025 + 0.08 * size, middle])
    shells = [_rigid(body, vertices, faces, "spine02", BAG, material)]
    for side in (-1, 1):
        x = side * 0.105 * size
        path = [_over(rest, torso, x, z, 1) for z in np.linspace(middle, top, 4)]
        path += [_top(rest, torso, x)]
        path += [_over(rest, torso, x, z, -1) for z in np.linspace(top - 0.02 * size, middle - 0.05 * size, 6)]
        path += [np.array([side * 0.19 * size, path[-1][1] * 0.35 + near * 0.65, middle - 0.11 * size])]
        shells.append(_strap(body, rest, np.array(path), np.array([1.0, 0.0, 0.0]), material))
    return shells


def _shoulder_bag(body: Body, rest: RestBody, material: Material, side: int) -> list[Shell]:
    """A bag at one hip with a strap over the other shoulder."""
    size = rest.height / 1.75
    torso = vertices_of(body, "torso", "neck")
    hip = rest.heads[body.bone("upperleg01.L")]
    wide = np.abs(rest.vertices[torso][np.abs(rest.vertices[torso, 2] - hip[2]) < 0.05 * size, 0]).max()
    vertices, faces = _box(np.array([0.09, 0.27, 0.21]) * size)
    vertices = vertices + np.array([side * (wide + OVER_CLOTH + 0.03 * size), 0.02, hip[2] + 0.01 * size])
    bag = _rigid(body, vertices, faces, "root", BAG, material)
    shoulder = -side * 0.10 * size
    top = rest.heads[body.bone("clavicle.L"), 2]
    low, share = hip[2] + 0.10 * size, np.linspace(0, 1, 9)
    x, z = side * wide * (1 - share) + shoulder * share, low * (1 - share) + top * share
    front = [_over(rest, torso, a, b, -1) for a, b in zip(x, z, strict=True)]
    back = [_over(rest, torso, a, b, 1) for a, b in zip(x[::-1], z[::-1], strict=True)]
    start = np.array([side * (wide + OVER_CLOTH), 0.02 * size, low])
    path = np.array([start, *front, _top(rest, torso, shoulder), *back, start])
    return [bag, _strap(body, rest, path, np.array([0.75, 0.0, 0.66 * side]), material)]


def _over(rest: RestBody, torso: np.ndarray, x: float, z: float, side: int) -> np.ndarray:
    """(3,) a point over the back (side 1) or the chest (side -1) at x and z."""
    skin = rest.vertices[torso]
    distance = np.hypot(skin[:, 0] - x, skin[:, 2] - z)
    near = skin[distance < max(0.05, float(distance.min()) + 0.01)]
    return np.array([x, side * ((side * near[:, 1]).max() + OVER_CLOTH), z])


def _top(rest: RestBody, torso: np.ndarray, x: float) -> np.ndarray:
    """(3,) a point over the shoulder at x."""
    skin = rest.vertices[torso]
    near = skin[np.abs(skin[:, 0] - x) < 0.02]
    highest = near[near[:, 2].argmax()]
    return np.array([x, highest[1], highest[2] + OVER_CLOTH])


def _strap(body: Body, rest: RestBody, path: np.ndarray, across: np.ndarray, material: Material) -> Shell:
    """A band along a path, rigged like the skin that it lies on."""
    half = across / np.linalg.norm(across) * STRAP * rest.height / 1.75
    outer = np.stack([path - half, path + half], axis=1)
    torso = vertices_of(body, "torso", "neck")
    nearest = torso[cKDTree(rest.vertices[torso]).query(outer)[1]]
    inwards = rest.vertices[nearest] - outer
    inner = outer + STRAP_DEPTH * inwards / np.linalg.norm(inwards, axis=-1, keepdims=True)
    vertices = np.concatenate([outer, inner[:, ::-1]], axis=1).reshape(-1, 3)
    weights = body.weights[np.concatenate([nearest, nearest[:, ::-1]], axis=1).ravel()]
    ends = np.array([[0, 1, 2], [0, 2, 3]])
    faces = np.concatenate([_bands(len(path), 4, closed=True), ends, ends[:, ::-1] + 4 * (len(path) - 1)])
    corners = vertices[faces]
    if np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0:  # the path may go either way
        faces = faces[:, ::-1]
    return shell(vertices, faces, weights, BAG, material, NOTHING)


# -------------------------------------------------------------------------------------------- solids


def _rigid(body: Body, vertices: np.ndarray, faces: np.ndarray, bone: str, part: int, material: Material) -> Shell:
    weights = np.zeros((len(vertices), len(body.bones)), np.float32)
    weights[:, body.bone(bone)] = 1
    return shell(vertices, faces, weights, part, material, NOTHING)


def _box(size: np.ndarray, rounded: float = 0.12) -> tuple[np.ndarray, np.ndarray]:
    """A box with soft edges around the origin: a super-ellipsoid."""
    rows, columns = 10, 20
    polar = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]

    def soft(value: np.ndarray) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** rounded

    unit = np.stack(
        np.broadcast_arrays(
            soft(np.cos(polar)) * soft(np.cos(angle)), soft(np.cos(polar)) * soft(np.sin(angle)), soft(np.sin(polar))
        ),
        axis=-1,
    )
    return unit.reshape(-1, 3) * size / 2, _bands(rows, columns, closed=True)


def _rod(start: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A bar with a square section."""
    direction = (end - start) / np.linalg.norm(end - start)
    side = np.cross(direction, [0.0, 0.0, 1.0] if abs(direction[2]) < 0.9 else [1.0, 0.0, 0.0])
    side *= radius / np.linalg.norm(side)
    other = np.cross(direction, side)
    square = np.stack([side + other, -side + other, -side - other, side - other])
    return np.concatenate([start + square, end + square]), _bands(2, 4, closed=True)


def _bands(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """(F, 3) triangles of a grid of points; ``closed`` joins the last column with the first."""
    row, column = (i.ravel() for i in np.mgrid[: rows - 1, : columns if closed else columns - 1])
    following = (column + 1) % columns
    a, b = row * columns + column, row * columns + following
    return np.concatenate([np.stack([a, b, a + columns], 1), np.stack([b, b + columns, a + columns], 1)])


def _merged(pieces: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    first = np.cumsum([0, *(len(vertices) for vertices, _ in pieces)])
    return (
        np.concatenate([vertices for vertices, _ in pieces]),
        np.concatenate([faces + start for (_, faces), start in zip(pieces, first, strict=False)]),
    )
