"""Two sentences about a rendered person, from templates: who, hair, clothes, things carried, action and view.

Only what the camera can see in principle is told: nothing of hair under a hat, of glasses and logos from behind, of
short garments under a coat.  Left and right are not told, so that a mirrored picture keeps its sentences.
"""

import numpy as np

from unihap.lookup import lookup
from unihap.synth.attributes import age_group, colour_name, hair_colour_name, is_female, view
from unihap.synth.structures import Camera, Figure, Garment, Material, Outfit, Pattern, Person

# The whole vocabulary, with the names of colours of ``unihap.synth.attributes`` and the words of the templates.
PEOPLE = {
    ("child", False): "boy", ("child", True): "girl", ("adult", False): "man", ("adult", True): "woman",
    ("senior", False): "elderly man", ("senior", True): "elderly woman",
}  # fmt: skip
HAIR = {
    "bald": "a bald head",
    "short": "short {} hair",
    "medium": "chin-length {} hair",
    "long": "long {} hair",
    "ponytail": "{} hair in a ponytail",
    "bun": "{} hair in a bun",
}
GARMENTS = {
    "t_shirt": "t-shirt", "long_sleeve": "long-sleeved shirt", "jacket": "jacket", "coat": "coat",
    "dress": "dress", "trousers": "trousers", "shorts": "shorts", "skirt": "skirt", "shoes": "shoes", "boots": "boots",
}  # fmt: skip
LENGTHS = {"coat": "long "}
PLURAL = ("trousers", "shorts", "shoes", "boots", "socks")
PATTERNS = {  # in two colours; in one, when both have the same name
    Pattern.PLAIN: ("{colour} {noun}", "{colour} {noun}"),
    Pattern.STRIPES: ("{colour} and {second} striped {noun}", "striped {colour} {noun}"),
    Pattern.PLAID: ("{colour} and {second} plaid {noun}", "plaid {colour} {noun}"),
    Pattern.LOGO: ("{colour} {noun} with {a_second} logo", "{colour} {noun} with a logo"),
    Pattern.TWO_TONE: ("{colour} and {second} two-tone {noun}", "two-tone {colour} {noun}"),
    Pattern.DOTS: ("{colour} {noun} with {second} dots", "dotted {colour} {noun}"),
}
BAGS = {"backpack": "backpack", "handbag": "handbag", "shoulder_bag": "shoulder bag"}
ACTIONS = {
    "stand": "standing", "walk": "walking", "run": "running", "sit": "sitting", "reach": "reaching out with one arm",
    "carry": "standing", "random": "moving about",
}  # fmt: skip
VIEWS = {"front": "facing the camera", "side": "seen from the side", "back": "seen from behind"}
PRONOUNS = {False: "he", True: "she"}
CARRIED = "holding {} in front with both hands"

FIRST = (
    "{Who} {look} is {action}, {view}, and wears {clothes}{things}.",
    "This is {who} {look} in {clothes}{things}; {pronoun} is {action}, {view}.",
    "{Who} {look}, dressed in {clothes}{things}, is {action}, {view}.",
)
SECOND = (
    "Wearing {clothes}{things}, {who} {look} is {action}, {view}.",
    "The picture shows {who} {look} in {clothes}{things}, {action}, {view}.",
    "There is {who} {look}, {action} and {view}, in {clothes}{things}.",
)


def captions(figure: Figure, camera: Camera, rng: np.random.Generator) -> tuple[str, str]:
    """Two different sentences.

    Args:
        figure: who.
        camera: from where.
        rng: chooses the templates.

    Raises:
        ValueError: a garment, hair style or activity without words.
    """
    seen = view(figure, camera)
    person, outfit = figure.person, figure.person.outfit
    female = is_female(person)
    who = _with_article(PEOPLE[age_group(person), female])
    words = {
        "who": who,
        "Who": who.capitalize(),
        "pronoun": PRONOUNS[female],
        "look": _look(person),
        "clothes": _listed(_clothes(outfit, seen)),
        "things": _things(figure, seen),
        "action": lookup(ACTIONS, figure.pose.activity, "activity"),
        "view": VIEWS[seen],
    }
    first, second = (str(templates[rng.integers(len(templates))]) for templates in (FIRST, SECOND))
    return _sentence(first, words), _sentence(second, words)


def _sentence(template: str, words: dict[str, str]) -> str:
    text = template.format(**words)
    return text.replace(" ,", ",").replace("  ", " ")  # where there is no hair to speak of


def _look(person: Person) -> str:
    """``with ... hair``, or nothing under a hat that hides it; long hair falls out of a hat."""
    style = person.hair.style
    text = lookup(HAIR, style, "hair style").format(hair_colour_name(person.hair.colour))
    return "" if person.outfit.hat is not None and style != "long" else f"with {text}"


def _clothes(outfit: Outfit, seen: str) -> list[str]:
    parts = []
    if outfit.hat is not None:
        parts.append(_cloth(outfit.hat, "hat", seen))
    upper = _garment(outfit.upper, seen)
    if outfit.inner is not None and outfit.upper.kind in ("jacket", "coat") and seen == "front":
        upper += f" over {_cloth(outfit.inner, 'shirt', seen)}"
    parts.append(upper)
    if outfit.lower is not None and not (outfit.upper.kind == "coat" and outfit.lower.kind != "trousers"):
        parts.append(_garment(outfit.lower, seen))
    bare_legs = outfit.lower is None or outfit.lower.kind != "trousers"
    if outfit.socks is not None and bare_legs and outfit.shoes.kind != "boots":
        parts.append(_cloth(outfit.socks, "socks", seen))
    parts.append(_garment(outfit.shoes, seen))
    return parts


def _things(figure: Figure, seen: str) -> str:
    """Glasses, bags and what is held, as a phrase that follows the clothes."""
    outfit, carried = figure.person.outfit, figure.pose.carried
    worn = ["glasses"] if outfit.glasses is not None and seen != "back" else []
    bags = {noun: getattr(outfit, name) for name, noun in BAGS.items()}
    text = _listed(worn + [_cloth(bag, noun, seen) for noun, bag in bags.items() if bag is not None])
    text = f", with {text}" if text else ""
    return text + (f", {CARRIED.format(_cloth(carried, 'box', seen))}" if carried is not None else "")


def _garment(garment: Garment, seen: str) -> str:
    noun = lookup(GARMENTS, garment.kind, "garment")
    return _cloth(garment.material, noun, seen, LENGTHS.get(garment.kind, ""))


def _cloth(material: Material, noun: str, seen: str, length: str = "") -> str:
    """A thing with its colours and pattern; a logo is on the chest and not seen from behind."""
    hidden = material.pattern is Pattern.LOGO and seen == "back"
    two, one = PATTERNS[Pattern.PLAIN if hidden else material.pattern]
    colour, second = colour_name(material.colour), colour_name(material.second)
    template = one if colour == second else two
    text = length + template.format(colour=colour, second=second, a_second=_with_article(second), noun=noun)
    return text if noun in PLURAL else _with_article(text)


def _with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
