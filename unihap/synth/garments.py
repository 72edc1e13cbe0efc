"""Clothes as shells around the body at rest, with outlines of their own."""

from dataclasses import dataclass

import numpy as np

from unihap.lookup import lookup
from unihap.synth.body import Body, RestBody
from unihap.synth.cloth import clip, shell, with_hems
from unihap.synth.fitting import Fit, Limb
from unihap.synth.footwear import boot_top, collar, footwear
from unihap.synth.skirts import SPACING, Outline, drape, flared, outline, tube
from unihap.synth.structures import LIP, Material, Outfit, Shell

MARGIN = 0.02  # metres between a hem and the skin that is left out
WAIST = 0.165  # metres of an adult between crotch and the top of trousers and skirts
HIP_HEM = 0.04  # metres of an adult between crotch and the hem of shirts
TRAILING = 0.08  # metres inside of the hem of an outer garment that the garment below it still exists


@dataclass(frozen=True)
class UpperCut:
    """How an upper garment is made; lengths in metres of an adult.

    Attributes:
        part: class of LIP.
        sleeve: where sleeves end: 0 shoulder, 1 elbow, 2 wrist.
        sleeve_room: between arm and sleeve.
        thickness: between skin and cloth where it lies on the shoulders.
        room: between torso and cloth below the chest.
        taper: how much narrower it gets per metre below the chest.
        neck: how high the collar stands over the torso.
        hem: height of the hem over the crotch, for garments that end at the hips.
        skirt: height of the hem over the knee, for garments with a skirt of their own.
        flare: how much wider that skirt gets per metre.
    """

    part: str
    sleeve: float
    sleeve_room: float
    thickness: float
    room: float
    taper: float
    neck: float
    hem: float = HIP_HEM
    skirt: float | None = None
    flare: float = 0.0


UPPERS = {
    "t_shirt": UpperCut("upper_clothes", 0.55, 0.018, 0.009, 0.022, 0.25, 0.002),
    "long_sleeve": UpperCut("upper_clothes", 1.95, 0.010, 0.009, 0.020, 0.30, 0.002),
    "jacket": UpperCut("coat", 1.98, 0.018, 0.017, 0.034, 0.12, 0.018, hem=0.012),
    "coat": UpperCut("coat", 1.98, 0.020, 0.019, 0.036, 0.20, 0.024, skirt=0.05, flare=0.12),
    "dress": UpperCut("dress", 0.40, 0.012, 0.008, 0.012, 0.70, 0.002, skirt=0.03, flare=0.28),
}
INNER = UpperCut("upper_clothes", 0.30, 0.006, 0.007, 0.016, 0.30, 0.002)


@dataclass(frozen=True)
class LegCut:
    """How a lower garment with legs is made.

    Attributes:
        end: where its legs end: 0 hip, 1 knee, 2 ankle.
        thickness: metres of an adult between skin and cloth at the hips.
        room: metres of an adult between leg and cloth.
        taper: how much narrower a leg gets, metres per unit of ``Limb.along``.
    """

    end: float
    thickness: float
    room: float
    taper: float


LEGS = {"trousers": LegCut(2.0, 0.009, 0.010, 0.15), "shorts": LegCut(0.86, 0.010, 0.016, 0.0)}
SKIRT_HEM = 0.015  # metres of an adult over the knee
SKIRT_FLARE = 0.25
SKIRT_ROOM = 0.012  # metres of an adult between a skirt and what hangs over it
LINING = 0.04  # metres of an adult between the hem of a skirt and what closes it inside
BARE = 0.055  # metres of an adult inside of a skirt's hem that legs still exist
OPENING = 0.055  # half of the strip of an adult that an open jacket shows


def outfit_shells(body: Body, rest: RestBody, outfit: Outfit) -> list[Shell]:
    """Makes the clothes of an outfit; hats, glasses and bags are not clothes.

    Args:
        body: the body.
        rest: its shape.
        outfit: what is worn.

    Returns:
        Shells in rest pose, from the feet up.  A garment lacks the faces that the one above it certainly hides.

    Raises:
        ValueError: an unknown kind of garment, or nothing worn below the hips.
    """
    fit = Fit(body, rest)
    cut = lookup(UPPERS, outfit.upper.kind, "upper garment")
    if outfit.shoes.kind not in ("shoes", "boots"):
        raise ValueError(f"unknown footwear {outfit.shoes.kind!r} (known: boots, shoes)")
    shells = footwear(fit, outfit.shoes)
    if outfit.socks is not None and _bare_legs(outfit) and outfit.shoes.kind == "shoes":
        shells.append(_socks(fit, outfit.socks))
    opening = OPENING * fit.scale if outfit.inner is not None and cut.part == "coat" else 0.0
    skirt = None
    if cut.part != "dress":
        if outfit.lower is None:
            raise ValueError(f"a {outfit.upper.kind} needs a lower garment; give the outfit one or a dress")
        lower = lookup({"skirt": None, **LEGS}, outfit.lower.kind, "lower garment")
        if lower is None:
            skirt = _skirt_outline(fit)
            shells.append(_skirt(fit, outfit.lower.material, skirt, cut, opening))
        else:
            tucked = outfit.shoes.kind == "boots"
            shells.append(_trousers(fit, lower, outfit.lower.material, tucked, cut, opening))
    if opening:
        assert outfit.inner is not None
        shells.append(_upper(fit, INNER, outfit.inner, skirt, _near_opening(fit, opening) | _at_neck(fit)))
    shells.append(_upper(fit, cut, outfit.upper.material, skirt, opening=opening))
    return shells


def _bare_legs(outfit: Outfit) -> bool:
    return outfit.lower is None or outfit.lower.kind != "trousers"


def _upper(
    fit: Fit,
    cut: UpperCut,
    material: Material,
    below: Outline | None,
    keep: np.ndarray | None = None,
    opening: float = 0.0,
) -> Shell:
    """An upper garment.

    Args:
        fit: the body.
        cut: how it is made.
        material: its surface.
        below: outline of the skirt that it hangs over.
        keep: (B,) the vertices around which it exists.
        opening: half of the width of a parted front; 0 for a closed one.
    """
    scale = fit.scale
    waist = fit.crotch + 0.13 * scale
    hem = fit.crotch + cut.hem * scale if cut.skirt is None else fit.knee + cut.skirt * scale
    cloth = _hanging(fit, cut, hem, below)
    positions = fit.offset(cut.thickness * scale)
    positions = _loosened(positions, fit, fit.arm, cut.sleeve_room * scale, 0.25, 0.2, 0.6)
    positions = _draped(positions, fit, cloth)

    on_arm = fit.pattern.arm.max(axis=1) > 0.3
    neck = _neck(fit, positions, cut.neck)
    sleeve = (cut.sleeve - fit.arm.along) * fit.arm.length
    above = np.where(on_arm, np.inf, positions[:, 2])
    edge = np.minimum(neck, sleeve)
    bottom = hem if cut.skirt is None else waist
    field = np.minimum(np.minimum(edge, above - bottom), _beside_opening(fit, positions, opening))
    # The hem at the neck is deep enough to meet the skin, or one could look into the collar.
    fold = np.where(np.abs(neck) < 0.05, 1.5, 0.5) * cut.thickness * scale
    seam = None if cut.skirt is None else waist
    vertices, faces, weights = _tailored(fit, positions, field, fold, keep, seam)
    if cut.skirt is not None:
        low = cloth.levels < waist + 1.2 * SPACING * scale
        skirt = _open_tube(fit, Outline(cloth.levels[low], cloth.support[low], cloth.middle), opening)
        faces = np.concatenate([faces, skirt[1] + len(vertices)])
        vertices, weights = np.concatenate([vertices, skirt[0]]), np.concatenate([weights, skirt[2]])
    margin = MARGIN if cut.skirt is None else BARE * scale
    hidden = np.minimum(np.minimum(sleeve - MARGIN, above - hem - margin), _neck(fit, fit.skin, 0.5 * cut.neck))
    hidden = np.minimum(hidden, _beside_opening(fit, positions, opening) - MARGIN)
    return shell(vertices, faces, weights, LIP[cut.part], material, fit.hidden(hidden))


def _trousers(fit: Fit, cut: LegCut, material: Material, tucked: bool, above: UpperCut, opening: float) -> Shell:
    scale = fit.scale
    waist = fit.crotch + WAIST * scale
    positions = fit.offset(cut.thickness * scale)
    positions = _loosened(positions, fit, fit.leg, cut.room * scale, cut.taper, 0.2, 0.6)
    hem = np.interp(cut.end, (0, 1, 2), [fit.head(bone)[2] for bone in ("upperleg01.L", "lowerleg01.L", "foot.L")])
    field = np.minimum(positions[:, 2] - hem, waist - positions[:, 2])
    if tucked and cut.end > 1:
        tight = np.clip((boot_top(fit) + 0.06 * scale - positions[:, 2]) / (0.06 * scale), 0, 1)[:, None]
        positions += tight * (fit.offset(0.004 * scale) - positions)
        field = np.minimum(field, positions[:, 2] - boot_top(fit) + 0.06 * scale)
    field = np.where(fit.pattern.arm.max(axis=1) > 0.3, -1.0, field)
    keep = ~_under_coat(fit, positions, above, opening)
    vertices, faces, weights = _tailored(fit, positions, field, 0.5 * cut.thickness * scale, keep)
    return shell(vertices, faces, weights, LIP["pants"], material, fit.hidden(field - MARGIN))


def _skirt_outline(fit: Fit) -> Outline:
    waist, hips = fit.crotch + WAIST * fit.scale, fit.crotch + 0.06 * fit.scale
    body = outline(fit, waist, fit.knee + SKIRT_HEM * fit.scale)
    room = np.interp(-body.levels, [-waist, -hips], [0.008 * fit.scale, 0.012 * fit.scale])
    return drape(body, room, flared(body.levels, hips, 0.6, SKIRT_FLARE))


def _skirt(fit: Fit, material: Material, cloth: Outline, above: UpperCut, opening: float) -> Shell:
    scale, waist, hem = fit.scale, cloth.levels[0], cloth.levels[-1]
    vertices, faces, weights = tube(fit, cloth, hem + LINING * scale)
    gone = _under_coat(fit, vertices, above, opening)
    faces = faces[~gone[faces].all(axis=1)]
    vertices, faces, weights = with_hems(vertices, faces, weights, 0.005 * scale)
    height = fit.skin[:, 2]
    field = np.minimum(waist - MARGIN - height, height - hem - BARE * scale)
    field = np.where(fit.pattern.arm.max(axis=1) > 0.3, -1.0, field)
    return shell(vertices, faces, weights, LIP["skirt"], material, fit.hidden(field))


def _socks(fit: Fit, material: Material) -> Shell:
    points = fit.skin
    field = np.minimum((fit.leg.along - 1.42) * fit.leg.length, points[:, 2] - 0.5 * collar(fit))
    vertices, faces, weights = _tailored(fit, fit.offset(0.004 * fit.scale), field, 0.002 * fit.scale)
    return shell(vertices, faces, weights, LIP["socks"], material, fit.hidden(field - MARGIN))


def _tailored(
    fit: Fit,
    positions: np.ndarray,
    field: np.ndarray,
    hem: np.ndarray | float,
    keep: np.ndarray | None = None,
    seam: float | None = None,
) -> tuple[np.ndarray, ...]:
    """Cuts the pattern where ``field`` (B,) is 0 and hems it, but for a seam: vertices, faces, weights."""
    faces = fit.pattern.faces
    if keep is not None:
        faces = faces[keep[faces].any(axis=1)]
    cut = clip(faces, field)
    vertices = cut.apply(positions)
    fold = cut.apply(np.broadcast_to(hem, len(positions)))
    sewn = None if seam is None else np.abs(vertices[:, 2] - seam) < 1e-3
    return with_hems(vertices, cut.faces, cut.apply(fit.pattern.weights), fold, sewn)


def _hanging(fit: Fit, cut: UpperCut, hem: float, below: Outline | None) -> Outline:
    """What hangs from the chest, outside of the skirt ``below`` it."""
    body = outline(fit, fit.armpit, hem)
    if below is not None:
        skirt = below.widths(body.levels) + SKIRT_ROOM * fit.scale - cut.room * fit.scale
        body = Outline(body.levels, np.maximum(body.support, skirt), body.middle)
    hips = fit.crotch + 0.06 * fit.scale
    return drape(body, cut.room * fit.scale, flared(body.levels, hips, cut.taper, cut.flare))


def _draped(positions: np.ndarray, fit: Fit, cloth: Outline) -> np.ndarray:
    """Moves the torso's cloth out to where it hangs; at the height of the armpits it begins to."""
    start = fit.armpit + 0.03 * fit.scale
    share = np.clip((start - positions[:, 2]) / (0.1 * fit.scale), 0, 1)
    share *= np.clip(1 - 2 * fit.pattern.arm.max(axis=1), 0, 1)
    away = positions[:, :2] - [0.0, cloth.middle]
    radius = np.linalg.norm(away, axis=1)
    push = share * np.maximum(cloth.at(positions) - radius, 0)
    moved = positions.copy()
    moved[:, :2] += away * (push / np.maximum(radius, 1e-6))[:, None]
    return moved


def _loosened(
    positions: np.ndarray, fit: Fit, limb: Limb, room: float, taper: float, start: float, full: float
) -> np.ndarray:
    """Makes sleeves and trouser legs round and wide; from ``start`` to ``full`` along the limb it begins."""
    first = int(np.searchsorted(limb.stations, full - 0.1))
    girth = limb.girth + room
    steps = np.diff(limb.stations) * taper * girth[first]
    for i in range(first + 1, len(girth)):
        girth[i] = max(girth[i], girth[i - 1] - steps[i - 1])
    radius = limb.radius + np.einsum("vi,vi->v", positions - fit.smooth, limb.outwards)
    push = np.maximum(np.interp(limb.along, limb.stations, girth) - radius, 0)
    push *= np.clip((limb.along - start) / (full - start), 0, 1)
    return positions + limb.outwards * push[:, None]


def _neck(fit: Fit, points: np.ndarray, stand: float) -> np.ndarray:
    """Metres below the plane of a collar that stands over the torso; the plane is lower in front."""
    up = np.array([0.0, -0.55, 1.0]) / np.hypot(0.55, 1.0)
    torso = fit.skin[fit.pattern.faces[fit.pattern.torso].ravel()]
    return (torso @ up).max() + stand * fit.scale - points @ up


def _at_neck(fit: Fit) -> np.ndarray:
    return _neck(fit, fit.skin, 0.0) < 0.06 * fit.scale


def _beside_opening(fit: Fit, points: np.ndarray, opening: float) -> np.ndarray:
    """Metres to the side of the parted front, which is wider at the neck and below the hips; far away elsewhere."""
    if not opening:
        return np.full(len(points), np.inf)
    down = np.maximum(fit.crotch + 0.1 * fit.scale - points[:, 2], 0)
    return np.where(points[:, 1] < fit.middle, np.abs(points[:, 0]) - opening - 0.15 * down, 1.0)


def _near_opening(fit: Fit, opening: float) -> np.ndarray:
    return _beside_opening(fit, fit.skin, opening) < 0.08 * fit.scale


def _under_coat(fit: Fit, points: np.ndarray, above: UpperCut, opening: float) -> np.ndarray:
    """(N,) points at which the skirt of a coat or the hips of a shirt certainly hide what is below it."""
    if above.skirt is None:
        return np.zeros(len(points), dtype=bool)
    hem = fit.knee + (above.skirt + TRAILING) * fit.scale
    hidden = (points[:, 2] > hem) & (points[:, 2] < fit.crotch)
    return hidden & (_beside_opening(fit, points, opening) > 0.08 * fit.scale)


def _open_tube(fit: Fit, cloth: Outline, opening: float) -> tuple[np.ndarray, ...]:
    vertices, faces, weights = tube(fit, cloth, None if opening else cloth.levels[-1] + LINING * fit.scale)
    if opening:
        # A little wider than the part above, so that no corner stands out where the two overlap.
        cut = clip(faces, _beside_opening(fit, vertices, opening) - 0.003 * fit.scale)
        vertices, faces, weights = cut.apply(vertices), cut.faces, cut.apply(weights)
    return with_hems(vertices, faces, weights, 0.008 * fit.scale, vertices[:, 2] > cloth.levels[0] - 1e-3)
