"""Who is rendered: bodies, hair and outfits, drawn at random with the proportions of a street."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from unihap.lookup import lookup
from unihap.synth.attributes import ADULT_FROM, OLD_FROM
from unihap.synth.camera import decode
from unihap.synth.structures import Garment, Hair, Material, Outfit, Pattern, Person

Colour = tuple[float, float, float]

# sRGB, 0-255.  The two domains share no colour, so that nobody of b wears what somebody of a wears; none is the colour
# of skin.
PALETTES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "a": (
        (22, 22, 25), (236, 236, 232), (128, 130, 134), (28, 38, 78), (38, 92, 186), (196, 32, 38), (238, 200, 44),
        (34, 128, 62), (120, 66, 34), (222, 112, 160), (98, 50, 130), (236, 120, 32), (60, 176, 182), (112, 118, 58),
    ),
    "b": (
        (52, 50, 48), (208, 202, 190), (168, 160, 152), (82, 104, 134), (140, 180, 214), (150, 62, 66), (224, 216, 130),
        (108, 138, 84), (92, 74, 52), (232, 178, 184), (152, 132, 178), (176, 84, 120), (120, 172, 156), (64, 84, 72),
    ),
}  # fmt: skip
SKIN_TONES = ((58, 38, 28), (92, 60, 42), (134, 90, 62), (176, 124, 92), (210, 164, 130), (236, 198, 170))
HAIR_COLOURS = ((20, 17, 16), (42, 30, 22), (84, 56, 34), (150, 108, 58), (206, 174, 112), (128, 52, 28))
GREY_HAIR = ((150, 150, 152), (206, 206, 204))
LEATHER = ((26, 22, 20), (92, 56, 32), (60, 60, 64), (150, 146, 140))
COLOUR_JITTER = 12.0

UPPER_PATTERNS: Mapping[Pattern, float] = {
    Pattern.PLAIN: 0.44, Pattern.STRIPES: 0.14, Pattern.PLAID: 0.14, Pattern.LOGO: 0.14, Pattern.TWO_TONE: 0.14,
}  # fmt: skip
LOWER_PATTERNS: Mapping[Pattern, float] = {Pattern.PLAIN: 0.7, Pattern.STRIPES: 0.15, Pattern.DOTS: 0.15}
PERIODS: Mapping[Pattern, tuple[float, float]] = {
    Pattern.PLAIN: (0.1, 0.1),
    Pattern.STRIPES: (0.07, 0.15),
    Pattern.PLAID: (0.10, 0.18),
    Pattern.LOGO: (0.16, 0.24),
    Pattern.TWO_TONE: (0.1, 0.1),
    Pattern.DOTS: (0.06, 0.11),
}
FEMALE_UPPER = {"t_shirt": 0.26, "long_sleeve": 0.26, "jacket": 0.14, "coat": 0.16, "dress": 0.18}
MALE_UPPER = {"t_shirt": 0.34, "long_sleeve": 0.30, "jacket": 0.20, "coat": 0.16}
FEMALE_LOWER = {"trousers": 0.5, "shorts": 0.2, "skirt": 0.3}
MALE_LOWER = {"trousers": 0.68, "shorts": 0.32}
FEMALE_HAIR = {"short": 0.12, "medium": 0.26, "long": 0.34, "ponytail": 0.16, "bun": 0.12}
MALE_HAIR = {"bald": 0.14, "short": 0.66, "medium": 0.14, "long": 0.06}


def linear(colour: np.ndarray | tuple[int, int, int]) -> Colour:
    """From sRGB 0-255 to linear RGB 0-1."""
    red, green, blue = decode(np.clip(np.asarray(colour, dtype=np.float64) / 255, 0, 1))
    return float(red), float(green), float(blue)


def sample_person(rng: np.random.Generator, identity: int, domain: str) -> Person:
    """Somebody new, with an outfit of the same number.

    Args:
        rng: the only source of randomness.
        identity: unique number of the person, from 1.
        domain: ``a`` or ``b``: which palette clothes are dyed from.

    Raises:
        ValueError: no such domain.
    """
    lookup(PALETTES, domain, "domain")
    female = rng.random() < 0.5
    age = _age(rng)
    shape = {
        "gender": float(np.clip((1.0 if female else 0.0) + rng.uniform(-0.12, 0.12), 0, 1)),
        "age": age,
        "muscle": float(np.clip(rng.normal(0.5, 0.15), 0.1, 0.9)),
        "weight": float(np.clip(rng.normal(0.5, 0.18), 0.1, 0.95)),
        "height": float(np.clip(rng.normal(0.43, 0.06), 0.3, 0.6)),
        "proportions": float(np.clip(rng.normal(0.5, 0.15), 0.1, 0.9)),
    }
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    skin = [np.interp(tone, range(len(SKIN_TONES)), channel) for channel in np.transpose(SKIN_TONES)]
    old = age >= OLD_FROM
    shades = GREY_HAIR if old and rng.random() < 0.9 else HAIR_COLOURS
    hair = Hair(_choice(rng, FEMALE_HAIR if female else MALE_HAIR), _shade(rng, shades))
    if hair.style == "bald" and age < ADULT_FROM:
        hair = replace(hair, style="short")
    return Person(
        identity=identity,
        shape=shape,
        skin=Material(linear(np.array(skin)), gloss=0.12),
        hair=hair,
        outfit=sample_outfit(rng, identity, female, domain),
    )


def sample_outfit(rng: np.random.Generator, number: int, female: bool, domain: str) -> Outfit:
    """Clothes, shoes, and what is carried."""
    palette = lookup(PALETTES, domain, "domain")
    kind = _choice(rng, FEMALE_UPPER if female else MALE_UPPER)
    upper = Garment(kind, _cloth(rng, palette, UPPER_PATTERNS))
    lower = None
    if kind != "dress":
        lower = Garment(_choice(rng, FEMALE_LOWER if female else MALE_LOWER), _cloth(rng, palette, LOWER_PATTERNS))
    shoes = "boots" if rng.random() < 0.2 else "shoes"
    bag = rng.choice(["none", "backpack", "handbag", "shoulder_bag"], p=[0.31, 0.27, 0.21, 0.21])
    return Outfit(
        number=number,
        upper=upper,
        shoes=Garment(shoes, Material(_shade(rng, palette if rng.random() < 0.3 else LEATHER), gloss=0.2)),
        lower=lower,
        inner=_cloth(rng, palette, {Pattern.PLAIN: 1.0}) if kind in ("jacket", "coat") and rng.random() < 0.6 else None,
        socks=_cloth(rng, palette, {Pattern.PLAIN: 1.0}) if rng.random() < 0.4 else None,
        hat=_cloth(rng, palette, {Pattern.PLAIN: 1.0}) if rng.random() < 0.26 else None,
        glasses=Material((0.012, 0.012, 0.015), gloss=0.5) if rng.random() < 0.28 else None,
        backpack=_cloth(rng, palette, {Pattern.PLAIN: 1.0}) if bag == "backpack" else None,
        handbag=Material(_shade(rng, palette), gloss=0.2) if bag == "handbag" else None,
        shoulder_bag=Material(_shade(rng, palette), gloss=0.2) if bag == "shoulder_bag" else None,
    )


def change_outfit(rng: np.random.Generator, person: Person, number: int, domain: str) -> Person:
    """The same body and hair in other clothes.

    Args:
        rng: the only source of randomness.
        person: who.
        number: of the new outfit, unique in a run.
        domain: ``a`` or ``b``.
    """
    return replace(person, outfit=sample_outfit(rng, number, person.shape["gender"] > 0.5, domain))


def _age(rng: np.random.Generator) -> float:
    """A fifth children, a fifth old, as attributes need more of both than a street has."""
    group = rng.random()
    if group < 0.2:
        return float(rng.uniform(0.3, ADULT_FROM - 0.06))
    if group < 0.8:
        return float(rng.uniform(ADULT_FROM + 0.06, 0.8))
    return float(rng.uniform(OLD_FROM + 0.05, 1.0))


def _choice(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def _shade(rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...]) -> Colour:
    return linear(np.asarray(palette[rng.integers(len(palette))]) + rng.normal(0, COLOUR_JITTER, 3))


def _cloth(
    rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...], patterns: Mapping[Pattern, float]
) -> Material:
    """A dyed cloth; the two colours of a pattern differ clearly."""
    pattern = list(patterns)[rng.choice(len(patterns), p=list(patterns.values()))]
    first, second = rng.choice(len(palette), 2, replace=False)
    while np.abs(np.subtract(palette[first], palette[second])).max() < 70:
        second = rng.integers(len(palette))
    return Material(
        colour=_shade(rng, (palette[first],)),
        second=_shade(rng, (palette[second],)),
        pattern=pattern,
        period=float(rng.uniform(*PERIODS[pattern])),
        gloss=float(rng.uniform(0.0, 0.12)),
    )
