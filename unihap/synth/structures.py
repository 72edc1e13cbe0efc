"""The words of the generator: meshes, materials, people, cameras and rendered images.

Frames.  Body and world: metres, z up, a person of yaw 0 stands on z = 0, faces -y and has the left side at +x.
Camera: metres, x right, y down, z forward (OpenCV).  Image: pixels, the centre of the first pixel is (0, 0); a box
names edges between pixels, xyxy, so that the box of a whole image is (0, 0, width, height).
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unihap.data.parsing_classes import LIP_CLASSES

LIP = {name: value for value, name in enumerate(LIP_CLASSES)}
BAG = len(LIP_CLASSES)  # bags and carried objects: no class of LIP, they hide their carrier


class Pattern(enum.Enum):
    """How a material's second colour is laid over its first."""

    PLAIN = "plain"
    STRIPES = "stripes"  # horizontal rings of the garment
    PLAID = "plaid"
    LOGO = "logo"  # a patch on the chest
    TWO_TONE = "two_tone"  # upper and lower half of the garment
    DOTS = "dots"


@dataclass(frozen=True)
class Material:
    """A surface.

    Attributes:
        colour: linear RGB, 0-1.
        second: the pattern's colour, linear RGB.
        pattern: how the two are mixed.
        period: length of the pattern in metres.
        gloss: strength of the highlight, 0-1.
    """

    colour: tuple[float, float, float]
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: Pattern = Pattern.PLAIN
    period: float = 0.08
    gloss: float = 0.05


@dataclass(frozen=True)
class Mesh:
    """Triangles with what the renderer needs to know about them.

    Attributes:
        vertices: (V, 3) float32, metres.
        faces: (F, 3) int32.
        part: (F,) uint8, class of LIP, or ``BAG``.
        material: (F,) uint8, index into ``materials``.
        surface: (V, 3) float32, where the vertex is on the person at rest, in metres: pattern coordinates that
            move with the cloth (x left, y back, z up from the ground).
        materials: the surfaces.
    """

    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    material: np.ndarray
    surface: np.ndarray
    materials: tuple[Material, ...]


@dataclass(frozen=True)
class Shell:
    """A garment or an accessory in rest pose, rigged like the body.

    Attributes:
        vertices: (V, 3) float32, rest pose.
        faces: (F, 3) int32.
        weights: (V, J) float32, rows sum to 1: how much a vertex follows each bone.
        part: class of LIP, or ``BAG``; one for all faces or (F,).
        material: the surface.
        covers: numbers of body faces that it hides, to be left out of the body.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    part: int | np.ndarray
    material: Material
    covers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Hair:
    """``style``: bald, short, medium, long, ponytail or bun."""

    style: str
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Garment:
    """One piece of clothing.

    Attributes:
        kind: upper: t_shirt, long_sleeve, jacket, coat, dress; lower: trousers, shorts, skirt; shoes: shoes, boots.
        material: its surface.
    """

    kind: str
    material: Material


@dataclass(frozen=True)
class Outfit:
    """What somebody wears and carries; ``None`` means nothing of it.

    Attributes:
        number: unique among all outfits of a run.
        upper: t_shirt, long_sleeve, jacket (to the hips), coat (to the knees) or dress.
        inner: shirt seen in an open jacket or coat.
        lower: trousers, shorts or skirt; ``None`` under a dress.
        socks: whether bare legs end in socks.
    """

    number: int
    upper: Garment
    shoes: Garment
    lower: Garment | None = None
    inner: Material | None = None
    socks: Material | None = None
    hat: Material | None = None
    glasses: Material | None = None
    backpack: Material | None = None
    handbag: Material | None = None
    shoulder_bag: Material | None = None


@dataclass(frozen=True)
class Person:
    """Somebody: a body, hair and an outfit.

    Attributes:
        identity: unique among all people of a run, from 1.
        shape: Anny's phenotypes, 0-1: gender (0 male, 1 female), age, muscle, weight, height, proportions.
        skin: the surface of skin.
    """

    identity: int
    shape: dict[str, float]
    skin: Material
    hair: Hair
    outfit: Outfit


@dataclass(frozen=True)
class Pose:
    """How somebody stands.

    Attributes:
        activity: stand, walk, run, sit, reach, carry or random.
        rotations: bone -> (3,) rotation vector in radians, in the body's axes at rest, relative to the parent bone.
        carried: an object held in front with both hands.
    """

    activity: str
    rotations: dict[str, np.ndarray]
    carried: Material | None = None


@dataclass(frozen=True)
class Figure:
    """A dressed, posed person in the world.

    Attributes:
        mesh: world frame.
        keypoints: (17, 3) float64, COCO order, world frame.
        yaw: radians, how far the person is turned about z; 0 faces -y.
    """

    person: Person
    pose: Pose
    mesh: Mesh
    keypoints: np.ndarray
    yaw: float


@dataclass(frozen=True)
class Camera:
    """A pinhole camera and what its picture is like.

    Attributes:
        number: camera of its site, from 1.
        matrix: (3, 3) float64 intrinsics, for pixels whose first centre is (0, 0).
        rotation: (3, 3) float64, world to camera.
        position: (3,) float64, world.
        size: (height, width) of the image.
        exposure: factor of the light.
        white_balance: (3,) factors of RGB.
        contrast: exponent of the tone curve, 1 = sRGB.
        blur: standard deviation in pixels.
        noise: standard deviation of 0-255.
        quality: of JPEG, 1-100.
    """

    number: int
    matrix: np.ndarray
    rotation: np.ndarray
    position: np.ndarray
    size: tuple[int, int]
    exposure: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    quality: int = 90


@dataclass(frozen=True)
class Seen:
    """Exact labels of one person in one image.

    Attributes:
        figure: the person in the world.
        keypoints: (17, 3) float32: x, y in pixels, visibility 2 seen, 1 hidden, 0 outside the image.
        joints: (17, 3) float32, the same points in the camera frame, metres.
        full_box: (4,) float32, tight extent of the whole person, also of what is hidden or outside the image.
        visible_box: (4,) float32, tight extent of ``owner == index``; zeros when nothing is seen.
        visible_share: seen pixels over all pixels of the person.
        all_parts: numbers of the parts that the person would show if nothing else were in the scene.
    """

    figure: Figure
    keypoints: np.ndarray
    joints: np.ndarray
    full_box: np.ndarray
    visible_box: np.ndarray
    visible_share: float
    all_parts: frozenset[int]


@dataclass(frozen=True)
class Picture:
    """A rendered image with the labels of everybody in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        owner: (H, W) int16, index into ``people`` of the person seen there, bags left out; -1 nobody.
        part: (H, W) uint8, class of LIP seen there; 0 where nobody is.
        people: nearest first.
        camera: how it was taken.
    """

    image: np.ndarray
    owner: np.ndarray
    part: np.ndarray
    people: Sequence[Seen]
    camera: Camera
