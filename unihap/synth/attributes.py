"""Attributes of a rendered person, in two lists: PA-100K's, and one in the style of RAP and Market-1501.

They say what is true of the person, also where something hides it, as annotators of a whole track would: only the
orientation depends on the camera.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from unihap.data.skeletons import SKELETONS
from unihap.lookup import lookup
from unihap.synth.structures import Camera, Figure, Material, Outfit, Pattern, Person, Pose

# Anny's phenotype age: 1/3 child, 2/3 young adult, 1 old.
ADULT_FROM = 0.52  # younger people are under 18
OLD_FROM = 0.88  # older people are over 60
FEMALE_FROM = 0.5  # of the phenotype gender

CHEST, SIDES = ("shoulder", "hip"), ("left", "right")
FRONT_WITHIN, BACK_BEYOND = np.radians(45), np.radians(135)  # angles between the chest and the camera
SHORT_SLEEVES = ("t_shirt", "dress")
LONG_SLEEVES = ("long_sleeve", "jacket", "coat")
LONG_HAIR = ("long", "ponytail")
LOWER_PATTERNS = (Pattern.PLAID, Pattern.DOTS)  # those that are also below the waist of a dress, but stripes
BAGS = ("backpack", "handbag", "shoulder_bag")

# sRGB; several examples of a name where it is wide.
COLOURS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("black", (18, 18, 20)), ("black", (48, 46, 45)), ("white", (238, 238, 235)), ("white", (208, 203, 192)),
    ("gray", (90, 90, 93)), ("gray", (130, 131, 134)), ("gray", (170, 165, 160)), ("red", (196, 32, 38)),
    ("red", (150, 60, 64)), ("red", (120, 20, 28)), ("orange", (236, 120, 32)), ("orange", (208, 148, 94)),
    ("yellow", (238, 200, 44)), ("yellow", (226, 218, 130)), ("green", (34, 128, 62)), ("green", (108, 138, 84)),
    ("green", (62, 84, 70)), ("green", (20, 66, 36)), ("turquoise", (60, 176, 182)), ("turquoise", (120, 172, 156)),
    ("blue", (28, 38, 78)), ("blue", (38, 92, 186)), ("blue", (82, 104, 134)), ("blue", (140, 180, 214)),
    ("purple", (98, 50, 130)), ("purple", (152, 132, 178)), ("pink", (222, 112, 160)), ("pink", (232, 178, 184)),
    ("brown", (120, 66, 34)), ("brown", (92, 72, 50)), ("brown", (60, 40, 26)), ("beige", (196, 172, 130)),
)  # fmt: skip
HAIR_COLOURS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("black", (20, 17, 16)), ("dark brown", (44, 31, 23)), ("brown", (84, 56, 34)), ("light brown", (150, 108, 58)),
    ("blond", (206, 174, 112)), ("red", (128, 52, 28)), ("gray", (110, 110, 112)), ("gray", (150, 150, 152)),
    ("white", (206, 206, 204)),
)  # fmt: skip
# the colour classes of list b; names that are not here join a neighbour
COLOUR_CLASSES = ("Black", "White", "Gray", "Red", "Orange", "Yellow", "Green", "Blue", "Purple", "Pink", "Brown")
NEIGHBOURS = {"turquoise": "green", "beige": "brown"}


@dataclass(frozen=True)
class Subject:
    """What the rules read.

    Attributes:
        person: the body, hair and outfit.
        pose: what the person does.
        view: ``front``, ``side`` or ``back``.
    """

    person: Person
    pose: Pose
    view: str

    @property
    def outfit(self) -> Outfit:
        """What the person wears."""
        return self.person.outfit

    @property
    def bottom(self) -> Material:
        """The cloth below the waist: that of the lower garment, or of the dress."""
        garment = self.outfit.lower or self.outfit.upper
        return garment.material

    def wears(self, *kinds: str) -> bool:
        """Whether a garment is one of these kinds."""
        garments = (self.outfit.upper, self.outfit.lower, self.outfit.shoes)
        return any(garment is not None and garment.kind in kinds for garment in garments)

    def upper_has(self, pattern: Pattern) -> bool:
        """Whether the upper garment or the dress has a pattern."""
        return self.outfit.upper.material.pattern is pattern

    def carries(self, *bags: str) -> bool:
        """Whether somebody has one of these bags."""
        return any(getattr(self.outfit, bag) is not None for bag in bags)


Rule = Callable[[Subject], bool]


def _upper_colour(name: str) -> Rule:
    return lambda s: _colour_class(s.outfit.upper.material.colour) == name


def _lower_colour(name: str) -> Rule:
    return lambda s: _colour_class(_bottom_colour(s)) == name


RULES: dict[str, dict[str, Rule]] = {
    # PA-100K: its names in its order.  A dress counts as an upper garment with short sleeves, and its skirt as a
    # lower garment without a name of its own: stripes, plaid and dots of a dress are also below the waist.
    "a": {
        "Female": lambda s: is_female(s.person),
        "AgeOver60": lambda s: age_group(s.person) == "senior",
        "Age18-60": lambda s: age_group(s.person) == "adult",
        "AgeLess18": lambda s: age_group(s.person) == "child",
        "Front": lambda s: s.view == "front",
        "Side": lambda s: s.view == "side",
        "Back": lambda s: s.view == "back",
        "Hat": lambda s: s.outfit.hat is not None,
        "Glasses": lambda s: s.outfit.glasses is not None,
        "HandBag": lambda s: s.carries("handbag"),
        "ShoulderBag": lambda s: s.carries("shoulder_bag"),
        "Backpack": lambda s: s.carries("backpack"),
        "HoldObjectsInFront": lambda s: s.pose.carried is not None,
        "ShortSleeve": lambda s: s.wears(*SHORT_SLEEVES),
        "LongSleeve": lambda s: s.wears(*LONG_SLEEVES),
        "UpperStride": lambda s: s.upper_has(Pattern.STRIPES),
        "UpperLogo": lambda s: s.upper_has(Pattern.LOGO),
        "UpperPlaid": lambda s: s.upper_has(Pattern.PLAID),
        "UpperSplice": lambda s: s.upper_has(Pattern.TWO_TONE),
        "LowerStripe": lambda s: s.bottom.pattern is Pattern.STRIPES,
        "LowerPattern": lambda s: s.bottom.pattern in LOWER_PATTERNS,
        "LongCoat": lambda s: s.wears("coat"),
        "Trousers": lambda s: s.wears("trousers"),
        "Shorts": lambda s: s.wears("shorts"),
        "Skirt&Dress": lambda s: s.wears("skirt", "dress"),
        "boots": lambda s: s.wears("boots"),
    },
    # Colours are those of the cloth below the pattern.
    "b": {
        "Male": lambda s: not is_female(s.person),
        "Child": lambda s: age_group(s.person) == "child",
        "Adult": lambda s: age_group(s.person) == "adult",
        "Senior": lambda s: age_group(s.person) == "senior",
        "FacingFront": lambda s: s.view == "front",
        "FacingSide": lambda s: s.view == "side",
        "FacingBack": lambda s: s.view == "back",
        "BaldHead": lambda s: s.person.hair.style == "bald" and s.outfit.hat is None,
        "LongHair": lambda s: s.person.hair.style in LONG_HAIR,
        "BlackHair": lambda s: s.person.hair.style != "bald" and hair_colour_name(s.person.hair.colour) == "black",
        "Headwear": lambda s: s.outfit.hat is not None,
        "Eyewear": lambda s: s.outfit.glasses is not None,
        "TShirt": lambda s: s.wears("t_shirt"),
        "LongSleeveShirt": lambda s: s.wears("long_sleeve"),
        "Jacket": lambda s: s.wears("jacket"),
        "Coat": lambda s: s.wears("coat"),
        "Dress": lambda s: s.wears("dress"),
        "LongTrousers": lambda s: s.wears("trousers"),
        "ShortTrousers": lambda s: s.wears("shorts"),
        "Skirt": lambda s: s.wears("skirt"),
        "BootShoes": lambda s: s.wears("boots"),
        "PatternedUpper": lambda s: not s.upper_has(Pattern.PLAIN),
        **{f"Upper{name}": _upper_colour(name) for name in COLOUR_CLASSES},
        **{f"Lower{name}": _lower_colour(name) for name in COLOUR_CLASSES},
        "AnyBag": lambda s: s.carries(*BAGS),
        "CarryingAnything": lambda s: s.pose.carried is not None or s.carries(*BAGS),
        "Sitting": lambda s: s.pose.activity == "sit",
        "Running": lambda s: s.pose.activity == "run",
        "Moving": lambda s: s.pose.activity in ("walk", "run"),
    },
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {domain: tuple(rules) for domain, rules in RULES.items()}


def attributes(figure: Figure, camera: Camera, domain: str) -> np.ndarray:
    """(A,) uint8, 1 present and 0 absent, in the order of ``ATTRIBUTES[domain]``.

    Raises:
        ValueError: no such domain.
    """
    rules = lookup(RULES, domain, "domain")
    subject = Subject(figure.person, figure.pose, view(figure, camera))
    return np.array([rule(subject) for rule in rules.values()], dtype=np.uint8)


def facing_angle(figure: Figure, camera: Camera) -> float:
    """Angle from where the chest faces to the camera, both seen from above; radians, 0 facing it, pi turned away.

    The chest is that of the keypoints, between shoulders and hips, so that a turned trunk counts.
    """
    names = SKELETONS["coco"].names
    ends = np.array([[figure.keypoints[names.index(f"{side}_{joint}"), :2] for joint in CHEST] for side in SIDES])
    across = ends[0] - ends[1]  # of shoulders and of hips, which count the same
    across = (across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)).sum(axis=0)
    facing = np.array([across[1], -across[0]])
    to_camera = np.asarray(camera.position)[:2] - ends.mean(axis=(0, 1))
    return float(abs(np.arctan2(facing[0] * to_camera[1] - facing[1] * to_camera[0], facing @ to_camera)))


def view(figure: Figure, camera: Camera) -> str:
    """``front`` within 45 degrees of facing the camera, ``back`` beyond 135, else ``side``."""
    angle = facing_angle(figure, camera)
    if angle <= FRONT_WITHIN:
        return "front"
    return "back" if angle > BACK_BEYOND else "side"


def is_female(person: Person) -> bool:
    """By the phenotype."""
    return person.shape["gender"] > FEMALE_FROM


def age_group(person: Person) -> str:
    """``child`` (under 18), ``adult`` or ``senior`` (over 60)."""
    age = person.shape["age"]
    if age < ADULT_FROM:
        return "child"
    return "senior" if age > OLD_FROM else "adult"


def colour_name(colour: tuple[float, float, float]) -> str:
    """The nearest name of ``COLOURS``, in CIE Lab, of a colour in linear RGB 0-1."""
    return _nearest(colour, COLOURS)


def hair_colour_name(colour: tuple[float, float, float]) -> str:
    """The nearest name of ``HAIR_COLOURS``, in CIE Lab, of a colour in linear RGB 0-1."""
    return _nearest(colour, HAIR_COLOURS)


def _nearest(colour: tuple[float, float, float], table: tuple[tuple[str, tuple[int, int, int]], ...]) -> str:
    examples = np.array([[value for _, value in table]], dtype=np.float32) / 255
    known = cv2.cvtColor(examples, cv2.COLOR_RGB2Lab)[0]
    wanted = cv2.cvtColor(np.array([[colour]], dtype=np.float32), cv2.COLOR_LRGB2Lab)[0, 0]
    return table[int(np.linalg.norm(known - wanted, axis=1).argmin())][0]


def _colour_class(colour: tuple[float, float, float]) -> str:
    name = colour_name(colour)
    return NEIGHBOURS.get(name, name).capitalize()


def _bottom_colour(subject: Subject) -> tuple[float, float, float]:
    """Of the lower garment; a dress in two tones has its second colour below the waist."""
    halved = subject.outfit.lower is None and subject.bottom.pattern is Pattern.TWO_TONE
    return subject.bottom.second if halved else subject.bottom.colour
