"""Things that stand around and hide people: benches, bins, poles, cars, plants, furniture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from unihap.synth.structures import Material, Mesh, Pattern
from unihap.synth.textures import hsv

Rng = np.random.Generator
Vector = Sequence[float] | np.ndarray
SIDES = 14  # of round things


@dataclass(frozen=True)
class Prop:
    """A thing on the ground.

    Attributes:
        mesh: world frame.
        place: (x, y) of its middle.
        radius: metres, of the circle around the place that it fits in.
    """

    mesh: Mesh
    place: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Piece:
    """A solid of one material: (V, 3) vertices and (F, 3) faces, outwards."""

    vertices: np.ndarray
    faces: np.ndarray
    material: Material


Maker = Callable[[Rng], list[Piece]]


def merged(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several.

    Raises:
        ValueError: more materials than a mesh can have.
    """
    materials = tuple(material for mesh in meshes for material in mesh.materials)
    if len(materials) > 256:
        raise ValueError(f"{len(materials)} materials do not fit one mesh of at most 256")
    first_vertex = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    first_material = np.cumsum([0, *(len(mesh.materials) for mesh in meshes)])
    faces = [mesh.faces + first_vertex[i] for i, mesh in enumerate(meshes)]
    material = [mesh.material + first_material[i] for i, mesh in enumerate(meshes)]
    return Mesh(
        vertices=np.concatenate([np.zeros((0, 3)), *(mesh.vertices for mesh in meshes)]).astype(np.float32),
        faces=np.concatenate([np.zeros((0, 3)), *faces]).astype(np.int32),
        part=np.concatenate([np.zeros(0), *(mesh.part for mesh in meshes)]).astype(np.uint8),
        material=np.concatenate([np.zeros(0), *material]).astype(np.uint8),
        surface=np.concatenate([np.zeros((0, 3)), *(mesh.surface for mesh in meshes)]).astype(np.float32),
        materials=materials,
    )


def placed(pieces: Sequence[Piece], place: tuple[float, float], yaw: float) -> Prop:
    """A thing of several pieces, turned about z and put somewhere on the ground."""
    meshes = [
        Mesh(
            vertices=piece.vertices,
            faces=piece.faces,
            part=np.zeros(len(piece.faces), np.uint8),
            material=np.zeros(len(piece.faces), np.uint8),
            surface=piece.vertices,
            materials=(piece.material,),
        )
        for piece in pieces
    ]
    whole = merged(meshes)
    vertices = whole.vertices @ Rotation.from_euler("z", yaw).as_matrix().T + np.array([*place, 0.0])
    mesh = Mesh(vertices.astype(np.float32), whole.faces, whole.part, whole.material, whole.surface, whole.materials)
    return Prop(mesh, place, float(np.linalg.norm(whole.vertices[:, :2], axis=1).max()))


def box(size: Vector, at: Vector, material: Material) -> Piece:
    """A box of (x, y, z) metres that stands on the point ``at``."""
    corners: list[np.ndarray] = []
    faces: list[list[int]] = []
    for axis in range(3):
        for sign in (-1, 1):
            square = np.zeros((4, 3))
            square[:, axis] = sign
            square[:, (axis + 1) % 3] = np.array([-1, 1, 1, -1]) * sign
            square[:, (axis + 2) % 3] = [-1, -1, 1, 1]
            faces += [[len(corners) * 4 + i for i in corner] for corner in ((0, 1, 2), (0, 2, 3))]
            corners.append(square)
    vertices = np.concatenate(corners) * np.asarray(size) / 2 + np.array([0, 0, size[2] / 2]) + np.asarray(at)
    return Piece(vertices.astype(np.float32), np.array(faces, np.int32), material)


def tube(radii: tuple[float, float], height: float, at: Vector, material: Material) -> Piece:
    """A closed cylinder or cone with a radius below and one above, on the point ``at``."""
    angle = np.arange(SIDES) * 2 * np.pi / SIDES
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(SIDES)], axis=1)
    low, high = ring * [radii[0], radii[0], 0], ring * [radii[1], radii[1], 0] + [0, 0, height]
    middle = np.array([[0, 0, 0], [0, 0, height]], dtype=np.float64)
    i = np.arange(SIDES)
    j = (i + 1) % SIDES
    side = np.concatenate([np.stack([i, j, j + SIDES], 1), np.stack([i, j + SIDES, i + SIDES], 1)])
    below = np.stack([np.full(SIDES, 4 * SIDES), j + 2 * SIDES, i + 2 * SIDES], 1)  # caps have corners of their own,
    above = np.stack([np.full(SIDES, 4 * SIDES + 1), i + 3 * SIDES, j + 3 * SIDES], 1)  # so that their rims are sharp
    vertices = np.concatenate([low, high, low, high, middle]) + np.asarray(at)
    return Piece(vertices.astype(np.float32), np.concatenate([side, below, above]).astype(np.int32), material)


def ball(radii: Vector, centre: Vector, material: Material, bumps: float = 0.0) -> Piece:
    """An ellipsoid; ``bumps`` makes a bush of it."""
    rows, columns = 9, 16
    polar = np.linspace(0, np.pi, rows)[:, None]
    angle = np.arange(columns)[None] * 2 * np.pi / columns
    radius = 1 + bumps * np.sin(5 * angle + 3 * polar) * np.sin(4 * polar)
    unit = np.stack([radius * np.sin(polar) * np.cos(angle), radius * np.sin(polar) * np.sin(angle),
                     np.broadcast_to(np.cos(polar), radius.shape)], axis=-1).reshape(-1, 3)  # fmt: skip
    i, j = (index.ravel() for index in np.mgrid[: rows - 1, :columns])
    k = (j + 1) % columns
    upper, lower = i * columns, (i + 1) * columns
    faces = np.concatenate(
        [np.stack([upper + j, lower + j, lower + k], 1), np.stack([upper + j, lower + k, upper + k], 1)]
    )
    vertices = unit * np.asarray(radii) + np.asarray(centre)
    return Piece(vertices.astype(np.float32), faces.astype(np.int32), material)


def paint(
    rng: Rng, hues: tuple[float, float], saturation: float, value: tuple[float, float], gloss: float = 0.1
) -> Material:
    """A plain surface of a random colour; sRGB in, linear out."""
    colour = hsv(rng.uniform(*hues), saturation * rng.uniform(0.6, 1), rng.uniform(*value)).astype(np.float64) ** 2.2
    return Material((float(colour[0]), float(colour[1]), float(colour[2])), gloss=gloss)


def _legs(width: float, depth: float, height: float, material: Material) -> list[Piece]:
    return [
        box((0.05, 0.05, height), (x * (width / 2 - 0.04), y * (depth / 2 - 0.04), 0), material)
        for x in (-1, 1)
        for y in (-1, 1)
    ]


def _bench(rng: Rng) -> list[Piece]:
    wood, iron = paint(rng, (0.06, 0.1), 0.6, (0.35, 0.6)), paint(rng, (0.6, 0.6), 0.1, (0.15, 0.3))
    seat = [box((1.7, 0.11, 0.04), (0, y, 0.43), wood) for y in (-0.18, -0.04, 0.1)]
    back = [box((1.7, 0.03, 0.1), (0, 0.22, z), wood) for z in (0.58, 0.74)]
    sides = [box((0.06, 0.45, 0.43), (x, 0, 0), iron) for x in (-0.7, 0.7)]
    return seat + back + sides + [box((0.05, 0.04, 0.85), (x, 0.25, 0), iron) for x in (-0.7, 0.7)]


def _bin(rng: Rng) -> list[Piece]:
    body = paint(rng, (0.25, 0.6), 0.6, (0.2, 0.5))
    height = rng.uniform(0.7, 1.0)
    return [tube((0.22, 0.27), height, (0, 0, 0), body), tube((0.29, 0.2), 0.08, (0, 0, height), body)]


def _bollard(rng: Rng) -> list[Piece]:
    iron, band = paint(rng, (0, 1), 0.2, (0.15, 0.5)), paint(rng, (0, 0.15), 0.8, (0.6, 0.9))
    height = rng.uniform(0.7, 1.0)
    return [tube((0.09, 0.08), height, (0, 0, 0), iron), tube((0.088, 0.088), 0.1, (0, 0, height - 0.2), band)]


def _pole(rng: Rng) -> list[Piece]:
    iron = paint(rng, (0.4, 0.6), 0.2, (0.25, 0.6), 0.3)
    pieces = [tube((0.07, 0.05), 4.5, (0, 0, 0), iron), tube((0.16, 0.1), 0.3, (0, 0, 0), iron)]
    if rng.random() < 0.5:
        pieces.append(box((0.6, 0.03, 0.6), (0, -0.08, 2.2), paint(rng, (0, 1), 0.8, (0.5, 0.9))))
    return pieces


def _bush(rng: Rng) -> list[Piece]:
    pieces = []
    for _ in range(4):
        x, y = rng.normal(0, 0.25, 2)
        size = rng.uniform(0.3, 0.6, 3)
        leaf = paint(rng, (0.24, 0.34), 0.6, (0.25, 0.5), 0.0)
        pieces.append(ball(size, (x, y, 0.75 * size[2]), leaf, 0.15))
    return pieces


def _wheels(length: float) -> list[Piece]:
    rubber = Material((0.02, 0.02, 0.02))
    wheel = tube((0.32, 0.32), 0.2, (0, 0, -0.1), rubber)
    lying = wheel.vertices[:, [0, 2, 1]] * [1, -1, 1]
    places = [(x * length, y, 0.32) for x in (-0.31, 0.31) for y in (-0.8, 0.8)]
    return [Piece((lying + np.array(place)).astype(np.float32), wheel.faces, rubber) for place in places]


def _car(rng: Rng) -> list[Piece]:
    body = paint(rng, (0.0, 0.65), rng.choice([0.1, 0.8]), (0.2, 0.9), 0.5)
    glass = paint(rng, (0.55, 0.6), 0.3, (0.15, 0.3), 0.5)
    pillars = [box((0.12, 1.5, 0.6), (x, 0, 0.85), body) for x in (-1.3, -0.25, 0.9)]
    return [box((4.1, 1.7, 0.58), (0, 0, 0.28), body), box((2.3, 1.46, 0.58), (-0.2, 0, 0.85), glass), *pillars,
            box((2.1, 1.5, 0.07), (-0.2, 0, 1.42), body), *_wheels(4.1)]  # fmt: skip


def _chair(rng: Rng) -> list[Piece]:
    wood = paint(rng, (0.0, 0.12), 0.6, (0.3, 0.7))
    return [*_legs(0.45, 0.45, 0.45, wood), box((0.45, 0.45, 0.05), (0, 0, 0.45), wood),
            box((0.45, 0.04, 0.3), (0, 0.2, 0.6), wood), box((0.04, 0.04, 0.2), (0.2, 0.2, 0.45), wood),
            box((0.04, 0.04, 0.2), (-0.2, 0.2, 0.45), wood)]  # fmt: skip


def _table(rng: Rng) -> list[Piece]:
    wood = paint(rng, (0.05, 0.12), 0.4, (0.5, 0.9), 0.2)
    return [*_legs(1.3, 0.7, 0.72, paint(rng, (0.6, 0.6), 0.1, (0.2, 0.5))), box((1.3, 0.7, 0.04), (0, 0, 0.72), wood)]


def _cabinet(rng: Rng) -> list[Piece]:
    body, door = paint(rng, (0.05, 0.6), 0.3, (0.4, 0.8)), paint(rng, (0.05, 0.6), 0.3, (0.5, 0.9))
    height = rng.uniform(0.8, 1.3)
    return [box((0.9, 0.4, height), (0, 0, 0), body), box((0.4, 0.02, height - 0.1), (-0.22, -0.21, 0.05), door),
            box((0.4, 0.02, height - 0.1), (0.22, -0.21, 0.05), door)]  # fmt: skip


def _plant(rng: Rng) -> list[Piece]:
    leaves = [
        ball((0.25, 0.25, 0.3), (*rng.normal(0, 0.12, 2), 0.65 + rng.uniform(0, 0.35)),
             paint(rng, (0.25, 0.4), 0.6, (0.25, 0.5), 0.2), 0.2)
        for _ in range(4)
    ]  # fmt: skip
    return [tube((0.16, 0.22), 0.4, (0, 0, 0), paint(rng, (0.0, 0.1), 0.5, (0.4, 0.9))), *leaves]


def _crates(rng: Rng) -> list[Piece]:
    pieces, z = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform(0.35, 0.6, 3)
        pieces.append(box(size, (*rng.uniform(-0.06, 0.06, 2), z), paint(rng, (0.07, 0.6), 0.5, (0.4, 0.75), 0.0)))
        z += size[2]
    return pieces


def _barrel(rng: Rng) -> list[Piece]:
    steel = paint(rng, (0.5, 1.1), 0.8, (0.3, 0.7), 0.3)
    rims = [tube((0.3, 0.3), 0.03, (0, 0, z), steel) for z in (0.28, 0.57)]
    return [tube((0.285, 0.285), 0.88, (0, 0, 0), steel), *rims]


def _cone(rng: Rng) -> list[Piece]:
    skin = Material((0.8, 0.16, 0.02), second=(0.85, 0.85, 0.85), pattern=Pattern.STRIPES, period=0.3)
    return [box((0.38, 0.38, 0.03), (0, 0, 0), skin), tube((0.15, 0.03), rng.uniform(0.6, 0.8), (0, 0, 0.03), skin)]


def _barrier(rng: Rng) -> list[Piece]:
    iron, board = paint(rng, (0, 1), 0.1, (0.5, 0.8), 0.3), paint(rng, (0.4, 1.0), 0.7, (0.4, 0.9))
    posts = [box((0.05, 0.05, 1.05), (x, 0, 0), iron) for x in (-0.9, 0.9)]
    feet = [box((0.08, 0.6, 0.05), (x, 0, 0), iron) for x in (-0.9, 0.9)]
    return [*posts, *feet, *(box((1.8, 0.03, 0.18), (0, 0, z), board) for z in (0.35, 0.8))]


def _van(rng: Rng) -> list[Piece]:
    body, glass = paint(rng, (0.4, 1.1), 0.6, (0.4, 0.95), 0.4), paint(rng, (0.55, 0.6), 0.3, (0.15, 0.3), 0.5)
    return [box((4.6, 1.75, 0.85), (0, 0, 0.28), body), box((3.0, 1.73, 0.95), (-0.8, 0, 1.13), body),
            box((0.95, 1.65, 0.8), (1.15, 0, 1.13), glass), box((1.1, 1.7, 0.12), (1.1, 0, 1.93), body),
            *_wheels(4.6)]  # fmt: skip


def _planter(rng: Rng) -> list[Piece]:
    stone = paint(rng, (0.0, 1.0), 0.15, (0.4, 0.75), 0.0)
    flower = [
        ball((0.14, 0.14, 0.16), (x, rng.uniform(-0.1, 0.1), 0.6), paint(rng, (0.75, 1.15), 0.7, (0.5, 0.9), 0.0), 0.2)
        for x in np.arange(-0.5, 0.6, 0.2)
    ]
    return [box((1.3, 0.45, 0.5), (0, 0, 0), stone), *flower]


def _stool(rng: Rng) -> list[Piece]:
    metal = paint(rng, (0.4, 1.0), 0.6, (0.4, 0.9), 0.4)
    return [tube((0.2, 0.2), 0.03, (0, 0, 0), metal), tube((0.03, 0.03), 0.6, (0, 0, 0), metal),
            tube((0.19, 0.19), 0.07, (0, 0, 0.6), metal)]  # fmt: skip


def _sofa(rng: Rng) -> list[Piece]:
    cloth = paint(rng, (0.4, 1.0), 0.6, (0.25, 0.7), 0.0)
    arms = [box((0.18, 0.8, 0.6), (x, 0, 0), cloth) for x in (-0.8, 0.8)]
    return [box((1.6, 0.8, 0.42), (0, 0, 0), cloth), box((1.6, 0.2, 0.8), (0, 0.32, 0), cloth), *arms]


def _suitcases(rng: Rng) -> list[Piece]:
    cases = []
    for x in (-0.3, 0.25)[: int(rng.integers(1, 3))]:
        height = rng.uniform(0.55, 0.75)
        shell = paint(rng, (0.4, 1.1), 0.7, (0.3, 0.8), 0.4)
        cases += [box((0.42, 0.26, height), (x, 0, 0.05), shell), box((0.25, 0.03, 0.35), (x, 0.1, height), shell)]
    return cases


def _column(rng: Rng) -> list[Piece]:
    stone = paint(rng, (0.3, 0.9), 0.15, (0.6, 0.9), 0.3)
    return [tube((0.22, 0.22), 5.0, (0, 0, 0), stone), box((0.6, 0.6, 0.15), (0, 0, 0), stone)]


# Domain and kind -> what may stand around.  The two domains share none.
PROPS: Mapping[tuple[str, str], tuple[Maker, ...]] = {
    ("a", "outdoor"): (_bench, _bin, _bollard, _pole, _bush, _car),
    ("a", "indoor"): (_chair, _table, _cabinet, _plant),
    ("b", "outdoor"): (_crates, _barrel, _cone, _barrier, _van, _planter),
    ("b", "indoor"): (_stool, _sofa, _suitcases, _column),
}
