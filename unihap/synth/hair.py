"""Hair and faces: shells over the scalp, and what falls from it."""

import functools

import numpy as np
from scipy.ndimage import uniform_filter1d

from unihap.synth.body import Body, RestBody, faces_of, vertices_of
from unihap.synth.cloth import clip, shell
from unihap.synth.structures import LIP, Hair, Material, Shell

# Distances are in "skulls": from the middle of the eyes to the top of the head, about 11 cm in an adult.
# (y, z): where hair begins at a distance y behind the eyes; it is above z.
HAIRLINES = {
    "short": (
        (-1.0, 0.62), (0.05, 0.55), (0.35, 0.32), (0.5, 0.02), (0.62, 0.22), (0.95, 0.22), (1.1, -0.35), (2.0, -0.7),
    ),
    "medium": ((-1.0, 0.60), (0.05, 0.50), (0.30, 0.25), (0.42, -0.5), (1.0, -0.7), (2.0, -0.8)),
}  # fmt: skip
STYLES = {  # hairline, thickness, length of what falls in skulls below the eyes
    "short": ("short", 0.10, 0.0),
    "medium": ("medium", 0.17, 1.15),
    "long": ("medium", 0.16, 3.6),
    "ponytail": ("short", 0.09, 0.0),
    "bun": ("short", 0.09, 0.0),
}
UNDER_HAT = 0.35  # hair above this height is under the hat
CURTAIN_COLUMNS, CURTAIN_ROWS = 25, 14
CURTAIN_TOP = 0.5
OFF_THE_BACK = 0.035  # metres between the skin of the back and hair, so that cloth fits under it
LOCK = 0.012  # metres, how uneven hair is
# Faces differ in proportions, the mesh does not: features are found on this one and are then known on all.
REFERENCE = {"gender": 1.0, "age": 2 / 3, "muscle": 0.5, "weight": 0.5, "height": 0.43, "proportions": 0.5}
MOUTH = -0.61  # skulls, where the lips of the reference meet


class Skull:
    """Coordinates of a head: x left, y back, z up from the middle of the eyes, in skulls."""

    def __init__(self, body: Body, rest: RestBody) -> None:
        self.origin = (rest.heads[body.bone("eye.L")] + rest.heads[body.bone("eye.R")]) / 2
        self.faces = faces_of(body, "head", "neck")
        self.size = float(rest.vertices[vertices_of(body, "head", "neck"), 2].max() - self.origin[2])

    def of(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres at rest to skulls."""
        return (points - self.origin) / self.size

    def at(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) skulls to metres at rest."""
        return np.asarray(points) * self.size + self.origin


def hair_shells(body: Body, rest: RestBody, hair: Hair, hat: bool) -> list[Shell]:
    """Hair of a style.

    Args:
        body: the model.
        rest: whose head.
        hair: style and colour.
        hat: only what is seen below a hat.

    Raises:
        ValueError: an unknown style.
    """
    if hair.style == "bald":
        return []
    if hair.style not in STYLES:
        raise ValueError(f"unknown hair style {hair.style!r} (known: bald, {', '.join(STYLES)})")
    line, thickness, length = STYLES[hair.style]
    skull, material = Skull(body, rest), Material(hair.colour, gloss=0.25)
    shells = [_cap(body, rest, skull, line, thickness, material, hat)]
    if length:
        shells.append(_curtain(body, rest, skull, length, thickness, material))
    if hair.style == "ponytail":
        path = np.array(
            [[0, 1.5, 0.45], [0, 1.95, 0.45], [0, 2.15, 0.05], [0, 2.1, -0.6], [0, 1.95, -1.3], [0, 1.85, -1.9]]
        )
        shells.append(_tail(body, skull, path, np.array([0.12, 0.2, 0.26, 0.26, 0.2, 0.02]), material))
    if hair.style == "bun" and not hat:
        path = np.array([[0, 1.2, 0.75], [0, 1.35, 0.85], [0, 1.55, 1.0], [0, 1.75, 1.12], [0, 1.85, 1.18]])
        shells.append(_tail(body, skull, path, np.array([0.1, 0.32, 0.4, 0.3, 0.02]), material))
    return shells


def face_shells(body: Body, rest: RestBody, hair_colour: tuple[float, float, float]) -> list[Shell]:
    """Eyes, eyebrows and lips, so that a face differs from the back of a bald head even when it is small."""
    skull = Skull(body, rest)
    shells = [_lifted(body, rest, faces_of(body, "eye"), None, 0.0015, Material((0.02, 0.016, 0.014), gloss=0.5))]
    place = skull.of(rest.vertices)
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    brows = np.minimum(0.045 - np.abs(z - 0.235 + 0.35 * np.maximum(x - 0.3, 0) ** 2), 0.2 - np.abs(x - 0.32))
    lips = _lips(body)
    for field, colour in ((brows, tuple(0.6 * c for c in hair_colour)), (lips, (0.22, 0.07, 0.06))):
        front = np.where(y < 0.25, field, -1.0)
        shells.append(_lifted(body, rest, skull.faces, front, 0.002, Material((colour[0], colour[1], colour[2]))))
    return shells


@functools.lru_cache(maxsize=1)
def _lips(body: Body) -> np.ndarray:
    """(V,) positive on the lips."""
    rest = body.rest(REFERENCE)
    x, _, z = np.abs(Skull(body, rest).of(rest.vertices)).T
    return 0.085 * (1 - (x / 0.25) ** 2) - np.abs(z + MOUTH)


def _cap(body: Body, rest: RestBody, skull: Skull, line: str, thickness: float, material: Material, hat: bool) -> Shell:
    """The scalp, lifted, thinner towards the hairline."""
    place = skull.of(rest.vertices)
    border = np.interp(place[:, 1], *np.transpose(HAIRLINES[line]))
    field = place[:, 2] - border
    if hat:
        field = np.minimum(field, UNDER_HAT - place[:, 2])
    # ears stay outside of short hair: they stand away from the skull
    if line == "short":
        field = np.minimum(field, 0.70 - np.abs(place[:, 0]))
    lift = thickness * np.clip(0.25 + 2.5 * np.abs(field), 0, 1) * skull.size
    wave = LOCK * np.sin(9 * place[:, 0] + 4 * place[:, 1]) * np.sin(7 * place[:, 1] + 5 * place[:, 2])
    outwards = place - np.array([0.0, 0.75, 0.1])
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    lifted = rest.vertices + (0.5 * rest.normals + 0.5 * outwards) * (lift + 0.5 * wave * (lift > 0.01))[:, None]
    return _cut(body, lifted, skull.faces, field, LIP["hair"], material)


def _curtain(body: Body, rest: RestBody, skull: Skull, length: float, thickness: float, material: Material) -> Shell:
    """What falls behind the ears and down the back: a bent sheet around the back of the head."""
    angle = np.linspace(-1, 1, CURTAIN_COLUMNS) * np.radians(118)  # about z, 0 at the back
    z = np.linspace(CURTAIN_TOP, -length, CURTAIN_ROWS)
    along = np.linspace(0, 1, CURTAIN_ROWS)
    grid = np.zeros((CURTAIN_ROWS, CURTAIN_COLUMNS, 3))
    widen = 0.72 + thickness + 0.1 * np.sin(np.pi * np.minimum(along * 1.3, 1))
    deep = 0.86 + thickness - 0.25 * np.clip((along - 0.2), 0, 1)
    grid[..., 0] = np.sin(angle)[None] * widen[:, None]
    grid[..., 1] = 0.72 + np.cos(angle)[None] * deep[:, None]
    # the ends of the sheet are shorter than its middle
    grid[..., 2] = CURTAIN_TOP - (CURTAIN_TOP - z)[:, None] * (1 - 0.18 * np.abs(np.sin(angle)) ** 4)[None]
    points = skull.at(grid.reshape(-1, 3))
    points = _outside_of_the_back(body, rest, points)
    points[:, 1] += LOCK * 0.4 * np.tile(np.cos(np.arange(CURTAIN_COLUMNS) * 2.4), CURTAIN_ROWS)
    row, column = np.mgrid[: CURTAIN_ROWS - 1, : CURTAIN_COLUMNS - 1]
    first = (row * CURTAIN_COLUMNS + column).ravel()
    right, below = first + 1, first + CURTAIN_COLUMNS
    faces = np.concatenate([np.stack([first, right, below], 1), np.stack([right, below + 1, below], 1)])
    weights = np.zeros((len(points), len(body.bones)), dtype=np.float32)
    # hair hangs from the head; what lies on the back goes with the back
    lying = np.clip((-skull.of(points)[:, 2] - 0.9) / 1.5, 0, 1)
    weights[:, body.bone("head")] = 1 - lying
    weights[:, body.bone("spine01")] = lying
    return shell(points, faces, weights, LIP["hair"], material, np.zeros(0, np.int64))


def _outside_of_the_back(body: Body, rest: RestBody, points: np.ndarray) -> np.ndarray:
    """Points moved backwards until they are behind neck, shoulders and back."""
    skin = rest.vertices[vertices_of(body, "torso", "neck", "left_arm", "right_arm")]
    low, high = points.min(axis=0) - 0.035, points.max(axis=0) + 0.035
    skin = skin[((skin > low) & (skin < high))[:, [0, 2]].all(axis=1)]  # the rest is near no point
    points = points.copy()
    near = (np.abs(skin[:, 0] - points[:, :1]) < 0.035) & (np.abs(skin[:, 2] - points[:, 2:]) < 0.035)
    points[:, 1] = np.maximum(points[:, 1], np.where(near, skin[:, 1] + OFF_THE_BACK, -np.inf).max(axis=1))
    # hair bends smoothly from the head to the back
    grid = points[:, 1].reshape(CURTAIN_ROWS, CURTAIN_COLUMNS)
    smooth = np.maximum(grid, uniform_filter1d(grid, 5, axis=0, mode="nearest"))
    points[:, 1] = smooth.ravel()
    return points


def _tail(body: Body, skull: Skull, path: np.ndarray, radii: np.ndarray, material: Material) -> Shell:
    """A tube along a path in skulls; it moves with the head."""
    sides = 10
    angle = np.arange(sides) * 2 * np.pi / sides
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    up = np.cross(direction, [1.0, 0.0, 0.0])
    ring = np.cos(angle)[None, :, None] * np.array([1.0, 0.0, 0.0]) + np.sin(angle)[None, :, None] * up[:, None]
    points = skull.at((path[:, None] + ring * radii[:, None, None]).reshape(-1, 3))
    row, column = (index.ravel() for index in np.mgrid[: len(path) - 1, :sides])
    following = (column + 1) % sides
    a, b = row * sides + column, row * sides + following
    faces = np.concatenate([np.stack([a, b, a + sides], 1), np.stack([b, b + sides, a + sides], 1)])
    weights = np.zeros((len(points), len(body.bones)), dtype=np.float32)
    weights[:, body.bone("head")] = 1
    return shell(points, faces, weights, LIP["hair"], material, np.zeros(0, np.int64))


def _lifted(
    body: Body, rest: RestBody, faces: np.ndarray, field: np.ndarray | None, height: float, material: Material
) -> Shell:
    lifted = rest.vertices + rest.normals * height
    field = np.ones(len(lifted)) if field is None else field
    return _cut(body, lifted, faces, field, LIP["face"], material)


def _cut(
    body: Body, vertices: np.ndarray, faces: np.ndarray, field: np.ndarray, part: int, material: Material
) -> Shell:
    """The faces on which a field is positive, moved to ``vertices``."""
    cut = clip(body.faces[faces], field)
    share = cut.fraction[:, None]
    points = (1 - share) * vertices[cut.first] + share * vertices[cut.second]
    weights = (1 - share) * body.weights[cut.first] + share * body.weights[cut.second]
    return shell(points, cut.faces, weights, part, material, np.zeros(0, np.int64))
